//! `metrics.jsonl`: one line per log interval. After a resume, lines beyond the checkpoint are cut, so the file reads as one run.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::error::TrainError;
use crate::checkpoint::Rollback;

/// Fields that tell time, not training; two equal runs differ in them alone.
pub const TIMING_FIELDS: [&str; 4] = ["time", "images_per_second", "data_wait_ratio", "seconds"];

/// The open file.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
}

fn io(path: &Path) -> impl FnOnce(std::io::Error) -> TrainError + '_ {
    move |source| TrainError::Io {
        path: path.to_owned(),
        source,
    }
}

impl Journal {
    /// Opens the journal of a run that stands at `step` after `rollbacks`, cutting every line of a later step and a torn last line. There is one
    /// line for each rollback then, also if the process was killed before it could write it.
    ///
    /// # Errors
    /// [`TrainError::Io`].
    pub fn open(run_dir: &Path, step: u64, rollbacks: &[Rollback]) -> Result<Self, TrainError> {
        let path = run_dir.join("metrics.jsonl");
        let told = |line: &Value| line["rollback"]["consumed"].as_u64();
        let known = |line: &Value| told(line).is_none_or(|c| rollbacks.iter().any(|r| r.consumed == c));
        if path.exists() {
            let text = fs::read_to_string(&path).map_err(io(&path))?;
            let kept: String = text
                .lines()
                .filter(|line| {
                    serde_json::from_str::<Value>(line).is_ok_and(|v| v["step"].as_u64().is_some_and(|s| s <= step) && known(&v))
                })
                .flat_map(|line| [line, "\n"])
                .collect();
            if kept != text {
                let temporary = path.with_extension("jsonl.tmp");
                fs::write(&temporary, kept).map_err(io(&temporary))?;
                fs::rename(&temporary, &path).map_err(io(&path))?;
            }
        }
        let file = OpenOptions::new().create(true).append(true).open(&path).map_err(io(&path))?;
        let mut journal = Self { path, file };
        let lines = Self::read(run_dir);
        for rollback in rollbacks {
            if !lines.iter().any(|line| told(line) == Some(rollback.consumed)) {
                let line = serde_json::json!({ "step": rollback.to_step, "rollback": rollback });
                journal.write(line.as_object().cloned().unwrap_or_default())?;
            }
        }
        Ok(journal)
    }

    /// Appends a line.
    ///
    /// # Errors
    /// [`TrainError::Io`].
    pub fn write(&mut self, line: Map<String, Value>) -> Result<(), TrainError> {
        let mut text = Value::Object(line).to_string();
        text.push('\n');
        self.file.write_all(text.as_bytes()).map_err(io(&self.path))
    }

    /// All lines of a run's journal; an unreadable one is passed over.
    #[must_use]
    pub fn read(run_dir: &Path) -> Vec<Value> {
        let text = fs::read_to_string(run_dir.join("metrics.jsonl")).unwrap_or_default();
        text.lines().filter_map(|l| serde_json::from_str(l).ok()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_rollback_has_one_line_however_often_the_process_starts() {
        let dir = tempfile::tempdir().unwrap();
        let rollback = Rollback {
            consumed: 60,
            from_step: 60,
            to_step: 45,
            first_bad_step: 51,
            reason: "5 steps".into(),
            skipped_from: Default::default(),
            skipped_to: Default::default(),
        };
        for _ in 0..3 {
            drop(Journal::open(dir.path(), 45, std::slice::from_ref(&rollback)).unwrap());
        }
        let lines = Journal::read(dir.path());
        assert_eq!(lines.len(), 1);
        assert_eq!(lines[0]["rollback"]["first_bad_step"], 51);
        // A start from an older checkpoint has not seen it.
        drop(Journal::open(dir.path(), 50, &[]).unwrap());
        assert!(Journal::read(dir.path()).is_empty());
    }

    fn line(step: u64) -> Map<String, Value> {
        json!({"step": step, "total": 1.5}).as_object().unwrap().clone()
    }

    #[test]
    fn a_resume_cuts_what_lies_beyond_it() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(dir.path(), 0, &[]).unwrap();
        for step in [10, 20, 30] {
            journal.write(line(step)).unwrap();
        }
        drop(journal);
        // A kill in the middle of a write.
        let path = dir.path().join("metrics.jsonl");
        let torn = fs::read_to_string(&path).unwrap() + "{\"step\": 3";
        fs::write(&path, torn).unwrap();
        let mut journal = Journal::open(dir.path(), 20, &[]).unwrap();
        journal.write(line(30)).unwrap();
        let steps: Vec<u64> = Journal::read(dir.path()).iter().map(|v| v["step"].as_u64().unwrap()).collect();
        assert_eq!(steps, [10, 20, 30]);
    }
}
