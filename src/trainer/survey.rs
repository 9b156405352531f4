//! What is looked at every so often: k-NN accuracy or validation loss, and pictures. Neither touches the training state.

use std::path::Path;
use std::sync::Arc;

use splitmask_pipeline::config::DataConfig;
use splitmask_pipeline::error::PipelineError;
use splitmask_pipeline::metrics::PipelineMetrics;
use splitmask_pipeline::request::{IMAGE, SampleRequest, ViewRequest};
use splitmask_pipeline::run::{BatchStream, Dataset, Order};
use splitmask_pipeline::sample::ViewMode;
use splitmask_pipeline::types::Batch;
use tch::{Device, Kind, Tensor};

use super::assemble::Trainer;
use super::control::uptime_s;
use super::feed::open_batches;
use super::metrics_log::MetricsLog;
use super::spec::{Precision, TrainerSpec};
use crate::eval::EvalError;
use crate::eval::classes::{Remarks, match_classes};
use crate::eval::features::{Features, Pass, Set, extract};
use crate::eval::knn::{Accuracy, Vote, classify};
use crate::eval::watch::Watched;
use crate::model::Vit;
use crate::objective::{Column, Panel, Sheet};
use crate::picture;
use crate::telemetry::metrics::{EvalTask, SideTask};

/// Images per batch of an evaluation.
const EVAL_BATCH: usize = 128;

/// A labelled set, opened.
pub(super) struct LabelledSet {
    place: String,
    names: Vec<String>,
    pub(super) stream: BatchStream,
}

/// Centre crops of a labelled set, in the order of its shards: all of it, whatever share `data.fraction` leaves for training, so that
/// runs on different shares are measured alike.
pub(super) fn labelled_set(spec: &TrainerSpec, url: &str) -> Result<LabelledSet, PipelineError> {
    let data = DataConfig {
        fraction: 1.0,
        ..spec.data.clone()
    };
    let dataset = Dataset::open(url, &data, &spec.pipeline, PipelineMetrics::default())?;
    let view = ViewRequest::new(IMAGE, spec.model.image);
    let request = Arc::new(SampleRequest::of_views(vec![view]));
    let mode = ViewMode::Eval {
        crop_ratio: spec.eval.crop_ratio as f32,
    };
    Ok(LabelledSet {
        place: url.to_owned(),
        names: dataset.class_names().unwrap_or_default().to_vec(),
        stream: open_batches(&dataset, spec, &request, None, Order::Sequential, mode, EVAL_BATCH)?,
    })
}

impl LabelledSet {
    /// With batches taken as `next` says.
    pub(super) fn read<'a>(
        self,
        mut next: impl FnMut(&mut BatchStream) -> Option<Result<Batch, PipelineError>> + 'a,
    ) -> Set<impl Iterator<Item = Result<Batch, PipelineError>> + 'a> {
        let Self { place, names, mut stream } = self;
        Set {
            place,
            names,
            batches: std::iter::from_fn(move || next(&mut stream)),
        }
    }
}

/// k-NN accuracy of a backbone on `data.val`, searched in `data.train` (DINO's protocol, arXiv 2104.14294 §4.1).
///
/// # Errors
/// Unreadable shards, none with labels, or no class that counts.
pub fn knn(vit: &Vit, spec: &TrainerSpec, device: Device, mut progress: impl FnMut(&str, usize)) -> Result<Accuracy, EvalError> {
    let normalise = spec.train.normalise();
    let mut features = |set: &str, url: &str, most: u32| -> Result<Features, EvalError> {
        let pass = Pass {
            normalise: &normalise,
            device,
            bf16: spec.train.precision == Precision::Bf16,
            most: most as usize,
        };
        extract(vit, pass, labelled_set(spec, url)?.read(BatchStream::next), |n| {
            progress(set, n);
            true
        })
    };
    let references = features("train", spec.data.first_place(), spec.eval.max_reference)?;
    let queries = features("val", &spec.data.val, spec.eval.max_queries)?;
    let matched = match_classes(&references.labels, &queries.labels, spec.eval.min_class)?;
    let vote = Vote {
        k: i64::from(spec.eval.k),
        temperature: spec.eval.temperature,
    };
    classify(&references, &queries, &matched, vote)
}

impl Trainer {
    /// Measures what `eval.watch` says; answers whether it is the best so far.
    pub(super) fn evaluate(&mut self) -> bool {
        let watched = self.spec.eval.watch;
        let (task, name) = match watched {
            Watched::Knn => (SideTask::Knn, "knn"),
            Watched::Loss => (SideTask::Loss, watched.label()),
        };
        let measured = self.beside_training_averaged(task, |trainer| match watched {
            Watched::Knn => trainer.knn_accuracy(),
            Watched::Loss => trainer.val_loss(),
        });
        measured.is_some_and(|value| {
            self.note_evaluation(name, watched.label(), value);
            self.watch_evaluation(value)
        })
    }

