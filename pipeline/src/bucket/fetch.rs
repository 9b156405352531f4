//! One object as a stream of bytes: bounded ranged reads in flight, each retried from the byte where it broke.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt};
use object_store::path::Path;
use object_store::{GetOptions, GetRange, ObjectStoreExt};
use tokio::task::JoinHandle;

use super::client::Client;
use super::pace::Pace;
use super::refusal::{Others, Refusal};
use super::retry::{Retries, Spent};
use super::verdict::{Verdict, chain, judge};
use super::web::Web;
use super::whole;
use crate::error::ShardError;
use crate::metrics::{PipelineMetrics, RetryReason, Scheme, Stage};

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

/// Why an attempt ended without all its bytes.
pub(super) enum Broken {
    Retry(RetryReason, String),
    /// With the number of the client that was refused.
    Denied(String, u64),
    Empty(Version),
    /// Whoever answers knows no ranges.
    NoRanges,
    Final(ShardError),
}

/// What a range that cannot be read means for its object.
enum Unread {
    /// It is read whole, if it can be read at all.
    NoRanges,
    Failed(ShardError),
}

impl From<ShardError> for Unread {
    fn from(error: ShardError) -> Self {
        Self::Failed(error)
    }
}

/// One request for a range, or what is left of it: what is known and held behind it.
struct Attempt {
    known: Option<Version>,
    buffer: BytesMut,
    outcome: Result<Version, Broken>,
}

