//! Bytes of a shard as a blocking [`std::io::Read`]: the seam between async requests and synchronous tar reading.

use std::io::{self, Read};
use std::pin::Pin;

use bytes::{Buf, Bytes};
use futures::{Stream, StreamExt};
use tokio::runtime::Handle;
use tokio::sync::watch;

use super::local_file::LocalFile;
use crate::bucket::{Bucket, Place, Shard};
use crate::error::ShardError;

/// Opens a shard for reading from its first byte. For remote shards nothing is requested before the first read.
///
/// Errors of the returned reader hold a [`ShardError`] (see [`shard_error`]). When `cancel`'s sender goes, a waiting read fails at once.
///
/// # Errors
/// [`ShardError::NotFound`], [`ShardError::Denied`] or [`ShardError::Unreachable`] of a local file.
pub fn open(bucket: &Bucket, shard: &Shard, cancel: watch::Receiver<()>) -> Result<Box<dyn Read + Send>, ShardError> {
    let Some((object, runtime)) = bucket.object(shard) else {
        let Place::File(path) = &shard.place else {
            return Err(ShardError::NotFound {
                shard: shard.path.to_string(),
            });
        };
        let file = LocalFile::open(path, bucket, shard, cancel)?;
        return Ok(bucket.watched(shard, buffered(file)));
    };
    if let Some(copy) = bucket.cache().and_then(|c| c.get(shard)) {
        return Ok(buffered(LocalFile::of(copy, bucket, shard, cancel)?));
    }
    let remote = Box::new(Remote {
        stream: Box::pin(object.stream()),
        runtime,
        cancel,
        current: Bytes::new(),
    });
    let input = match bucket.cache() {
        Some(cache) => cache.keep(shard, remote),
        None => remote,
    };
    Ok(bucket.watched(shard, input))
}

/// A small buffer, so that members are read past it: one copy instead of two.
fn buffered(file: LocalFile) -> Box<dyn Read + Send> {
    Box::new(io::BufReader::with_capacity(16 << 10, file))
}

/// The [`ShardError`] inside an error of a reader made by [`open`].
#[must_use]
pub fn shard_error(error: io::Error) -> Option<ShardError> {
    error.into_inner().and_then(|inner| inner.downcast::<ShardError>().ok()).map(|e| *e)
}

struct Remote {
    stream: Pin<Box<dyn Stream<Item = Result<Bytes, ShardError>> + Send>>,
    runtime: Handle,
    cancel: watch::Receiver<()>,
    current: Bytes,
}

impl Read for Remote {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            let (stream, cancel) = (&mut self.stream, &mut self.cancel);
            let next = self.runtime.block_on(async {
                tokio::select! {
                    next = stream.next() => next,
                    _ = cancel.changed() => Some(Err(ShardError::Unreachable {
                        shard: "(reader was stopped)".into(),
                        offset: 0,
                        attempts: 0,
                        elapsed_s: 0.0,
                        detail: "stopped".into(),
                    })),
                }
            });
            match next {
                Some(bytes) => self.current = bytes.map_err(io::Error::other)?,
                None => return Ok(0),
            }
        }
        let n = buffer.len().min(self.current.len());
        self.current.copy_to_slice(&mut buffer[..n]);
        Ok(n)
    }
}
