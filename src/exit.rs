//! How the process ends: codes that a process supervisor can rely on, and the error that carries one.

use splitmask_pipeline::error::PipelineError;

/// Why the process ends, as a code (architecture: failure scope = error type).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum ExitCode {
    /// Done.
    Done = 0,
    /// Bad config, usage or input; nothing was written.
    Usage = 64,
    /// A bug.
    Internal = 70,
    /// I/O failed after retries, or the failure budget is spent; a checkpoint was written.
    Io = 74,
    /// Stopped by a signal after a checkpoint, unless the time for it ran out.
    Stopped = 75,
    /// Non-finite loss.
    NonFinite = 76,
    /// The trainer hung and `admin.watchdog_exit` is set.
    Hung = 77,
}

impl ExitCode {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Done,
        Self::Usage,
        Self::Internal,
        Self::Io,
        Self::Stopped,
        Self::NonFinite,
        Self::Hung,
    ];

    /// What it says, and what whoever started the process does about it, for docs/exit-codes.md.
    #[must_use]
    pub const fn meaning(self) -> (&'static str, &'static str) {
        match self {
            Self::Done => ("done", "nothing"),
            Self::Usage => (
                "bad config, usage or input; nothing was written (but a run may have been fetched from its mirror)",
                "read the message: it names file, key and value; starting again changes nothing",
            ),
            Self::Internal => ("a bug", "report it, with the log"),
            Self::Io => (
                "I/O failed after retries, or too many corrupt samples (before the first step, or with `data.on_budget = \"stop\"`; else the run pauses), or a \
                 step does not fit into memory; a checkpoint was written, unless it is the disk that refuses it for `admin.grace_s`: then the older one stands",
                "mend what the message names, then the same command goes on",
            ),
            Self::Stopped => (
                "stopped by a signal, after a checkpoint (or `admin.grace_s` was over before it was written: then the older one stands); or the device or another rank was lost, and all are to be started again",
                "the same command goes on",
            ),
            Self::NonFinite => (
                "loss or gradients not finite again and again; a replay folder was written",
                "`splitmask replay RUN/replay/step-…` names the first tensor that is not finite",
            ),
            Self::Hung => (
                "the trainer hung and `admin.watchdog_exit` is set, or it is one of several ranks",
                "the same command goes on from the newest checkpoint; `hang-step-….txt` tells what each thread did",
            ),
        }
    }
}

/// An error of the command line: exit code, message, and what to do next.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct CliError {
    /// How the process ends.
    pub code: ExitCode,
    /// What is wrong; names file, key and value.
    pub message: String,
    /// What to do next.
    pub hint: Option<String>,
}

/// Ends the process without destructors: those of libtorch must not run beside a thread that still computes. The rank that holds what a lost one said
/// last stays until the others have read it, for five seconds at most.
pub fn at_once(code: i32) -> ! {
    use std::io::Write;
    let _ = std::io::stdout().flush();
    torch_ext::ranks::leave_at_once(code)
}

impl CliError {
    /// Bad input: exit code 64.
    pub fn usage(message: impl Into<String>, hint: impl Into<Option<String>>) -> Self {
        Self {
            code: ExitCode::Usage,
            message: message.into(),
            hint: hint.into(),
        }
    }

    /// Something that only a bug or an exhausted machine explains: exit code 70, or 74 where the system says that it has no more of threads or memory.
    pub fn internal(what: &str, e: &std::io::Error) -> Self {
        if matches!(e.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::OutOfMemory) {
            return Self {
                hint: Some("the machine or a limit (ulimit -u, ulimit -v, the cgroup's pids or memory) has no more to give".into()),
                ..Self::io(format!("{what}: {e}"))
            };
        }
        Self {
            code: ExitCode::Internal,
            message: format!("{what}: {e}"),
            hint: None,
        }
    }

    /// The message and what to do next in one text, for an answer that has no place for a hint.
    #[must_use]
    pub fn with_hint(&self) -> String {
        let Self { message, hint, .. } = self;
        hint.as_ref().map_or_else(|| message.clone(), |hint| format!("{message}; {hint}"))
    }

    /// I/O: exit code 74.
    pub fn io(message: impl Into<String>) -> Self {
        Self {
            code: ExitCode::Io,
            message: message.into(),
            hint: None,
        }
    }
}

/// The text of a caught panic.
#[must_use]
pub fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("no message").to_owned()
}

/// How a process ends that the pipeline ends.
#[must_use]
pub fn code_of_pipeline(e: &PipelineError) -> ExitCode {
    use PipelineError as P;
    match e {
        P::BadUrl { .. }
        | P::Empty { .. }
        | P::NoSample { last: None, .. }
        | P::TwoImages { .. }
        | P::BadManifest { .. }
        | P::BadCodebook { .. }
        | P::FewPatches { .. }
        | P::BadSetting { .. }
        | P::Refused { .. } => ExitCode::Usage,
        P::Unreachable { .. } | P::FailureBudget { .. } | P::Shard(_) | P::NoSample { .. } | P::Io { .. } => ExitCode::Io,
        P::Panicked { .. } | P::Broken { .. } => ExitCode::Internal,
    }
}

impl From<PipelineError> for CliError {
    fn from(e: PipelineError) -> Self {
        Self {
            code: code_of_pipeline(&e),
            hint: e.hint(),
            message: e.to_string(),
        }
    }
}
