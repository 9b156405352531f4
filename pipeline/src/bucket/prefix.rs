//! A prefix of an object store, or a folder, that is written to: whole objects, objects under a condition, large files in parts, listing, deletion.
//!
//! What reads shards ([`super::Bucket`]) is made for many readers at once; this is made for one writer that must not be noticed: calls block their thread,
//! take bounded memory and bounded time, and say by [`PrefixFailure`] what to do about an error. Connections are those of [`super::connect`].

mod failure;
mod transfer;

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{BackoffConfig, Error, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload, RetryConfig, UpdateVersion};
use prometheus::Gauge;
use tokio::runtime::Handle;

use super::client::Client;
use super::connect;
use super::io::Io;
use super::location::{Location, Shape};
use super::pace::Pace;
use super::secret;
use crate::error::PipelineError;
use crate::metrics::{PipelineMetrics, Scheme};

pub use failure::{PrefixError, PrefixFailure};
pub use transfer::Gate;

/// Time for a request of few bytes, tries of the client included.
const SMALL_LIMIT: Duration = Duration::from_secs(15);
/// A request of many bytes may be as slow as this, bytes per second.
const SLOWEST: u64 = 64 << 10;

/// Time for a request of so many bytes.
fn limit_of(bytes: u64) -> Duration {
    SMALL_LIMIT + Duration::from_secs(bytes / SLOWEST)
}

/// The version of an object, as the store tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectVersion {
    etag: Option<String>,
    generation: Option<String>,
    /// When it was written, by the store's clock.
    pub written: SystemTime,
}

/// What must be there for [`Prefix::put_if`] to write.
#[derive(Debug, Clone, Copy)]
pub enum Expected<'a> {
    /// Nothing.
    Absent,
    /// This version.
    Version(&'a ObjectVersion),
}

/// A prefix or a folder. May be used by several threads.
pub struct Prefix {
    client: Client,
    /// Under the root, without slashes at its ends; empty = the root itself.
    folder: String,
    shown: String,
    io: Io,
}

impl Prefix {
    /// Whether `url` can be the address of a prefix that is written to.
    ///
    /// # Errors
    /// Why not, in words.
    pub fn check(url: &str) -> Result<(), String> {
        Self::parsed(url).map(drop).map_err(|e| match e {
            PipelineError::BadUrl { detail, .. } => detail,
            other => other.to_string(),
        })
    }

    fn parsed(url: &str) -> Result<(Location, String), PipelineError> {
        let location = Location::parse(url)?;
        let bad = |detail: &str| PipelineError::BadUrl {
            url: secret::hidden(url),
            detail: detail.to_owned(),
        };
        match (&location.scheme, &location.shape) {
            (Scheme::Http, _) => Err(bad("a plain web server cannot be written to")),
            (_, Shape::Folder(folder)) => {
                let folder = folder.clone();
                Ok((location, folder))
            }
            _ => Err(bad("a folder is meant, not a pattern, a range or a tar")),
        }
    }

