//! What is looked at every so often: k-NN accuracy and pictures. Neither touches the training state.

use std::sync::Arc;

use splitmask_pipeline::error::PipelineError;
use splitmask_pipeline::metrics::PipelineMetrics;
use splitmask_pipeline::run::{Dataset, Order};
use splitmask_pipeline::sample::ViewMode;
use splitmask_pipeline::tokenize::Tokenizer;
use splitmask_pipeline::types::{Batch, ColourConfig, CropConfig, ViewPlan, ViewSpec};
use tch::Device;

use super::assemble::Trainer;
use super::control::{State, uptime_s};
use super::error::TrainError;
use super::feed::open_batches;
use super::journal::Journal;
use super::spec::{Precision, TrainerSpec, Weights};
use crate::eval::features::{FeatureError, Features, extract};
use crate::eval::knn::{Accuracy, Vote, classify};
use crate::model::Vit;
use crate::objective::Branch;
use crate::picture;
use crate::telemetry::metrics::{EvalTask, Phase};
use crate::tensor::step_input;

/// Images per batch of an evaluation.
const EVAL_BATCH: usize = 128;

/// k-NN accuracy of a backbone on `data.val`, searched in `data.train` (spec §4.3).
///
/// # Errors
/// Unreadable shards, or none with labels.
pub fn knn(
    vit: &Vit,
    spec: &TrainerSpec,
    tokenizer: &Arc<Tokenizer>,
    device: Device,
    mut progress: impl FnMut(&str, usize),
) -> Result<Accuracy, FeatureError> {
    let normalise = spec.train.normalise();
    let mut features = |set: &str, url: &str, most: u32| -> Result<Features, FeatureError> {
        let dataset = Dataset::open(url, &spec.data, &spec.pipeline, PipelineMetrics::default())?;
        let view = ViewSpec {
            size: spec.model.image,
            crop: CropConfig::default(),
            colour: ColourConfig::default(),
        };
        let plan = Arc::new(ViewPlan {
            views: vec![view],
            words: None,
            mask: None,
        });
        let mode = ViewMode::Eval {
            crop_ratio: spec.eval.crop_ratio as f32,
        };
        let mut stream = open_batches(&dataset, spec, &plan, tokenizer, Order::Sequential, mode, EVAL_BATCH)?;
        let bf16 = spec.train.precision == Precision::Bf16;
        extract(
            vit,
            std::iter::from_fn(|| stream.next()),
            &normalise,
            device,
            bf16,
            most as usize,
            |n| progress(set, n),
        )
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
    /// Measures k-NN accuracy now; a failure is logged and training goes on.
    pub(super) fn evaluate(&mut self) -> Result<(), TrainError> {
        self.set_state(State::Evaluating);
        self.clock.switch(Phase::Eval);
        let status = Arc::clone(&self.status);
        let alive = |_: &str, _: usize| status.lock().unwrap_or_else(std::sync::PoisonError::into_inner).last_progress_s = uptime_s();
        // Averages take the weights' place for the evaluation.
        let mut averaged = self.ema.as_mut().filter(|_| self.spec.eval.weights == Weights::Ema);
        if let Some(ema) = &mut averaged {
            ema.swap();
        }
        let measured = knn(self.objective.backbone(), &self.spec, &self.tokenizer, self.device, alive);
        if let Some(ema) = &mut averaged {
            ema.swap();
        }
        match measured {
            Ok(accuracy) => {
                tracing::info!(
                    step = self.step,
                    "k-NN {:.4} (chance {:.4}, commonest class {:.4})",
                    accuracy.top1,
                    accuracy.chance,
                    accuracy.majority
                );
                self.telemetry.train.eval_accuracy.of(EvalTask::Knn).set(accuracy.top1);
                let line = serde_json::json!({ "step": self.step, "knn_accuracy": accuracy.top1 });
                self.journal.write(line.as_object().cloned().unwrap_or_default())?;
                let mut status = self.status.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                status.evaluations = vec![("knn".into(), accuracy.top1, self.step)];
                status.history.push((self.step, "knn_accuracy".into(), accuracy.top1));
            }
            Err(e) => tracing::error!(error = %e, "the evaluation failed; training goes on"),
        }
        self.clock.switch(Phase::Other);
        Ok(())
    }

    /// Draws `inpaint.png` and `curves.svg`; a failure is logged and training goes on.
    pub(super) fn pictures(&mut self) {
        self.set_state(State::Evaluating);
        self.clock.switch(Phase::Eval);
        for (name, drawn) in [("inpaint.png", self.draw_inpaint()), ("curves.svg", self.draw_curves())] {
            if let Err(reason) = drawn {
                tracing::error!(%reason, "{name} could not be drawn; training goes on");
            }
        }
        self.clock.switch(Phase::Other);
    }

    fn draw_inpaint(&self) -> Result<(), String> {
        if self.spec.picture.rows == 0 {
            return Ok(());
        }
        let text = |e: &dyn std::fmt::Display| e.to_string();
        let batch = self.picture_batch().map_err(|e| text(&e))?;
        let input = step_input(&batch, 0..batch.len, self.device, &self.spec.train.normalise()).map_err(|e| text(&e))?;
        let Some(predicted) = self.objective.predict(&input).map_err(|e| text(&e))? else {
            return Ok(());
        };
        let size = self.spec.model.image;
        let (pixels, patches) = (3 * (size * size) as usize, batch.parts.len() / batch.len);
        let slice = |all: &[u32], i: usize| all[i * patches..(i + 1) * patches].to_vec();
        let words_of = |branch: &Branch| {
            Vec::<i64>::try_from(branch.words.flatten(0, -1)).map(|w| w.into_iter().map(|w| w as u32).collect::<Vec<_>>())
        };
        let branches = predicted
            .branches
            .iter()
            .map(words_of)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|e| text(&e))?;
        // BEiT has one branch: it stands for both.
        let (Some(a), Some(b)) = (branches.first(), branches.last()) else {
            return Ok(());
        };
        let rows: Vec<picture::Row> = (0..batch.len)
            .map(|i| picture::Row {
                view: batch.views[0][i * pixels..(i + 1) * pixels].to_vec(),
                parts: batch.parts[i * patches..(i + 1) * patches].to_vec(),
                words: slice(&batch.words, i),
                predicted: [slice(a, i), slice(b, i)],
            })
            .collect();
        let side = self.codebook.patch;
        let sheet = picture::inpaint(&rows, size, &|word| (side, self.codebook.word_pixels(word as usize)));
        let path = self.spec.run_dir.join("inpaint.png");
        let temporary = path.with_extension("tmp.png");
        sheet.save(&temporary).map_err(|e| format!("{}: {e}", temporary.display()))?;
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
        let mut stream = open_batches(&dataset, &self.spec, &self.plan, &self.tokenizer, Order::Sequential, mode, rows)?;
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
