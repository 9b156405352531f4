//! How much memory a pipeline takes, by its settings.

use std::fmt;

use crate::bucket::pace::MOST_AHEAD_THROTTLED;
use crate::config::{DataConfig, PipelineConfig};
use crate::request::SampleRequest;
use crate::shard::reader::{PORTION_BYTES, PORTIONS};
use crate::types::Object;

/// What the images of a place are like.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Images {
    /// Mean bytes of a sample in its shard.
    pub bytes: f64,
    /// Mean width × height.
    pub pixels: f64,
    /// Mean number of objects that are marked in them.
    pub objects: f64,
    /// Mean pixels of the boxes around masks of objects, as a multiple of the picture's.
    pub masked: f64,
    /// Whether they come over a network.
    pub remote: bool,
}

/// Bytes that a pipeline holds at most, beside the program itself; images of mean size.
///
/// What an allocator keeps of freed memory comes on top: a tenth to a fifth.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Footprint {
    /// Undecoded samples between the shards and the workers: 1¼ × `data.shuffle_window`.
    pub window: f64,
    /// Undecoded samples of the `pipeline.readers` open shards.
    pub shards: f64,
    /// Parts of remote shards asked for or not yet read: `pipeline.readers` × (`fetch_ahead` + 1) × `fetch_mib`, where `fetch_ahead` = 0
    /// stands for 12, which a store that throttles makes of it.
    pub requests: f64,
    /// Samples that workers have in hand or wait for their turn, and the decoded part of a picture for each worker.
    pub workers: f64,
    /// Batches: `pipeline.queue_batches` (at most `queue_mib`), one that is being filled, two with the trainer.
    pub batches: f64,
}

impl Footprint {
    /// Of batches of `batch` samples of this request.
    #[must_use]
    pub fn of(data: &DataConfig, pipeline: &PipelineConfig, request: &SampleRequest, batch: usize, images: Images) -> Self {
        // Each stripe has readers of its own.
        let stripes = data.stripes as usize;
        let readers = (pipeline.readers.div_ceil(stripes) * stripes) as f64;
        let threads = pipeline.worker_threads() as f64;
        // At a scale of 1: a view from far away has smaller masks, one from near fewer.
        let objects = match request.object_pixels() {
            0 => 0.0,
            pixels => images.objects * size_of::<Object>() as f64 + images.masked * pixels as f64,
        };
        let made = request.sample_bytes() as f64 + objects;
        let ahead = if pipeline.fetch_ahead == 0 {
            MOST_AHEAD_THROTTLED
        } else {
            pipeline.fetch_ahead
        };
        let mib = f64::from(1 << 20);
        let queue = (pipeline.queue_batches as f64 * batch as f64 * made).min(pipeline.queue_mib as f64 * mib);
        // A portion is full when it exceeds its size; one is being filled and one emptied beside those that wait.
        let portion = PORTION_BYTES as f64 + images.bytes;
        Self {
            window: 1.25 * f64::from(data.shuffle_window) * images.bytes,
            shards: readers * (PORTIONS + 2) as f64 * portion,
            requests: if images.remote {
                readers * (ahead + 1) as f64 * pipeline.fetch_mib as f64 * mib
            } else {
                0.0
            },
            workers: threads * (4.0 * (images.bytes + made) + 3.0 * images.pixels),
            batches: queue + 3.0 * batch as f64 * made,
        }
    }

    /// All of it.
    #[must_use]
    pub fn total(&self) -> f64 {
        self.window + self.shards + self.requests + self.workers + self.batches
    }
}

impl fmt::Display for Footprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.0} MB:", self.total() / 1e6)?;
        let parts = [
            ("shuffle window", self.window),
            ("open shards", self.shards),
            ("requests", self.requests),
            ("workers", self.workers),
            ("batches", self.batches),
        ];
        let mut between = " ";
        for (name, bytes) in parts.into_iter().filter(|p| p.1 > 0.0) {
            write!(f, "{between}{name} {:.0}", bytes / 1e6)?;
            between = " + ";
        }
        Ok(())
    }
}
