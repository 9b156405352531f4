//! One object by bounded ranged reads, several in flight, each retried from the byte where it broke.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt};
use object_store::{GetOptions, GetRange, ObjectStoreExt};
use tokio::task::JoinHandle;

use super::object::{Object, Version};
use super::tries::{Broken, Tries};
use super::verdict::{Verdict, chain, judge};
use crate::error::ShardError;
use crate::metrics::{RetryReason, Stage};

/// What a range that cannot be read means for its object.
pub(super) enum Unread {
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
    /// As [`Object::stream`], by ranges.
    pub(super) fn parts(self: Arc<Self>) -> impl Stream<Item = Result<Bytes, Unread>> + Send + 'static {
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
        let mut tries = Tries::new(self);
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
                tries.progressed();
            }
            let offset = range.start + buffer.len() as u64;
            tries.wait(broken, offset).await?;
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
}

fn timed_out(limit: Duration) -> Broken {
    Broken::Retry(RetryReason::Timeout, format!("no byte for {:.1} s", limit.as_secs_f64()))
}
