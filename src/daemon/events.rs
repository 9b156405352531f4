//! What reaches the supervisor, and how reloads end.

use std::time::Instant;

use serde::Serialize;
use tokio::sync::oneshot;

use super::file_watch::Found;
use super::reading::Reading;
use super::started::Started;
use super::tls::Identity;
use crate::config::{Change, Problem};
use crate::exit::CliError;
use crate::signals::Signal;
use crate::telemetry::metrics::ReloadOutcome;
use crate::trainer::control::{Failure, Outcome, PausedAt, ResumedAt};

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
    /// Keys whose value in the file was edited, and which environment or command line set otherwise: the edit has no effect.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub shadowed: Vec<String>,
    /// What is allowed and probably not meant, and was not so before.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// What is wrong with the file, by place.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<Problem>,
}

pub(super) fn as_label<S: serde::Serializer>(outcome: &ReloadOutcome, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(outcome.label())
}

/// A checkpoint on demand: its folder and step, or why not.
pub type CheckpointAnswer = Result<(std::path::PathBuf, u64), String>;

/// Why a run was not asked to pause, or to go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotPaused {
    /// No trainer has taken a batch yet, or the process ends.
    NotReady,
    /// It cannot, and why.
    Refused(String),
}

/// Everything the supervisor waits for. Senders: the thread of signals, the threads of start and reading, the file watches, the admin server, the
/// trainer's thread.
#[derive(Debug)]
pub enum Event {
    /// A signal came, then.
    Signal(Signal, Instant),
    /// What a start needs is there, or the start is refused.
    Started(Box<Result<Started, CliError>>),
    /// What the watch of the config file found.
    File(Found),
    /// The files of the certificate have changed: what they hold, or why it cannot be served.
    Certificate(Result<Identity, String>),
    /// The run folder is no longer this process's, and why.
    RunFolderLost(String),
    /// `POST /-/reload`; answered when the reload is over.
    Reload(oneshot::Sender<ReloadReport>),
    /// `POST /-/checkpoint`.
    Checkpoint(oneshot::Sender<CheckpointAnswer>),
    /// `POST /-/pause`.
    Pause(oneshot::Sender<Result<PausedAt, NotPaused>>),
    /// `POST /-/resume`.
    Resume(oneshot::Sender<Result<ResumedAt, NotPaused>>),
    /// `POST /-/quit`.
    Quit,
    /// The config file was read for the reload of this number.
    Read(u64, Box<Reading>),
    /// The trainer answered a reconfiguration with the step of its application.
    Reconfigured(Result<u64, String>),
    /// The trainer wrote the checkpoint for its successor, or could not.
    Saved(Result<u64, String>),
    /// The trainer thread ended; its last act.
    TrainerEnded(Result<Outcome, Failure>),
}
