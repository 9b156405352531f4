//! Local copies of remote shards, named by their checksum: bounded, least recently used first out, safe with several processes.
//!
//! Only shards whose manifest entry has a SHA-256 are kept, so a copy can never be stale: another content is another name. A copy
//! appears by a rename after its bytes were checked and synced. Only files of this module's own naming are ever deleted.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use sha2::{Digest, Sha256};

use super::shard::Shard;
use crate::error::PipelineError;
use crate::file;

/// Unfinished files that nobody has written to for so long are left over from a process that was killed.
const ABANDONED: Duration = Duration::from_secs(3600);
/// What may lie between a tar's end marker and the object's end and is still fetched, to have the copy whole.
const MAX_TAIL: u64 = 1 << 20;

/// A folder of shard copies.
#[derive(Debug)]
pub struct ShardCache {
    folder: PathBuf,
    capacity: u64,
    /// Checksums of copies that this process has checked.
    checked: Mutex<HashSet<Arc<str>>>,
    /// One eviction at a time; others in other processes do no harm.
    evicting: Mutex<()>,
    next_temporary: AtomicU64,
}

impl ShardCache {
    /// Uses `folder`, which is created, for at most `capacity` bytes.
    ///
    /// # Errors
    /// [`PipelineError::Io`] if it cannot be created or read.
    pub fn open(folder: &Path, capacity: u64) -> Result<Self, PipelineError> {
        let failed = |source| PipelineError::Io {
            path: folder.display().to_string(),
            source,
        };
        fs::create_dir_all(folder).map_err(failed)?;
        for entry in fs::read_dir(folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let modified = entry.metadata().and_then(|m| m.modified());
            let old = modified.is_ok_and(|m| m.elapsed().is_ok_and(|age| age > ABANDONED));
            if old && is_temporary(&entry.file_name().to_string_lossy()) {
                remove(&entry.path());
            }
        }
        Ok(Self {
            folder: folder.to_owned(),
            capacity,
            checked: Mutex::default(),
            evicting: Mutex::default(),
            next_temporary: AtomicU64::new(0),
        })
    }

    /// The shard's copy, opened; an eviction later on does not disturb its reader. A copy that is not what its name says is removed.
    #[must_use]
    pub fn get(&self, shard: &Shard) -> Option<File> {
        let sum = checksum(shard)?;
        let path = self.path(sum);
        let mut file = File::open(&path).ok()?;
        let is_checked = self.checked.lock().unwrap_or_else(PoisonError::into_inner).contains(sum);
        if !is_checked {
            if !file::sha256_of(&mut file).is_ok_and(|(found, _)| found == **sum) {
                tracing::warn!(shard = %shard.path, "the local copy is damaged and fetched again");
                remove(&path);
                return None;
            }
            io::Seek::rewind(&mut file).ok()?;
            self.checked.lock().unwrap_or_else(PoisonError::into_inner).insert(Arc::clone(sum));
        }
        // The time of the last use. A read-only cache still serves, it only forgets this.
        let _ = file.set_modified(SystemTime::now());
        Some(file)
    }

    /// A reader that gives the bytes of `input` and keeps a copy of them if they are whole and have the shard's checksum.
    pub fn keep(self: &Arc<Self>, shard: &Shard, input: Box<dyn Read + Send>) -> Box<dyn Read + Send> {
        let (Some(sum), Some(bytes)) = (checksum(shard), shard.bytes) else {
            return input;
        };
        if bytes > self.capacity {
            tracing::warn!(shard = %shard.path, bytes, capacity = self.capacity, "larger than pipeline.cache_gib, read without a copy");
            return input;
        }
        let number = self.next_temporary.fetch_add(1, Ordering::Relaxed);
        let temporary = self.folder.join(format!("{sum}.{}.{number}.tmp", std::process::id()));
        let output = match File::create(&temporary) {
            Ok(file) => Some(file),
            Err(error) => {
                tracing::warn!(path = %temporary.display(), "no local copy: {error}");
                return input;
            }
        };
        Box::new(Keeping {
            cache: Arc::clone(self),
            sum: Arc::clone(sum),
            name: Arc::clone(&shard.path),
            bytes,
            seen: 0,
            hasher: Sha256::new(),
            input,
            output,
            temporary,
        })
    }

