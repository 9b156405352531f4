//! Bytes of a shard as a blocking [`std::io::Read`]: the seam between async requests and synchronous tar reading.

use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::pin::Pin;
use std::sync::Arc;

use bytes::{Buf, Bytes};
use futures::{Stream, StreamExt};
use tokio::runtime::Handle;
use tokio::sync::watch;

use crate::bucket::{Bucket, Place, Shard};
use crate::error::ShardError;
use crate::metrics::{PipelineMetrics, Scheme};

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
        let file = File::open(path).map_err(|e| local_error(&e, &shard.path, 0))?;
        return Ok(bucket.watched(shard, local(file, bucket, shard)?));
    };
    if let Some(copy) = bucket.cache().and_then(|c| c.get(shard)) {
        return local(copy, bucket, shard);
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

fn local(file: File, bucket: &Bucket, shard: &Shard) -> Result<Box<dyn Read + Send>, ShardError> {
    let before = file.metadata().map_err(|e| local_error(&e, &shard.path, 0))?;
    let local = Local {
        file,
        before,
        read: 0,
        shard: Arc::clone(&shard.path),
        metrics: bucket.metrics().clone(),
    };
    // Small, so that members are read past it: one copy instead of two.
    Ok(Box::new(io::BufReader::with_capacity(16 << 10, local)))
}

/// The [`ShardError`] inside an error of a reader made by [`open`].
#[must_use]
pub fn shard_error(error: io::Error) -> Option<ShardError> {
    error.into_inner().and_then(|inner| inner.downcast::<ShardError>().ok()).map(|e| *e)
}

fn local_error(error: &io::Error, shard: &str, offset: u64) -> ShardError {
    let shard = shard.to_owned();
    match error.kind() {
        io::ErrorKind::NotFound => ShardError::NotFound { shard },
        io::ErrorKind::PermissionDenied => ShardError::Denied {
            shard,
            detail: error.to_string(),
        },
        _ => ShardError::Unreachable {
            shard,
            offset,
            attempts: 1,
            elapsed_s: 0.0,
            detail: error.to_string(),
        },
    }
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

struct Local {
    file: File,
    before: Metadata,
    read: u64,
    shard: Arc<str>,
    metrics: PipelineMetrics,
}

impl Read for Local {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = loop {
            match self.file.read(buffer) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                other => break other.map_err(|e| io::Error::other(local_error(&e, &self.shard, self.read)))?,
            }
        };
        self.read += n as u64;
        self.metrics.bytes_read.of(Scheme::File).inc_by(n as u64);
        if n == 0 && self.read < self.before.len() {
            let after = self.file.metadata().map(|m| m.len()).unwrap_or(self.read);
            return Err(io::Error::other(ShardError::Changed {
                shard: self.shard.to_string(),
                before: format!("none, {} bytes", self.before.len()),
                after: format!("none, {after} bytes"),
            }));
        }
        Ok(n)
    }
}
