//! The settings of the pipeline; defaults suit one machine and a nearby bucket.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::setting::{Findings, settings};

/// What happens when a shard cannot be read to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "kebab-case")]
pub enum OnShardError {
    /// Count it, log it, go on with the next shard.
    #[default]
    Skip,
    /// Checkpoint and stop.
    Stop,
}

/// What happens when more samples fail than `data.failure_budget` allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "kebab-case")]
pub enum OnBudget {
    /// A run that has taken a step checkpoints and waits for a reload; one that has not ends.
    #[default]
    Pause,
    /// Checkpoint and stop.
    Stop,
}

/// What happens to a JPEG that ends early.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "kebab-case")]
pub enum Truncated {
    /// Dropped and replaced as any other bad sample.
    #[default]
    Drop,
    /// Used; what is missing is grey.
    Keep,
}

/// Extensions of the image among the members of a sample, in order of preference; written as one string or a list.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(from = "Written", into = "Written")]
pub struct ImageExtensions(Arc<[String]>);

#[derive(Serialize, Deserialize)]
#[serde(
    untagged,
    expecting = "an extension such as \"input.png\", or a list of them in order of preference"
)]
enum Written {
    One(String),
    Several(Vec<String>),
}

impl From<Written> for ImageExtensions {
    fn from(written: Written) -> Self {
        Self(match written {
            Written::One(none) if none.is_empty() => Arc::default(),
            Written::One(one) => [one].into(),
            Written::Several(several) => several.into(),
        })
    }
}

impl From<ImageExtensions> for Written {
    fn from(extensions: ImageExtensions) -> Self {
        match &*extensions.0 {
            [] => Self::One(String::new()),
            [one] => Self::One(one.clone()),
            several => Self::Several(several.to_vec()),
        }
    }
}

impl ImageExtensions {
    /// One or several, in order of preference.
    #[must_use]
    pub fn of(extensions: &[String]) -> Self {
        Self(extensions.into())
    }

    /// The list; empty = the only picture of a sample is its image.
    #[must_use]
    pub fn extensions(&self) -> Arc<[String]> {
        Arc::clone(&self.0)
    }
}

/// One entry of `[[data.sources]]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceConfig {
    /// Its name; a position in a checkpoint belongs to it, so the place may move while the name stays.
    pub name: String,
    /// Its shards, written as `data.train` is.
    pub url: String,
    /// Its share of the samples, relative to the other weights.
    pub weight: f64,
}

settings! {
    /// `[data]`: which samples, in which order.
    pub struct DataConfig in "data" {
        /// Shards to train on: folder, bucket prefix, glob or range {000000..000146}.
        Rebuild train: String = String::new(),
        /// Several places to mix instead of `data.train`: [[data.sources]] with name, url, weight; positions are kept by name.
        Rebuild sources: Vec<SourceConfig> = vec![],
        /// Shards for evaluation, labelled unless eval.watch = `loss`; empty = none.
        Live val: String = String::new(),
        /// Object store endpoint instead of the provider's; empty = the provider's.
        Rebuild endpoint: String = String::new(),
        /// Samples shuffled among each other; a change holds from the next window on.
        Rebuild shuffle_window: u32 = 2048,
        /// Equal parts of an epoch, of which ranks read their own ones alone, so that all of them read the shards once: a multiple of the ranks that will ever train it.
        Frozen stripes: u32 = 1,
        /// Class-balanced share of the samples to train on, 0 to 1; evaluations use all.
        Rebuild fraction: f64 = 1.0,
        /// Share of the last 10,000 samples that may fail, 0 to 1.
        Rebuild failure_budget: f64 = 0.01,
        /// When more fail: `pause` (checkpoint, wait for a reload) or `stop`; a run before its first step stops.
        Rebuild on_budget: OnBudget = OnBudget::Pause,
        /// JPEGs that end early: `drop` them, or `keep` them with grey for what is missing.
        Rebuild truncated: Truncated = Truncated::Drop,
        /// `skip` or `stop` when a shard cannot be read.
        Rebuild on_shard_error: OnShardError = OnShardError::Skip,
        /// Extension of the image where a sample holds several pictures, as `input.png`, or a list in order of preference; empty = its only picture.
        Rebuild image: ImageExtensions = ImageExtensions::default(),
        /// Extension of the member that holds a sample's label map, a PNG of class numbers; empty = none is one.
        Rebuild map: String = "seg.png".into(),
        /// Number in label maps that means nothing is said about the pixel.
        Rebuild map_ignore: u32 = 255,
        /// Whether 0 in label maps means that too, and the classes count from 1, as in ADE20K.
        Rebuild map_reduce_zero: bool = false,
        /// Extension of the member that holds a sample's objects, JSON with annotations in COCO's form; empty = none does.
        Rebuild objects: String = "objects.json".into(),
        /// Pixels (width × height) above which an image is refused.
        Rebuild max_pixels: u64 = 64_000_000,
        /// Bytes above which a member of a shard is refused.
        Rebuild max_member_bytes: u64 = 256 << 20,
    }
}

