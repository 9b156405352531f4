//! The settings of the pipeline. Each key's reload class is in the daemon's table; defaults suit one machine and a nearby bucket.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::error::PipelineError;

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

/// `[data]`: which samples, in which order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DataConfig {
    /// Shards to train on: folder or bucket prefix with a manifest or `*.tar`, a glob, or a range `{000000..000146}`.
    pub train: String,
    /// Several places to mix by weight, instead of `data.train`.
    pub sources: Vec<SourceConfig>,
    /// Labelled shards for evaluation; empty = none.
    pub val: String,
    /// Object store endpoint to use instead of the provider's (MinIO, R2, a test server); empty = the provider's.
    pub endpoint: String,
    /// Samples that are shuffled among each other; held as undecoded bytes. Changed during a run, it holds from the next window on: the
    /// one under way keeps its size, so that each sample of the epoch still comes exactly once.
    pub shuffle_window: u32,
    /// Share of the samples to use (1 = all); a smaller share lies inside a larger one. Shards of `splitmask pack` give exactly this share
    /// of each class, others a hash of the key, which does so on average.
    pub fraction: f64,
    /// Share of samples that may fail among the last 10,000.
    pub failure_budget: f64,
    /// What happens when more fail.
    pub on_budget: OnBudget,
    /// What happens to JPEGs that end early.
    pub truncated: Truncated,
    /// What happens when a shard cannot be read.
    pub on_shard_error: OnShardError,
    /// Extensions of the image, in order of preference, where a sample holds several pictures; all that follows the first dot of the file
    /// name, as `input.png`. Empty: a sample has one picture, and two end the start.
    pub image: ImageExtensions,
    /// Pixels (width × height) above which an image is refused.
    pub max_pixels: u64,
    /// Bytes above which a member is refused.
    pub max_member_bytes: u64,
}

impl Default for DataConfig {
    fn default() -> Self {
        Self {
            train: String::new(),
            sources: vec![],
            val: String::new(),
            endpoint: String::new(),
            shuffle_window: 2048,
            fraction: 1.0,
            failure_budget: 0.01,
            on_budget: OnBudget::Pause,
            truncated: Truncated::Drop,
            on_shard_error: OnShardError::Skip,
            image: ImageExtensions::default(),
            max_pixels: 64_000_000,
            max_member_bytes: 256 << 20,
        }
    }
}

/// `[pipeline]`: how the machine is used. Nothing here changes which batches come out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PipelineConfig {
    /// Threads that decode, augment and tokenize; 0 = one per core.
    pub workers: usize,
    /// Shards open at once.
    pub readers: usize,
    /// Batches that wait for the trainer at most.
    pub queue_batches: usize,
    /// Bytes that wait for the trainer at most, MiB.
    pub queue_mib: usize,
    /// Bytes of one ranged request, MiB.
    pub fetch_mib: usize,
    /// Requests in flight per open shard; 0 = two, and up to eight while the reader has to wait (a far or fast store),
    /// twelve while the store throttles.
    pub fetch_ahead: usize,
    /// Seconds without a byte after which a request is given up and retried.
    pub read_timeout_s: f64,
    /// Seconds for which one read is retried before its shard counts as unreachable.
    pub retry_budget_s: f64,
    /// Seconds after which a slow request is asked for a second time at the earliest; twice the 95th percentile of the last requests if
    /// that is later. 0 = never.
    pub hedge_s: f64,
    /// Seconds of work on one sample above which it is reported.
    pub slow_sample_s: f64,
    /// Folder for a local copy of remote shards; empty = none.
    pub cache_dir: String,
    /// Size of that folder at most, GiB.
    pub cache_gib: f64,
}

impl Default for PipelineConfig {
    fn default() -> Self {
        Self {
            workers: 0,
            readers: 4,
            queue_batches: 4,
            queue_mib: 1024,
            fetch_mib: 8,
            fetch_ahead: 0,
            read_timeout_s: 30.0,
            retry_budget_s: 1800.0,
            hedge_s: 1.0,
            slow_sample_s: 2.0,
            cache_dir: String::new(),
            cache_gib: 50.0,
        }
    }
}

impl DataConfig {
    /// Where one pass over training images can be had: `data.train`, or the first source of a mixture.
    #[must_use]
    pub fn first_place(&self) -> &str {
        self.sources.first().map_or(&self.train, |s| &s.url)
    }

