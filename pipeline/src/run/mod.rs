//! The stages wired together: a dataset, its stream of samples, its stream of batches.

pub mod batches;
pub mod budget;
pub mod footprint;
mod making;
mod prepared;
mod sample_stream;
pub mod walk;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

pub use self::batches::{BatchSpec, BatchStream, Worker};
use self::budget::FailureBudget;
use self::footprint::Images;
pub use self::making::Making;
use self::sample_stream::Items;
pub use self::sample_stream::SampleStream;
use crate::bucket::cache::ShardCache;
use crate::bucket::differences::Difference;
use crate::bucket::manifest::{Manifest, MapClasses, ObjectClasses};
use crate::bucket::object::FetchOptions;
use crate::bucket::{Bucket, Shard};
use crate::config::{DataConfig, OnShardError, PipelineConfig};
use crate::cursor::Cursor;
use crate::error::PipelineError;
use crate::metrics::{PipelineMetrics, Scheme};
use crate::setting::Findings;
use crate::shard::mixture::{MixedStream, Source};
use crate::shard::samples::LabelMember;
use crate::shard::striped::StripedStream;
pub use crate::shard::window::Order;
use crate::shard::window::{PositionedStream, WindowOptions};
use crate::stage::Stop;

/// Which labels are read beside the images.
#[derive(Debug, Clone, Copy, Default)]
struct Labels {
    maps: bool,
    objects: bool,
}

/// A place with shards and the settings to read them with. Cheap to clone; streams outlive it.
#[derive(Debug, Clone)]
pub struct Dataset {
    bucket: Arc<Bucket>,
    /// More than one place: `bucket` is that of the first.
    mixture: Vec<Source>,
    data: DataConfig,
    pipeline: PipelineConfig,
    metrics: PipelineMetrics,
}

impl Dataset {
    /// Finds the training shards: those of `data.train`, or of all `data.sources`.
    ///
    /// # Errors
    /// As [`Dataset::open`].
    pub fn open_training(data: &DataConfig, pipeline: &PipelineConfig, metrics: &PipelineMetrics) -> Result<Self, PipelineError> {
        let mut whole = Self::open(data.first_place(), data, pipeline, metrics.clone())?;
        for (n, source) in data.sources.iter().enumerate() {
            let bucket = match n {
                0 => Arc::clone(&whole.bucket),
                _ => Self::open(&source.url, data, pipeline, metrics.clone())?.bucket,
            };
            whole.mixture.push(Source {
                name: source.name.as_str().into(),
                weight: source.weight,
                bucket,
            });
        }
        Ok(whole)
    }

    /// Finds the shards at `url` (`data.train` and `data.val` are not looked at). Blocks until the place has answered or cannot be reached.
    ///
    /// # Errors
    /// [`PipelineError::BadSetting`] for settings out of range, else those of [`Bucket::open`].
    pub fn open(url: &str, data: &DataConfig, pipeline: &PipelineConfig, metrics: PipelineMetrics) -> Result<Self, PipelineError> {
        let mut found = Findings::default();
        data.check(&mut found);
        pipeline.check(&mut found);
        found.first()?;
        let fetch = FetchOptions {
            part: (pipeline.fetch_mib as u64) << 20,
            ahead: pipeline.fetch_ahead,
            read_timeout: Duration::from_secs_f64(pipeline.read_timeout_s),
            retry_budget: Duration::from_secs_f64(pipeline.retry_budget_s),
            most: pipeline.readers
                * match pipeline.fetch_ahead {
                    0 => crate::bucket::pace::MOST_AHEAD,
                    n => n,
                },
            hedge: Duration::from_secs_f64(pipeline.hedge_s),
        };
        let mut bucket = Bucket::open(url, &data.endpoint, fetch, metrics.clone())?;
        if !pipeline.cache_dir.is_empty() && bucket.scheme != Scheme::File {
            let capacity = (pipeline.cache_gib * f64::from(1 << 30)) as u64;
            bucket = bucket.with_cache(ShardCache::open(Path::new(&pipeline.cache_dir), capacity)?);
            if bucket.manifest.is_none() {
                tracing::warn!("pipeline.cache_dir is set, but without a manifest.json no shard has a checksum and none is kept");
            }
        }
        if data.on_shard_error == OnShardError::Stop
            && let Some(missing) = bucket
                .differences
                .all()
                .into_iter()
                .find(|d| matches!(d, Difference::Missing { .. }))
        {
            return Err(PipelineError::BadManifest {
                url: crate::bucket::location::redact(url),
                detail: format!("{missing}, and data.on_shard_error = \"stop\""),
            });
        }
        tracing::info!(shards = bucket.shards.len(), scheme = ?bucket.scheme, "opened {}", crate::bucket::location::redact(url));
        Ok(Self {
            bucket: Arc::new(bucket),
            mixture: vec![],
            data: data.clone(),
            pipeline: pipeline.clone(),
            metrics,
        })
    }