settings! {
    /// `[pipeline]`: how the machine is used. Nothing here changes which batches come out.
    pub struct PipelineConfig in "pipeline" {
        /// Threads that decode, augment and tokenize; 0 = one per core.
        Rebuild workers: usize = 0,
        /// Shards open at once.
        Rebuild readers: usize = 4,
        /// Batches that wait for the trainer at most.
        Rebuild queue_batches: usize = 4,
        /// MiB that wait for the trainer at most.
        Rebuild queue_mib: usize = 1024,
        /// MiB of one ranged request.
        Rebuild fetch_mib: usize = 8,
        /// Requests in flight per open shard; 0 = as many as needed, 2 to 8 (12 while the store throttles).
        Rebuild fetch_ahead: usize = 0,
        /// Seconds without a byte after which a request is retried.
        Rebuild read_timeout_s: f64 = 30.0,
        /// Seconds for which one read is retried.
        Rebuild retry_budget_s: f64 = 1800.0,
        /// Seconds after which a slow request is asked for a second time at the earliest; 0 = never.
        Rebuild hedge_s: f64 = 1.0,
        /// Seconds of work on one sample above which it is reported.
        Rebuild slow_sample_s: f64 = 2.0,
        /// Folder for a local copy of remote shards; empty = none.
        Rebuild cache_dir: String = String::new(),
        /// GiB of that folder at most.
        Rebuild cache_gib: f64 = 50.0,
    }
}

impl DataConfig {
    /// Where one pass over training images can be had: `data.train`, or the first source of a mixture.
    #[must_use]
    pub fn first_place(&self) -> &str {
        self.sources.first().map_or(&self.train, |s| &s.url)
    }

    fn check_sources(&self, found: &mut Findings) {
        let number = self.sources.len();
        found.need(
            number <= crate::cursor::MAX_SOURCES,
            "data.sources",
            format!("{number} entries"),
            "at most 8 entries",
        );
        found.need(
            self.sources.is_empty() || self.train.is_empty(),
            "data.train",
            &self.train,
            "empty where data.sources is set: one or the other",
        );
        for (n, source) in self.sources.iter().enumerate() {
            let key = |field: &str| format!("data.sources[{n}].{field}");
            found.need(
                !source.name.is_empty() && self.sources[..n].iter().all(|s| s.name != source.name),
                &key("name"),
                &source.name,
                "a name that no other source has",
            );
            found.need(
                !source.url.is_empty(),
                &key("url"),
                &source.url,
                "a folder, bucket prefix, glob or range",
            );
            found.need(
                source.weight > 0.0 && source.weight.is_finite(),
                &key("weight"),
                source.weight,
                "above 0",
            );
        }
    }

