//! The history of a run from `metrics.jsonl`, which goes on over restarts: thinned curves, kept up to date by the lines that are new.

mod catalogue;
mod curve;
mod pace;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::Value;

use super::new_lines::{Item, NewLines};
use crate::objective::Kind;
use catalogue::Described;
use curve::{Curve, MOST_POINTS};
use pace::Pace;

/// Bytes of the file for one answer; a longer history comes with the next ones.
const LOOK_BYTES: u64 = 16 << 20;
/// Different numbers of a run at most: a file that is none of ours must not fill the memory.
const MOST_CURVES: usize = 200;
/// Fields of a line that are no measurement.
const NO_NUMBERS: [&str; 4] = ["step", "epoch", "time", "images"];

/// Curves of one file.
#[derive(Debug)]
pub(super) struct History {
    lines: NewLines,
    found: Curves,
}

#[derive(Debug, Default)]
struct Curves {
    curves: BTreeMap<String, Curve>,
    pace: Pace,
    lines: u64,
    unreadable: u64,
    /// Numbers beyond [`MOST_CURVES`], once for each line that has some.
    left_out: u64,
    last_step: u64,
}

/// The answer of `/api/v1/history`.
#[derive(Debug, Serialize)]
pub(super) struct Answer {
    /// Which file: empty = the run's own.
    pub(super) of: String,
    /// Files of runs that began in this folder and lost their checkpoints: values of `of`.
    pub(super) earlier: Vec<String>,
    /// Whether all of the file has been read; if not, ask again.
    complete: bool,
    /// Share of the file that has been read.
    read: f64,
    lines: u64,
    unreadable_lines: u64,
    lines_with_numbers_left_out: u64,
    most_points: usize,
    last_step: u64,
    /// Mean of the latest log intervals, those of restarts left out.
    seconds_per_step: Option<f64>,
    series: Vec<Series>,
}

#[derive(Debug, Serialize)]
struct Series {
    name: String,
    #[serde(flatten)]
    described: Described,
    /// Values of the file.
    values: u64,
    /// Values among them that are not finite, which have no point.
    not_finite: u64,
    points: Vec<(u64, f64)>,
}

impl History {
    /// Of a file, of which nothing was read yet.
    pub(super) fn of(path: PathBuf) -> Self {
        Self {
            lines: NewLines::of(path),
            found: Curves::default(),
        }
    }

    /// Reads what is new, and answers all.
    ///
    /// # Errors
    /// The file cannot be read, and why.
    pub(super) fn answer(&mut self, kind: &Kind) -> Result<Answer, String> {
        let found = &mut self.found;
        let complete = self
            .lines
            .look(LOOK_BYTES, |item| match item {
                Item::Anew => *found = Curves::default(),
                Item::Line(line) => found.take(line),
                Item::Unreadable => found.unreadable += 1,
            })
            .map_err(|e| format!("{}: {e}", self.lines.path().display()))?;
        let series = self.found.curves.iter().map(|(name, curve)| Series {
            name: name.clone(),
            described: catalogue::described(name, kind),
            values: curve.values,
            not_finite: curve.not_finite,
            points: curve.points(),
        });
        Ok(Answer {
            of: String::new(),
            earlier: Vec::new(),
            complete,
            read: self.lines.share(),
            lines: self.found.lines,
            unreadable_lines: self.found.unreadable,
            lines_with_numbers_left_out: self.found.left_out,
            most_points: MOST_POINTS,
            last_step: self.found.last_step,
            seconds_per_step: self.found.pace.seconds_per_step(),
            series: series.collect(),
        })
    }
}

impl Curves {
    fn take(&mut self, line: &str) {
        self.lines += 1;
        let line = serde_json::from_str::<Value>(line).ok();
        let Some((line, step)) = line.as_ref().and_then(|line| Some((line.as_object()?, line["step"].as_u64()?))) else {
            self.unreadable += 1;
            return;
        };
        self.last_step = self.last_step.max(step);
        if let Some(time) = line.get("time").and_then(Value::as_f64) {
            self.pace.note(step, time);
        }
        let mut left_out = false;
        for (name, value) in line.iter().filter(|(name, _)| !NO_NUMBERS.contains(&name.as_str())) {
            // A loss that is not finite is written as null; what is no number at all (the layers of a probe, a rollback) has no curve.
            let value = match (value.is_null(), value.as_f64()) {
                (true, _) => None,
                (false, Some(value)) => Some(value),
                (false, None) => continue,
            };
            if !self.curves.contains_key(name) {
                if self.curves.len() == MOST_CURVES {
                    left_out = true;
                    continue;
                }
                self.curves.insert(name.clone(), Curve::default());
            }
            if let Some(curve) = self.curves.get_mut(name) {
                match value {
                    Some(value) => curve.push(step, value),
                    None => curve.not_finite += 1,
                }
            }
        }
        self.left_out += u64::from(left_out);
    }
}

