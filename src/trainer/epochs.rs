//! The length of a run in passes over its data.

use splitmask_pipeline::types::SampleId;

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

/// Counts the samples of an epoch as batches bring them, where no manifest tells their number.
#[derive(Debug, Default)]
pub(super) struct EpochCount {
    /// The epoch of the last sample.
    epoch: Option<u32>,
    /// Samples of it.
    samples: u64,
    /// Its first sample was seen.
    whole: bool,
    told: bool,
}

impl EpochCount {
    /// What to say of the batch of these samples: once, when the first whole epoch turns out to be smaller than it.
    pub(super) fn add(&mut self, ids: &[SampleId]) -> Option<String> {
        if self.told {
            return None;
        }
        let mut small = None;
        for id in ids {
            if self.epoch.is_some_and(|epoch| epoch != id.epoch) {
                if self.whole && self.samples < ids.len() as u64 {
                    small = small.or(Some(self.samples));
                }
                (self.samples, self.whole) = (0, true);
            }
            self.epoch = Some(id.epoch);
            self.samples += 1;
        }
        let small = small?;
        self.told = true;
        Some(batch_exceeds(ids.len() as u32, small))
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(samples: impl Iterator<Item = (u32, u32)>) -> Vec<SampleId> {
        samples.map(|(epoch, member)| SampleId { epoch, shard: 0, member }).collect()
    }

    #[test]
    fn a_batch_larger_than_an_epoch_is_told_once_and_only_after_a_whole_one() {
        let stream = |samples: u32, start: u32| (start..).map(move |i| (i / samples, i % samples));
        let told = |samples: u32, start: u32, size: u32| -> Vec<String> {
            let mut count = EpochCount::default();
            (0..9)
                .filter_map(|at| count.add(&ids(stream(samples, start + at * size).take(size as usize))))
                .collect()
        };
        let small = told(3, 0, 8);
        assert!(
            small.len() == 1 && small[0].contains("train.batch = 8 is more than the 3 images"),
            "{small:?}"
        );
        assert_eq!(told(7, 0, 8).len(), 1);
        // 6 of 8 images before a restart: the 2 that come first are not the epoch.
        assert!(told(8, 6, 8).is_empty() && told(9, 5, 8).is_empty());
    }
}
