//! How many requests a store is asked at once, and when a slow one is asked a second time.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prometheus::Gauge;
use rand::Rng;
use tokio::sync::Notify;

/// Share of the most that a request that was served adds to the limit.
const GAIN: f64 = 1.0 / 16.0;
/// Factor on the limit by a request that was throttled. With [`GAIN`] all requests stay allowed while three in ten are throttled, four in
/// ten of them while six are, and one in fourteen while nine are.
const LOSS: f64 = 0.9;
/// Shortest wait before a throttled request is tried again, and the longest before its random part. The limit already asks the store for
/// less; what a long wait would add is that everything behind this part waits too.
const FIRST_RETRY: Duration = Duration::from_millis(10);
const LAST_RETRY: Duration = Duration::from_secs(5);
/// Refusals in a row, over all reads, that double the wait: a store that serves nobody is not helped by asking it again.
const REFUSALS_PER_DOUBLING: u32 = 8;
/// Requests served since the last refusal after which the store counts as calm again.
const CALM: u32 = 64;
/// Parts asked for ahead at first and at most where the number follows need.
const FIRST_AHEAD: usize = 2;
/// Parts asked for ahead at most where the number follows need.
pub const MOST_AHEAD: usize = 8;
/// The same while the store throttles: the reader waits for whichever part was refused most often, and meanwhile those behind it can come.
pub const MOST_AHEAD_THROTTLED: usize = MOST_AHEAD + MOST_AHEAD / 2;
/// Reads whose times give the 95th percentile.
const REMEMBERED: usize = 64;
/// Reads before a percentile means anything.
const FIRST_PERCENTILE: usize = 16;
/// Second requests that are free; beyond them one for ten reads, so that a store that is slow for everyone is not asked twice for everything.
const FREE_HEDGES: u64 = 8;
const READS_PER_HEDGE: u64 = 10;

#[derive(Debug)]
struct State {
    limit: f64,
    flying: usize,
    /// Seconds.
    times: VecDeque<f64>,
    reads: u64,
    hedges: u64,
    /// Requests that wait because the store named a time.
    resting: usize,
    /// Refusals since the last request that was served.
    refusals: u32,
}

/// Shared by all reads of one place: additive increase, multiplicative decrease of the requests in flight; times of the last reads.
#[derive(Debug)]
pub struct Pace {
    most: usize,
    /// Earliest second request; zero = never.
    hedge: Duration,
    state: Mutex<State>,
    freed: Notify,
    gauge: Gauge,
    /// Parts that each open object asks for ahead.
    ahead: AtomicUsize,
    /// Whether they follow need, and the most of them.
    follows: bool,
    ahead_most: usize,
    /// Requests served since the last refusal, up to [`CALM`].
    calm: AtomicU32,
    /// Size of the latest object whose size was learnt, bytes; 0 = none yet.
    typical: AtomicU64,
}

/// Permission for one request; given back when dropped.
#[derive(Debug)]
pub struct Permit<'a>(&'a Pace);

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        self.0.lock().flying -= 1;
        self.0.freed.notify_waiters();
    }
}

impl Pace {
    /// Begins with `most` requests at once, which is also the most there will ever be. Each open object asks for `ahead` parts in advance;
    /// 0 = two, and more as long as its reader has to wait, up to [`MOST_AHEAD`], half as many again while the store throttles. `gauge` follows the limit.
    #[must_use]
    pub fn new(most: usize, ahead: usize, hedge: Duration, gauge: Gauge) -> Self {
        let most = most.max(1);
        let follows = ahead == 0;
        let (ahead, ahead_most) = if follows { (FIRST_AHEAD, MOST_AHEAD) } else { (ahead, ahead) };
        gauge.set(most as f64);
        Self {
            most,
            hedge,
            state: Mutex::new(State {
                limit: most as f64,
                flying: 0,
                times: VecDeque::with_capacity(REMEMBERED),
                reads: 0,
                hedges: 0,
                resting: 0,
                refusals: 0,
            }),
            freed: Notify::new(),
            gauge,
            ahead: AtomicUsize::new(ahead),
            follows,
            ahead_most,
            calm: AtomicU32::new(CALM),
            typical: AtomicU64::new(0),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Parts that an open object asks for ahead now.
    #[must_use]
    pub fn ahead(&self) -> usize {
        let ahead = self.ahead.load(Ordering::Relaxed);
        // A number that somebody chose is left alone.
        if self.follows && self.calm.load(Ordering::Relaxed) < CALM {
            ahead + ahead / 2
        } else {
            ahead
        }
    }

    /// The size that an object of unknown size is taken to have until its first read tells: shards of a place are about as large as each
    /// other, and what is asked for behind an end costs an empty answer. 0 = no idea.
    #[must_use]
    pub fn typical_size(&self) -> u64 {
        self.typical.load(Ordering::Relaxed)
    }

    /// A read told the size of its object.
    pub fn learnt_size(&self, size: u64) {
        self.typical.store(size, Ordering::Relaxed);
    }

    /// A reader had to wait for its next part. Latency × bandwidth is more than what was asked for ahead, or the store is at its limit;
    /// more requests tell which, and cost memory only.
    pub fn waited(&self) {
        let most = self.ahead_most;
        let _ = self
            .ahead
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| (n < most).then_some(n + 1));
    }

    /// Waits until one more request may be in flight.
    pub async fn permit(&self) -> Permit<'_> {
        loop {
            let freed = self.freed.notified();
            tokio::pin!(freed);
            // Registered before the look, so that nothing freed in between is missed.
            freed.as_mut().enable();
            if let Some(permit) = self.try_permit() {
                return permit;
            }
            freed.await;
        }
    }

