//! `journal.jsonl` and `last-good.toml`: what the run was told, and when.

use std::path::Path;
use std::time::SystemTime;

use prometheus::IntCounter;
use serde::Serialize;
use splitmask_pipeline::file;

use crate::config::Change;
use crate::held_lock::HeldLock;
use crate::telemetry::line_file::LineFile;
use crate::telemetry::wall_time::rfc3339;

/// File of events in a run folder, one JSON object a line.
pub const JOURNAL_FILE: &str = "journal.jsonl";
/// The effective config that was accepted last.
pub const LAST_GOOD_FILE: &str = "last-good.toml";

/// One line of the journal.
#[derive(Debug, Serialize)]
pub struct Entry<'a> {
    /// RFC 3339, UTC.
    pub time: String,
    /// `start`, `mirror`, `reload`, `rollback`, `pause` (outcome `begun` or `over`), `waiting`, `stuck`, `side failure` or `stop`.
    pub event: &'a str,
    /// What asked for it.
    pub trigger: &'a str,
    /// Optimizer steps done.
    pub step: u64,
    /// Digest of the config in force afterwards.
    pub sha256: &'a str,
    /// How it ended.
    pub outcome: &'a str,
    /// Changed keys.
    pub changes: &'a [Change],
    /// Why it was refused or failed; of a rollback and of the mirror at a start: what was done, and why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<&'a str>,
}

/// Appends to the journal of one run folder.
#[derive(Debug)]
pub struct Journal {
    lines: LineFile,
}

impl Journal {
    /// The journal of the run folder that is recognised by `lock`; `failures` counts lines that could not be written at once.
    #[must_use]
    pub fn of(run_dir: &Path, lock: &HeldLock, failures: IntCounter) -> Self {
        Self {
            lines: LineFile::new(run_dir.join(JOURNAL_FILE), failures)
                .synced()
                .of_folder(Some(lock.clone())),
        }
    }

    /// Appends one line. A full disk must not stop a training run: the line waits then, and comes with the next one.
    pub fn append(&mut self, line: &str) {
        self.lines.append(line);
    }
}

impl Entry<'_> {
    /// The line, without its end.
    #[must_use]
    pub fn line(&self) -> String {
        serde_json::to_string(self).expect("an entry is plain data")
    }
}

/// Now, as the journal writes it.
#[must_use]
pub fn now() -> String {
    rfc3339(SystemTime::now())
}

/// Keeps an accepted config: written beside and renamed over, so that the file is always whole. Nothing is written once the folder is another.
pub fn keep_last_good(run_dir: &Path, lock: &HeldLock, toml: &str) {
    let path = run_dir.join(LAST_GOOD_FILE);
    let text = format!("# The config that was accepted last, complete with defaults. Written by the daemon.\n{toml}");
    let ours = lock.check().map_err(std::io::Error::other);
    if let Err(e) = ours.and_then(|()| file::write(&path, text)) {
        tracing::warn!(file = %path.display(), error = %e, "the accepted config could not be kept");
    }
}