    /// What the place says about itself.
    #[must_use]
    pub fn manifest(&self) -> Option<&Manifest> {
        self.bucket.manifest.as_ref()
    }

    /// Class names by label, if a manifest tells them; of several sources, those of the first. A shard may hold labels beyond this list.
    #[must_use]
    pub fn class_names(&self) -> Option<&[String]> {
        self.manifest().and_then(Manifest::class_names)
    }

    /// Compares the checksums of shards that are read to their end with the manifest's: see [`Dataset::differences`]. Before streams begin.
    pub fn compare_checksums(&mut self) {
        if let Some(bucket) = Arc::get_mut(&mut self.bucket) {
            bucket.compare_checksums();
        }
    }

    /// Where a manifest and what is there disagree, as far as it was noticed by now: at the listing, and at the shards read so far. Of several
    /// sources, those of all.
    #[must_use]
    pub fn differences(&self) -> Vec<Difference> {
        let mut all = self.bucket.differences.all();
        for source in self.mixture.iter().skip(1) {
            all.extend(source.bucket.differences.all());
        }
        all.sort();
        all
    }

    /// Samples until each has been read once, with `fraction` of them chosen: those of the manifest. Of a mixture, until its first source is through, for a
    /// source is drawn by its share, however many samples it has. None where a manifest does not tell.
    #[must_use]
    pub fn samples_of_a_pass(&self, fraction: f64) -> Option<u64> {
        let chosen = |manifest: &Manifest| {
            let share = (manifest.samples() as f64 * fraction).round() as u64;
            // `data.fraction` keeps an image of each class, and one in any case.
            let classes = manifest.label_counts.iter().filter(|images| **images > 0).count() as u64;
            share.max(classes).max(1).min(manifest.samples())
        };
        if self.mixture.len() < 2 {
            return self.manifest().map(chosen);
        }
        let weights: f64 = self.mixture.iter().map(|source| source.weight).sum();
        let passes = self.mixture.iter().map(|source| {
            let samples = chosen(source.bucket.manifest.as_ref()?);
            Some((samples as f64 * weights / source.weight).round() as u64)
        });
        passes.collect::<Option<Vec<u64>>>()?.into_iter().min()
    }

    /// Hex SHA-256 over the shards of all sources in their unshuffled order: their names without the folders above them, and their sizes and
    /// numbers of samples where known.
    /// Two processes with the same one read the same samples in the same order, as far as a list can tell.
    #[must_use]
    pub fn digest(&self) -> String {
        use sha2::{Digest, Sha256};
        let rest = self.mixture.iter().skip(1).map(|source| &source.bucket);
        let mut digest = Sha256::new();
        for bucket in std::iter::once(&self.bucket).chain(rest) {
            for shard in &bucket.shards {
                let name = shard.path.rsplit('/').next().unwrap_or_default();
                digest.update(format!("{name} {:?} {:?}\n", shard.bytes, shard.samples));
            }
            digest.update("\n");
        }
        digest
            .finalize()
            .iter()
            .fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
    }

    /// What its label maps hold, if its manifest tells.
    #[must_use]
    pub fn map_classes(&self) -> Option<&MapClasses> {
        self.manifest()?.maps.as_ref()
    }

    /// Which objects are marked in it, if its manifest tells.
    #[must_use]
    pub fn object_classes(&self) -> Option<&ObjectClasses> {
        self.manifest()?.objects.as_ref()
    }

    /// Shards in their unshuffled order.
    #[must_use]
    pub fn shards(&self) -> &[Shard] {
        &self.bucket.shards
    }

