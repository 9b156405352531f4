//! The thread that keeps the copy: it looks at the run folder, uploads what is new and deletes what is old, one thing after another.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use splitmask_pipeline::bucket::prefix::Prefix;

use super::failure::Trouble;
use super::files::checksums;
use super::flow::Flow;
use super::holder::Holder;
use super::identity;
use super::inventory::Inventory;
use super::lease::{self, Lease, NotTaken};
use super::settings::{MirrorSettings, Opening};
use super::status::{MirrorState, SharedMirrorStatus, held};
use super::upload::{Uploader, written};
use crate::checkpoint::{self, Policy};
use crate::telemetry::metrics::MirrorFailure;

/// Pause between two looks at the run folder.
const LOOK_EVERY: Duration = Duration::from_millis(300);
/// Pauses after failures, from the first on.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LAST_PAUSE: Duration = Duration::from_secs(30);
/// Pause after a failure while the process ends.
const HURRIED_PAUSE: Duration = Duration::from_millis(300);
/// Pause between two lines about the same failure.
const TELL_EVERY: Duration = Duration::from_secs(600);

/// A mirror that this process may write to.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) lease: Lease,
    pub(super) inventory: Inventory,
}

/// What the thread is told.
pub(super) enum Order {
    /// Upload what there is, give the lease back and end.
    Finish,
    /// Give the lease back and end.
    Leave,
}

/// What the thread works with.
pub(super) struct Keeper {
    opening: Opening,
    status: SharedMirrorStatus,
    settings: Arc<Mutex<MirrorSettings>>,
    prefix: Arc<Prefix>,
    flow: Arc<Flow>,
    held: Option<Held>,
    /// Step that this process goes on from.
    from: Option<u64>,
    /// Local checkpoints that the mirror has, by when they were complete.
    same: BTreeMap<u64, SystemTime>,
    /// Those that are damaged, and are not tried again.
    passed_over: BTreeMap<u64, SystemTime>,
    /// Files beside checkpoints that the mirror has, as of when.
    sent: BTreeMap<String, (u64, SystemTime)>,
}

/// What a round has done.
enum Round {
    /// Something; there may be more.
    Did,
    /// Everything is there.
    Current,
}

/// A complete checkpoint of the run folder: step, folder, and when it was complete.
type Local = (u64, PathBuf, SystemTime);

/// Those in `root`, by step.
fn complete(root: &Path) -> Result<Vec<Local>, Trouble> {
    let listed = checkpoint::list(root).map_err(|e| Trouble {
        reason: MirrorFailure::Disk,
        text: e.to_string(),
        bars: false,
    })?;
    let with_time = |(step, folder): (u64, PathBuf)| {
        let at = written(&folder)?;
        Some((step, folder, at))
    };
    Ok(listed.into_iter().filter_map(with_time).collect())
}

/// Which of those that the mirror lacks goes up next: the run folder's newest, also where a rollback left the mirror newer ones; else the newest that would
/// stay there.
fn next(missing: Vec<Local>, newest: Option<u64>, inventory: &Inventory, policy: &Policy) -> Option<Local> {
    let steps: BTreeSet<u64> = inventory
        .whole
        .keys()
        .copied()
        .chain(missing.iter().map(|(step, ..)| *step))
        .collect();
    let old = checkpoint::surplus(&Vec::from_iter(steps), policy);
    missing
        .into_iter()
        .rev()
        .find(|(step, ..)| Some(*step) == newest || !old.contains(step))
}

impl Keeper {
    /// For what was opened, or is to be opened where `held` is none.
    pub(super) fn new(
        opening: Opening,
        status: SharedMirrorStatus,
        settings: Arc<Mutex<MirrorSettings>>,
        prefix: Arc<Prefix>,
        flow: Arc<Flow>,
        held: Option<Held>,
        from: Option<u64>,
    ) -> Self {
        Self {
            opening,
            status,
            settings,
            prefix,
            flow,
            held,
            from,
            same: BTreeMap::new(),
            passed_over: BTreeMap::new(),
            sent: BTreeMap::new(),
        }
    }

