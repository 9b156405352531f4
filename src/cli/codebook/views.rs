//! Half-size copies of random crops, made as training makes them.

use std::sync::Arc;

use splitmask_pipeline::augment::half_size;
use splitmask_pipeline::bucket::location::redact;
use splitmask_pipeline::config::{DataConfig, PipelineConfig};
use splitmask_pipeline::cursor::Cursor;
use splitmask_pipeline::decode::Limits;
use splitmask_pipeline::error::PipelineError;
use splitmask_pipeline::metrics::PipelineMetrics;
use splitmask_pipeline::request::{CropConfig, IMAGE, SampleRequest, TargetRequest, ViewRequest};
use splitmask_pipeline::run::{BatchSpec, BatchStream, Dataset, Order};
use splitmask_pipeline::sample::{SampleMaker, ViewMode};
use splitmask_pipeline::tokenize::HalfView;
use splitmask_pipeline::types::Batch;

/// A place with images, and how crops of them are made.
pub(super) struct Views {
    /// As shown to people.
    pub(super) url: String,
    dataset: Dataset,
    request: Arc<SampleRequest>,
    limits: Limits,
    seed: u64,
}

impl Views {
    /// Opens the place. Crops: `area` of the image, training's default aspect ratio and flip, no colour changes.
    pub(super) fn open(url: &str, data: &DataConfig, size: u32, area: [f32; 2], seed: u64) -> Result<Self, PipelineError> {
        let crop = CropConfig {
            area,
            ..CropConfig::default()
        };
        let view = ViewRequest {
            crop,
            ..ViewRequest::new(IMAGE, size)
        };
        Self::of_request(url, data, Arc::new(SampleRequest::of_views(vec![view])), seed)
    }

    /// As [`Views::open`] with crops as the target of a dVAE, of `side` pixels (see [`TargetRequest`]).
    pub(super) fn open_targets(url: &str, data: &DataConfig, side: u32, area: [f32; 2], seed: u64) -> Result<Self, PipelineError> {
        let crop = CropConfig {
            area,
            ..CropConfig::default()
        };
        // A target is the crop of a view; this one is small, for nobody looks at it.
        let view = ViewRequest {
            crop,
            ..ViewRequest::new(IMAGE, 8)
        };
        let request = SampleRequest {
            target: Some(TargetRequest { view: IMAGE, size: side }),
            ..SampleRequest::of_views(vec![view])
        };
        Self::of_request(url, data, Arc::new(request), seed)
    }

    fn of_request(url: &str, data: &DataConfig, request: Arc<SampleRequest>, seed: u64) -> Result<Self, PipelineError> {
        let limits = Limits {
            max_pixels: data.max_pixels,
            max_bytes: data.max_member_bytes,
            ..Limits::default()
        };
        let views = Self {
            url: redact(url),
            dataset: Dataset::open(url, data, &PipelineConfig::default(), PipelineMetrics::default())?,
            request,
            limits,
            seed,
        };
        views.maker(seed)?;
        Ok(views)
    }

    /// Images, if the place says.
    pub(super) fn len(&self) -> Option<usize> {
        self.dataset.manifest().map(|m| m.samples() as usize)
    }

    /// One crop of each image, in random order, once. `lane` 0, 1, … give other orders and crops.
    pub(super) fn images(&self, lane: u64) -> Result<Images, PipelineError> {
        Ok(Images {
            stream: self.batches(lane, Cursor::default(), 16)?,
            batch: None,
            at: 0,
            side: self.request.views[0].size as usize,
        })
    }

    /// Batches of crops of each image, in random order, epoch after epoch, from `start` on. Lanes as for [`Views::images`].
    pub(super) fn batches(&self, lane: u64, start: Cursor, batch: usize) -> Result<BatchStream, PipelineError> {
        let seed = self.seed.wrapping_add(lane.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let order = Order::Shuffled {
            seed,
            start,
            rank: 0,
            world: 1,
        };
        let spec = BatchSpec {
            order,
            request: Arc::clone(&self.request),
            batch,
            last_partial: true,
        };
        // Opened once already: a request that does not fit was refused there.
        self.maker(seed)?;
        self.dataset.batches(spec, || {
            let mut maker = self.maker(seed).expect("made before");
            Box::new(move |raw: &_, out: &mut _| maker.make(raw, out))
        })
    }

    fn maker(&self, seed: u64) -> Result<SampleMaker, PipelineError> {
        SampleMaker::new(Arc::clone(&self.request), ViewMode::Train, seed, self.limits, None)
    }
}

/// Iterator over [`HalfView`]s of one epoch.
pub(super) struct Images {
    stream: BatchStream,
    batch: Option<Batch>,
    at: usize,
    side: usize,
}

impl Iterator for Images {
    type Item = Result<HalfView, PipelineError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.batch.as_ref().is_none_or(|b| b.len == self.at) {
            if let Some(done) = self.batch.take() {
                self.stream.recycle(done);
            }
            match self.stream.next()? {
                Ok(batch) => self.batch = Some(batch),
                Err(e) => return Some(Err(e)),
            }
            self.at = 0;
        }
        let batch = self.batch.as_ref()?;
        if batch.ids[self.at].epoch > 0 {
            return None;
        }
        let mut pixels = vec![];
        half_size(batch.views[0].picture(self.at), self.side, &mut pixels);
        self.at += 1;
        Some(Ok(HalfView {
            pixels,
            side: self.side / 2,
        }))
    }
}
