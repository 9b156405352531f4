//! The log: text or JSON on stderr, its filter replaceable while it runs.

use clap::ValueEnum;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt, reload};

use super::progress::{LogWriter, Progress};

/// How a line of the log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Default)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// The trainer's line per log interval repeats what the progress line shows.
const QUIET_ON_TERMINAL: &str = "splitmask::trainer::hooks::log=warn";

/// Replaces the filter of a running log.
#[derive(Clone, Debug)]
pub struct LogHandle {
    handle: reload::Handle<EnvFilter, Registry>,
    on_terminal: bool,
    /// `RUST_LOG` was set and wins over the config.
    pinned: bool,
}

impl LogHandle {
    /// Takes over `log.filter` of a validated config, unless `RUST_LOG` decides.
    pub fn set(&self, filter: &str) {
        if self.pinned {
            return;
        }
        match EnvFilter::try_new(filter).map(|filter| quiet(filter, self.on_terminal)) {
            Ok(filter) => {
                if let Err(e) = self.handle.reload(filter) {
                    tracing::warn!(error = %e, "the log filter could not be replaced");
                }
            }
            Err(e) => tracing::warn!(filter, error = %e, "log.filter is not understood; the old one goes on"),
        }
    }
}

fn quiet(filter: EnvFilter, on_terminal: bool) -> EnvFilter {
    if on_terminal {
        filter.add_directive(QUIET_ON_TERMINAL.parse().expect("the directive is well-formed"))
    } else {
        filter
    }
}

/// Starts the process's log. A second call in one process has no effect on the first one's output and answers `None`.
#[must_use]
pub fn start(filter: &str, format: LogFormat, progress: Option<Progress>) -> Option<LogHandle> {
    let from_environment = std::env::var("RUST_LOG").ok().and_then(|text| EnvFilter::try_new(text).ok());
    let pinned = from_environment.is_some();
    let filter = from_environment
        .or_else(|| EnvFilter::try_new(filter).ok())
        .unwrap_or_else(|| EnvFilter::new("info"));
    let on_terminal = progress.is_some();
    let (filter, handle) = reload::Layer::new(if pinned { filter } else { quiet(filter, on_terminal) });
    let writer = LogWriter { progress };
    let lines = fmt::layer().with_writer(move || writer.clone()).with_ansi(on_terminal);
    let lines = match format {
        LogFormat::Text => lines.with_target(false).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    tracing_subscriber::registry().with(filter).with(lines).try_init().ok()?;
    Some(LogHandle {
        handle,
        on_terminal,
        pinned,
    })
}
