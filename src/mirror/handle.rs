//! The mirror as the daemon holds it: started, configured, ended.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use splitmask_pipeline::bucket::prefix::Prefix;

use super::flow::Flow;
use super::keeper::{Held, Keeper, Order};
use super::settings::{MirrorSettings, Opening};
use super::status::{MirrorState, MirrorStatus, SharedMirrorStatus, held};
use crate::checkpoint;

#[derive(Debug)]
struct Running {
    settings: Arc<Mutex<MirrorSettings>>,
    flow: Arc<Flow>,
    orders: Sender<Order>,
    done: Arc<AtomicBool>,
}

/// The mirror of a run, or none.
pub struct Mirror {
    opening: Opening,
    status: SharedMirrorStatus,
    running: Option<Running>,
}

impl std::fmt::Debug for Mirror {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mirror").field("running", &self.running).finish_non_exhaustive()
    }
}

impl Mirror {
    /// None so far; a reload may name one.
    pub(super) fn off(opening: Opening, status: SharedMirrorStatus) -> Self {
        Self {
            opening,
            status,
            running: None,
        }
    }

    /// Starts the thread. Without `held` it takes the lease itself, once it can; `from` is the step that this process goes on from.
    pub(super) fn start(
        opening: Opening,
        status: SharedMirrorStatus,
        settings: MirrorSettings,
        prefix: Arc<Prefix>,
        flow: Arc<Flow>,
        held: Option<Held>,
        from: Option<u64>,
    ) -> Self {
        let mut mirror = Self::off(opening, status);
        mirror.spawn(settings, prefix, flow, held, from);
        mirror
    }

    fn spawn(&mut self, settings: MirrorSettings, prefix: Arc<Prefix>, flow: Arc<Flow>, held_now: Option<Held>, from: Option<u64>) {
        flow.limit(settings.mb_s);
        let settings = Arc::new(Mutex::new(settings));
        let (orders, inbox) = channel();
        let done = Arc::new(AtomicBool::new(false));
        let keeper = Keeper::new(
            self.opening.clone(),
            Arc::clone(&self.status),
            Arc::clone(&settings),
            prefix,
            Arc::clone(&flow),
            held_now,
            from,
        );
        let over = Arc::clone(&done);
        let body = move || {
            keeper.run(&inbox);
            over.store(true, Ordering::Release);
        };
        match std::thread::Builder::new().name("mirror".into()).spawn(body) {
            Ok(_) => {
                self.running = Some(Running {
                    settings,
                    flow,
                    orders,
                    done,
                });
            }
            Err(error) => {
                tracing::error!(%error, "there is no thread for the mirror: nothing is uploaded");
                held(&self.status).state = MirrorState::Barred;
            }
        }
    }

    /// What it does, for the status page.
    #[must_use]
    pub fn status(&self) -> SharedMirrorStatus {
        Arc::clone(&self.status)
    }

    /// Whether there is one.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.running.is_some()
    }

    /// Takes over changed settings. Another place is opened in the background.
    pub fn configure(&mut self, settings: Option<MirrorSettings>) {
        let (Some(running), Some(new)) = (&self.running, &settings) else {
            return self.replace(settings);
        };
        let elsewhere = {
            let mut old = running.settings.lock().unwrap_or_else(PoisonError::into_inner);
            let elsewhere = new.is_elsewhere(&old);
            if !elsewhere {
                *old = new.clone();
            }
            elsewhere
        };
        if elsewhere {
            return self.replace(settings);
        }
        running.flow.limit(new.mb_s);
    }

    fn replace(&mut self, settings: Option<MirrorSettings>) {
        if let Some(old) = self.running.take() {
            old.flow.stop();
            let _ = old.orders.send(Order::Leave);
            // The old thread may be within a request; its last words must not be taken for the new one's.
            *held(&self.status) = MirrorStatus::default();
        }
        self.opening.metrics.on.set(f64::from(u8::from(settings.is_some())));
        let Some(settings) = settings else { return };
        let from = checkpoint::newest_good(&checkpoint::folder_of(&self.opening.run_dir));
        let from = from.ok().and_then(|found| found.good).map(|good| good.progress.step);
        match Prefix::open(&settings.address, &settings.endpoint, "mirror-io") {
            Ok(prefix) => {
                tracing::info!(mirror = prefix.shown(), "the mirror is opened");
                *held(&self.status) = MirrorStatus {
                    address: prefix.shown().to_owned(),
                    state: MirrorState::Opening,
                    ..Default::default()
                };
                self.spawn(settings, Arc::new(prefix), Arc::new(Flow::default()), None, from);
            }
            Err(error) => {
                tracing::error!("{}: {error}; nothing is uploaded", settings.key);
                *held(&self.status) = MirrorStatus {
                    address: settings.address.clone(),
                    state: MirrorState::Barred,
                    last_error: Some(error.to_string()),
                    ..Default::default()
                };
            }
        }
    }

    /// The run has ended: what is not uploaded yet goes as fast as the store takes it, and the lease is given back then. See [`Self::is_done`].
    pub fn finish(&self) {
        if let Some(running) = &self.running {
            running.flow.hurry();
            let _ = running.orders.send(Order::Finish);
        }
    }

    /// Whether everything is done that [`Self::finish`] asked for, or nothing more can be.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.running.as_ref().is_none_or(|running| running.done.load(Ordering::Acquire))
    }

    /// Gives the lease back without uploading anything, and waits so long for that.
    pub fn leave(&self, patience: Duration) {
        if let Some(running) = &self.running {
            running.flow.stop();
            let _ = running.orders.send(Order::Leave);
        }
        let deadline = Instant::now() + patience;
        while !self.is_done() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.flow.stop();
    }
}
