//! `journal.jsonl` and `last-good.toml`: what the run was told, and when.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::Serialize;

use crate::config::Change;

/// File of events in a run folder, one JSON object a line.
pub const JOURNAL_FILE: &str = "journal.jsonl";
/// The effective config that was accepted last.
pub const LAST_GOOD_FILE: &str = "last-good.toml";

/// One line of the journal.
#[derive(Debug, Serialize)]
pub struct Entry<'a> {
    /// RFC 3339, UTC.
    pub time: String,
    /// `start`, `reload`, `rollback`, `waiting`, `stuck` or `stop`.
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
    /// Why it was refused or failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<&'a str>,
}

/// Appends to the journal of one run folder.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    /// Open from the first line on: a folder that is renamed keeps its journal, and whatever lies in its place gets none of our lines.
    file: Option<File>,
}

impl Journal {
    /// The journal of a run folder.
    #[must_use]
    pub fn of(run_dir: &Path) -> Self {
        Self {
            path: run_dir.join(JOURNAL_FILE),
            file: None,
        }
    }

    /// Appends one line. A full disk must not stop a training run: failures are logged.
    pub fn append(&mut self, line: &str) {
        let open = |path: &Path| OpenOptions::new().create(true).append(true).open(path);
        let written = self.file.take().map_or_else(|| open(&self.path), Ok).and_then(|mut file| {
            file.write_all(line.as_bytes())?;
            file.sync_data()?;
            self.file = Some(file);
            Ok(())
        });
        if let Err(e) = written {
            tracing::warn!(file = %self.path.display(), error = %e, "the journal could not be written");
        }
    }
}

impl Entry<'_> {
    /// The line, with its end.
    #[must_use]
    pub fn line(&self) -> String {
        serde_json::to_string(self).expect("an entry is plain data") + "\n"
    }
}

/// Now, as the journal writes it.
#[must_use]
pub fn now() -> String {
    humantime::format_rfc3339_millis(SystemTime::now()).to_string()
}

/// Keeps an accepted config: written beside and renamed over, so that the file is always whole.
pub fn keep_last_good(run_dir: &Path, toml: &str) {
    let path = run_dir.join(LAST_GOOD_FILE);
    let beside = run_dir.join(format!(".{LAST_GOOD_FILE}.tmp"));
    let text = format!("# The config that was accepted last, complete with defaults. Written by the daemon.\n{toml}");
    if let Err(e) = std::fs::write(&beside, text).and_then(|()| std::fs::rename(&beside, &path)) {
        tracing::warn!(file = %path.display(), error = %e, "the accepted config could not be kept");
    }
}