    fn try_permit(&self) -> Option<Permit<'_>> {
        let mut state = self.lock();
        if state.flying >= (state.limit as usize).max(1) {
            return None;
        }
        state.flying += 1;
        Some(Permit(self))
    }

    /// A request was served in this time.
    pub fn served(&self, time: Duration) {
        let mut state = self.lock();
        state.reads += 1;
        if state.times.len() == REMEMBERED {
            state.times.pop_front();
        }
        state.times.push_back(time.as_secs_f64());
        state.limit = (state.limit + GAIN * self.most as f64).min(self.most as f64);
        state.refusals = 0;
        self.gauge.set(state.limit);
        drop(state);
        let _ = self
            .calm
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| (n < CALM).then_some(n + 1));
        self.freed.notify_waiters();
    }

    /// A request was refused because there were too many.
    pub fn throttled(&self) {
        let mut state = self.lock();
        state.limit = (state.limit * LOSS).max(1.0);
        state.refusals = state.refusals.saturating_add(1);
        self.gauge.set(state.limit);
        self.calm.store(0, Ordering::Relaxed);
    }

    /// How long a throttled request waits before it is tried again: a random 10 to 30 ms while others are served, more and more while
    /// nobody is.
    #[must_use]
    pub fn retry_after(&self) -> Duration {
        let doublings = self.lock().refusals / REFUSALS_PER_DOUBLING;
        let least = FIRST_RETRY.saturating_mul(1 << doublings.min(16)).min(LAST_RETRY);
        rand::rng().random_range(least..=3 * least)
    }

    /// Waits as long as the store asked for.
    pub async fn rest(&self, time: Duration) {
        struct Resting<'a>(&'a Pace);
        impl Drop for Resting<'_> {
            fn drop(&mut self) {
                self.0.lock().resting -= 1;
            }
        }
        self.lock().resting += 1;
        let _resting = Resting(self);
        tokio::time::sleep(time).await;
    }

    /// Time after which a read counts as stuck and is worth a second request: twice the 95th percentile of the last reads, but not
    /// before the configured time unless the object is one that `crawls`. `None` = never.
    #[must_use]
    pub fn hedge_after(&self, crawls: bool) -> Option<Duration> {
        if self.hedge.is_zero() {
            return None;
        }
        let state = self.lock();
        if state.times.len() < FIRST_PERCENTILE {
            return Some(self.hedge);
        }
        let mut times: Vec<f64> = state.times.iter().copied().collect();
        drop(state);
        times.sort_unstable_by(f64::total_cmp);
        let p95 = times[(times.len() * 95).div_ceil(100) - 1];
        let late = Duration::from_secs_f64(2.0 * p95);
        Some(if crawls { late } else { late.max(self.hedge) })
    }

    /// Permission for a second request, if the store is not throttling and not too many were made. It may exceed the limit by one.
    #[must_use]
    pub fn hedge(&self) -> Option<Permit<'_>> {
        let mut state = self.lock();
        if state.resting > 0 || state.limit < self.most as f64 || state.hedges >= FREE_HEDGES + state.reads / READS_PER_HEDGE {
            return None;
        }
        state.hedges += 1;
        state.flying += 1;
        Some(Permit(self))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pace(most: usize, hedge: f64) -> Pace {
        Pace::new(most, 0, Duration::from_secs_f64(hedge), Gauge::new("limit", "limit").unwrap())
    }

    /// The limit after many requests of which a share is throttled.
    fn settled(pace: &Pace, throttled_of_ten: u64) -> f64 {
        for n in 0..4000 {
            if crate::seed::mix(n) % 10 < throttled_of_ten {
                pace.throttled();
            } else {
                pace.served(Duration::from_millis(1));
            }
        }
        pace.gauge.get()
    }

    #[test]
    fn the_limit_falls_with_the_share_of_throttled_requests_and_comes_back() {
        let pace = pace(16, 0.0);
        let (few, many, most) = (settled(&pace, 3), settled(&pace, 6), settled(&pace, 9));
        assert!(few > 7.0 && many < few && most < 2.5, "{few} {many} {most}");
        for _ in 0..32 {
            pace.served(Duration::from_millis(1));
        }
        assert_eq!(pace.gauge.get(), 16.0);
        // In proportion, whatever the most is.
        let large = self::pace(64, 0.0);
        let (few, most) = (settled(&large, 3), settled(&large, 9));
        assert!(few > 28.0 && most < 10.0, "{few} {most}");
    }

    #[test]
    fn no_more_requests_fly_than_the_limit_and_waiters_are_woken() {
        let pace = std::sync::Arc::new(pace(2, 0.0));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let first = pace.permit().await;
            let second = pace.permit().await;
            let waiting = tokio::time::timeout(Duration::from_millis(20), pace.permit()).await;
            assert!(waiting.is_err(), "the third must wait");
            drop(second);
            tokio::time::timeout(Duration::from_secs(5), pace.permit()).await.unwrap();
            drop(first);
        });
    }

    #[test]
    fn the_look_ahead_grows_while_readers_wait_unless_it_is_fixed() {
        let pace = pace(16, 0.0);
        let seen: Vec<usize> = (0..9).map(|_| (pace.ahead(), pace.waited()).0).collect();
        assert_eq!(seen, [2, 3, 4, 5, 6, 7, 8, 8, 8]);
        let fixed = Pace::new(4, 3, Duration::ZERO, Gauge::new("limit", "limit").unwrap());
        fixed.waited();
        fixed.throttled();
        assert_eq!(fixed.ahead(), 3);
    }

    #[test]
    fn the_look_ahead_is_wider_from_a_refusal_until_the_store_is_calm() {
        let pace = pace(16, 0.0);
        (0..9).for_each(|_| pace.waited());
        pace.throttled();
        for _ in 0..CALM {
            assert_eq!(pace.ahead(), MOST_AHEAD_THROTTLED);
            pace.served(Duration::from_millis(1));
        }
        assert_eq!(pace.ahead(), MOST_AHEAD);
    }

    #[test]
    fn a_throttled_request_comes_back_soon_unless_nobody_is_served() {
        let pace = pace(16, 0.0);
        let waits = |pace: &Pace| -> (Duration, Duration) {
            let all: Vec<_> = (0..200).map(|_| pace.retry_after()).collect();
            (*all.iter().min().unwrap(), *all.iter().max().unwrap())
        };
        for n in 0..400 {
            if crate::seed::mix(n) % 10 < 3 {
                pace.throttled();
                assert!(pace.retry_after() <= 6 * FIRST_RETRY, "three in ten are refused");
            } else {
                pace.served(Duration::from_millis(1));
            }
        }
        pace.served(Duration::from_millis(1));
        let (least, most) = waits(&pace);
        assert!(
            least >= FIRST_RETRY && most <= 3 * FIRST_RETRY && most > 2 * FIRST_RETRY,
            "{least:?} {most:?}"
        );
        (0..200).for_each(|_| pace.throttled());
        let (least, most) = waits(&pace);
        assert!(
            least >= LAST_RETRY && most <= 3 * LAST_RETRY && most > 2 * LAST_RETRY,
            "{least:?} {most:?}"
        );
        pace.served(Duration::from_millis(1));
        assert!(pace.retry_after() <= 3 * FIRST_RETRY, "the first that is served ends it");
    }

    #[test]
    fn second_requests_come_late_and_are_few() {
        let never = pace(4, 0.0);
        assert_eq!(never.hedge_after(false), None);
        let pace = pace(4, 0.5);
        assert_eq!(pace.hedge_after(false), Some(Duration::from_secs_f64(0.5)));
        for n in 0..100 {
            pace.served(Duration::from_millis(if n % 10 == 0 { 2000 } else { 100 }));
        }
        assert_eq!(pace.hedge_after(false), Some(Duration::from_secs(4)), "twice the 95th percentile");
        (0..100).for_each(|_| pace.served(Duration::from_millis(100)));
        assert_eq!(
            pace.hedge_after(false),
            Some(Duration::from_millis(500)),
            "not before the configured time"
        );
        assert_eq!(
            pace.hedge_after(true),
            Some(Duration::from_millis(200)),
            "but where an object crawls"
        );
        let granted = std::iter::from_fn(|| pace.hedge()).count();
        assert_eq!(granted, 28, "eight, and one for each ten of 200 reads");
        pace.throttled();
        for _ in 0..100 {
            pace.lock().reads += 1;
        }
        assert!(pace.hedge().is_none(), "a store that throttles is never asked twice");
    }
}
