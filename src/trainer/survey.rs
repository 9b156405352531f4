//! What is looked at every so often: k-NN accuracy or validation loss, and pictures. Neither touches the training state.

use std::sync::Arc;

use splitmask_pipeline::config::DataConfig;
use splitmask_pipeline::error::PipelineError;
use splitmask_pipeline::metrics::PipelineMetrics;
use splitmask_pipeline::run::{BatchStream, Dataset, Order};
use splitmask_pipeline::sample::ViewMode;
use splitmask_pipeline::types::{Batch, ColourConfig, CropConfig, ViewPlan, ViewSpec};
use tch::{Device, Kind, Tensor};
use torch_ext::Autocast;

use super::assemble::Trainer;
use super::control::{State, uptime_s};
use super::error::TrainError;
use super::feed::open_batches;
use super::journal::Journal;
use super::spec::{Precision, TrainerSpec, Weights};
use crate::eval::features::{FeatureError, Features, Pass, extract};
use crate::eval::knn::{Accuracy, Vote, classify};
use crate::eval::watch::Watched;
use crate::model::Vit;
use crate::objective::{Column, Sheet, StepContext};
use crate::picture;
use crate::telemetry::metrics::{EvalTask, Phase};

/// Images per batch of an evaluation.
const EVAL_BATCH: usize = 128;

/// Centre crops of a labelled set, in the order of its shards: all of it, whatever share `data.fraction` leaves for training, so that
/// runs on different shares are measured alike.
pub(super) fn eval_stream(spec: &TrainerSpec, url: &str) -> Result<BatchStream, PipelineError> {
    let data = DataConfig {
        fraction: 1.0,
        ..spec.data.clone()
    };
    let dataset = Dataset::open(url, &data, &spec.pipeline, PipelineMetrics::default())?;
    let view = ViewSpec {
        size: spec.model.image,
        crop: CropConfig::default(),
        colour: ColourConfig::default(),
    };
    let plan = Arc::new(ViewPlan {
        views: vec![view],
        words: None,
        target: None,
        mask: None,
    });
    let mode = ViewMode::Eval {
        crop_ratio: spec.eval.crop_ratio as f32,
    };
    open_batches(&dataset, spec, &plan, None, Order::Sequential, mode, EVAL_BATCH)
}

/// k-NN accuracy of a backbone on `data.val`, searched in `data.train` (DINO's protocol, arXiv 2104.14294 §4.1).
///
/// # Errors
/// Unreadable shards, or none with labels.
pub fn knn(vit: &Vit, spec: &TrainerSpec, device: Device, mut progress: impl FnMut(&str, usize)) -> Result<Accuracy, FeatureError> {
    let normalise = spec.train.normalise();
    let mut features = |set: &str, url: &str, most: u32| -> Result<Features, FeatureError> {
        let mut stream = eval_stream(spec, url)?;
        let pass = Pass {
            normalise: &normalise,
            device,
            bf16: spec.train.precision == Precision::Bf16,
            most: most as usize,
        };
        let batches = std::iter::from_fn(|| stream.next());
        extract(vit, pass, batches, |n| {
            progress(set, n);
            true
        })
    };
    let references = features("train", spec.data.first_place(), spec.eval.max_reference)?;
    let queries = features("val", &spec.data.val, spec.eval.max_queries)?;
    let least = i64::from(spec.eval.min_class);
    let queries = queries.of_frequent_classes(&references.labels, least);
    let references = references.of_frequent_classes(&references.labels, least);
    let vote = Vote {
        k: i64::from(spec.eval.k),
        temperature: spec.eval.temperature,
    };
    Ok(classify(
        &references.vectors,
        &references.labels,
        &queries.vectors,
        &queries.labels,
        vote,
    ))
}