    fn validate_sources(&self) -> Result<(), PipelineError> {
        let refuse = |key: String, value: String, detail: &str| {
            Err(PipelineError::BadSetting {
                key,
                value,
                detail: detail.into(),
            })
        };
        if self.sources.len() > crate::cursor::MAX_SOURCES {
            return refuse(
                "data.sources".into(),
                format!("{} entries", self.sources.len()),
                "at most 8 entries",
            );
        }
        if !self.sources.is_empty() && !self.train.is_empty() {
            return refuse(
                "data.train".into(),
                self.train.clone(),
                "empty where data.sources is set: one or the other",
            );
        }
        for (n, source) in self.sources.iter().enumerate() {
            let key = |field: &str| format!("data.sources[{n}].{field}");
            if source.name.is_empty() || self.sources[..n].iter().any(|s| s.name == source.name) {
                return refuse(key("name"), source.name.clone(), "a name that no other source has");
            }
            if source.url.is_empty() {
                return refuse(key("url"), source.url.clone(), "a folder, bucket prefix, glob or range");
            }
            if !(source.weight > 0.0 && source.weight.is_finite()) {
                return refuse(key("weight"), source.weight.to_string(), "above 0");
            }
        }
        Ok(())
    }

    /// Checks ranges.
    ///
    /// # Errors
    /// [`PipelineError::BadSetting`] naming the key and the allowed range.
    pub fn validate(&self) -> Result<(), PipelineError> {
        self.validate_sources()?;
        check(
            "data.shuffle_window",
            self.shuffle_window,
            (1..=1_000_000).contains(&self.shuffle_window),
            "1 to 1000000 samples",
        )?;
        check(
            "data.fraction",
            self.fraction,
            self.fraction > 0.0 && self.fraction <= 1.0,
            "above 0, at most 1",
        )?;
        check(
            "data.failure_budget",
            self.failure_budget,
            (0.0..=1.0).contains(&self.failure_budget),
            "0 to 1",
        )?;
        check(
            "data.max_pixels",
            self.max_pixels,
            (1..=2_000_000_000).contains(&self.max_pixels),
            "1 to 2000000000",
        )?;
        for extension in &*self.image.extensions() {
            if extension.is_empty() || extension.starts_with('.') || extension.contains('/') {
                return Err(PipelineError::BadSetting {
                    key: "data.image".into(),
                    value: extension.clone(),
                    detail: "what follows the first dot of a file name, without that dot: png, input.png".into(),
                });
            }
        }
        let bytes = self.max_member_bytes;
        check(
            "data.max_member_bytes",
            bytes,
            (1..=4 << 30).contains(&bytes),
            "1 to 4294967296 bytes",
        )
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
    ///
    /// # Errors
    /// [`PipelineError::BadSetting`] naming the key and the allowed range.
    pub fn validate(&self) -> Result<(), PipelineError> {
        check("pipeline.workers", self.workers, self.workers <= 1024, "0 (one per core) to 1024")?;
        check(
            "pipeline.readers",
            self.readers,
            (1..=256).contains(&self.readers),
            "1 to 256 open shards",
        )?;
        check(
            "pipeline.queue_batches",
            self.queue_batches,
            (1..=1024).contains(&self.queue_batches),
            "1 to 1024 batches",
        )?;
        check(
            "pipeline.queue_mib",
            self.queue_mib,
            (1..=1 << 20).contains(&self.queue_mib),
            "1 to 1048576 MiB",
        )?;
        check(
            "pipeline.fetch_mib",
            self.fetch_mib,
            (1..=256).contains(&self.fetch_mib),
            "1 to 256 MiB",
        )?;
        check(
            "pipeline.fetch_ahead",
            self.fetch_ahead,
            self.fetch_ahead <= 64,
            "0 (as needed) to 64 requests",
        )?;
        check(
            "pipeline.read_timeout_s",
            self.read_timeout_s,
            (0.1..=3600.0).contains(&self.read_timeout_s),
            "0.1 to 3600 seconds",
        )?;
        check(
            "pipeline.retry_budget_s",
            self.retry_budget_s,
            (0.0..=86_400.0).contains(&self.retry_budget_s),
            "0 to 86400 seconds",
        )?;
        check(
            "pipeline.hedge_s",
            self.hedge_s,
            (0.0..=3600.0).contains(&self.hedge_s),
            "0 (never) to 3600 seconds",
        )?;
        check(
            "pipeline.slow_sample_s",
            self.slow_sample_s,
            self.slow_sample_s > 0.0 && self.slow_sample_s <= 3600.0,
            "above 0, at most 3600 seconds",
        )?;
        check(
            "pipeline.cache_gib",
            self.cache_gib,
            self.cache_gib > 0.0 && self.cache_gib.is_finite(),
            "above 0 GiB",
        )
    }
}

fn check(key: &str, value: impl std::fmt::Display + Copy, ok: bool, detail: &str) -> Result<(), PipelineError> {
    if ok {
        return Ok(());
    }
    Err(PipelineError::BadSetting {
        key: key.into(),
        value: value.to_string(),
        detail: detail.into(),
    })
}