/// A request that runs to its end whether or not its consumer is ready, so that no server ever waits for a slow trainer.
struct InFlight(JoinHandle<Result<(Bytes, Version), Unread>>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Object {
    /// All bytes in order. Must be polled inside a tokio runtime. Holds at most (`ahead` + 1) × `part` bytes, with an `ahead` of
    /// [`super::pace::MOST_AHEAD_THROTTLED`] at most where it follows need.
    ///
    /// # Errors
    /// [`ShardError::NotFound`], [`ShardError::Refused`], [`ShardError::Denied`], [`ShardError::Changed`] when size or ETag differ from the
    /// first read's, [`ShardError::Unreachable`] when the retry budget is spent. The stream ends after an error.
    pub fn stream(self) -> impl Stream<Item = Result<Bytes, ShardError>> + Send + 'static {
        let object = Arc::new(self);
        async_stream::try_stream! {
            let mut given = 0;
            let mut whole = object.web.as_ref().filter(|w| w.knows_no_ranges()).cloned();
            if whole.is_none() {
                for await part in Arc::clone(&object).parts() {
                    match part {
                        Ok(bytes) => {
                            given += bytes.len() as u64;
                            yield bytes;
                        }
                        Err(Unread::Failed(error)) => Err(error)?,
                        Err(Unread::NoRanges) => {
                            whole = object.web.clone();
                            whole.iter().for_each(|web| web.learnt_no_ranges(&object.shard));
                            break;
                        }
                    }
                }
            }
            if let Some(web) = whole {
                for await bytes in whole::stream(object, web, given) {
                    yield bytes?;
                }
            }
        }
    }

    /// As [`Object::stream`], by ranges.
    fn parts(self: Arc<Self>) -> impl Stream<Item = Result<Bytes, Unread>> + Send + 'static {
        let object = self;
        async_stream::try_stream! {
            let part = object.options.part;
            // Where nobody said how long the object is, the first read tells; until then it is taken to be like the others.
            let mut size = object.size;
            let guess = object.pace.typical_size();
            let mut version: Option<Version> = None;
            let mut flying: VecDeque<InFlight> = VecDeque::new();
            let mut next = 0;
            loop {
                let room = if size.is_some() || guess > 0 { object.pace.ahead() } else { 1 };
                while flying.len() < room && (next == 0 || next < size.unwrap_or(guess)) {
                    let range = next..(next + part);
                    next = range.end;
                    let (object, version) = (Arc::clone(&object), version.clone());
                    flying.push_back(InFlight(tokio::spawn(async move { object.read(range, version).await })));
                }
                let Some(mut first) = flying.pop_front() else { break };
                if size.is_some() && !first.0.is_finished() {
                    object.pace.waited();
                }
                let joined = (&mut first.0).await;
                let (bytes, seen) = joined.map_err(|e| object.unreachable(next, 0, Duration::ZERO, e.to_string()))??;
                // Reads that began together did not know of each other.
                if let Some(version) = version.as_ref().filter(|v| **v != seen) {
                    Err(Unread::Failed(object.changed(version, &seen)))?;
                }
                if size.is_none() {
                    object.pace.learnt_size(seen.size);
                }
                size = Some(seen.size);
                version = Some(seen);
                if !bytes.is_empty() {
                    yield bytes;
                }
            }
        }
    }

    /// Reads one range, however often the connection breaks.
    async fn read(&self, range: Range<u64>, version: Option<Version>) -> Result<(Bytes, Version), Unread> {
        let start = Instant::now();
        let mut known = version;
        let mut buffer = BytesMut::new();
        let mut trouble = Trouble::new(self);
        loop {
            let had = buffer.len();
            let attempt = self.race(&range, known, buffer).await;
            (known, buffer) = (attempt.known, attempt.buffer);
            let broken = match attempt.outcome {
                Ok(version) => {
                    self.metrics.fetch_duration.observe(start.elapsed().as_secs_f64());
                    self.metrics.busy.add(Stage::Fetch, start.elapsed());
                    self.others.served(&self.key);
                    return Ok((buffer.freeze(), version));
                }
                Err(Broken::Empty(version)) => return Ok((Bytes::new(), version)),
                Err(Broken::NoRanges) if self.web.is_some() => return Err(Unread::NoRanges),
                Err(broken) => broken,
            };
            if buffer.len() > had {
                trouble.progressed();
            }
            let offset = range.start + buffer.len() as u64;
            trouble.wait(broken, offset).await?;
            if offset > range.start {
                self.metrics.store_resumed_reads.inc();
            }
        }
    }

    /// One request; a second one for the whole range beside it if it takes long. Whichever is served first counts.
    async fn race(&self, range: &Range<u64>, known: Option<Version>, buffer: BytesMut) -> Attempt {
        let fresh = buffer.is_empty().then(|| known.clone());
        let permit = self.pace.permit().await;
        let first = self.attempt(range, known, buffer);
        tokio::pin!(first);
        // What was resumed in its middle has shown that it moves.
        while let (Some(known), Some(delay)) = (&fresh, self.pace.hedge_after(self.crawls.load(Ordering::Relaxed))) {
            tokio::select! {
                attempt = &mut first => return attempt,
                () = tokio::time::sleep(delay) => {}
            }
            let Some(_permit) = self.pace.hedge() else { continue };
            tracing::debug!(shard = %self.shard, offset = range.start, after_s = delay.as_secs_f64(), "slow read, asking a second time");
            self.metrics.store_hedged_reads.inc();
            let second = self.attempt(range, known.clone(), BytesMut::new());
            tokio::pin!(second);
            return tokio::select! {
                attempt = &mut first => match attempt.outcome {
                    Ok(_) => attempt,
                    Err(_) => second.await,
                },
                attempt = &mut second => match attempt.outcome {
                    Ok(_) => {
                        // Its other parts lie on the same slow server.
                        self.crawls.store(true, Ordering::Relaxed);
                        attempt
                    }
                    Err(_) => first.await,
                },
            };
        }
        let attempt = first.await;
        drop(permit);
        attempt
    }

    async fn attempt(&self, range: &Range<u64>, mut known: Option<Version>, mut buffer: BytesMut) -> Attempt {
        let (start, had) = (Instant::now(), buffer.len());
        let outcome = self.request(range, &mut known, &mut buffer).await;
        if outcome.is_ok() && had == 0 {
            self.pace.served(start.elapsed());
        }
        Attempt { known, buffer, outcome }
    }

    /// One request from where `buffer` ends; appends what comes.
    async fn request(&self, range: &Range<u64>, known: &mut Option<Version>, buffer: &mut BytesMut) -> Result<Version, Broken> {
        let limit = self.options.read_timeout;
        let offset = range.start + buffer.len() as u64;
        let options = GetOptions {
            range: Some(GetRange::Bounded(offset..range.end)),
            if_match: known.as_ref().and_then(|v| v.etag.clone()),
            ..GetOptions::default()
        };
        let (client, store) = self.client.current();
        let answer = match tokio::time::timeout(limit, store.get_opts(&self.key, options)).await {
            Err(_) => return Err(timed_out(limit)),
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => return Err(self.explain(&error, offset, known.as_ref(), client).await),
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
                Ok(Some(Err(error))) => return Err(self.explain(&error, offset, known.as_ref(), client).await),
                Ok(None) if (buffer.len() as u64) < want => {
                    let detail = format!("the body ended after {} of {want} bytes", buffer.len());
                    return Err(Broken::Retry(RetryReason::EarlyEnd, detail));
                }
                Ok(None) => return Ok(version),
            }
        }
    }

    async fn explain(&self, error: &object_store::Error, offset: u64, known: Option<&Version>, client: u64) -> Broken {
        let shard = || self.shard.to_string();
        match judge(error) {
            Verdict::Retry(reason) => Broken::Retry(reason, chain(error)),
            Verdict::NotFound if known.is_none() => Broken::Final(ShardError::NotFound { shard: shard() }),
            Verdict::Denied => Broken::Denied(chain(error), client),
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
            Verdict::NoRanges if self.web.is_some() => Broken::NoRanges,
            Verdict::NoRanges | Verdict::Final => Broken::Final(self.unreachable(offset, 1, Duration::ZERO, chain(error))),
        }
    }

    async fn head(&self) -> object_store::Result<Version> {
        let meta = tokio::time::timeout(self.options.read_timeout, self.client.current().1.head(&self.key))
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

    pub(super) fn changed(&self, before: &Version, after: &Version) -> ShardError {
        let text = |v: &Version| v.etag.clone().unwrap_or_else(|| format!("none, {} bytes", v.size));
        ShardError::Changed {
            shard: self.shard.to_string(),
            before: text(before),
            after: text(after),
        }
    }

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

/// The tries of one read: what a failed one means, and how long to wait for the next.
pub(super) struct Trouble<'a> {
    object: &'a Object,
    retries: Retries,
    denied: bool,
}

