//! `metrics.jsonl`: one line per log interval. After a resume, lines beyond the checkpoint are cut, so the file reads as one run.

use std::fs;
use std::path::{Path, PathBuf};

use prometheus::IntCounter;
use serde_json::{Map, Value};
use splitmask_pipeline::file;

use crate::checkpoint::Rollback;
use crate::held_lock::HeldLock;
use crate::telemetry::line_file::LineFile;

/// Fields that tell time, not training; two equal runs differ in them alone.
pub const TIMING_FIELDS: [&str; 5] = ["time", "images_per_second", "data_wait_ratio", "rank_step_seconds", "seconds"];

/// `metrics.jsonl` of a run under way. That it cannot be written never ends training; see [`LineFile`].
#[derive(Debug)]
pub struct MetricsLog {
    lines: LineFile,
}

/// Batches consumed at the rollback that a line tells of.
fn rollback_of(line: &Value) -> Option<u64> {
    line["rollback"]["consumed"].as_u64()
}

/// A place beside the file at `path` for what it held: `metrics.WORD-1.jsonl`, or the next number.
fn unused(path: &Path, word: &str) -> PathBuf {
    (1..)
        .map(|n| path.with_extension(format!("{word}-{n}.jsonl")))
        .find(|aside| !aside.exists())
        .expect("numbers do not end")
}

impl MetricsLog {
    /// The log of the run in `run_dir`, recognised by `lock`; `failures` counts lines that could not be written at once.
    #[must_use]
    pub fn of(run_dir: &Path, lock: Option<HeldLock>, failures: IntCounter) -> Self {
        Self {
            lines: LineFile::new(run_dir.join("metrics.jsonl"), failures).of_folder(lock),
        }
    }

