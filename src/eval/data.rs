//! The sets that evaluations read, and how training passes a batch.

use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use splitmask_pipeline::config::{DataConfig, PipelineConfig};
use splitmask_pipeline::error::PipelineError;
use splitmask_pipeline::metrics::PipelineMetrics;
use splitmask_pipeline::request::{IMAGE, SampleRequest, ViewRequest};
use splitmask_pipeline::run::{BatchStream, Dataset, Making, Order};
use splitmask_pipeline::sample::ViewMode;
use splitmask_pipeline::tokenize::Tokenizer;
use splitmask_pipeline::types::Batch;

use super::error::EvalError;
use super::progress::{GoOn, Progress};
use crate::words::Words;

/// Images per batch of a labelled set.
const BATCH: usize = 128;
/// Longest wait for a batch before it is asked whether to go on.
const PATIENCE: Duration = Duration::from_millis(100);

/// Where sets are read from, and how. All of a set is read, whatever share `data.fraction` leaves for training, so that runs on different shares are
/// measured alike.
#[derive(Debug, Clone, Copy)]
pub struct Sets<'a> {
    /// `[data]`.
    pub data: &'a DataConfig,
    /// `[pipeline]`.
    pub pipeline: &'a PipelineConfig,
    /// Side of the views, pixels.
    pub image: u32,
    /// Share of the resized image's side that the centre crop keeps.
    pub crop_ratio: f64,
    /// Seed of the run: masks of an evaluation depend on it and on the sample alone.
    pub seed: u64,
}

/// A set that evaluations read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum SetName {
    /// `data.train`, or the first of `data.sources`.
    Train,
    /// `data.val`.
    Val,
}

/// How training passes a batch through the objective.
#[derive(Clone, Copy)]
pub struct TrainingPass<'a> {
    /// Where visual words come from.
    pub words: &'a Words,
    /// What the pipeline makes of each sample.
    pub request: &'a Arc<SampleRequest>,
    /// Images of a batch.
    pub batch: usize,
    /// Micro-batches that it is processed in.
    pub micro_batches: usize,
    /// Optimizer steps done.
    pub step: u64,
    /// Steps of the schedule.
    pub total_steps: u64,
    /// Names of the classes that are learnt, empty where no manifest names them; `None` = no labels are learnt.
    pub classes: Option<&'a [String]>,
    /// How many classes it learns; 0 where it learns none.
    pub outputs: usize,
}

/// A set on its way through a model: centre crops in the order of its shards.
pub struct Set {
    /// `train` or `val`, for [`Progress`].
    pub name: &'static str,
    /// Where it is, for messages.
    pub place: String,
    /// Class names by label, from its manifest; empty if it has none.
    pub names: Vec<String>,
    stream: BatchStream,
}

impl<'a> Sets<'a> {
    /// The images of a set, of which this process takes every `world`-th, from the `rank`-th on.
    ///
    /// # Errors
    /// The place cannot be read.
    pub fn images(&self, set: SetName, (rank, world): (u32, u32)) -> Result<Set, PipelineError> {
        let (name, place) = match set {
            SetName::Train => ("train", self.data.first_place()),
            SetName::Val => ("val", self.data.val.as_str()),
        };
        let request = SampleRequest::of_views(vec![ViewRequest::new(IMAGE, self.image)]);
        let order = match world {
            1 => Order::Sequential,
            _ => Order::EveryOther { rank, world },
        };
        self.open(name, place, order, &Arc::new(request), None, BATCH)
    }

    /// The images of `data.val`.
    ///
    /// # Errors
    /// The place cannot be read.
    pub fn val(&self) -> Result<Set, PipelineError> {
        self.images(SetName::Val, (0, 1))
    }

    /// `data.val` by itself, all of it.
    ///
    /// # Errors
    /// The place cannot be read.
    pub fn val_set(&self) -> Result<Dataset, PipelineError> {
        let data = DataConfig {
            fraction: 1.0,
            ..self.data.clone()
        };
        Dataset::open(&self.data.val, &data, self.pipeline, PipelineMetrics::default())
    }

    /// The images of `data.val`, with all that `request` asks for, in batches of `batch`.
    ///
    /// # Errors
    /// The place cannot be read, or the request does not fit.
    pub fn val_as(&self, request: &'a Arc<SampleRequest>, tokenizer: Option<&Arc<Tokenizer>>, batch: usize) -> Result<Set, PipelineError> {
        self.open("val", &self.data.val, Order::Sequential, request, tokenizer, batch)
    }

    fn open(
        &self,
        name: &'static str,
        place: &str,
        order: Order,
        request: &Arc<SampleRequest>,
        tokenizer: Option<&Arc<Tokenizer>>,
        batch: usize,
    ) -> Result<Set, PipelineError> {
        let data = DataConfig {
            fraction: 1.0,
            ..self.data.clone()
        };
        let dataset = Dataset::open(place, &data, self.pipeline, PipelineMetrics::default())?;
        let stream = dataset.make(Making {
            order,
            request,
            mode: ViewMode::Eval {
                crop_ratio: self.crop_ratio as f32,
            },
            batch,
            seed: self.seed,
            tokenizer,
        })?;
        Ok(Set {
            name,
            place: place.to_owned(),
            names: dataset.class_names().unwrap_or_default().to_vec(),
            stream,
        })
    }
}

impl Set {
    /// The next batch; `None` behind the last. A place that does not answer must not outlast a budget, so `go_on` is asked while nothing comes.
    ///
    /// # Errors
    /// The stream's, or [`EvalError::OutOfTime`].
    pub fn next(&mut self, go_on: GoOn<'_>) -> Result<Option<Batch>, EvalError> {
        loop {
            match self.stream.next_timeout(PATIENCE) {
                Poll::Ready(batch) => return Ok(batch.transpose()?),
                Poll::Pending if go_on(Progress::Waiting) => {}
                Poll::Pending => return Err(EvalError::OutOfTime),
            }
        }
    }

    /// Gives a batch's buffers back.
    pub fn recycle(&self, batch: Batch) {
        self.stream.recycle(batch);
    }
}