    /// A prefix or folder, which is made. No request goes out. `endpoint` replaces the provider's address, as for shards; empty = the provider's.
    /// Credentials come from the environment.
    ///
    /// # Errors
    /// [`PipelineError::BadUrl`]; [`PipelineError::Io`] for a folder that cannot be made.
    pub fn open(url: &str, endpoint: &str, threads: &str) -> Result<Self, PipelineError> {
        let (location, folder) = Self::parsed(url)?;
        let shown = location.shown.trim_end_matches('/').to_owned();
        if secret::has_user(endpoint) {
            return Err(PipelineError::BadUrl {
                url: secret::hidden(endpoint),
                detail: "credentials belong into the environment, not into the address".into(),
            });
        }
        let io = Io::start(threads, 1)?;
        if location.scheme == Scheme::File {
            let root = folder;
            std::fs::create_dir_all(&root).map_err(|source| PipelineError::Io {
                path: root.clone(),
                source,
            })?;
            let client = Client::new(move || {
                let store = LocalFileSystem::new_with_prefix(&root).map_err(|e| PipelineError::BadUrl {
                    url: root.clone(),
                    detail: e.to_string(),
                })?;
                Ok(Arc::new(store.with_fsync(true).with_automatic_cleanup(true)))
            })?;
            return Ok(Self {
                client,
                folder: String::new(),
                shown,
                io,
            });
        }
        // Neither gauges nor counters of what reads shards: an upload that is throttled says nothing about them.
        let pace = Arc::new(Pace::new(
            8,
            1,
            Duration::ZERO,
            Gauge::new("unregistered", "Nobody reads it.").expect("the name is valid"),
        ));
        let metrics = PipelineMetrics::default();
        let endpoint = endpoint.to_owned();
        // The client tries single requests again, so that a hiccup in a large upload does not begin it anew.
        let retry = || RetryConfig {
            backoff: BackoffConfig {
                init_backoff: Duration::from_millis(100),
                max_backoff: Duration::from_secs(2),
                base: 2.0,
            },
            max_retries: 4,
            retry_timeout: Duration::from_secs(60),
        };
        let client = Client::new(move || connect::connect(&location, &endpoint, SMALL_LIMIT, retry(), &pace, &metrics))?;
        Ok(Self {
            client,
            folder: folder.trim_matches('/').to_owned(),
            shown,
            io,
        })
    }

    /// The address, as it may be shown.
    #[must_use]
    pub fn shown(&self) -> &str {
        &self.shown
    }

    fn handle(&self) -> &Handle {
        self.io.handle()
    }

    fn error(&self, name: &str, kind: PrefixFailure, detail: String) -> PrefixError {
        PrefixError {
            kind,
            place: format!("{}/{name}", self.shown),
            detail,
        }
    }

    fn key(&self, name: &str) -> Result<Path, PrefixError> {
        let text = if self.folder.is_empty() {
            name.to_owned()
        } else {
            format!("{}/{name}", self.folder)
        };
        Path::parse(text.trim_end_matches('/')).map_err(|e| self.error(name, PrefixFailure::Refused, e.to_string()))
    }

    /// Waits for an answer, so long at most.
    fn wait<T>(&self, name: &str, limit: Duration, answer: impl Future<Output = object_store::Result<T>>) -> Result<T, PrefixError> {
        let waited = self.handle().block_on(async { tokio::time::timeout(limit, answer).await });
        match waited {
            Ok(answer) => answer.map_err(|e| PrefixError::of(&e, format!("{}/{name}", self.shown))),
            Err(_) => Err(self.error(name, PrefixFailure::Away, format!("no answer for {} s", limit.as_secs()))),
        }
    }

    /// Asks the store; once more with credentials that were read anew where it refuses those in use.
    fn ask<T, F>(&self, name: &str, limit: Duration, request: impl Fn(Arc<dyn ObjectStore>) -> F) -> Result<T, PrefixError>
    where
        F: Future<Output = object_store::Result<T>>,
    {
        let (number, store) = self.client.current();
        match self.wait(name, limit, request(store)) {
            Err(e) if e.kind == PrefixFailure::Denied => {
                self.client.renew(number);
                self.wait(name, limit, request(self.client.current().1))
            }
            done => done,
        }
    }

    /// Writes a small object, whatever was there.
    ///
    /// # Errors
    /// What the store says.
    pub fn put(&self, name: &str, bytes: impl Into<Bytes>) -> Result<(), PrefixError> {
        let (key, bytes) = (self.key(name)?, bytes.into());
        self.ask(name, limit_of(bytes.len() as u64), |store| {
            let (key, payload) = (key.clone(), PutPayload::from(bytes.clone()));
            async move { store.put(&key, payload).await }
        })?;
        Ok(())
    }

