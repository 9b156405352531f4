//! Who may write to a mirror: an object with its holder and a time-out, taken under a condition where the store knows any, renewed by a thread of its own.
//!
//! Clocks of two machines differ, so that nobody believes the other's: whoever finds a lease watches whether it is renewed, for as long as its time-out by
//! his own clock. One that is renewed is refused; one that is not was left by a machine that died.

use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use prometheus::Gauge;
use splitmask_pipeline::bucket::prefix::{Expected, ObjectVersion, Prefix, PrefixError, PrefixFailure};

use super::failure::Trouble;
use super::flow::Flow;
use super::holder::Holder;
use super::status::{SharedMirrorStatus, held};

/// The object.
pub(super) const LEASE_FILE: &str = "lease.json";
/// A lease that was written so long ago, by the store's clock, is nobody's: no two clocks that are kept differ as much.
const LONG_AGO: Duration = Duration::from_secs(15 * 60);
/// After a lease was taken without a condition: time for another taker's words to arrive before ours are read back.
const SETTLE: Duration = Duration::from_secs(1);
/// Renewals in a time-out.
const RENEWALS: u32 = 3;

/// Why a lease was not taken.
#[derive(Debug)]
pub(super) enum NotTaken {
    /// By a machine that lives.
    Held(Box<Holder>),
    /// The store says no.
    Store(PrefixError),
    /// Nobody wants it any more.
    Stopped,
}

impl From<PrefixError> for NotTaken {
    fn from(e: PrefixError) -> Self {
        Self::Store(e)
    }
}

#[derive(Debug)]
struct State {
    me: Holder,
    /// When it was last known to be ours.
    renewed: Instant,
    /// Why it is ours no more.
    lost: Option<String>,
    /// Renewals that failed in a row.
    failed: u32,
}

/// A lease that is renewed until it is dropped.
#[derive(Debug)]
pub(super) struct Lease {
    prefix: Arc<Prefix>,
    state: Arc<Mutex<State>>,
    /// Dropped to end the thread.
    stop: Option<Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
    gauge: Gauge,
}