    /// Runs until it is told to end, or nothing more can be done.
    pub(super) fn run(mut self, orders: &Receiver<Order>) {
        let (mut pause, mut failed, mut finishing) = (Duration::ZERO, 0u32, false);
        let mut told: Option<(MirrorFailure, Instant)> = None;
        loop {
            match orders.recv_timeout(pause) {
                Ok(Order::Finish) => finishing = true,
                Ok(Order::Leave) | Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {}
            }
            match self.round(finishing) {
                Ok(Round::Did) => pause = Duration::ZERO,
                Ok(Round::Current) if finishing => break,
                Ok(Round::Current) => pause = LOOK_EVERY,
                // Told to leave in the middle: the order is on its way.
                Err(_) if self.flow.is_stopped() => {
                    pause = LOOK_EVERY;
                    continue;
                }
                Err(trouble) => {
                    failed += 1;
                    self.note(&trouble);
                    let again = told.is_none_or(|(reason, at)| reason != trouble.reason || at.elapsed() > TELL_EVERY);
                    if trouble.bars {
                        tracing::error!("{trouble}: nothing is uploaded by this process any more, and training goes on");
                        held(&self.status).state = MirrorState::Barred;
                        // A stop need not wait; a reload may name another place.
                        match orders.recv() {
                            Ok(_) | Err(_) => break,
                        }
                    }
                    if again {
                        told = Some((trouble.reason, Instant::now()));
                        tracing::warn!(failed, "mirror: {trouble}; it is tried again, and training goes on");
                    }
                    pause = if finishing {
                        HURRIED_PAUSE
                    } else {
                        (FIRST_PAUSE * 2u32.saturating_pow(failed - 1)).min(LAST_PAUSE)
                    };
                    continue;
                }
            }
            if failed > 0 {
                tracing::info!(failed, mirror = self.prefix.shown(), "mirror: it works again");
                held(&self.status).last_error = None;
                (failed, told) = (0, None);
            }
        }
        if let Some(held) = self.held.take() {
            held.lease.release();
        }
    }

    fn note(&self, trouble: &Trouble) {
        self.opening.metrics.failures.of(trouble.reason).inc();
        let mut status = held(&self.status);
        status.failures += 1;
        status.last_error = Some(trouble.to_string());
        status.transfer = None;
        status.state = MirrorState::Retrying;
    }

    /// One thing after another; what is most urgent first.
    fn round(&mut self, finishing: bool) -> Result<Round, Trouble> {
        if let Some(lost) = self.opening.lock.lost() {
            return Err(Trouble {
                reason: MirrorFailure::Disk,
                text: lost,
                bars: true,
            });
        }
        // What is here and there is known before anything can fail: a stop that is given up tells it.
        let root = checkpoint::folder_of(&self.opening.run_dir);
        let local = complete(&root)?;
        let newest = local.last().map(|(step, ..)| *step);
        held(&self.status).local_step = newest;
        if self.held.is_none() {
            self.held = Some(self.take()?);
        }
        self.show_newest();
        let settings = self.settings.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(Held { lease, inventory }) = &mut self.held else {
            unreachable!("it was taken above")
        };
        lease.check()?;
        let mut missing = vec![];
        for (step, folder, at) in &local {
            if self.same.get(step) == Some(at) || self.passed_over.get(step) == Some(at) {
                continue;
            }
            let there = inventory.whole.get(step);
            if there.is_some_and(|there| checksums(folder).is_ok_and(|here| here == *there)) {
                self.same.insert(*step, *at);
            } else {
                missing.push((*step, folder.clone(), *at));
            }
        }
        let best = checkpoint::best(&root).or(inventory.best);
        let policy = settings.policy(best);
        let next = next(missing, newest, inventory, &policy);
        held(&self.status).state = if next.is_some() {
            MirrorState::Uploading
        } else {
            MirrorState::Current
        };
        // Asked where something is about to be added, and at the end: a mirror that holds only what came since it was emptied would be no run's.
        if (next.is_some() || finishing) && identity::renew(&self.prefix, &self.opening.run_dir)? {
            tracing::warn!(
                mirror = self.prefix.shown(),
                "the mirror was emptied by somebody; what the run folder still has goes up again"
            );
            *inventory = Inventory::of(&self.prefix)?;
            self.same.clear();
            self.sent.clear();
            return Ok(Round::Did);
        }
        let uploader = Uploader {
            prefix: &self.prefix,
            lease,
            flow: &self.flow,
            metrics: &self.opening.metrics,
            status: &self.status,
        };
        let mut did = false;
        if let Some((step, folder, at)) = next {
            let began = Instant::now();
            // Until its list of checksums is there again, the mirror has it no more.
            inventory.whole.remove(&step);
            inventory.torn.insert(step);
            self.same.remove(&step);
            let (run_dir, sent) = (&self.opening.run_dir, &mut self.sent);
            let uploaded = uploader.checkpoint(step, &folder, run_dir, sent, &mut inventory.pictures);
            let bytes = held(&self.status).transfer.take().map_or(0, |t| t.of);
            match uploaded {
                Ok(Some(text)) => {
                    inventory.whole.insert(step, text);
                    inventory.torn.remove(&step);
                    self.same.insert(step, at);
                    self.opening.metrics.uploads.inc();
                    held(&self.status).uploads += 1;
                    tracing::info!(
                        step,
                        mirror = self.prefix.shown(),
                        bytes,
                        seconds = began.elapsed().as_secs_f64(),
                        "checkpoint mirrored"
                    );
                }
                // Retention was quicker.
                Ok(None) => {}
                Err(trouble) => {
                    if trouble.reason == MirrorFailure::Damaged {
                        self.passed_over.insert(step, at);
                    }
                    // As on the disk of the run: the oldest go first that would go after it, and what the upload has left.
                    let fewer = Policy {
                        keep: policy.keep.saturating_sub(1),
                        ..policy
                    };
                    let made_way = match trouble.reason {
                        MirrorFailure::NoSpace => uploader.prune(inventory, &fewer, None)?,
                        _ => vec![],
                    };
                    if !made_way.is_empty() {
                        self.same.retain(|step, _| !made_way.contains(step));
                        tracing::warn!(
                            step,
                            mirror = self.prefix.shown(),
                            "no room for a checkpoint in the mirror: the oldest made way"
                        );
                        return Ok(Round::Did);
                    }
                    return Err(trouble);
                }
            }
            did = true;
        }
        if let (Some(step), true) = (best, best != inventory.best) {
            uploader.best(step)?;
            inventory.best = best;
        }
        let deleted = uploader.prune(inventory, &policy, newest)?;
        if !deleted.is_empty() {
            tracing::debug!(steps = ?deleted, "old checkpoints of the mirror were deleted");
            self.same.retain(|step, _| !deleted.contains(step));
        }
        if finishing && !did {
            uploader.run_files(&self.opening.run_dir, &mut self.sent, &mut inventory.pictures)?;
        }
        self.show_newest();
        Ok(if did { Round::Did } else { Round::Current })
    }