    /// Writes a small object if what is there is as expected. Answers whether that was one act: a store without conditions (a folder, for one) is looked
    /// at first, and written to then.
    ///
    /// # Errors
    /// [`PrefixFailure::Conflict`] if something else is there; what the store says.
    pub fn put_if(&self, name: &str, bytes: impl Into<Bytes>, expected: Expected<'_>) -> Result<bool, PrefixError> {
        let (key, bytes) = (self.key(name)?, bytes.into());
        let mode = match expected {
            Expected::Absent => PutMode::Create,
            Expected::Version(v) => PutMode::Update(UpdateVersion {
                e_tag: v.etag.clone(),
                version: v.generation.clone(),
            }),
        };
        let asked = self.ask(name, SMALL_LIMIT, |store| {
            let (key, payload) = (key.clone(), PutPayload::from(bytes.clone()));
            let options = PutOptions::from(mode.clone());
            async move { store.put_opts(&key, payload, options).await }
        });
        match asked {
            Ok(_) => return Ok(true),
            Err(e) if e.kind == PrefixFailure::Refused || says_no_conditions(&e) => {}
            Err(e) => return Err(e),
        }
        let there = self.get(name)?.map(|(_, version)| version);
        let as_expected = match (&there, expected) {
            (None, Expected::Absent) => true,
            (Some(there), Expected::Version(wanted)) => there == wanted,
            _ => false,
        };
        if !as_expected {
            return Err(self.error(name, PrefixFailure::Conflict, "it is another one than it was".into()));
        }
        self.put(name, bytes)?;
        Ok(false)
    }

    /// A small object and its version; `None` if it is not there.
    ///
    /// # Errors
    /// What the store says.
    pub fn get(&self, name: &str) -> Result<Option<(Bytes, ObjectVersion)>, PrefixError> {
        let key = self.key(name)?;
        let got = self.ask(name, SMALL_LIMIT, |store| {
            let key = key.clone();
            async move {
                let got = store.get(&key).await?;
                let meta = got.meta.clone();
                Ok::<_, Error>((got.bytes().await?, meta))
            }
        });
        match got {
            Ok((bytes, meta)) => Ok(Some((
                bytes,
                ObjectVersion {
                    etag: meta.e_tag,
                    generation: meta.version,
                    written: meta.last_modified.into(),
                },
            ))),
            Err(e) if e.kind == PrefixFailure::Missing => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Names and sizes of all objects below `folder` of the prefix (empty = all), in alphabetical order.
    ///
    /// # Errors
    /// What the store says.
    pub fn list(&self, folder: &str) -> Result<Vec<(String, u64)>, PrefixError> {
        let key = self.key(folder)?;
        let all = self.ask(folder, limit_of(SLOWEST * 45), |store| {
            let key = key.clone();
            async move { store.list(Some(&key)).try_collect::<Vec<_>>().await }
        })?;
        let before = if self.folder.is_empty() { 0 } else { self.folder.len() + 1 };
        let named = all.into_iter().filter_map(|meta| {
            let name = meta.location.as_ref().get(before..)?.to_owned();
            Some((name, meta.size))
        });
        let mut named: Vec<(String, u64)> = named.collect();
        named.sort();
        Ok(named)
    }

    /// Deletes an object; one that is not there is fine.
    ///
    /// # Errors
    /// What the store says.
    pub fn delete(&self, name: &str) -> Result<(), PrefixError> {
        let key = self.key(name)?;
        let deleted = self.ask(name, SMALL_LIMIT, |store| {
            let key = key.clone();
            async move { store.delete(&key).await }
        });
        match deleted {
            Err(e) if e.kind == PrefixFailure::Missing => Ok(()),
            done => done,
        }
    }
}

/// Whether a store answered that it knows no conditions, or told no version that a condition could name.
fn says_no_conditions(error: &PrefixError) -> bool {
    ["status code: 501", "ETag required", "Version required"]
        .iter()
        .any(|words| error.detail.contains(words))
}

impl std::fmt::Debug for Prefix {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Prefix").field("address", &self.shown).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