impl Trainer {
    /// Measures what `eval.watch` says; answers whether it is the best so far. A failure is logged and training goes on.
    pub(super) fn evaluate(&mut self) -> Result<bool, TrainError> {
        self.set_state(State::Evaluating);
        self.clock.switch(Phase::Eval);
        let watched = self.spec.eval.watch;
        self.swap_averages();
        let measured = match watched {
            Watched::Knn => self.knn_accuracy(),
            Watched::Loss => self.val_loss(),
        };
        self.swap_averages();
        let mut best = false;
        match measured {
            Ok(value) => {
                let task = if watched == Watched::Knn { "knn" } else { watched.label() };
                self.note_evaluation(task, watched.label(), value)?;
                best = self.watch_evaluation(value);
            }
            Err(reason) => tracing::error!(error = %reason, "the evaluation failed; training goes on"),
        }
        self.clock.switch(Phase::Other);
        Ok(best)
    }

    /// With `eval.weights = "ema"` averages take the weights' place for an evaluation, and give it back at the next call.
    pub(super) fn swap_averages(&mut self) {
        if let (Some(ema), Weights::Ema) = (&mut self.ema, self.spec.eval.weights) {
            ema.swap();
        }
    }

    fn knn_accuracy(&self) -> Result<f64, String> {
        let status = Arc::clone(&self.status);
        let alive = |_: &str, _: usize| status.lock().unwrap_or_else(std::sync::PoisonError::into_inner).last_progress_s = uptime_s();
        let accuracy = knn(self.objective.encoder(), &self.spec, self.device, alive).map_err(|e| e.to_string())?;
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

    /// Mean total loss over `data.val`: centre crops, no drop path, masks that depend on the sample alone, in batches as large as those of
    /// training's forward passes, for the match loss depends on their size. A rest that fills no batch is left out.
    fn val_loss(&self) -> Result<f64, String> {
        let text = |e: &dyn std::fmt::Display| e.to_string();
        let (spec, val) = (&self.spec, &self.spec.data.val);
        let dataset = Dataset::open(val, &spec.data, &spec.pipeline, PipelineMetrics::default()).map_err(|e| text(&e))?;
        let mode = ViewMode::Eval {
            crop_ratio: spec.eval.crop_ratio as f32,
        };
        let size = spec.train.batch as usize / self.parts.max(1);
        let most = match spec.eval.max_queries {
            0 => usize::MAX,
            n => (n as usize / size).max(1),
        };
        let mut stream =
            open_batches(&dataset, spec, &self.plan, self.words.tokenizer(), Order::Sequential, mode, size).map_err(|e| text(&e))?;
        let (mut sum, mut batches) = (0.0, 0usize);
        while batches < most {
            let Some(batch) = stream.next() else { break };
            let batch = batch.map_err(|e| text(&e))?;
            if batch.len < size {
                break;
            }
            let loss = tch::no_grad(|| -> Result<f64, TrainError> {
                let input = self.words.whole(&batch, &self.plan, self.device, &spec.train.normalise())?;
                let _autocast = (spec.train.precision == Precision::Bf16)
                    .then(|| Autocast::bf16(self.device))
                    .transpose()?;
                let ctx = StepContext::evaluation(self.step, spec.optim.total_steps, input.len);
                Ok(self.objective.forward(&input, &ctx)?.total.double_value(&[]))
            });
            sum += loss.map_err(|e| text(&e))?;
            batches += 1;
            stream.recycle(batch);
            self.status
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner)
                .last_progress_s = uptime_s();
        }
        if batches == 0 {
            return Err(format!(
                "data.val = {val}: fewer images than one forward pass of training takes ({size})"
            ));
        }
        let loss = sum / batches as f64;
        tracing::info!(step = self.step, images = batches * size, "validation loss {loss:.4}");
        self.telemetry.train.eval_loss.set(loss);
        Ok(loss)
    }

    /// Puts a result where it is looked for: journal and status.
    pub(super) fn note_evaluation(&mut self, task: &str, key: &str, value: f64) -> Result<(), TrainError> {
        let line = serde_json::json!({ "step": self.step, key: value });
        self.journal.write(line.as_object().cloned().unwrap_or_default())?;
        let mut status = self.status.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        status.evaluations.retain(|(done, _, _)| done != task);
        status.evaluations.push((task.into(), value, self.step));
        status.history.push((self.step, key.into(), value));
        Ok(())
    }