/// Names of the files of earlier runs in a folder: `before-1` for `metrics.before-1.jsonl`, by number.
///
/// # Errors
/// The folder cannot be listed.
pub(super) fn earlier(run_dir: &Path) -> io::Result<Vec<String>> {
    let mut numbers = Vec::new();
    for entry in std::fs::read_dir(run_dir)? {
        let name = entry?.file_name();
        let number = name
            .to_str()
            .and_then(|n| n.strip_prefix("metrics.before-")?.strip_suffix(".jsonl")?.parse::<u32>().ok());
        numbers.extend(number);
    }
    numbers.sort_unstable();
    Ok(numbers.iter().map(|n| format!("before-{n}")).collect())
}

/// The file that `of` names, if it names one: nothing else than [`earlier`] answers is ever opened.
pub(super) fn file(run_dir: &Path, of: &str) -> Option<PathBuf> {
    if of.is_empty() {
        return Some(run_dir.join("metrics.jsonl"));
    }
    let number: u32 = of.strip_prefix("before-")?.parse().ok()?;
    Some(run_dir.join(format!("metrics.before-{number}.jsonl")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objective::OBJECTIVES;
    use std::fs;

    fn series<'a>(answer: &'a Answer, name: &str) -> &'a Series {
        answer.series.iter().find(|s| s.name == name).unwrap()
    }

    #[test]
    fn lines_become_curves_and_what_cannot_is_counted() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.jsonl");
        let mut text = String::new();
        for step in 1..=3000 {
            let loss = if step == 7 {
                "null".to_owned()
            } else {
                format!("{}", 9.0 / f64::from(step))
            };
            text += &format!(
                "{{\"step\":{step},\"epoch\":0,\"inpaint\":{loss},\"learning_rate\":0.1,\"time\":{}}}\n",
                1000 + 2 * step
            );
        }
        text += "{\"step\":3000,\"knn_accuracy\":0.5}\n{\"step\":3000,\"knn_layers\":[0.1,0.2]}\n{\"step\":2990,\"rollback\":{\"consumed\":1}}\nno json\n{\"loss\":1}\n";
        fs::write(&path, &text).unwrap();
        let mut history = History::of(path.clone());
        let answer = history.answer(OBJECTIVES[0]).unwrap();
        assert_eq!(
            (answer.complete, answer.lines, answer.unreadable_lines, answer.last_step),
            (true, 3005, 2, 3000)
        );
        let inpaint = series(&answer, "inpaint");
        assert_eq!((inpaint.values, inpaint.not_finite), (2999, 1));
        assert!((1000..=MOST_POINTS).contains(&inpaint.points.len()), "{}", inpaint.points.len());
        assert_eq!(series(&answer, "knn_accuracy").points, [(3000, 0.5)]);
        assert!((answer.seconds_per_step.unwrap() - 2.0).abs() < 1e-9);
        let names: Vec<_> = answer.series.iter().map(|s| s.name.as_str()).collect();
        assert_eq!(names, ["inpaint", "knn_accuracy", "learning_rate"]);
        // A run that went back to a checkpoint has fewer lines.
        fs::write(&path, "{\"step\":1,\"inpaint\":3.0}\n").unwrap();
        assert_eq!(series(&history.answer(OBJECTIVES[0]).unwrap(), "inpaint").points, [(1, 3.0)]);
    }

    #[test]
    fn only_files_of_earlier_runs_have_names() {
        let dir = tempfile::tempdir().unwrap();
        for name in [
            "metrics.jsonl",
            "metrics.before-10.jsonl",
            "metrics.before-2.jsonl",
            "metrics.before-x.jsonl",
            "other",
        ] {
            fs::write(dir.path().join(name), "").unwrap();
        }
        assert_eq!(earlier(dir.path()).unwrap(), ["before-2", "before-10"]);
        assert_eq!(file(dir.path(), "before-2"), Some(dir.path().join("metrics.before-2.jsonl")));
        for of in ["before-", "before-../x", "../c.toml", "before-2.jsonl", "metrics"] {
            assert_eq!(file(dir.path(), of), None, "{of}");
        }
    }
}