    fn knn_accuracy(&self) -> Result<f64, EvalError> {
        let status = Arc::clone(&self.status);
        let alive = |_: &str, _: usize| status.lock().unwrap_or_else(std::sync::PoisonError::into_inner).last_progress_s = uptime_s();
        let accuracy = knn(self.objective.encoder(), &self.spec, self.device, alive)?;
        self.tell(&accuracy.remarks);
        tracing::info!(
            step = self.step,
            "k-NN {:.4} (chance {:.4}, commonest class {:.4})",
            accuracy.top1,
            accuracy.chance,
            accuracy.majority
        );
        self.telemetry.train.eval_accuracy.of(EvalTask::Knn).set(accuracy.top1);
        Ok(accuracy.top1)
    }

    /// Says which images an evaluation left out.
    pub(super) fn tell(&self, remarks: &Remarks) {
        for line in remarks.lines() {
            tracing::warn!(step = self.step, "evaluation: {line}");
        }
    }

    /// Mean total loss over `data.val`: centre crops, no drop path, masks that depend on the sample alone, in batches as large as those of training, for
    /// a loss between images depends on their number. A rest that fills no batch is left out, unless there is nothing else.
    fn val_loss(&self) -> Result<f64, EvalError> {
        let (spec, val) = (&self.spec, &self.spec.data.val);
        let dataset = Dataset::open(val, &spec.data, &spec.pipeline, PipelineMetrics::default())?;
        let mode = ViewMode::Eval {
            crop_ratio: spec.eval.crop_ratio as f32,
        };
        let size = spec.train.batch as usize;
        let most = match spec.eval.max_queries {
            0 => usize::MAX,
            n => (n as usize / size).max(1),
        };
        let mut stream = open_batches(&dataset, spec, &self.plan, self.words.tokenizer(), Order::Sequential, mode, size)?;
        let (mut sum, mut batches, mut images) = (0.0, 0usize, 0usize);
        while batches < most {
            let Some(batch) = stream.next() else { break };
            let batch = batch?;
            if batch.len < size {
                if batches > 0 {
                    break;
                }
                tracing::warn!(
                    step = self.step,
                    "{val} has {} images, fewer than train.batch = {size}: a loss between images is that of a smaller batch",
                    batch.len
                );
            }
            sum += self.pass(None).loss(&batch)?;
            batches += 1;
            images += batch.len;
            stream.recycle(batch);
            self.status
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner)
                .last_progress_s = uptime_s();
        }
        if batches == 0 {
            return Err(EvalError::Empty { place: val.clone() });
        }
        let loss = sum / batches as f64;
        tracing::info!(step = self.step, images, "validation loss {loss:.4}");
        self.telemetry.train.eval_loss.set(loss);
        Ok(loss)
    }

    /// Puts a result where it is looked for: `metrics.jsonl` and status.
    pub(super) fn note_evaluation(&mut self, task: &str, key: &str, value: f64) {
        let line = serde_json::json!({ "step": self.step, key: value });
        self.metrics_log.write(line.as_object().cloned().unwrap_or_default());
        let mut status = self.status.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        status.unwritten_lines = self.metrics_log.waiting();
        status.evaluations.retain(|(done, _, _)| done != task);
        status.evaluations.push((task.into(), value, self.step));
        status.history.push((self.step, key.into(), value));
    }

    /// Draws the objective's sheets and `curves.svg`.
    pub(super) fn pictures(&mut self) {
        self.beside_training(SideTask::Sheets, Self::draw_sheets);
        self.beside_training(SideTask::Curves, Self::draw_curves);
    }

    fn draw_sheets(&self) -> Result<(), EvalError> {
        if self.spec.picture.rows == 0 {
            return Ok(());
        }
        let batch = self.picture_batch()?;
        let normalise = self.spec.train.normalise();
        let input = self.words.whole(&batch, self.device, &normalise)?;
        for sheet in self.objective.pictures(&input)? {
            self.draw_sheet(&sheet, &batch)?;
        }
        Ok(())
    }

    fn draw_sheet(&self, sheet: &Sheet, batch: &Batch) -> Result<(), EvalError> {
        let size = self.spec.model.image;
        let patches = self.spec.model.patches() as usize;
        let view = |name: &str, i: usize| {
            let view = batch.view(name);
            let view = view.ok_or_else(|| EvalError::Picture(format!("{}: the batch has no view {name}", sheet.name)))?;
            Ok::<_, EvalError>(view.picture(i).to_vec())
        };
        let whole = |t: &Tensor| Vec::<i64>::try_from(t.flatten(0, -1));
        let mut rows: Vec<Vec<picture::Cell>> = (0..batch.len).map(|_| vec![]).collect();
        for column in &sheet.columns {
            match column {
                Column::View(name) => {
                    for (i, row) in rows.iter_mut().enumerate() {
                        row.push(picture::Cell::Pixels(view(name, i)?));
                    }
                }
                Column::Seen(name, seen) => {
                    let (each, places) = (seen.size()[1] as usize, whole(seen)?);
                    for (i, row) in rows.iter_mut().enumerate() {
                        let mut seen = vec![false; patches];
                        places[i * each..(i + 1) * each].iter().for_each(|p| seen[*p as usize] = true);
                        row.push(picture::Cell::Seen {
                            pixels: view(name, i)?,
                            seen,
                        });
                    }
                }
                Column::Words(words) => {
                    let words: Vec<u32> = whole(words)?.into_iter().map(|w| w as u32).collect();
                    for (row, words) in rows.iter_mut().zip(words.chunks_exact(patches)) {
                        row.push(picture::Cell::Words(words.to_vec()));
                    }
                }
                Column::Pixels(pixels) => {
                    let bytes = whole(&self.spec.train.normalise().undone(pixels).to_kind(Kind::Int64))?;
                    let one = bytes.len() / batch.len;
                    for (row, pixels) in rows.iter_mut().zip(bytes.chunks_exact(one)) {
                        row.push(picture::Cell::Pixels(pixels.iter().map(|p| *p as u8).collect()));
                    }
                }
            }
        }
        let drawn = picture::sheet(&rows, size, &|word| self.words.look(word as usize));
        self.put_picture(&format!("{}.png", sheet.name), |path| drawn.save(path).map_err(|e| e.to_string()))
    }

    /// Writes a picture beside its place and renames it, so that no reader meets half of one.
    fn put_picture(&self, name: &str, write: impl FnOnce(&Path) -> Result<(), String>) -> Result<(), EvalError> {
        let (path, beside) = (self.spec.run_dir.join(name), self.spec.run_dir.join(format!(".tmp-{name}")));
        let put = write(&beside).and_then(|()| std::fs::rename(&beside, &path).map_err(|e| e.to_string()));
        put.map_err(|reason| {
            let _ = std::fs::remove_file(&beside);
            EvalError::Picture(format!("{}: {reason}", path.display()))
        })
    }

    /// The same few images every time: the first of the validation set (or of the training set), centre crop, fixed masks.
    fn picture_batch(&self) -> Result<Batch, PipelineError> {
        let val = &self.spec.data.val;
        let there = !val.is_empty() && Dataset::open(val, &self.spec.data, &self.spec.pipeline, PipelineMetrics::default()).is_ok();
        let url = if there { val } else { self.spec.data.first_place() };
        let dataset = Dataset::open(url, &self.spec.data, &self.spec.pipeline, PipelineMetrics::default())?;
        let mode = ViewMode::Eval {
            crop_ratio: self.spec.eval.crop_ratio as f32,
        };
        let rows = self.spec.picture.rows as usize;
        let mut stream = open_batches(
            &dataset,
            &self.spec,
            &self.plan,
            self.words.tokenizer(),
            Order::Sequential,
            mode,
            rows,
        )?;
        stream.next().unwrap_or(Err(PipelineError::Empty {
            url: url.to_owned(),
            detail: "no image for the picture".into(),
        }))
    }

    fn draw_curves(&self) -> Result<(), EvalError> {
        let (mut losses, mut shares) = (Vec::new(), Vec::new());
        for line in MetricsLog::read(&self.spec.run_dir) {
            let Some(step) = line["step"].as_u64() else { continue };
            let put = |panel: &mut Vec<picture::Point>, name: &str| {
                if let Some(value) = line[name].as_f64() {
                    let curve = name.replace('_', " ");
                    panel.push(picture::Point { step, curve, value });
                }
            };
            for number in self.spec.objective.kind().numbers {
                match number.panel() {
                    Some(Panel::Losses) => put(&mut losses, number.name),
                    Some(Panel::Shares) => put(&mut shares, number.name),
                    None => {}
                }
            }
            ["token_entropy", "val_loss"].iter().for_each(|name| put(&mut losses, name));
            ["knn_accuracy", "linear_accuracy"].iter().for_each(|name| put(&mut shares, name));
        }
        let name = self
            .spec
            .run_dir
            .file_name()
            .map_or_else(String::new, |n| n.to_string_lossy().into_owned());
        let svg = picture::curves(&format!("{name}: losses and what they are judged by"), &losses, &shares).map_err(EvalError::Picture)?;
        self.put_picture("curves.svg", |path| std::fs::write(path, svg).map_err(|e| e.to_string()))
    }
}
