//! SIGINT and SIGTERM as a flag that long work looks at between two steps.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::signal::unix::{SignalKind, signal};

use crate::error::{CliError, ExitCode};

/// Set by the first signal; the second ends the process at once.
#[derive(Debug, Clone)]
pub(super) struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Listens from now on, in a thread of its own.
    pub(super) fn listen() -> Result<Self, CliError> {
        let flag = Arc::new(AtomicBool::new(false));
        let set = Arc::clone(&flag);
        let failed = |e: std::io::Error| CliError::io(format!("signals cannot be heard: {e}"));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
        let (mut interrupt, mut terminate) = runtime
            .block_on(async { Ok((signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)) })
            .map_err(failed)?;
        let wait = move || {
            runtime.block_on(async move {
                loop {
                    tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} }
                    if set.swap(true, Ordering::Relaxed) {
                        #[expect(clippy::disallowed_methods, reason = "asked for twice: at once")]
                        std::process::exit(ExitCode::Stopped as i32);
                    }
                }
            });
        };
        std::thread::Builder::new().name("signals".into()).spawn(wait).map_err(failed)?;
        Ok(Self(flag))
    }

    /// Whether a signal has come.
    pub(super) fn came(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
