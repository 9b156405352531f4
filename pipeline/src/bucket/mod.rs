//! Where shards live: object stores and folders behind one interface, and the manifest that describes them.

pub mod cache;
pub mod checksum;
pub mod classes;
pub mod client;
pub mod connect;
pub mod differences;
mod discover;
pub mod fetch;
mod io;
pub mod location;
pub mod manifest;
pub mod object;
pub mod pace;
pub mod prefix;
mod ranges;
pub mod refusal;
pub mod retry;
pub mod secret;
pub mod shard;
mod tries;
pub mod verdict;
pub mod web;
mod whole;

use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use object_store::path::Path;
use tokio::runtime::Handle;

use self::cache::ShardCache;
use self::checksum::Compared;
use self::client::Client;
use self::differences::Differences;
use self::discover::Found;
use self::io::Io;
use self::location::Location;
use self::manifest::Manifest;
use self::object::{FetchOptions, Object};
use self::pace::Pace;
use self::refusal::Others;
use self::web::Web;
use crate::error::PipelineError;
use crate::metrics::{PipelineMetrics, Scheme};

pub use self::shard::{Place, Shard};

/// Longest time for which opening a place is retried: a wrong address should be told soon.
const OPENING_PATIENCE: Duration = Duration::from_secs(15);

/// A place with its shards, ready to be read.
pub struct Bucket {
    /// Kind of store.
    pub scheme: Scheme,
    /// Shards in their unshuffled order; at least one.
    pub shards: Vec<Shard>,
    /// What the place says about itself.
    pub manifest: Option<Manifest>,
    /// Where that and what is there disagree.
    pub differences: Arc<Differences>,
    options: FetchOptions,
    metrics: PipelineMetrics,
    remote: Option<Remote>,
    cache: Option<Arc<ShardCache>>,
    checksums: bool,
}

struct Remote {
    client: Arc<Client>,
    /// Of a plain web server.
    web: Option<Arc<Web>>,
    pace: Arc<Pace>,
    others: Arc<Others>,
    io: Io,
}

impl Bucket {
    /// Finds the shards at `url`. Blocks; may be called from any thread, also one of an async runtime.
    ///
    /// `endpoint` replaces the provider's address (path-style for S3; plain http allowed); empty = the provider's.
    ///
    /// # Errors
    /// [`PipelineError::BadUrl`], [`PipelineError::Empty`], [`PipelineError::Unreachable`], [`PipelineError::Refused`], [`PipelineError::BadManifest`],
    /// [`PipelineError::Io`].
    pub fn open(url: &str, endpoint: &str, options: FetchOptions, metrics: PipelineMetrics) -> Result<Self, PipelineError> {
        let location = Location::parse(url)?;
        if secret::has_user(endpoint) {
            return Err(PipelineError::BadUrl {
                url: secret::hidden(endpoint),
                detail: "credentials belong into the environment, not into the address".into(),
            });
        }
        if location.scheme == Scheme::File {
            let found = discover::in_folder(&location)?;
            return Ok(Self {
                scheme: location.scheme,
                differences: noticed(&found, &metrics),
                shards: found.shards,
                manifest: found.manifest,
                options,
                metrics,
                remote: None,
                cache: None,
                checksums: false,
            });
        }
        let pace = Arc::new(Pace::new(
            options.most,
            options.ahead,
            options.hedge,
            metrics.store_request_limit.clone(),
        ));
        let client = {
            let (location, endpoint, metrics, pace) = (location.clone(), endpoint.to_owned(), metrics.clone(), Arc::clone(&pace));
            let read_timeout = options.read_timeout;
            Client::new(move || connect::connect(&location, &endpoint, read_timeout, connect::no_retry(), &pace, &metrics))?
        };
        let web = match location.scheme {
            Scheme::Http => Some(Arc::new(connect::web(&location, options.read_timeout, &pace, &metrics)?)),
            _ => None,
        };
        let (_, store) = client.current();
        let io = Io::start("pipeline-io", 2)?;
        let asker = discover::Asker {
            store: &store,
            web: web.as_deref(),
            location: &location,
            read_timeout: options.read_timeout,
            patience: OPENING_PATIENCE.min(options.retry_budget),
            metrics: &metrics,
        };
        // A thread of its own, because `block_on` is forbidden on the threads of a runtime.
        let found = std::thread::scope(|scope| scope.spawn(|| io.handle().block_on(asker.find())).join());
        let found = found.unwrap_or_else(|panic| {
            Err(PipelineError::Panicked {
                stage: "open",
                detail: crate::stage::panic_text(&*panic),
            })
        })?;
        let keys: Vec<&Path> = found
            .shards
            .iter()
            .filter_map(|s| match &s.place {
                Place::Object(key) => Some(key),
                Place::File(_) => None,
            })
            .collect();
        let others = Arc::new(Others::new(&keys));
        Ok(Self {
            scheme: location.scheme,
            differences: noticed(&found, &metrics),
            shards: found.shards,
            manifest: found.manifest,
            options,
            metrics,
            remote: Some(Remote {
                client: Arc::new(client),
                web,
                pace,
                others,
                io,
            }),
            cache: None,
            checksums: false,
        })
    }

    /// The shard as an object to read, and the runtime for it; `None` for local files.
    #[must_use]
    pub fn object(&self, shard: &Shard) -> Option<(Object, Handle)> {
        let (Place::Object(key), Some(remote)) = (&shard.place, &self.remote) else {
            return None;
        };
        let object = Object {
            client: Arc::clone(&remote.client),
            web: remote.web.clone(),
            pace: Arc::clone(&remote.pace),
            others: Arc::clone(&remote.others),
            key: key.clone(),
            size: shard.bytes,
            shard: Arc::clone(&shard.path),
            scheme: self.scheme,
            crawls: Arc::default(),
            options: self.options.clone(),
            metrics: self.metrics.clone(),
        };
        Some((object, remote.io.handle().clone()))
    }

    /// Keeps local copies of remote shards from now on; local ones are read where they are.
    #[must_use]
    pub fn with_cache(mut self, cache: ShardCache) -> Self {
        self.cache = self.remote.is_some().then(|| Arc::new(cache));
        self
    }

    /// Compares the checksum of every shard that is read to its end from now on; costs about a second for each gigabyte.
    pub fn compare_checksums(&mut self) {
        self.checksums = true;
    }

    /// A shard's bytes on their way to its reader.
    #[must_use]
    pub fn watched(&self, shard: &Shard, input: Box<dyn Read + Send>) -> Box<dyn Read + Send> {
        match self.checksums && shard.sha256.is_some() {
            true => Box::new(Compared::new(input, shard, &self.differences)),
            false => input,
        }
    }

    /// Local copies, if any are kept.
    #[must_use]
    pub fn cache(&self) -> Option<&Arc<ShardCache>> {
        self.cache.as_ref()
    }

    /// How long a read that fails is tried again.
    #[must_use]
    pub fn retry_budget(&self) -> Duration {
        self.options.retry_budget
    }

    /// The pipeline's metrics.
    #[must_use]
    pub fn metrics(&self) -> &PipelineMetrics {
        &self.metrics
    }
}

/// The differences of what was found, logged.
fn noticed(found: &Found, metrics: &PipelineMetrics) -> Arc<Differences> {
    let differences = Differences::new(found.manifest.as_ref(), metrics.clone());
    differences.listed(found.differences.clone());
    Arc::new(differences)
}

impl std::fmt::Debug for Bucket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bucket")
            .field("scheme", &self.scheme)
            .field("shards", &self.shards.len())
            .finish_non_exhaustive()
    }
}