    /// Checks ranges.
    pub fn check(&self, found: &mut Findings) {
        self.check_sources(found);
        let scheme = self.endpoint.split_once("://").map(|(scheme, _)| scheme.to_ascii_lowercase());
        found.need_or(
            self.endpoint.is_empty() || matches!(scheme.as_deref(), Some("http" | "https")),
            "data.endpoint",
            // What stands here instead may be `user:password@host`.
            "",
            "an address",
            "for example \"https://minio.example:9000\"",
        );
        found.need(
            (1..=1_000_000).contains(&self.shuffle_window),
            "data.shuffle_window",
            self.shuffle_window,
            "1 to 1000000 samples",
        );
        found.need((1..=4096).contains(&self.stripes), "data.stripes", self.stripes, "1 to 4096");
        // What a stripe holds is known by the manifest's counts, which are those of all samples of one place.
        found.need(
            self.stripes <= 1 || self.sources.is_empty(),
            "data.stripes",
            self.stripes,
            "1 where data.sources is set",
        );
        found.need(
            self.stripes <= 1 || self.fraction >= 1.0,
            "data.stripes",
            self.stripes,
            "1 where data.fraction is below 1",
        );
        found.need(
            self.fraction > 0.0 && self.fraction <= 1.0,
            "data.fraction",
            self.fraction,
            "above 0, at most 1",
        );
        found.share("data.failure_budget", self.failure_budget);
        found.need(
            (1..=2_000_000_000).contains(&self.max_pixels),
            "data.max_pixels",
            self.max_pixels,
            "1 to 2000000000",
        );
        let written_as_extension = |extension: &str| !(extension.is_empty() || extension.starts_with('.') || extension.contains('/'));
        let allowed = "what follows the first dot of a file name, without that dot: png, input.png";
        for extension in &*self.image.extensions() {
            found.need(written_as_extension(extension), "data.image", extension, allowed);
        }
        found.need(
            self.map.is_empty() || written_as_extension(&self.map),
            "data.map",
            &self.map,
            "what follows the first dot of a file name, without that dot: seg.png",
        );
        found.need(
            self.objects.is_empty() || written_as_extension(&self.objects) && !self.objects.eq_ignore_ascii_case(&self.map),
            "data.objects",
            &self.objects,
            "what follows the first dot of a file name, without that dot, and not that of data.map: objects.json",
        );
        found.need(
            self.map_ignore <= 65_535,
            "data.map_ignore",
            self.map_ignore,
            "0 to 65535, what a pixel of a PNG can hold",
        );
        found.need(
            (1..=4 << 30).contains(&self.max_member_bytes),
            "data.max_member_bytes",
            self.max_member_bytes,
            "1 to 4294967296 bytes",
        );
    }
}

impl PipelineConfig {
    /// Threads that decode: [`PipelineConfig::workers`], or one per core.
    #[must_use]
    pub fn worker_threads(&self) -> usize {
        match self.workers {
            0 => std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            n => n,
        }
    }

    /// Checks ranges.
    pub fn check(&self, found: &mut Findings) {
        found.need(self.workers <= 1024, "pipeline.workers", self.workers, "0 (one per core) to 1024");
        found.need(
            (1..=256).contains(&self.readers),
            "pipeline.readers",
            self.readers,
            "1 to 256 open shards",
        );
        found.need(
            (1..=1024).contains(&self.queue_batches),
            "pipeline.queue_batches",
            self.queue_batches,
            "1 to 1024 batches",
        );
        found.need(
            (1..=1 << 20).contains(&self.queue_mib),
            "pipeline.queue_mib",
            self.queue_mib,
            "1 to 1048576 MiB",
        );
        found.need(
            (1..=256).contains(&self.fetch_mib),
            "pipeline.fetch_mib",
            self.fetch_mib,
            "1 to 256 MiB",
        );
        found.need(
            self.fetch_ahead <= 64,
            "pipeline.fetch_ahead",
            self.fetch_ahead,
            "0 (as needed) to 64 requests",
        );
        found.need(
            (0.1..=3600.0).contains(&self.read_timeout_s),
            "pipeline.read_timeout_s",
            self.read_timeout_s,
            "0.1 to 3600 seconds",
        );
        found.need(
            (0.0..=86_400.0).contains(&self.retry_budget_s),
            "pipeline.retry_budget_s",
            self.retry_budget_s,
            "0 to 86400 seconds",
        );
        found.need(
            (0.0..=3600.0).contains(&self.hedge_s),
            "pipeline.hedge_s",
            self.hedge_s,
            "0 (never) to 3600 seconds",
        );
        found.need(
            self.slow_sample_s > 0.0 && self.slow_sample_s <= 3600.0,
            "pipeline.slow_sample_s",
            self.slow_sample_s,
            "above 0, at most 3600 seconds",
        );
        found.need(
            self.cache_gib > 0.0 && self.cache_gib.is_finite(),
            "pipeline.cache_gib",
            self.cache_gib,
            "above 0 GiB",
        );
    }
}
