//! The images of the pictures: the same every time.

use std::sync::Arc;

use splitmask_pipeline::config::DataConfig;
use splitmask_pipeline::error::PipelineError;
use splitmask_pipeline::metrics::PipelineMetrics;
use splitmask_pipeline::request::SampleRequest;
use splitmask_pipeline::run::{BatchStream, Dataset, Making, Order};
use splitmask_pipeline::sample::ViewMode;
use splitmask_pipeline::types::Batch;

use crate::trainer::setup::Setup;

/// The images of the validation set (or of the training set, where there is none) in their order: centre crop, fixed masks, in batches of `batch`; and
/// where they are.
///
/// # Errors
/// The place cannot be read, or the request does not fit.
pub(super) fn images(setup: &Setup, request: &Arc<SampleRequest>, batch: usize) -> Result<(String, BatchStream), PipelineError> {
    let spec = &setup.spec;
    let place = match spec.data.val.as_str() {
        "" => spec.data.first_place(),
        val => val,
    };
    // The share is of the training set.
    let whole = DataConfig {
        fraction: if spec.data.val.is_empty() { spec.data.fraction } else { 1.0 },
        ..spec.data.clone()
    };
    let dataset = Dataset::open(place, &whole, &spec.pipeline, PipelineMetrics::default())?;
    let stream = dataset.make(Making {
        order: Order::Sequential,
        request,
        mode: ViewMode::Eval {
            crop_ratio: spec.eval.crop_ratio as f32,
        },
        batch,
        seed: spec.seed,
        tokenizer: setup.words.tokenizer(),
    })?;
    Ok((place.to_owned(), stream))
}

/// The first `picture.rows` of them.
///
/// # Errors
/// As [`images`], or there is none.
pub(super) fn first_images(setup: &Setup, request: &Arc<SampleRequest>) -> Result<Batch, PipelineError> {
    let (place, mut stream) = images(setup, request, setup.spec.picture.rows as usize)?;
    stream.next().unwrap_or(Err(PipelineError::Empty {
        url: place,
        detail: "no image for the picture".into(),
    }))
}
