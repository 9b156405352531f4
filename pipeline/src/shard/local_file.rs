//! A shard on a disk of this machine, or on one that is mounted: what stumbles is tried again, as a store is.

use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::bucket::retry::{Retries, Spent};
use crate::bucket::{Bucket, Shard};
use crate::error::ShardError;
use crate::metrics::{PipelineMetrics, RetryReason, Scheme};

/// For how long an input/output error is tried again at most: a disk that stumbles is back by then, and a bad sector never is.
const BAD_SECTOR: Duration = Duration::from_secs(10);
/// The longest sleep between two looks at whether the reader was stopped.
const NAP: Duration = Duration::from_millis(20);
/// The system's number of an input/output error (Linux, `errno.h`).
const EIO: i32 = 5;

/// A file of which every byte is read once, in order.
pub(super) struct LocalFile {
    file: File,
    before: Metadata,
    read: u64,
    tries: Tries,
}

/// The tries of one file: no more files for the process, no memory, a mounted disk that does not answer are tried again for the retry budget.
struct Tries {
    budget: Duration,
    retries: Retries,
    /// Since when there is an input/output error.
    stumbled: Option<Instant>,
    shard: Arc<str>,
    metrics: PipelineMetrics,
    cancel: watch::Receiver<()>,
}

impl LocalFile {
    /// Opens a shard.
    ///
    /// # Errors
    /// [`ShardError::NotFound`], [`ShardError::Denied`], or [`ShardError::Unreachable`] once the retry budget is spent.
    pub(super) fn open(path: &Path, bucket: &Bucket, shard: &Shard, cancel: watch::Receiver<()>) -> Result<Self, ShardError> {
        let mut tries = Tries::of(bucket, shard, cancel);
        let (file, before) = tries.until(0, || File::open(path).and_then(|file| file.metadata().map(|is| (file, is))))?;
        Ok(Self {
            file,
            before,
            read: 0,
            tries,
        })
    }

    /// A file that is open.
    ///
    /// # Errors
    /// As [`LocalFile::open`].
    pub(super) fn of(file: File, bucket: &Bucket, shard: &Shard, cancel: watch::Receiver<()>) -> Result<Self, ShardError> {
        let mut tries = Tries::of(bucket, shard, cancel);
        let before = tries.until(0, || file.metadata())?;
        Ok(Self {
            file,
            before,
            read: 0,
            tries,
        })
    }
}

impl Tries {
    fn of(bucket: &Bucket, shard: &Shard, cancel: watch::Receiver<()>) -> Self {
        let budget = bucket.retry_budget();
        Self {
            budget,
            retries: Retries::new(budget),
            stumbled: None,
            shard: Arc::clone(&shard.path),
            metrics: bucket.metrics().clone(),
            cancel,
        }
    }

    /// Does `act` until it succeeds, cannot, or has been tried for long enough.
    fn until<T>(&mut self, offset: u64, mut act: impl FnMut() -> io::Result<T>) -> Result<T, ShardError> {
        loop {
            match act() {
                Ok(done) => {
                    if self.stumbled.take().is_some() {
                        self.retries.progressed();
                    }
                    return Ok(done);
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => self.wait(&e, offset)?,
            }
        }
    }

    /// Waits for the next try.
    fn wait(&mut self, error: &io::Error, offset: u64) -> Result<(), ShardError> {
        let shard = self.shard.to_string();
        let unreachable = |spent: Spent| ShardError::Unreachable {
            shard: shard.clone(),
            offset,
            attempts: spent.attempts,
            elapsed_s: spent.elapsed.as_secs_f64(),
            detail: error.to_string(),
        };
        match error.kind() {
            io::ErrorKind::NotFound => return Err(ShardError::NotFound { shard }),
            io::ErrorKind::PermissionDenied => {
                return Err(ShardError::Denied {
                    shard,
                    detail: error.to_string(),
                });
            }
            io::ErrorKind::IsADirectory | io::ErrorKind::NotADirectory | io::ErrorKind::InvalidInput => {
                return Err(unreachable(Spent {
                    attempts: 1,
                    elapsed: Duration::ZERO,
                }));
            }
            _ => {}
        }
        let since = *self.stumbled.get_or_insert_with(Instant::now);
        let delay = self.retries.next(None).map_err(unreachable)?;
        let most = if error.raw_os_error() == Some(EIO) {
            self.budget.min(BAD_SECTOR)
        } else {
            self.budget
        };
        if since.elapsed() + delay > most {
            return Err(unreachable(Spent {
                attempts: self.retries.attempts(),
                elapsed: since.elapsed(),
            }));
        }
        tracing::debug!(%shard, offset, %error, "a read of the disk failed, trying again");
        self.metrics.fetch_retries.of(RetryReason::Other).inc();
        let until = Instant::now() + delay;
        while let Some(left) = until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
            if self.cancel.has_changed().is_err() {
                return Err(unreachable(Spent {
                    attempts: self.retries.attempts(),
                    elapsed: since.elapsed(),
                }));
            }
            std::thread::sleep(left.min(NAP));
        }
        Ok(())
    }
}

impl Read for LocalFile {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let (file, at) = (&self.file, self.read);
        // At its place, wherever a read that failed has left the file's own.
        let n = self.tries.until(at, || file.read_at(buffer, at)).map_err(io::Error::other)?;
        self.read += n as u64;
        self.tries.metrics.bytes_read.of(Scheme::File).inc_by(n as u64);
        if n == 0 && self.read < self.before.len() {
            let after = self.file.metadata().map(|m| m.len()).unwrap_or(self.read);
            return Err(io::Error::other(ShardError::Changed {
                shard: self.tries.shard.to_string(),
                before: format!("none, {} bytes", self.before.len()),
                after: format!("none, {after} bytes"),
            }));
        }
        Ok(n)
    }
}
