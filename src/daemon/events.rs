//! What reaches the supervisor, and how reloads end.

use serde::Serialize;
use tokio::sync::oneshot;

use crate::config::{Change, Problem};
use crate::error::CliError;
use crate::telemetry::metrics::ReloadOutcome;
use crate::trainer::control::Outcome;

/// A signal, by what it asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Notice {
    /// SIGHUP.
    Hangup,
    /// SIGTERM or SIGINT.
    Terminate,
    /// SIGUSR1.
    Checkpoint,
}

/// What asked for a reload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trigger {
    /// SIGHUP.
    Signal,
    /// The file's content changed.
    File,
    /// `POST /-/reload`.
    Http,
}

impl Trigger {
    /// As it stands in log and journal.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Signal => "signal",
            Self::File => "file",
            Self::Http => "http",
        }
    }
}

/// Answer to a reload: the body of `POST /-/reload`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ReloadReport {
    /// How it ended.
    #[serde(serialize_with = "as_label")]
    pub outcome: ReloadOutcome,
    /// Step at whose boundary the changes took effect.
    pub applied_at_step: Option<u64>,
    /// Digest of the config in force afterwards.
    pub config_sha256: String,
    /// Changed keys; those that were refused, if it was refused.
    pub changes: Vec<Change>,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What is wrong with the file, by place.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<Problem>,
}

fn as_label<S: serde::Serializer>(outcome: &ReloadOutcome, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(outcome.label())
}

/// A checkpoint on demand: its folder and step, or why not.
pub type CheckpointAnswer = Result<(std::path::PathBuf, u64), String>;

/// Everything the supervisor waits for. Senders: the signal tasks, the file watch, the admin server, the trainer thread, answer waiters.
#[derive(Debug)]
pub enum Event {
    /// A signal came.
    Notice(Notice),
    /// The file holds new content of this digest.
    FileChanged(String),
    /// `POST /-/reload`; answered when the reload is over.
    Reload(oneshot::Sender<ReloadReport>),
    /// `POST /-/checkpoint`.
    Checkpoint(oneshot::Sender<CheckpointAnswer>),
    /// `POST /-/quit`.
    Quit,
    /// The trainer answered a reconfiguration.
    Reconfigured(Result<u64, String>),
    /// The trainer thread ended; its last act.
    TrainerEnded(Result<Outcome, CliError>),
}