    /// Puts the lines of an earlier run aside if they reach `step`, and answers where they are and how far they reach. For a run that begins at 0
    /// although a checkpoint was due at `step`: what it measured must not go with its checkpoints.
    ///
    /// # Errors
    /// Those of the file system; the lines are where they were.
    pub fn set_aside_from(&mut self, step: u64) -> std::io::Result<Option<(PathBuf, u64)>> {
        let path = self.lines.path().to_owned();
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e),
        };
        let steps = String::from_utf8_lossy(&bytes);
        let steps = steps
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok()?["step"].as_u64());
        let Some(last) = steps.max().filter(|last| *last >= step) else {
            return Ok(None);
        };
        let aside = unused(&path, "before");
        fs::rename(&path, &aside)?;
        // Whatever is open is the file that went; the next line goes into a new one.
        self.lines.replace(String::new());
        Ok(Some((aside, last)))
    }

    /// Makes it the log of a run that stands at `step` after `rollbacks`: every line of a later step goes, and a torn one. There is one line for each
    /// rollback then, also if the process was killed before it could write it.
    pub fn stand_at(&mut self, step: u64, rollbacks: &[Rollback]) {
        let belongs = |line: &str| {
            serde_json::from_str::<Value>(line).is_ok_and(|v| {
                v["step"].as_u64().is_some_and(|s| s <= step)
                    && rollback_of(&v).is_none_or(|consumed| rollbacks.iter().any(|r| r.consumed == consumed))
            })
        };
        self.lines.retain(belongs);
        let kept = match fs::read(self.lines.path()) {
            Ok(bytes) => {
                let text = String::from_utf8_lossy(&bytes);
                self.tell_of_damage(&text);
                let later = |line: &&str| serde_json::from_str::<Value>(line).is_ok_and(|v| v["step"].as_u64().is_some_and(|s| s > step));
                let later = text.lines().filter(later).count();
                if later > 0 {
                    tracing::info!(
                        step,
                        "{later} lines of metrics.jsonl are of later steps and go: these steps are made again"
                    );
                }
                let kept: String = text.lines().filter(|line| belongs(line)).flat_map(|line| [line, "\n"]).collect();
                if kept.as_bytes() != bytes {
                    self.lines.replace(kept.clone());
                }
                kept
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(error) => {
                tracing::error!(file = %self.lines.path().display(), %error, "the lines of earlier steps cannot be read and stay as they are");
                String::new()
            }
        };
        for rollback in rollbacks {
            let told = |line: &str| serde_json::from_str(line).is_ok_and(|line| rollback_of(&line) == Some(rollback.consumed));
            if !kept.lines().any(told) && !self.lines.iter().any(told) {
                let line = serde_json::json!({ "step": rollback.to_step, "rollback": rollback });
                self.write(line.as_object().cloned().unwrap_or_default());
            }
        }
    }

    /// Lines within the file that are no lines of metrics: they go, and all of the file is kept beside. The last one may be torn by a kill, and says nothing.
    fn tell_of_damage(&self, text: &str) {
        let whole = &text[..text.rfind('\n').map_or(0, |end| end + 1)];
        let bad = |line: &str| !serde_json::from_str::<Value>(line).is_ok_and(|v| v["step"].is_u64());
        let bad: Vec<usize> = whole
            .lines()
            .enumerate()
            .filter(|(_, line)| bad(line))
            .map(|(n, _)| n + 1)
            .collect();
        let Some(first) = bad.first() else { return };
        let path = self.lines.path();
        let aside = unused(path, "damaged");
        let kept = match file::write(&aside, text) {
            Ok(()) => format!("the file as it was is kept as {}", aside.display()),
            Err(error) => format!("the file as it was could not be kept: {error}"),
        };
        tracing::error!(
            file = %path.display(), lines = bad.len(), first_line = first,
            "the file was damaged: lines of it cannot be read and are left out; training does not depend on them; {kept}"
        );
    }

    /// Appends a line.
    pub fn write(&mut self, line: Map<String, Value>) {
        self.lines.append(&Value::Object(line).to_string());
    }

    /// Lines that wait for room on the disk.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.lines.waiting()
    }

    /// All lines of a run; none where it has no file yet. A damaged one is passed over: the next start of the run tells of it.
    ///
    /// # Errors
    /// Those of the file system, with the file's name.
    pub fn read(run_dir: &Path) -> std::io::Result<Vec<Value>> {
        let path = run_dir.join("metrics.jsonl");
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(vec![]),
            Err(e) => return Err(std::io::Error::new(e.kind(), format!("{}: {e}", path.display()))),
        };
        let text = String::from_utf8_lossy(&bytes);
        Ok(text.lines().filter_map(|l| serde_json::from_str(l).ok()).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn log(run_dir: &Path, step: u64, rollbacks: &[Rollback]) -> MetricsLog {
        let mut log = MetricsLog::of(run_dir, None, IntCounter::new("failures", "Failures.").unwrap());
        log.stand_at(step, rollbacks);
        log
    }

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
            drop(log(dir.path(), 45, std::slice::from_ref(&rollback)));
        }
        let lines = MetricsLog::read(dir.path()).unwrap();
        assert_eq!(lines.len(), 1);
        assert_eq!(lines[0]["rollback"]["first_bad_step"], 51);
        // A start from an older checkpoint has not seen it.
        drop(log(dir.path(), 50, &[]));
        assert!(MetricsLog::read(dir.path()).unwrap().is_empty());
    }

    #[test]
    fn lines_of_a_run_whose_checkpoints_are_gone_are_set_aside() {
        let dir = tempfile::tempdir().unwrap();
        let mut first = log(dir.path(), 0, &[]);
        for step in [10, 20, 30] {
            first.write(line(step));
        }
        drop(first);
        let mut second = MetricsLog::of(dir.path(), None, IntCounter::new("failures", "Failures.").unwrap());
        // No checkpoint was due by then: the same lines will be written again.
        assert_eq!(second.set_aside_from(40).unwrap(), None);
        assert_eq!(steps(dir.path()), [10, 20, 30]);
        for n in [1, 2] {
            let (aside, last) = second.set_aside_from(20).unwrap().unwrap();
            assert_eq!(aside, dir.path().join(format!("metrics.before-{n}.jsonl")));
            assert_eq!((last, aside.is_file()), (30, true));
            assert_eq!(second.set_aside_from(20).unwrap(), None);
            second.write(line(30));
            assert_eq!(steps(dir.path()), [30]);
        }
    }

    fn line(step: u64) -> Map<String, Value> {
        json!({"step": step, "total": 1.5}).as_object().unwrap().clone()
    }

    /// The file of a run that logged steps 10, 20 and 30.
    fn three_lines(run_dir: &Path) -> PathBuf {
        let mut first = log(run_dir, 0, &[]);
        for step in [10, 20, 30] {
            first.write(line(step));
        }
        run_dir.join("metrics.jsonl")
    }

    fn steps(run_dir: &Path) -> Vec<u64> {
        MetricsLog::read(run_dir)
            .unwrap()
            .iter()
            .map(|v| v["step"].as_u64().unwrap())
            .collect()
    }

    #[test]
    fn a_resume_cuts_what_lies_beyond_it() {
        let dir = tempfile::tempdir().unwrap();
        // A kill in the middle of a write, in the middle of a letter.
        let path = three_lines(dir.path());
        let mut torn = fs::read(&path).unwrap();
        torn.extend(b"{\"step\": 3, \"\xc3");
        fs::write(&path, torn).unwrap();
        log(dir.path(), 20, &[]).write(line(30));
        assert_eq!(steps(dir.path()), [10, 20, 30]);
    }

    #[test]
    fn a_damaged_line_is_left_out_and_the_file_as_it_was_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = three_lines(dir.path());
        let before = fs::read_to_string(&path).unwrap();
        // Two bits of a brace.
        let damaged = before.replacen("{\"step\":20", ";\"step\":20", 1);
        assert_ne!(damaged, before);
        fs::write(&path, &damaged).unwrap();
        log(dir.path(), 30, &[]).write(line(40));
        assert_eq!(steps(dir.path()), [10, 30, 40]);
        assert_eq!(fs::read_to_string(dir.path().join("metrics.damaged-1.jsonl")).unwrap(), damaged);
        drop(log(dir.path(), 40, &[]));
        assert!(!dir.path().join("metrics.damaged-2.jsonl").exists(), "told once");
    }

    #[test]
    fn what_waits_for_room_is_cut_by_a_rollback_too() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.jsonl");
        let mut lines = log(dir.path(), 0, &[]);
        fs::create_dir(&path).unwrap();
        for step in [10, 20, 30] {
            lines.write(line(step));
        }
        lines.stand_at(20, &[]);
        fs::remove_dir(&path).unwrap();
        assert_eq!(lines.waiting(), 2);
        lines.write(line(30));
        assert_eq!((steps(dir.path()), lines.waiting()), (vec![10, 20, 30], 0));
    }
}
