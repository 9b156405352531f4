//! `metrics.jsonl`: one line per log interval. After a resume, lines beyond the checkpoint are cut, so the file reads as one run.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::error::TrainError;

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
    /// Opens the journal of a run that stands at `step`, cutting every line of a later step and a torn last line.
    ///
    /// # Errors
    /// [`TrainError::Io`].
    pub fn open(run_dir: &Path, step: u64) -> Result<Self, TrainError> {
        let path = run_dir.join("metrics.jsonl");
        if path.exists() {
            let text = fs::read_to_string(&path).map_err(io(&path))?;
            let kept: String = text
                .lines()
                .filter(|line| serde_json::from_str::<Value>(line).is_ok_and(|v| v["step"].as_u64().is_some_and(|s| s <= step)))
                .flat_map(|line| [line, "\n"])
                .collect();
            if kept != text {
                let temporary = path.with_extension("jsonl.tmp");
                fs::write(&temporary, kept).map_err(io(&temporary))?;
                fs::rename(&temporary, &path).map_err(io(&path))?;
            }
        }
        let file = OpenOptions::new().create(true).append(true).open(&path).map_err(io(&path))?;
        Ok(Self { path, file })
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

    fn line(step: u64) -> Map<String, Value> {
        json!({"step": step, "total": 1.5}).as_object().unwrap().clone()
    }

    #[test]
    fn a_resume_cuts_what_lies_beyond_it() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(dir.path(), 0).unwrap();
        for step in [10, 20, 30] {
            journal.write(line(step)).unwrap();
        }
        drop(journal);
        // A kill in the middle of a write.
        let path = dir.path().join("metrics.jsonl");
        let torn = fs::read_to_string(&path).unwrap() + "{\"step\": 3";
        fs::write(&path, torn).unwrap();
        let mut journal = Journal::open(dir.path(), 20).unwrap();
        journal.write(line(30)).unwrap();
        let steps: Vec<u64> = Journal::read(dir.path()).iter().map(|v| v["step"].as_u64().unwrap()).collect();
        assert_eq!(steps, [10, 20, 30]);
    }
}