    fn path(&self, sum: &str) -> PathBuf {
        self.folder.join(format!("{sum}.tar"))
    }

    /// Makes room for `bytes` more.
    fn make_room(&self, bytes: u64) -> io::Result<()> {
        let _one = self.evicting.lock().unwrap_or_else(PoisonError::into_inner);
        let mut copies = vec![];
        let mut total = bytes;
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            // Another process may have removed it meanwhile.
            let Ok(meta) = entry.metadata() else { continue };
            if is_copy(&entry.file_name().to_string_lossy()) {
                total += meta.len();
                copies.push((meta.modified()?, meta.len(), entry.path()));
            }
        }
        copies.sort();
        for (_, size, path) in copies {
            if total <= self.capacity {
                break;
            }
            remove(&path);
            total -= size;
        }
        Ok(())
    }
}

struct Keeping {
    cache: Arc<ShardCache>,
    sum: Arc<str>,
    name: Arc<str>,
    bytes: u64,
    seen: u64,
    hasher: Sha256,
    input: Box<dyn Read + Send>,
    /// Gone once the copy was given up.
    output: Option<File>,
    temporary: PathBuf,
}

impl Read for Keeping {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.input.read(buffer)?;
        self.seen += n as u64;
        if let Some(output) = &mut self.output {
            self.hasher.update(&buffer[..n]);
            if let Err(error) = output.write_all(&buffer[..n]) {
                tracing::warn!(path = %self.temporary.display(), "no local copy: {error}");
                self.output = None;
                remove(&self.temporary);
            }
        }
        Ok(n)
    }
}

impl Keeping {
    fn finish(&mut self) -> io::Result<()> {
        // A tar is read to its end marker; padding may follow.
        let mut tail = vec![0; 64 << 10];
        while self.output.is_some() && self.seen < self.bytes && self.bytes - self.seen <= MAX_TAIL && self.read(&mut tail)? > 0 {}
        let Some(output) = self.output.take() else { return Ok(()) };
        if self.seen != self.bytes {
            return Ok(());
        }
        if file::hex(std::mem::take(&mut self.hasher).finalize()) != *self.sum {
            tracing::warn!(shard = %self.name, "its SHA-256 is not the manifest's; no local copy is kept");
            return Ok(());
        }
        output.sync_all()?;
        self.cache.make_room(self.bytes)?;
        file::put_in_place(&self.temporary, &self.cache.path(&self.sum))?;
        self.cache
            .checked
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(Arc::clone(&self.sum));
        Ok(())
    }
}

impl Drop for Keeping {
    fn drop(&mut self) {
        if let Err(error) = self.finish() {
            tracing::debug!(shard = %self.name, "no local copy: {error}");
        }
        // Gone already if it was renamed.
        remove(&self.temporary);
    }
}

/// The checksum, if it is one: it becomes a file name.
fn checksum(shard: &Shard) -> Option<&Arc<str>> {
    shard.sha256.as_ref().filter(|s| is_sum(s))
}