    /// Tells how far the mirror is.
    fn show_newest(&self) {
        let Some(newest) = self.held.as_ref().and_then(|held| held.inventory.newest()) else {
            return;
        };
        let metrics = &self.opening.metrics;
        metrics.last_step.set(newest as f64);
        let at = self.same.get(&newest).and_then(|at| at.duration_since(UNIX_EPOCH).ok());
        let mut status = held(&self.status);
        status.step = Some(newest);
        if let Some(at) = at {
            metrics.newest_timestamp.set(at.as_secs_f64());
            status.newest_unix_seconds = Some(at.as_secs_f64());
        }
    }

    /// Takes a mirror that did not answer when the process started, or that was named since.
    fn take(&self) -> Result<Held, Trouble> {
        let settings = self.settings.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let me = Holder::of_process(&self.opening.run, &self.opening.run_dir, settings.lease);
        let lease = lease::take(&self.prefix, me, &self.flow, &self.status, &self.opening.metrics.lease_held).map_err(|e| match e {
            NotTaken::Held(holder) => Trouble::lease(format!("{} is held by {holder}", self.prefix.shown()), false),
            NotTaken::Store(e) => e.into(),
            NotTaken::Stopped => Trouble::lease("the mirror is given up".into(), false),
        })?;
        let rest = || -> Result<Inventory, Trouble> {
            let inventory = Inventory::of(&self.prefix)?;
            // Told also where it is not taken.
            held(&self.status).step = inventory.newest();
            let there = !inventory.whole.is_empty();
            identity::agree(&self.prefix, &self.opening.run_dir, &self.opening.run, self.from.is_some(), there)?;
            match inventory.newest() {
                Some(step) if self.from.is_none_or(|from| step > from) => Err(Trouble::lease(
                    format!(
                        "{} holds a checkpoint of step {step}, and this process went on from {}: stop it and start it again to take the mirror's",
                        self.prefix.shown(),
                        self.from.map_or_else(|| "the beginning".to_owned(), |from| format!("step {from}"))
                    ),
                    true,
                )),
                _ => Ok(inventory),
            }
        };
        match rest() {
            Ok(inventory) => {
                tracing::info!(mirror = self.prefix.shown(), "the mirror answers; uploads begin");
                Ok(Held { lease, inventory })
            }
            Err(trouble) => {
                lease.release();
                Err(trouble)
            }
        }
    }
}
