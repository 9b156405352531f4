//! A place read once in order, with all that its streams pass over or drop.

use std::sync::Arc;

use super::{Dataset, Labels};
use crate::bucket::Bucket;
use crate::error::PipelineError;
use crate::shard::filler::no_sample;
pub use crate::shard::samples::Rejected;
pub use crate::shard::sequence::Step;
use crate::shard::sequence::{Sequence, SequenceOptions};
pub use crate::shard::tally::Tally;
use crate::stage::Stop;

/// Blocking iterator over what the shards hold, in their order. It never ends early: faults are steps as samples are.
pub struct Walk(Option<Sequence>);

impl Iterator for Walk {
    type Item = Result<Step, PipelineError>;

    fn next(&mut self) -> Option<Self::Item> {
        let step = self.0.as_mut()?.step();
        if matches!(step, Err(_) | Ok(Step::End)) {
            self.0 = None;
        }
        (!matches!(step, Ok(Step::End))).then_some(step)
    }
}

impl Dataset {
    /// Reads the shards once, in order, each sample with its label map and objects, right behind the [`Step::Entries`] that count its members. Of a mixture, the first
    /// source.
    ///
    /// # Errors
    /// [`PipelineError::Io`] for threads.
    pub fn walk(&self) -> Result<Walk, PipelineError> {
        self.walk_of(&self.bucket, Labels { maps: true, objects: true })
    }

    fn walk_of(&self, bucket: &Arc<Bucket>, labels: Labels) -> Result<Walk, PipelineError> {
        let (map, objects) = self.label_members(labels);
        let options = SequenceOptions {
            seed: None,
            readers: self.pipeline.readers,
            fraction: self.data.fraction,
            images: self.data.image.extensions(),
            map,
            objects,
            max_member_bytes: self.data.max_member_bytes,
            stripe: None,
            portion: 1,
        };
        Sequence::new(Arc::clone(bucket), options, 0, 0, 0, Stop::default()).map(|sequence| Walk(Some(sequence)))
    }

    /// Looks at the first `samples` samples, those of each source of a mixture, as a start does before anything is made of them.
    ///
    /// # Errors
    /// [`PipelineError::TwoImages`]; [`PipelineError::NoSample`] for a source without any; [`PipelineError::Io`] for threads. What else is wrong
    /// with samples and shards is a matter of policy.
    pub fn probe(&self, samples: u64) -> Result<Tally, PipelineError> {
        let mut entries = Tally::default();
        let others = self.mixture.iter().skip(1).map(|source| &source.bucket);
        for bucket in std::iter::once(&self.bucket).chain(others) {
            let (mut here, mut seen, mut last) = (Tally::default(), 0, None);
            for step in self.walk_of(bucket, Labels::default())? {
                match step? {
                    Step::Entries(tally) => here.add(tally),
                    Step::Sample(_, sample) => {
                        sample.map_or_else(|rejected| rejected.refuse_two_images(&here), |_| Ok(()))?;
                        seen += 1;
                    }
                    Step::ShardFailed(error) => last = Some(error),
                    Step::EpochEnd(_) | Step::End => {}
                }
                if seen == samples {
                    break;
                }
            }
            if seen == 0 {
                return Err(no_sample(bucket, &here, last));
            }
            entries.add(here);
        }
        Ok(entries)
    }
}
