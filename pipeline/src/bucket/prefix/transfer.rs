//! Large files, in parts of bounded size: up with a checksum that is compared before the object appears, down by ranges that are tried again.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::time::Duration;

use bytes::Bytes;
use object_store::{GetOptions, GetRange, MultipartUpload, ObjectStoreExt, PutPayload};
use sha2::{Digest, Sha256};
use tokio::task::JoinHandle;

use super::{Prefix, PrefixError, PrefixFailure, SMALL_LIMIT, limit_of};
use crate::bucket::retry::Retries;
use crate::file::hex;

/// Bytes of one part of an upload and of one range of a download; S3 wants at least 5 MiB.
const PART: u64 = 8 << 20;
/// Parts that an object can have on S3 are 10,000.
const MOST_PARTS: u64 = 9_000;
/// Parts of an upload on their way at once: with the one that is read, four of them are the memory that an upload takes.
const FLYING: usize = 3;
/// Time without progress after which a download fails.
const DOWNLOAD_PATIENCE: Duration = Duration::from_secs(60);

/// Asked before so many bytes go over the wire: may wait, and says why to stop.
pub type Gate<'a> = &'a mut dyn FnMut(u64) -> Result<(), String>;

impl Prefix {
    /// Writes `size` bytes of `source` as the object `name`, in parts where it is large; answers their SHA-256 in hex. Where `want` names another checksum,
    /// no object appears.
    ///
    /// # Errors
    /// [`PrefixFailure::Source`] for a source that ends early, cannot be read or is not what `want` says; [`PrefixFailure::Stopped`] by `gate`; what the
    /// store says. Parts that went up are given up.
    pub fn put_from(
        &self,
        name: &str,
        source: &mut dyn Read,
        size: u64,
        want: Option<&str>,
        gate: Gate<'_>,
    ) -> Result<String, PrefixError> {
        let mut hasher = Sha256::new();
        let part = PART.max(size.div_ceil(MOST_PARTS));
        if size <= part {
            let bytes = self.next_part(name, source, size, &mut hasher)?;
            let sum = self.compared(name, hasher, want)?;
            gate(size).map_err(|why| self.error(name, PrefixFailure::Stopped, why))?;
            self.put(name, bytes)?;
            return Ok(sum);
        }
        let key = self.key(name)?;
        let mut upload = self.ask(name, SMALL_LIMIT, |store| {
            let key = key.clone();
            async move { store.put_multipart(&key).await }
        })?;
        let done = self.put_parts(name, source, size, part, want, gate, upload.as_mut(), &mut hasher);
        if done.is_err() {
            // What cannot be given up now is left to the bucket's rule for unfinished uploads.
            let _ = self.wait(name, SMALL_LIMIT, upload.abort());
        }
        done
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "the second half of put_from, so that whatever fails in it is cleaned up in one place"
    )]
    fn put_parts(
        &self,
        name: &str,
        source: &mut dyn Read,
        size: u64,
        part: u64,
        want: Option<&str>,
        gate: Gate<'_>,
        upload: &mut dyn MultipartUpload,
        hasher: &mut Sha256,
    ) -> Result<String, PrefixError> {
        let mut flying: VecDeque<JoinHandle<object_store::Result<()>>> = VecDeque::new();
        let landed = |flight: JoinHandle<object_store::Result<()>>| {
            let stop = flight.abort_handle();
            let answer = self.wait(name, limit_of(part), async {
                flight.await.unwrap_or_else(|e| {
                    Err(object_store::Error::Generic {
                        store: "upload",
                        source: Box::new(e),
                    })
                })
            });
            if answer.is_err() {
                stop.abort();
            }
            answer
        };
        let mut sent = 0;
        let mut send = || -> Result<(), PrefixError> {
            while sent < size {
                let n = part.min(size - sent);
                let bytes = self.next_part(name, source, n, hasher)?;
                gate(n).map_err(|why| self.error(name, PrefixFailure::Stopped, why))?;
                if flying.len() == FLYING
                    && let Some(first) = flying.pop_front()
                {
                    landed(first)?;
                }
                flying.push_back(self.handle().spawn(upload.put_part(PutPayload::from(bytes))));
                sent += n;
            }
            flying.drain(..).try_for_each(landed)
        };
        let sent = send();
        flying.iter().for_each(JoinHandle::abort);
        sent?;
        let sum = self.compared(name, std::mem::take(hasher), want)?;
        gate(0).map_err(|why| self.error(name, PrefixFailure::Stopped, why))?;
        self.wait(name, limit_of(part), upload.complete())?;
        Ok(sum)
    }

    fn next_part(&self, name: &str, source: &mut dyn Read, bytes: u64, hasher: &mut Sha256) -> Result<Bytes, PrefixError> {
        let mut buffer = vec![0; bytes as usize];
        source
            .read_exact(&mut buffer)
            .map_err(|e| self.error(name, PrefixFailure::Source, format!("the file to be uploaded cannot be read: {e}")))?;
        hasher.update(&buffer);
        Ok(buffer.into())
    }

    fn compared(&self, name: &str, hasher: Sha256, want: Option<&str>) -> Result<String, PrefixError> {
        let sum = hex(hasher.finalize());
        match want {
            Some(want) if want != sum => {
                let why = "the file to be uploaded has not the checksum that was written with it";
                Err(self.error(name, PrefixFailure::Source, why.into()))
            }
            _ => Ok(sum),
        }
    }

    /// Writes the object `name` into `out`, by ranges that are tried again for a while; answers its SHA-256 in hex and its length. All ranges are of one
    /// version.
    ///
    /// # Errors
    /// [`PrefixFailure::Missing`] if it is not there, [`PrefixFailure::Conflict`] if it was replaced meanwhile, [`PrefixFailure::Source`] if `out` cannot
    /// be written; [`PrefixFailure::Stopped`] by `gate`; what the store says.
    pub fn get_to(&self, name: &str, out: &mut dyn Write, gate: Gate<'_>) -> Result<(String, u64), PrefixError> {
        let key = self.key(name)?;
        let meta = self.patiently(|| {
            self.ask(name, SMALL_LIMIT, |store| {
                let key = key.clone();
                async move { store.head(&key).await }
            })
        })?;
        let (mut hasher, mut at) = (Sha256::new(), 0);
        while at < meta.size {
            let end = (at + PART).min(meta.size);
            gate(end - at).map_err(|why| self.error(name, PrefixFailure::Stopped, why))?;
            let bytes = self.patiently(|| {
                self.ask(name, limit_of(end - at), |store| {
                    let (key, etag) = (key.clone(), meta.e_tag.clone());
                    async move {
                        let options = GetOptions {
                            range: Some(GetRange::Bounded(at..end)),
                            if_match: etag,
                            ..GetOptions::default()
                        };
                        store.get_opts(&key, options).await?.bytes().await
                    }
                })
            })?;
            if bytes.len() as u64 != end - at {
                let detail = format!("{} bytes came where {} were asked for", bytes.len(), end - at);
                return Err(self.error(name, PrefixFailure::Conflict, detail));
            }
            hasher.update(&bytes);
            out.write_all(&bytes)
                .map_err(|e| self.error(name, PrefixFailure::Source, format!("what came cannot be written: {e}")))?;
            at = end;
        }
        Ok((hex(hasher.finalize()), at))
    }

    /// Tries again for a while where that may help.
    fn patiently<T>(&self, mut ask: impl FnMut() -> Result<T, PrefixError>) -> Result<T, PrefixError> {
        let mut retries = Retries::new(DOWNLOAD_PATIENCE);
        loop {
            match ask() {
                Err(e) if matches!(e.kind, PrefixFailure::Away | PrefixFailure::Throttled) => match retries.next(None) {
                    Ok(delay) => std::thread::sleep(delay),
                    Err(_) => return Err(e),
                },
                done => return done,
            }
        }
    }
}
