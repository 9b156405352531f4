//! What happened to the run: the lines of `journal.jsonl`, and the checkpoints that are there.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::Serialize;
use serde_json::{Value, json};

use super::new_lines::{Item, NewLines};
use crate::checkpoint;
use crate::daemon::journal::JOURNAL_FILE;
use crate::telemetry::wall_time::rfc3339;

/// Events of one answer at most, the newest; and checkpoints of one answer.
const MOST_EVENTS: usize = 500;
/// Bytes of their lines at most.
const MOST_BYTES: usize = 4 << 20;
/// Bytes of the journal for one answer.
const LOOK_BYTES: u64 = 16 << 20;

/// The newest lines of a journal.
#[derive(Debug)]
pub(super) struct RunEvents {
    run_dir: PathBuf,
    lines: NewLines,
    newest: Newest,
}

#[derive(Debug, Default)]
struct Newest {
    /// Each with the bytes of its line.
    events: VecDeque<(Value, usize)>,
    bytes: usize,
    left_out: u64,
    unreadable: u64,
}

/// The answer of `/api/v1/events`.
#[derive(Debug, Serialize)]
pub(super) struct Answer {
    /// Whether all of the journal has been read; if not, ask again.
    complete: bool,
    older_left_out: u64,
    unreadable_lines: u64,
    /// By time; as in the journal, and `checkpoint` with time, step and folder.
    events: Vec<Value>,
}

impl Newest {
    fn take(&mut self, line: &str) {
        let Some(event) = serde_json::from_str::<Value>(line)
            .ok()
            .filter(|e| e["event"].is_string() && e["time"].is_string())
        else {
            self.unreadable += 1;
            return;
        };
        self.bytes += line.len();
        self.events.push_back((event, line.len()));
        while self.events.len() > MOST_EVENTS || self.bytes > MOST_BYTES && self.events.len() > 1 {
            self.bytes -= self.events.pop_front().map_or(0, |(_, bytes)| bytes);
            self.left_out += 1;
        }
    }
}

impl RunEvents {
    /// Of a run folder, of which nothing was read yet.
    pub(super) fn of(run_dir: PathBuf) -> Self {
        Self {
            lines: NewLines::of(run_dir.join(JOURNAL_FILE)),
            newest: Newest::default(),
            run_dir,
        }
    }

    /// Reads what is new, and answers all.
    ///
    /// # Errors
    /// What cannot be read, and why.
    pub(super) fn answer(&mut self) -> Result<Answer, String> {
        let newest = &mut self.newest;
        let complete = self
            .lines
            .look(LOOK_BYTES, |item| match item {
                Item::Anew => *newest = Newest::default(),
                Item::Line(line) => newest.take(line),
                Item::Unreadable => newest.unreadable += 1,
            })
            .map_err(|e| format!("{}: {e}", self.lines.path().display()))?;
        let mut left_out = self.newest.left_out;
        let mut saved = checkpoints(&self.run_dir)?;
        let surplus = saved.len().saturating_sub(MOST_EVENTS);
        left_out += surplus as u64;
        let mut events: Vec<Value> = self
            .newest
            .events
            .iter()
            .map(|(event, _)| event.clone())
            .chain(saved.drain(surplus..))
            .collect();
        // RFC 3339 in UTC with milliseconds sorts as text.
        events.sort_by(|a, b| a["time"].as_str().cmp(&b["time"].as_str()));
        Ok(Answer {
            complete,
            older_left_out: left_out,
            unreadable_lines: self.newest.unreadable,
            events,
        })
    }
}

/// The checkpoints that are there, by step, without a look inside.
fn checkpoints(run_dir: &Path) -> Result<Vec<Value>, String> {
    let all = checkpoint::list(&checkpoint::folder_of(run_dir)).map_err(|e| e.to_string())?;
    let told = all.into_iter().filter_map(|(step, folder)| {
        // One that is pruned at this moment is none.
        let written: SystemTime = std::fs::metadata(&folder).and_then(|is| is.modified()).ok()?;
        let name = folder.file_name()?.to_string_lossy().into_owned();
        Some(json!({ "event": "checkpoint", "time": rfc3339(written), "step": step, "folder": name }))
    });
    Ok(told.collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn the_newest_events_and_the_checkpoints_are_told_by_time() {
        let dir = tempfile::tempdir().unwrap();
        let line = |n: u64| {
            format!(
                "{{\"time\":\"2026-01-01T00:{:02}:{:02}.000Z\",\"event\":\"reload\",\"step\":{n}}}\n",
                n / 60,
                n % 60
            )
        };
        let mut text: String = (0..600).map(line).collect();
        text += "{\"no\":\"event\"}\n";
        fs::write(dir.path().join(JOURNAL_FILE), text).unwrap();
        fs::create_dir_all(dir.path().join("checkpoints/step-00000040")).unwrap();
        fs::create_dir_all(dir.path().join("checkpoints/damaged-00000040")).unwrap();
        let mut events = RunEvents::of(dir.path().into());
        let answer = events.answer().unwrap();
        assert_eq!(
            (answer.events.len(), answer.older_left_out, answer.unreadable_lines),
            (MOST_EVENTS + 1, 100, 1)
        );
        assert_eq!(answer.events[0]["step"], 100);
        let last = answer.events.last().unwrap();
        assert_eq!(
            (&last["event"], &last["step"], &last["folder"]),
            (&"checkpoint".into(), &40.into(), &"step-00000040".into())
        );
        // A run folder in which nothing has happened yet.
        let empty = RunEvents::of(dir.path().join("none")).answer().unwrap();
        assert!(empty.complete && empty.events.is_empty());
    }
}
