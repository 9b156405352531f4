//! One object as a stream of bytes: bounded ranged reads in flight, each retried from the byte where it broke.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt};
use object_store::path::Path;
use object_store::{GetOptions, GetRange, ObjectStore, ObjectStoreExt};
use tokio::task::JoinHandle;

use super::retry::{Backoff, Verdict, chain, judge};
use crate::error::ShardError;
use crate::metrics::{PipelineMetrics, RetryReason, Scheme, Stage};

/// How objects are read.
#[derive(Debug, Clone, PartialEq)]
pub struct FetchOptions {
    /// Bytes of one ranged request.
    pub part: u64,
    /// Requests in flight.
    pub ahead: usize,
    /// Time without a byte after which a request is given up and retried.
    pub read_timeout: Duration,
    /// Time without progress after which a read fails.
    pub retry_budget: Duration,
}

/// One object to read.
#[derive(Clone)]
pub struct Object {
    /// Where it lies.
    pub store: Arc<dyn ObjectStore>,
    /// Its key.
    pub key: Path,
    /// Its name in messages.
    pub shard: Arc<str>,
    /// Kind of store, for metrics.
    pub scheme: Scheme,
    /// How to read.
    pub options: FetchOptions,
    /// Counts.
    pub metrics: PipelineMetrics,
}

/// Size and ETag seen at the first read; later ones must match.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Version {
    size: u64,
    etag: Option<String>,
}

/// Why an attempt ended without all its bytes.
enum Broken {
    Retry(RetryReason, String),
    Denied(String),
    Empty(Version),
    Final(ShardError),
}

