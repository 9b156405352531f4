//! Execution only: how items move between threads. Nothing here knows an image or a tar.

pub mod ordered_map;
pub mod queue;

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use crossbeam_channel::{Receiver, Sender, bounded};
use prometheus::Counter;

/// Where a stage counts the seconds that its threads wait.
#[derive(Debug, Clone)]
pub struct Meter {
    /// Waiting for input.
    pub blocked_get: Counter,
    /// Waiting for room in the output.
    pub blocked_put: Counter,
}

impl Meter {
    /// One that nobody reads.
    #[must_use]
    pub fn unread() -> Self {
        let counter = || Counter::new("seconds", "seconds").expect("the name is a constant");
        Self {
            blocked_get: counter(),
            blocked_put: counter(),
        }
    }
}

/// A one-way switch that wakes everyone who waits on [`Stop::receiver`].
#[derive(Debug, Clone)]
pub struct Stop {
    sender: Arc<Mutex<Option<Sender<Infallible>>>>,
    receiver: Receiver<Infallible>,
}

impl Default for Stop {
    fn default() -> Self {
        let (sender, receiver) = bounded(0);
        Self {
            sender: Arc::new(Mutex::new(Some(sender))),
            receiver,
        }
    }
}

impl Stop {
    /// Stops; idempotent.
    pub fn trigger(&self) {
        self.sender.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
    }

    /// Nothing is ever sent; the channel closes when [`Stop::trigger`] is called. For `select!`.
    #[must_use]
    pub fn receiver(&self) -> &Receiver<Infallible> {
        &self.receiver
    }

    /// Whether [`Stop::trigger`] was called.
    #[must_use]
    pub fn is_triggered(&self) -> bool {
        matches!(self.receiver.try_recv(), Err(crossbeam_channel::TryRecvError::Disconnected))
    }
}

/// Text of a panic's payload.
pub(crate) fn panic_text(payload: &(dyn std::any::Any + Send)) -> String {
    payload
        .downcast_ref::<&str>()
        .map(|s| (*s).to_owned())
        .or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "panic without a message".into())
}
