//! Batches of finished samples: a dataset's stream with workers that decode, augment, tokenize and mask as a request asks.

use std::sync::Arc;

use super::{BatchSpec, BatchStream, Dataset, Order};
use crate::config::Truncated;
use crate::decode::{Limits, MapReading, ObjectReading};
use crate::error::PipelineError;
use crate::request::SampleRequest;
use crate::sample::{SampleMaker, ViewMode};
use crate::tokenize::Tokenizer;

/// What is made of a dataset's samples, and in which order.
#[derive(Debug, Clone, Copy)]
pub struct Making<'a> {
    /// Order of the samples.
    pub order: Order,
    /// What a sample turns into.
    pub request: &'a Arc<SampleRequest>,
    /// For training or for an evaluation. An evaluation is one pass, so its last batch may be short; a training leaves such a batch out.
    pub mode: ViewMode,
    /// Images of a batch.
    pub batch: usize,
    /// Seed of everything random about a sample.
    pub seed: u64,
    /// Searches the words of the request, if it asks for any.
    pub tokenizer: Option<&'a Arc<Tokenizer>>,
}

impl Dataset {
    /// How its label maps are read: what says nothing about a pixel is the number that its manifest names, without one that of `data.map_ignore`.
    #[must_use]
    pub fn map_reading(&self) -> MapReading {
        MapReading {
            member: self.data.map.as_str().into(),
            ignore: self.map_classes().map_or(self.data.map_ignore, |maps| maps.ignore),
            reduce_zero: self.data.map_reduce_zero,
        }
    }

    /// How members with objects are read: classes are those of its manifest, without one what the members say.
    #[must_use]
    pub fn object_reading(&self) -> ObjectReading {
        let listed = self.object_classes();
        ObjectReading {
            member: self.data.objects.as_str().into(),
            classes: listed.map(|objects| objects.classes.len() as u32),
            ids: listed.map_or_else(|| [].into(), |objects| objects.ids.as_slice().into()),
        }
    }

    /// Starts a stream of batches whose samples are made as `making` says, within the limits of `[data]`.
    ///
    /// # Errors
    /// A request or codebook that does not fit, or those of [`Dataset::batches`].
    pub fn make(&self, making: Making<'_>) -> Result<BatchStream, PipelineError> {
        let limits = Limits {
            max_pixels: self.data.max_pixels,
            max_bytes: self.data.max_member_bytes,
            keep_truncated: self.data.truncated == Truncated::Keep,
        };
        let Making { mode, seed, .. } = making;
        let (request, words) = (Arc::clone(making.request), making.tokenizer.cloned());
        let (maps, objects) = (self.map_reading(), self.object_reading());
        let make = move || {
            let maker = SampleMaker::new(Arc::clone(&request), mode, seed, limits, request.words.and(words.clone()))?;
            Ok::<_, PipelineError>(maker.reading_maps(maps.clone()).reading_objects(objects.clone()))
        };
        // Errors surface here rather than in a worker thread.
        make()?;
        let worker = move || {
            let mut maker = make().expect("made before");
            Box::new(move |raw: &_, out: &mut _| maker.make(raw, out)) as _
        };
        self.batches(
            BatchSpec {
                order: making.order,
                request: Arc::clone(making.request),
                batch: making.batch,
                last_partial: mode != ViewMode::Train,
            },
            worker,
        )
    }
}