fn locked(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What stands in the object: a holder, or something that is none.
fn read(prefix: &Prefix) -> Result<Option<(Option<Holder>, ObjectVersion)>, PrefixError> {
    let got = prefix.get(LEASE_FILE)?;
    Ok(got.map(|(text, version)| (serde_json::from_slice(&text).ok(), version)))
}

/// Takes the lease; waits for one that may be of a dead machine until its time-out is over, and says so.
pub(super) fn take(
    prefix: &Arc<Prefix>,
    mut me: Holder,
    flow: &Flow,
    status: &SharedMirrorStatus,
    gauge: &Gauge,
) -> Result<Lease, NotTaken> {
    // The version that is watched, and since when.
    let mut watched: Option<(ObjectVersion, Instant)> = None;
    loop {
        if flow.is_stopped() {
            return Err(NotTaken::Stopped);
        }
        let there = read(prefix)?;
        let expected = match &there {
            None => Expected::Absent,
            Some((holder, version)) => {
                let timeout = holder.as_ref().map_or_else(|| me.timeout(), Holder::timeout);
                let free = holder.as_ref().is_some_and(|h| h.is_forerunner_of(&me))
                    || version.written.elapsed().is_ok_and(|age| age > LONG_AGO.max(timeout))
                    || watched
                        .as_ref()
                        .is_some_and(|(seen, since)| seen == version && since.elapsed() > timeout);
                if !free {
                    match (&watched, holder) {
                        (None, _) => {
                            let shown = holder.as_ref().map_or_else(|| "somebody".to_owned(), Holder::to_string);
                            tracing::warn!(
                                mirror = prefix.shown(),
                                "the mirror was last held by {shown}; watching for up to {:.0} s whether it is still alive",
                                timeout.as_secs_f64()
                            );
                            watched = Some((version.clone(), Instant::now()));
                        }
                        (Some((seen, _)), Some(holder)) if seen != version => return Err(NotTaken::Held(Box::new(holder.clone()))),
                        (Some((seen, _)), None) if seen != version => watched = Some((version.clone(), Instant::now())),
                        _ => {}
                    }
                    std::thread::sleep((timeout / 20).clamp(Duration::from_millis(50), Duration::from_secs(1)));
                    continue;
                }
                Expected::Version(version)
            }
        };
        me.stamp();
        let began = Instant::now();
        match prefix.put_if(LEASE_FILE, me.text(), expected) {
            Ok(in_one_act) => {
                if !in_one_act {
                    std::thread::sleep(SETTLE.min(me.timeout() / 4));
                }
                match read(prefix)? {
                    Some((Some(there), _)) if there.nonce == me.nonce => {
                        return Lease::renewed(prefix, me, began, status, gauge);
                    }
                    // Another was quicker.
                    Some((Some(other), _)) => return Err(NotTaken::Held(Box::new(other))),
                    _ => {}
                }
            }
            // Somebody was quicker; or the first try of a request that was made twice was ours.
            Err(e) if e.kind == PrefixFailure::Conflict => {
                if let Some((Some(there), _)) = read(prefix)?
                    && there.nonce == me.nonce
                {
                    return Lease::renewed(prefix, me, began, status, gauge);
                }
                watched = None;
            }
            Err(e) => return Err(e.into()),
        }
    }
}

impl Lease {
    /// Starts the thread that renews it.
    fn renewed(prefix: &Arc<Prefix>, me: Holder, began: Instant, status: &SharedMirrorStatus, gauge: &Gauge) -> Result<Self, NotTaken> {
        held(status).lease_until = Some(me.until.clone());
        gauge.set(1.0);
        let timeout = me.timeout();
        let state = Arc::new(Mutex::new(State {
            me,
            renewed: began,
            lost: None,
            failed: 0,
        }));
        let (stop, stopped) = channel::<()>();
        let work = (Arc::clone(prefix), Arc::clone(&state), Arc::clone(status), gauge.clone());
        let renew = move || {
            let (prefix, state, status, gauge) = work;
            while stopped.recv_timeout(timeout / RENEWALS) == Err(RecvTimeoutError::Timeout) {
                if !renew(&prefix, &state, &status) {
                    gauge.set(0.0);
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new().name("mirror-lease".into()).spawn(renew).map_err(|e| {
            NotTaken::Store(PrefixError {
                kind: PrefixFailure::Refused,
                place: prefix.shown().to_owned(),
                detail: format!("no thread that renews the lease: {e}"),
            })
        })?;
        Ok(Self {
            prefix: Arc::clone(prefix),
            state,
            stop: Some(stop),
            thread: Some(thread),
            gauge: gauge.clone(),
        })
    }

    /// Whether this process may write now.
    ///
    /// # Errors
    /// It is another's, or has not been renewed within its time-out.
    pub(super) fn check(&self) -> Result<(), Trouble> {
        let state = locked(&self.state);
        if let Some(lost) = &state.lost {
            return Err(Trouble::lease(lost.clone(), true));
        }
        if self.thread.as_ref().is_none_or(std::thread::JoinHandle::is_finished) {
            return Err(Trouble::lease(
                "the thread that renews the lease has ended, which is a bug".into(),
                true,
            ));
        }
        let age = state.renewed.elapsed();
        if age >= state.me.timeout() {
            return Err(Trouble::lease(
                format!(
                    "the lease could not be renewed for {:.0} s; nothing is written until it is",
                    age.as_secs_f64()
                ),
                false,
            ));
        }
        Ok(())
    }

    /// Gives it back, so that another machine need not wait. One that cannot be given back ends by its time-out.
    pub(super) fn release(mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        self.gauge.set(0.0);
        let state = locked(&self.state);
        if state.lost.is_some() {
            return;
        }
        let ours = matches!(read(&self.prefix), Ok(Some((Some(there), _))) if there.nonce == state.me.nonce);
        if ours && let Err(error) = self.prefix.delete(LEASE_FILE) {
            tracing::warn!(%error, "the lease of the mirror could not be given back; it ends by itself");
        }
    }
}

/// Renews once; whether it is worth going on.
fn renew(prefix: &Prefix, state: &Mutex<State>, status: &SharedMirrorStatus) -> bool {
    let began = Instant::now();
    let mut me = locked(state).me.clone();
    me.stamp();
    match put_again(prefix, &me) {
        Ok(None) => {
            let mut state = locked(state);
            if state.failed > 0 {
                tracing::info!(
                    mirror = prefix.shown(),
                    tries = state.failed,
                    "the lease of the mirror is renewed again"
                );
            }
            held(status).lease_until = Some(me.until.clone());
            (state.me, state.renewed, state.failed) = (me, began, 0);
            true
        }
        Ok(Some(other)) => {
            let lost = format!("{} was taken by {other}; this process uploads nothing any more", prefix.shown());
            tracing::error!("the lease of the mirror is lost: {lost}. Training goes on here; its checkpoints are on this machine only");
            held(status).lease_until = None;
            locked(state).lost = Some(lost);
            false
        }
        Err(error) => {
            let mut state = locked(state);
            state.failed += 1;
            if state.failed == 1 {
                tracing::warn!(%error, "the lease of the mirror could not be renewed; it is tried again");
            }
            true
        }
    }
}

/// Writes a renewal; answers who has the lease now if it is not ours.
fn put_again(prefix: &Prefix, me: &Holder) -> Result<Option<String>, PrefixError> {
    let mut conflict = None;
    for _ in 0..3 {
        let there = read(prefix)?;
        let expected = match &there {
            None => Expected::Absent,
            Some((Some(holder), version)) if holder.nonce == me.nonce => {
                if holder.renewal == me.renewal {
                    // The first try of a request that was made twice.
                    return Ok(None);
                }
                Expected::Version(version)
            }
            Some((holder, _)) => return Ok(Some(holder.as_ref().map_or_else(|| "somebody".to_owned(), Holder::to_string))),
        };
        match prefix.put_if(LEASE_FILE, me.text(), expected) {
            Ok(_) => return Ok(None),
            Err(e) if e.kind == PrefixFailure::Conflict => conflict = Some(e),
            Err(e) => return Err(e),
        }
    }
    conflict.map_or(Ok(None), Err)
}

#[cfg(test)]
mod tests;
