//! The length of a run in passes over its data.

use super::error::TrainError;
use super::spec::TrainerSpec;

/// What to say of a batch that is larger than its set.
#[must_use]
pub fn batch_exceeds(batch: u32, samples: u64) -> String {
    format!(
        "train.batch = {batch} is more than the {samples} images of an epoch: each image is in a batch several times, and losses that compare the \
         images of a batch take its own copies for other images; set train.batch to at most {samples}, or give more images"
    )
}

/// Cuts the schedule to `optim.max_epochs` passes over `samples` images; answers the passes that it takes.
///
/// # Errors
/// A number of passes where nobody knows the number of images.
pub(super) fn fit_schedule(spec: &mut TrainerSpec, samples: Option<u64>) -> Result<Option<f64>, TrainError> {
    if spec.optim.max_epochs > 0 && samples.is_none() {
        return Err(TrainError::BadSetting {
            key: "optim.max_epochs".into(),
            value: spec.optim.max_epochs.to_string(),
            detail: "the training data has no manifest.json, so nobody knows how many images an epoch has".into(),
            hint: Some("`splitmask pack` writes one; or set optim.max_epochs = 0 and optim.total_steps to what you want".into()),
        });
    }
    if let Some(few) = samples.filter(|samples| *samples < u64::from(spec.train.batch)) {
        tracing::warn!("{}", batch_exceeds(spec.train.batch, few));
    }
    let fitted = spec.optim.fitted(spec.train.batch, samples);
    spec.optim = fitted.optim;
    Ok(fitted.epochs)
}