/// A request that runs to its end whether or not its consumer is ready, so that no server ever waits for a slow trainer.
struct InFlight(JoinHandle<Result<Bytes, ShardError>>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Object {
    /// All bytes in order. Must be polled inside a tokio runtime. Holds at most (`ahead` + 1) × `part` bytes.
    ///
    /// # Errors
    /// [`ShardError::NotFound`], [`ShardError::Denied`], [`ShardError::Changed`] when size or ETag differ from the first read's,
    /// [`ShardError::Unreachable`] when the retry budget is spent. The stream ends after an error.
    pub fn stream(self) -> impl Stream<Item = Result<Bytes, ShardError>> + Send + 'static {
        let object = Arc::new(self);
        async_stream::try_stream! {
            let (bytes, version) = object.read(0..object.options.part, None).await?;
            let mut next = bytes.len() as u64;
            if !bytes.is_empty() {
                yield bytes;
            }
            let mut flying: VecDeque<InFlight> = VecDeque::new();
            loop {
                while flying.len() < object.options.ahead && next < version.size {
                    let range = next..(next + object.options.part).min(version.size);
                    next = range.end;
                    let (object, version) = (Arc::clone(&object), version.clone());
                    flying.push_back(InFlight(tokio::spawn(async move { object.read(range, Some(version)).await.map(|(b, _)| b) })));
                }
                let Some(mut first) = flying.pop_front() else { break };
                yield (&mut first.0).await.map_err(|e| object.unreachable(next, 0, Duration::ZERO, e.to_string()))??;
            }
        }
    }

    /// Reads one range, however often the connection breaks.
    async fn read(&self, range: Range<u64>, version: Option<Version>) -> Result<(Bytes, Version), ShardError> {
        let start = Instant::now();
        let mut known = version;
        let mut buffer = BytesMut::new();
        let (mut progress, mut attempts, mut denied) = (Instant::now(), 0, false);
        let mut backoff = Backoff::default();
        loop {
            let had = buffer.len();
            let broken = match self.attempt(&range, &mut known, &mut buffer).await {
                Ok(version) => {
                    self.metrics.fetch_duration.observe(start.elapsed().as_secs_f64());
                    self.metrics.busy.add(Stage::Fetch, start.elapsed());
                    return Ok((buffer.freeze(), version));
                }
                Err(broken) => broken,
            };
            if buffer.len() > had {
                (progress, attempts, denied) = (Instant::now(), 0, false);
                backoff = Backoff::default();
            }
            attempts += 1;
            let offset = range.start + buffer.len() as u64;
            let (reason, detail) = match broken {
                Broken::Retry(reason, detail) => (reason, detail),
                // Tokens expire: the second try takes fresh ones from the environment's provider.
                Broken::Denied(detail) if !denied => {
                    denied = true;
                    (RetryReason::Denied, detail)
                }
                Broken::Denied(detail) => {
                    return Err(ShardError::Denied {
                        shard: self.shard.to_string(),
                        detail,
                    });
                }
                Broken::Empty(version) => return Ok((Bytes::new(), version)),
                Broken::Final(error) => return Err(error),
            };
            let delay = backoff.delay();
            if progress.elapsed() + delay > self.options.retry_budget {
                return Err(self.unreachable(offset, attempts, progress.elapsed(), detail));
            }
            tracing::debug!(shard = %self.shard, offset, attempts, reason = ?reason, %detail, "read broke, trying again");
            self.metrics.fetch_retries.of(reason).inc();
            self.metrics.store_retries.of(reason).inc();
            if offset > range.start {
                self.metrics.store_resumed_reads.inc();
            }
            tokio::time::sleep(delay).await;
        }
    }

    /// One request from where `buffer` ends; appends what comes.
    async fn attempt(&self, range: &Range<u64>, known: &mut Option<Version>, buffer: &mut BytesMut) -> Result<Version, Broken> {
        let limit = self.options.read_timeout;
        let offset = range.start + buffer.len() as u64;
        let options = GetOptions {
            range: Some(GetRange::Bounded(offset..range.end)),
            if_match: known.as_ref().and_then(|v| v.etag.clone()),
            ..GetOptions::default()
        };
        let answer = match tokio::time::timeout(limit, self.store.get_opts(&self.key, options)).await {
            Err(_) => return Err(timed_out(limit)),
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => return Err(self.explain(&error, offset, known.as_ref()).await),
        };
        let seen = Version {
            size: answer.meta.size,
            etag: answer.meta.e_tag.clone(),
        };
        let version = match known {
            Some(version) if *version != seen => return Err(Broken::Final(self.changed(version, &seen))),
            Some(version) => version.clone(),
            None => known.insert(seen).clone(),
        };
        let want = range.end.min(version.size) - range.start;
        buffer.reserve((want as usize).saturating_sub(buffer.len()));
        let mut body = answer.into_stream();
        loop {
            match tokio::time::timeout(limit, body.next()).await {
                Err(_) => return Err(timed_out(limit)),
                Ok(Some(Ok(bytes))) => {
                    let room = want as usize - buffer.len();
                    let bytes = bytes.slice(..bytes.len().min(room));
                    self.metrics.bytes_read.of(self.scheme).inc_by(bytes.len() as u64);
                    buffer.extend_from_slice(&bytes);
                }
                Ok(Some(Err(error))) => return Err(self.explain(&error, offset, known.as_ref()).await),
                Ok(None) if (buffer.len() as u64) < want => {
                    let detail = format!("the body ended after {} of {want} bytes", buffer.len());
                    return Err(Broken::Retry(RetryReason::EarlyEnd, detail));
                }
                Ok(None) => return Ok(version),
            }
        }
    }

    async fn explain(&self, error: &object_store::Error, offset: u64, known: Option<&Version>) -> Broken {
        let shard = || self.shard.to_string();
        match judge(error) {
            Verdict::Retry(reason) => Broken::Retry(reason, chain(error)),
            Verdict::NotFound if known.is_none() => Broken::Final(ShardError::NotFound { shard: shard() }),
            Verdict::Denied => Broken::Denied(chain(error)),
            // Changed or gone, or empty from the start: the object's head says which.
            Verdict::NotFound | Verdict::Changed | Verdict::OutOfRange => match self.head().await {
                Ok(seen) => match known {
                    Some(version) if *version != seen => Broken::Final(self.changed(version, &seen)),
                    None if seen.size <= offset => Broken::Empty(seen),
                    _ => Broken::Retry(RetryReason::Other, chain(error)),
                },
                Err(head) if judge(&head) == Verdict::NotFound => Broken::Final(ShardError::NotFound { shard: shard() }),
                Err(head) => Broken::Retry(RetryReason::Other, chain(&head)),
            },
            Verdict::Final => Broken::Final(self.unreachable(offset, 1, Duration::ZERO, chain(error))),
        }
    }

    async fn head(&self) -> object_store::Result<Version> {
        let meta = tokio::time::timeout(self.options.read_timeout, self.store.head(&self.key))
            .await
            .unwrap_or_else(|_| {
                Err(object_store::Error::Generic {
                    store: "head",
                    source: "timed out".into(),
                })
            })?;
        Ok(Version {
            size: meta.size,
            etag: meta.e_tag,
        })
    }

    fn changed(&self, before: &Version, after: &Version) -> ShardError {
        let text = |v: &Version| v.etag.clone().unwrap_or_else(|| format!("none, {} bytes", v.size));
        ShardError::Changed {
            shard: self.shard.to_string(),
            before: text(before),
            after: text(after),
        }
    }

    fn unreachable(&self, offset: u64, attempts: u32, elapsed: Duration, detail: String) -> ShardError {
        ShardError::Unreachable {
            shard: self.shard.to_string(),
            offset,
            attempts,
            elapsed_s: elapsed.as_secs_f64(),
            detail,
        }
    }
}

fn timed_out(limit: Duration) -> Broken {
    Broken::Retry(RetryReason::Timeout, format!("no byte for {:.1} s", limit.as_secs_f64()))
}
