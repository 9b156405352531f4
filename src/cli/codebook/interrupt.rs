//! A request to stop, as a flag that long work looks at between two steps.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use crate::exit::{self, CliError, ExitCode};
use crate::signals::{self, Signal, Stop, StopRequests};

/// Set by the first SIGINT or SIGTERM; one that comes a second or more later ends the process at once. Dropping it gives signals back the
/// meaning that they have for every command.
#[derive(Debug)]
pub(super) struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Listens from now on.
    pub(super) fn listen() -> Result<Self, CliError> {
        let flag = Arc::new(AtomicBool::new(false));
        let set = Arc::clone(&flag);
        let mut requests = StopRequests::default();
        let mut others = signals::by_default();
        let listener = move |signal| match signal {
            Signal::Interrupt | Signal::Terminate => match requests.judge(Instant::now()) {
                Stop::Orderly => set.store(true, Ordering::Relaxed),
                Stop::Repeated => {}
                Stop::AtOnce => exit::at_once(ExitCode::Stopped as i32),
            },
            Signal::Hangup | Signal::User1 => others(signal),
        };
        signals::listen(listener).map_err(|e| CliError::io(format!("signals cannot be heard: {e}")))?;
        Ok(Self(flag))
    }

    /// Whether a request has come.
    pub(super) fn came(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl Drop for Interrupt {
    fn drop(&mut self) {
        // The thread that waits is there already, so nothing can fail.
        let _ = signals::listen(signals::by_default());
    }
}
