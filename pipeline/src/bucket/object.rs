//! One object of a store: where it lies, how it is read, and its errors.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use object_store::path::Path;

use super::client::Client;
use super::pace::Pace;
use super::refusal::Others;
use super::web::Web;
use crate::error::ShardError;
use crate::metrics::{PipelineMetrics, Scheme};

/// How objects are read.
#[derive(Debug, Clone, PartialEq)]
pub struct FetchOptions {
    /// Bytes of one ranged request.
    pub part: u64,
    /// Parts asked for ahead of the reader; 0 = as many as it takes for it not to wait, within bounds.
    pub ahead: usize,
    /// Time without a byte after which a request is given up and retried.
    pub read_timeout: Duration,
    /// Time without progress after which a read fails.
    pub retry_budget: Duration,
    /// Requests in flight at most, over all objects of a place; fewer while it throttles.
    pub most: usize,
    /// Time after which a slow read is asked for a second time at the earliest; zero = never.
    pub hedge: Duration,
}

/// One object to read.
#[derive(Clone)]
pub struct Object {
    /// Where it lies.
    pub client: Arc<Client>,
    /// The same place asked without ranges, if it is a plain web server.
    pub web: Option<Arc<Web>>,
    /// How many requests at once.
    pub pace: Arc<Pace>,
    /// What else can be asked for when it is refused.
    pub others: Arc<Others>,
    /// Its key.
    pub key: Path,
    /// Its size, if a listing or manifest told it; only used to ask for the right number of parts at once from the start.
    pub size: Option<u64>,
    /// Its name in messages.
    pub shard: Arc<str>,
    /// Kind of store, for metrics.
    pub scheme: Scheme,
    /// Whether a second request for one of its parts was served before the first.
    pub crawls: Arc<AtomicBool>,
    /// How to read.
    pub options: FetchOptions,
    /// Counts.
    pub metrics: PipelineMetrics,
}

/// Size and ETag seen at the first read; later ones must match.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Version {
    pub(super) size: u64,
    pub(super) etag: Option<String>,
}

impl Object {
    /// It is another one than it was.
    pub(super) fn changed(&self, before: &Version, after: &Version) -> ShardError {
        let text = |v: &Version| v.etag.clone().unwrap_or_else(|| format!("none, {} bytes", v.size));
        ShardError::Changed {
            shard: self.shard.to_string(),
            before: text(before),
            after: text(after),
        }
    }

    /// It could not be read in time.
    pub(super) fn unreachable(&self, offset: u64, attempts: u32, elapsed: Duration, detail: String) -> ShardError {
        ShardError::Unreachable {
            shard: self.shard.to_string(),
            offset,
            attempts,
            elapsed_s: elapsed.as_secs_f64(),
            detail,
        }
    }
}