    /// Draws the objective's sheets and `curves.svg`; a failure is logged and training goes on.
    pub(super) fn pictures(&mut self) {
        self.set_state(State::Evaluating);
        self.clock.switch(Phase::Eval);
        for (name, drawn) in [("the objective's sheet", self.draw_sheets()), ("curves.svg", self.draw_curves())] {
            if let Err(reason) = drawn {
                tracing::error!(%reason, "{name} could not be drawn; training goes on");
            }
        }
        self.clock.switch(Phase::Other);
    }

    fn draw_sheets(&self) -> Result<(), String> {
        if self.spec.picture.rows == 0 {
            return Ok(());
        }
        let text = |e: &dyn std::fmt::Display| e.to_string();
        let batch = self.picture_batch().map_err(|e| text(&e))?;
        let normalise = self.spec.train.normalise();
        let input = self
            .words
            .whole(&batch, &self.plan, self.device, &normalise)
            .map_err(|e| text(&e))?;
        for sheet in self.objective.pictures(&input).map_err(|e| text(&e))? {
            self.draw_sheet(&sheet, &batch)?;
        }
        Ok(())
    }

    fn draw_sheet(&self, sheet: &Sheet, batch: &Batch) -> Result<(), String> {
        let size = self.spec.model.image;
        let patches = self.spec.model.patches() as usize;
        let view = |index: usize, i: usize| {
            let bytes = batch.views[index].len() / batch.len;
            batch.views[index][i * bytes..(i + 1) * bytes].to_vec()
        };
        let whole = |t: &Tensor| Vec::<i64>::try_from(t.flatten(0, -1)).map_err(|e| e.to_string());
        let mut rows: Vec<Vec<picture::Cell>> = (0..batch.len).map(|_| vec![]).collect();
        for (_, column) in &sheet.columns {
            match column {
                Column::View(index) => {
                    for (i, row) in rows.iter_mut().enumerate() {
                        row.push(picture::Cell::Pixels(view(*index, i)));
                    }
                }
                Column::Seen(seen) => {
                    let (each, places) = (seen.size()[1] as usize, whole(seen)?);
                    for (i, row) in rows.iter_mut().enumerate() {
                        let mut seen = vec![false; patches];
                        places[i * each..(i + 1) * each].iter().for_each(|p| seen[*p as usize] = true);
                        row.push(picture::Cell::Seen { pixels: view(0, i), seen });
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
        let path = self.spec.run_dir.join(sheet.name).with_extension("png");
        let temporary = path.with_extension("tmp.png");
        drawn.save(&temporary).map_err(|e| format!("{}: {e}", temporary.display()))?;
        std::fs::rename(&temporary, &path).map_err(|e| format!("{}: {e}", path.display()))
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

    fn draw_curves(&self) -> Result<(), String> {
        let mut points = Vec::new();
        for line in Journal::read(&self.spec.run_dir) {
            let Some(step) = line["step"].as_u64() else { continue };
            for curve in [
                "inpaint",
                "match",
                "token_entropy",
                "token_accuracy",
                "match_accuracy",
                "knn_accuracy",
                "val_loss",
                "linear_accuracy",
            ] {
                if let Some(value) = line[curve].as_f64() {
                    points.push(picture::Point {
                        step,
                        curve: curve.replace('_', " "),
                        value,
                    });
                }
            }
        }
        let name = self
            .spec
            .run_dir
            .file_name()
            .map_or_else(String::new, |n| n.to_string_lossy().into_owned());
        let svg = picture::curves(&format!("{name}: losses against the marginal token entropy"), &points)?;
        let path = self.spec.run_dir.join("curves.svg");
        std::fs::write(&path, svg).map_err(|e| format!("{}: {e}", path.display()))
    }
}
