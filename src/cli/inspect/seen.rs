//! What reading samples in order shows, the bad ones included.

use std::collections::BTreeMap;

use splitmask_pipeline::decode::{Decoder, header};
use splitmask_pipeline::error::{PipelineError, SampleError, ShardError};
use splitmask_pipeline::run::walk::{Rejected, Step, Tally, Walk};
use splitmask_pipeline::types::{Image, RawSample};

use super::kept::Kept;
use super::maps::Maps;
use super::objects::Objects;
use super::reasons::{Reasons, count};

/// Keys that are shown.
const FIRST_KEYS: usize = 5;

/// What reading samples showed.
#[derive(Default)]
pub(super) struct Seen {
    /// Images whose header can be read.
    pub(super) samples: u64,
    pub(super) bytes: u64,
    pub(super) formats: BTreeMap<String, u64>,
    pub(super) widths: Vec<u32>,
    pub(super) heights: Vec<u32>,
    pub(super) labels: BTreeMap<u32, u64>,
    pub(super) unlabelled: u64,
    pub(super) keys: Vec<String>,
    /// Samples that training would drop.
    pub(super) lost_samples: Reasons,
    /// Shards that cannot be read to their end.
    pub(super) lost_shards: Reasons,
    /// Why the last of them cannot.
    pub(super) last_error: Option<ShardError>,
    /// All entries of the tars.
    pub(super) entries: Tally,
    /// A value for `data.image`, where a sample holds several pictures.
    pub(super) image: Option<String>,
    /// Whether the end was reached.
    pub(super) complete: bool,
    /// Decodes every image, if that was asked for.
    pub(super) decoder: Option<Decoder>,
    /// What the label maps hold.
    pub(super) maps: Maps,
    /// Which objects are marked.
    pub(super) objects: Objects,
    /// Samples for the sheet.
    pub(super) kept: Kept,
}

impl Seen {
    /// Samples that were read, good or bad.
    pub(super) fn read(&self) -> u64 {
        self.samples + self.lost_samples.values().map(|(n, _)| n).sum::<u64>()
    }

    /// Walks over the first `limit` samples.
    pub(super) fn walk(&mut self, walk: Walk, limit: u64) -> Result<(), PipelineError> {
        for step in walk {
            match step? {
                // It comes before its sample, so what lies behind the last one is seen where that is the last of all.
                Step::Entries(_) if self.read() == limit => return Ok(()),
                Step::Entries(tally) => self.entries.add(tally),
                Step::Sample(_, Ok(sample)) => self.good(&sample),
                Step::Sample(_, Err(rejected)) => self.rejected(&rejected),
                Step::ShardFailed(error) => {
                    count(&mut self.lost_shards, error.reason(), || error.to_string());
                    self.last_error = Some(error);
                }
                Step::EpochEnd(_) | Step::End => {}
            }
        }
        self.complete = true;
        Ok(())
    }

    fn rejected(&mut self, rejected: &Rejected) {
        if let Err(PipelineError::TwoImages { example, .. }) = rejected.refuse_two_images(&self.entries) {
            self.image.get_or_insert(example);
        }
        self.lost(&rejected.shard, &rejected.key, &rejected.error);
    }

    fn lost(&mut self, shard: &str, key: &impl std::fmt::Display, error: &SampleError) {
        count(&mut self.lost_samples, error.reason(), || format!("{shard}: {key}: {error}"));
    }

    fn good(&mut self, sample: &RawSample) {
        let decoded = self
            .decoder
            .as_mut()
            .map(|decoder| decoder.decode(&sample.image, &mut Image::default()));
        match decoded.unwrap_or(Ok(())).and_then(|()| header(&sample.image)) {
            Ok(head) => {
                let (width, height) = head.upright();
                self.widths.push(width);
                self.heights.push(height);
                *self.formats.entry(format!("{:?}", head.format)).or_default() += 1;
                self.maps.offer(sample, &head);
                self.objects.offer(sample, &head);
            }
            Err(error) => return self.lost(&sample.shard, &sample.key, &error),
        }
        self.kept.offer(self.samples, sample);
        self.samples += 1;
        self.bytes += sample.image.len() as u64;
        if self.keys.len() < FIRST_KEYS {
            self.keys.push(sample.key.to_string());
        }
        match sample.label {
            Some(label) => *self.labels.entry(label).or_default() += 1,
            None => self.unlabelled += 1,
        }
    }
}