impl<'a> Trouble<'a> {
    pub(super) fn new(object: &'a Object) -> Self {
        Self {
            object,
            retries: Retries::new(object.options.retry_budget),
            denied: false,
        }
    }

    /// Bytes came.
    pub(super) fn progressed(&mut self) {
        self.denied = false;
        self.retries.progressed();
    }

    /// Waits until the time for the next try, from byte `offset` on.
    ///
    /// # Errors
    /// The shard's, if there is none.
    pub(super) async fn wait(&mut self, broken: Broken, offset: u64) -> Result<(), ShardError> {
        let object = self.object;
        let shard = object.shard.to_string();
        let (reason, detail) = match broken {
            Broken::Retry(reason, detail) => (reason, detail),
            // Tokens expire: the second try reads the credentials again.
            Broken::Denied(detail, client) if !self.denied => {
                self.denied = true;
                object.client.renew(client);
                (RetryReason::Denied, detail)
            }
            Broken::Denied(detail, _) => {
                let (_, store) = object.client.current();
                match object.others.concerns(&object.key, &*store, object.options.read_timeout).await {
                    Refusal::Alone => return Err(ShardError::Refused { shard, detail }),
                    Refusal::Everywhere => return Err(ShardError::Denied { shard, detail }),
                    Refusal::Unknown => (RetryReason::Denied, detail),
                }
            }
            Broken::Empty(_) | Broken::NoRanges => (RetryReason::Other, "an answer of another kind than before".into()),
            Broken::Final(error) => return Err(error),
        };
        let asked = (reason == RetryReason::Throttled).then(|| object.pace.retry_after());
        let delay = match self.retries.next(asked) {
            Ok(delay) => delay,
            Err(Spent { attempts, elapsed }) => return Err(object.unreachable(offset, attempts, elapsed, detail)),
        };
        tracing::debug!(%shard, offset, reason = ?reason, %detail, "read broke, trying again");
        object.metrics.fetch_retries.of(reason).inc();
        object.metrics.store_retries.of(reason).inc();
        tokio::time::sleep(delay).await;
        Ok(())
    }
}

fn timed_out(limit: Duration) -> Broken {
    Broken::Retry(RetryReason::Timeout, format!("no byte for {:.1} s", limit.as_secs_f64()))
}