fn is_sum(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

fn is_copy(name: &str) -> bool {
    name.strip_suffix(".tar").is_some_and(is_sum)
}

fn is_temporary(name: &str) -> bool {
    name.ends_with(".tmp") && name.split('.').next().is_some_and(is_sum)
}

fn remove(path: &Path) {
    if let Err(error) = fs::remove_file(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(path = %path.display(), "cannot be removed: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bucket::shard::Place;

    fn shard(content: &[u8]) -> Shard {
        Shard {
            index: 0,
            path: "s.tar".into(),
            bytes: Some(content.len() as u64),
            samples: None,
            sha256: Some(file::sha256(content).into()),
            replaced: false,
            place: Place::Object(object_store::path::Path::default()),
        }
    }

    fn fill(cache: &Arc<ShardCache>, shard: &Shard, content: &[u8], read: usize) {
        let mut reader = cache.keep(shard, Box::new(io::Cursor::new(content.to_vec())));
        let mut buffer = vec![0; read];
        reader.read_exact(&mut buffer).unwrap();
        assert_eq!(buffer, content[..read]);
    }

    fn content(cache: &ShardCache, shard: &Shard) -> Option<Vec<u8>> {
        cache.get(shard).map(|mut file| {
            let mut bytes = vec![];
            file.read_to_end(&mut bytes).unwrap();
            bytes
        })
    }

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(folder)
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_whole_shard_is_kept_and_a_part_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Arc::new(ShardCache::open(folder.path(), 10 << 20).unwrap());
        let bytes = vec![7; 3 << 20];
        let shard = shard(&bytes);
        fill(&cache, &shard, &bytes, 1 << 20);
        assert!(names(folder.path()).is_empty(), "two MiB were never read");
        fill(&cache, &shard, &bytes, (3 << 20) - 5000);
        assert!(content(&cache, &shard).unwrap() == bytes, "the tail is fetched");
        assert_eq!(names(folder.path()).len(), 1);
    }

    #[test]
    fn bytes_that_are_not_the_manifests_are_not_kept() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Arc::new(ShardCache::open(folder.path(), 1 << 20).unwrap());
        let shard = shard(b"what the manifest says");
        fill(&cache, &shard, b"what the server says!!", 22);
        assert!(content(&cache, &shard).is_none() && names(folder.path()).is_empty());
    }

    #[test]
    fn a_damaged_copy_is_removed_by_the_next_process() {
        let folder = tempfile::tempdir().unwrap();
        let shard = shard(b"good bytes");
        fill(
            &Arc::new(ShardCache::open(folder.path(), 1 << 20).unwrap()),
            &shard,
            b"good bytes",
            10,
        );
        fs::write(folder.path().join(&names(folder.path())[0]), b"evil bytes").unwrap();
        let next = ShardCache::open(folder.path(), 1 << 20).unwrap();
        assert!(next.get(&shard).is_none() && names(folder.path()).is_empty());
    }

    #[test]
    fn the_least_recently_used_copy_goes_first_and_nothing_foreign_is_touched() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("mine.tar"), [0; 5000]).unwrap();
        let cache = Arc::new(ShardCache::open(folder.path(), 2500).unwrap());
        let all: Vec<Vec<u8>> = (0..3).map(|n| vec![n; 1000]).collect();
        for bytes in &all[..2] {
            fill(&cache, &shard(bytes), bytes, 1000);
            std::thread::sleep(Duration::from_millis(20));
        }
        assert!(content(&cache, &shard(&all[0])).is_some(), "used again, so the other one is older");
        std::thread::sleep(Duration::from_millis(20));
        fill(&cache, &shard(&all[2]), &all[2], 1000);
        let kept: Vec<bool> = all.iter().map(|b| cache.get(&shard(b)).is_some()).collect();
        assert_eq!(kept, [true, false, true]);
        assert!(folder.path().join("mine.tar").exists());
        let huge = vec![9; 3000];
        fill(&cache, &shard(&huge), &huge, 3000);
        assert!(cache.get(&shard(&huge)).is_none(), "larger than the cache");
        assert!(cache.get(&shard(&all[2])).is_some());
    }

    #[test]
    fn what_a_killed_process_left_is_cleared_and_what_a_living_one_writes_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let sum = shard(b"x").sha256.unwrap();
        let (old, new, foreign) = (format!("{sum}.1.0.tmp"), format!("{sum}.2.0.tmp"), "notes.tmp".to_owned());
        for name in [&old, &new, &foreign] {
            let file = File::create(folder.path().join(name)).unwrap();
            if *name != new {
                file.set_modified(SystemTime::now() - ABANDONED * 2).unwrap();
            }
        }
        ShardCache::open(folder.path(), 1000).unwrap();
        let mut expected = [new, foreign];
        expected.sort();
        assert_eq!(names(folder.path()), expected);
    }
}
