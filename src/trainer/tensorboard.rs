//! What a run tells TensorBoard, if it is asked to: the numbers of `metrics.jsonl` and the pictures, at their steps.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::spec::TrainerSpec;
use crate::held_lock::HeldLock;
use crate::picture::drawn;
use crate::telemetry::event_file::EventFiles;
use crate::telemetry::metrics::{RunFile, TrainMetrics};

/// Folder of the event files in a run folder.
const FOLDER: &str = "tensorboard";
/// Fields of a line that say when, not what.
const WHEN: [&str; 2] = ["step", "time"];

/// Event files of a run under way.
#[derive(Debug)]
pub(super) struct TensorBoard {
    files: EventFiles,
    run_dir: PathBuf,
    lock: Option<HeldLock>,
    /// Names of the pictures that the run draws.
    pictures: Vec<&'static str>,
}

/// Files by the inode behind their name. A picture that was drawn anew was renamed over the last one, and has another.
pub(super) type Drawn = BTreeMap<&'static str, u64>;

impl TensorBoard {
    /// Of a run that stands at `step`, if `log.tensorboard` asks for it: what earlier files hold of later steps is void.
    pub(super) fn of(spec: &TrainerSpec, step: u64, metrics: &TrainMetrics) -> Option<Self> {
        spec.log.tensorboard.then(|| Self {
            files: EventFiles::new(&spec.run_dir.join(FOLDER), step, metrics.write_failures.of(RunFile::Events).clone()),
            run_dir: spec.run_dir.clone(),
            lock: spec.lock.clone(),
            pictures: drawn(spec.objective.kind()).map(|(name, _)| name).collect(),
        })
    }

    /// Whether the run folder is still this run's: a file would be begun in a folder of somebody else.
    fn is_ours(&self) -> bool {
        self.lock.as_ref().is_none_or(|lock| lock.lost().is_none())
    }

    /// The numbers of a line of `metrics.jsonl`.
    pub(super) fn line(&mut self, line: &Map<String, Value>) {
        let Some(step) = line.get("step").and_then(Value::as_u64).filter(|_| self.is_ours()) else {
            return;
        };
        let numbers = line.iter().filter(|(name, _)| !WHEN.contains(&name.as_str()));
        let numbers: Vec<(&str, f64)> = numbers.filter_map(|(name, value)| Some((name.as_str(), value.as_f64()?))).collect();
        self.files.scalars(step, &numbers);
    }

    fn file(run_dir: &Path, name: &str) -> PathBuf {
        run_dir.join(format!("{name}.png"))
    }

    /// The pictures as they lie there now.
    pub(super) fn drawn(&self) -> Drawn {
        let inode = |name: &&'static str| Some((*name, fs::metadata(Self::file(&self.run_dir, name)).ok()?.ino()));
        self.pictures.iter().filter_map(inode).collect()
    }

    /// The pictures that were drawn since `before`, at `step`.
    pub(super) fn pictures(&mut self, step: u64, before: &Drawn) {
        if !self.is_ours() {
            return;
        }
        for (name, inode) in self.drawn() {
            if before.get(name) == Some(&inode) {
                continue;
            }
            // One that is gone again is none.
            if let Ok(png) = fs::read(Self::file(&self.run_dir, name)) {
                self.files.picture(step, name, &png);
            }
        }
    }
}
