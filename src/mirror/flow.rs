//! How fast uploads may go, and whether they go on at all.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Longest sleep before a change of mind is noticed.
const SLICE: Duration = Duration::from_millis(50);

/// Shared by whoever uploads and whoever says how.
#[derive(Debug, Default)]
pub(super) struct Flow {
    /// Bits of the megabytes per second; 0 = no limit.
    mb_s: AtomicU64,
    hurry: AtomicBool,
    stop: AtomicBool,
    /// When what went so far is within the limit.
    free_at: Mutex<Option<Instant>>,
}

impl Flow {
    /// From now on so many megabytes (10⁶ bytes) a second at most; 0 = no limit.
    pub(super) fn limit(&self, mb_s: f64) {
        self.mb_s.store(mb_s.to_bits(), Ordering::Relaxed);
    }

    /// The process ends: as fast as the store takes it.
    pub(super) fn hurry(&self) {
        self.hurry.store(true, Ordering::Relaxed);
    }

    /// Whether the process is about to end.
    pub(super) fn hurries(&self) -> bool {
        self.hurry.load(Ordering::Relaxed)
    }

    /// Nothing more goes.
    pub(super) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Whether nothing more is to go.
    pub(super) fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Waits until `bytes` may go.
    ///
    /// # Errors
    /// Nothing is to go any more.
    pub(super) fn pass(&self, bytes: u64) -> Result<(), String> {
        loop {
            if self.is_stopped() {
                return Err("the mirror is given up by this process".into());
            }
            let mut free_at = self.free_at.lock().unwrap_or_else(PoisonError::into_inner);
            let (now, mb_s) = (Instant::now(), f64::from_bits(self.mb_s.load(Ordering::Relaxed)));
            let wait = match *free_at {
                Some(at) if mb_s > 0.0 && !self.hurries() => at.saturating_duration_since(now),
                _ => Duration::ZERO,
            };
            if wait.is_zero() {
                let takes = if mb_s > 0.0 { bytes as f64 / (mb_s * 1e6) } else { 0.0 };
                *free_at = Some(now + Duration::from_secs_f64(takes));
                return Ok(());
            }
            drop(free_at);
            std::thread::sleep(wait.min(SLICE));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_pass_at_the_limit_and_at_once_when_the_process_ends() {
        let flow = Flow::default();
        flow.limit(10.0);
        let began = Instant::now();
        for _ in 0..4 {
            flow.pass(1_000_000).unwrap();
        }
        // The first goes at once, each other waits for the one before.
        let took = began.elapsed();
        assert!((Duration::from_millis(300)..Duration::from_millis(900)).contains(&took), "{took:?}");
        flow.pass(100_000_000).unwrap();
        flow.hurry();
        let began = Instant::now();
        flow.pass(1).unwrap();
        assert!(began.elapsed() < Duration::from_millis(200));
        flow.stop();
        flow.pass(1).unwrap_err();
    }

    #[test]
    fn without_a_limit_nothing_waits() {
        let flow = Flow::default();
        let began = Instant::now();
        for _ in 0..100 {
            flow.pass(1 << 30).unwrap();
        }
        assert!(began.elapsed() < Duration::from_millis(100));
    }
}
