//! One object of a server without ranges as a stream of bytes: all of it in one answer, again from the beginning if that breaks.

use std::sync::Arc;

use bytes::Bytes;
use futures::{Stream, StreamExt};
use tokio::sync::mpsc::{Sender, channel};

use super::object::{Object, Version};
use super::tries::{Broken, Tries};
use super::verdict::Verdict;
use super::web::{Web, WebError};
use crate::error::ShardError;
use crate::metrics::RetryReason;

/// Pieces of the body that wait for their reader; a piece is what the socket gives, some 8 to 400 KiB. A reader that is slower than the
/// server holds the server back.
const WAITING: usize = 32;

/// What an answer says of the object's version. One that tells no size is taken to be the same as any other.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Told {
    size: Option<u64>,
    etag: Option<String>,
}

/// The bytes from `from` on. Must be polled inside a tokio runtime.
pub(super) fn stream(object: Arc<Object>, web: Arc<Web>, from: u64) -> impl Stream<Item = Result<Bytes, ShardError>> + Send + 'static {
    async_stream::try_stream! {
        let (sender, mut pieces) = channel(WAITING);
        // A task of its own, so that the body moves on while its reader is at work.
        let reading = tokio::spawn(async move { Reading { object, web, given: from, told: None }.run(sender).await });
        let guard = AbortOnDrop(reading.abort_handle());
        while let Some(bytes) = pieces.recv().await {
            yield bytes;
        }
        drop(guard);
        reading.await.unwrap_or_else(|e| Err(ShardError::Unreachable {
            shard: "(reader was stopped)".into(),
            offset: from,
            attempts: 0,
            elapsed_s: 0.0,
            detail: e.to_string(),
        }))?;
    }
}

struct AbortOnDrop(tokio::task::AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

struct Reading {
    object: Arc<Object>,
    web: Arc<Web>,
    /// Bytes that the reader has.
    given: u64,
    /// What the first answer said.
    told: Option<Told>,
}

impl Reading {
    async fn run(mut self, out: Sender<Bytes>) -> Result<(), ShardError> {
        let object = Arc::clone(&self.object);
        let mut tries = Tries::new(&object);
        loop {
            let had = self.given;
            let Err(broken) = self.attempt(&out).await else { return Ok(()) };
            if self.given > had {
                tries.progressed();
            }
            tries.wait(broken, self.given).await?;
        }
    }

    /// One answer: what the reader has is passed over, the rest is given.
    async fn attempt(&mut self, out: &Sender<Bytes>) -> Result<(), Broken> {
        let object = Arc::clone(&self.object);
        let _permit = object.pace.permit().await;
        let explain = |error: WebError, known: bool| explain(&object, error, known);
        let answer = self.web.whole(&object.key).await.map_err(|e| explain(e, self.told.is_some()))?;
        let told = Told {
            size: answer.size,
            etag: answer.etag,
        };
        match &self.told {
            Some(before) if *before != told => {
                let version = |told: &Told| Version {
                    size: told.size.unwrap_or(0),
                    etag: told.etag.clone(),
                };
                return Err(Broken::Final(object.changed(&version(before), &version(&told))));
            }
            Some(_) => {}
            None => self.told = Some(told),
        }
        let (mut body, mut at) = (answer.body, 0);
        while let Some(piece) = body.next().await {
            let piece = piece.map_err(|e| explain(e, true))?;
            object.metrics.bytes_read.of(object.scheme).inc_by(piece.len() as u64);
            let end = at + piece.len() as u64;
            if end > self.given {
                let new = piece.slice((self.given.saturating_sub(at)) as usize..);
                self.given = end;
                // Fails when nobody reads any more.
                if out.send(new).await.is_err() {
                    return Ok(());
                }
            }
            at = end;
        }
        match answer.size {
            Some(size) if at < size => Err(Broken::Retry(
                RetryReason::EarlyEnd,
                format!("the body ended after {at} of {size} bytes"),
            )),
            _ => {
                object.others.served(&object.key);
                Ok(())
            }
        }
    }
}

fn explain(object: &Object, error: WebError, known: bool) -> Broken {
    let shard = object.shard.to_string();
    match error.verdict {
        Verdict::Retry(reason) => Broken::Retry(reason, error.detail),
        Verdict::NotFound if !known => Broken::Final(ShardError::NotFound { shard }),
        Verdict::Denied => Broken::Denied(error.detail, object.client.current().0),
        _ => Broken::Final(object.unreachable(0, 1, std::time::Duration::ZERO, error.detail)),
    }
}