    /// What its images are like, if its manifest tells.
    #[must_use]
    pub fn images(&self) -> Option<Images> {
        let manifest = self.manifest()?;
        let bytes: u64 = manifest.shards.iter().map(|s| s.bytes).sum();
        let samples = manifest.samples().max(1) as f64;
        let pixels = manifest.statistics.mean_width * manifest.statistics.mean_height;
        let of_objects = |number: &dyn Fn(&ObjectClasses) -> u64| manifest.objects.as_ref().map_or(0.0, |objects| number(objects) as f64);
        Some(Images {
            bytes: bytes as f64 / samples,
            pixels,
            objects: of_objects(&ObjectClasses::number) / samples,
            masked: of_objects(&|objects| objects.mask_pixels) / (samples * pixels.max(1.0)),
            remote: self.is_remote(),
        })
    }

    /// Kind of place.
    #[must_use]
    pub fn scheme(&self) -> Scheme {
        self.bucket.scheme
    }

    /// Whether its shards come over a network.
    #[must_use]
    pub fn is_remote(&self) -> bool {
        self.bucket.scheme != Scheme::File
    }

    /// The undecoded samples, one by one; samples that are none are counted, logged and left out.
    ///
    /// # Errors
    /// [`PipelineError::BadSetting`] for a cursor or rank that does not fit.
    pub fn samples(&self, order: Order) -> Result<SampleStream, PipelineError> {
        self.samples_of(order, Labels::default())
    }

    /// As [`Dataset::samples`], each with the bytes of its label map if it has one.
    ///
    /// # Errors
    /// As there.
    pub fn samples_with_maps(&self, order: Order) -> Result<SampleStream, PipelineError> {
        self.samples_of(
            order,
            Labels {
                maps: true,
                objects: false,
            },
        )
    }

    /// As [`Dataset::samples`], each with the bytes of the member that tells of its objects if it has one.
    ///
    /// # Errors
    /// As there.
    pub fn samples_with_objects(&self, order: Order) -> Result<SampleStream, PipelineError> {
        self.samples_of(
            order,
            Labels {
                maps: false,
                objects: true,
            },
        )
    }

    fn samples_of(&self, order: Order, labels: Labels) -> Result<SampleStream, PipelineError> {
        Ok(SampleStream {
            items: self.positioned(order, labels)?,
            budget: Some(FailureBudget::new(self.data.failure_budget, self.metrics.clone())),
            cursor: match order {
                Order::Sequential | Order::EveryOther { .. } => Cursor::default(),
                Order::Shuffled { start, .. } => start,
            },
        })
    }

    /// Batches, made by `pipeline.workers` threads, each with a worker from `make_worker`.
    ///
    /// # Errors
    /// [`PipelineError::BadSetting`] for a cursor, rank or batch size that does not fit; [`PipelineError::Io`] for threads.
    pub fn batches(&self, spec: BatchSpec, make_worker: impl Fn() -> Worker) -> Result<BatchStream, PipelineError> {
        BatchStream::start(self, spec, make_worker)
    }

    /// The members that hold its label maps and its objects.
    fn label_members(&self, read: Labels) -> (LabelMember, LabelMember) {
        let member = |extension: &str, read| LabelMember {
            extension: extension.into(),
            read,
        };
        (member(&self.data.map, read.maps), member(&self.data.objects, read.objects))
    }

    fn positioned(&self, order: Order, labels: Labels) -> Result<Items, PipelineError> {
        let (map, objects) = self.label_members(labels);
        let options = WindowOptions {
            order,
            window: self.data.shuffle_window,
            readers: self.pipeline.readers,
            fraction: self.data.fraction,
            images: self.data.image.extensions(),
            map,
            objects,
            refuse_two_images: match order {
                Order::Sequential | Order::EveryOther { .. } => true,
                Order::Shuffled { start, .. } => start.samples() == 0,
            },
            max_member_bytes: self.data.max_member_bytes,
            stop_on_shard_error: self.data.on_shard_error == OnShardError::Stop,
        };
        let striped = self.data.stripes > 1 && matches!(order, Order::Shuffled { .. });
        if striped {
            StripedStream::start(&self.bucket, &options, self.data.stripes, Stop::default()).map(Items::Striped)
        } else if self.mixture.is_empty() {
            PositionedStream::start(Arc::clone(&self.bucket), &options, Stop::default()).map(Items::One)
        } else {
            MixedStream::start(&self.mixture, &options, Stop::default()).map(Items::Mixed)
        }
    }
}
