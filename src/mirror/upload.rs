//! From the run folder to the mirror.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::path::Path;
use std::time::SystemTime;

use splitmask_pipeline::bucket::prefix::Prefix;

use super::failure::Trouble;
use super::files::{BEST, CHECKPOINTS, DAMAGED, checksums, in_folder, is_earlier_picture, object, parsed};
use super::flow::Flow;
use super::inventory::Inventory;
use super::lease::Lease;
use super::status::{SharedMirrorStatus, Transfer, held};
use crate::checkpoint::{self, COMPLETE, FILES, Policy};
use crate::telemetry::metrics::{MirrorFailure, MirrorMetrics};

/// What tells that a file was not written to since.
type Seen = (u64, SystemTime);

/// Uploads, as the holder of a lease.
pub(super) struct Uploader<'a> {
    pub(super) prefix: &'a Prefix,
    pub(super) lease: &'a Lease,
    pub(super) flow: &'a Flow,
    pub(super) metrics: &'a MirrorMetrics,
    pub(super) status: &'a SharedMirrorStatus,
}

impl Uploader<'_> {
    /// Puts one file, as fast as it may go; its bytes are counted.
    fn put(&self, name: &str, file: &mut File, size: u64, want: Option<&str>) -> Result<(), Trouble> {
        let mut trouble = None;
        let mut gate = |bytes| {
            // Asked after the wait as well: the lease may be lost in it.
            self.flow.pass(bytes)?;
            self.lease.check().map_err(|e| {
                let text = e.to_string();
                trouble = Some(e);
                text
            })?;
            self.metrics.bytes.inc_by(bytes);
            if let Some(transfer) = &mut held(self.status).transfer {
                transfer.bytes += bytes;
            }
            Ok(())
        };
        let put = self.prefix.put_from(name, file, size, want, &mut gate);
        match (put, trouble) {
            (Ok(_), _) => Ok(()),
            (Err(_), Some(lease)) => Err(lease),
            (Err(e), None) => Err(e.into()),
        }
    }

    /// Uploads the checkpoint in `folder`, and before its list of checksums whatever else tells the run up to it. Answers that list; `None` if the folder
    /// went in the meantime.
    pub(super) fn checkpoint(
        &self,
        step: u64,
        folder: &Path,
        run_dir: &Path,
        sent: &mut BTreeMap<String, Seen>,
        pictures: &mut BTreeSet<String>,
    ) -> Result<Option<String>, Trouble> {
        // All are opened first: retention may delete the folder meanwhile, and an open file stays.
        let opened = || -> std::io::Result<_> {
            let text = checksums(folder)?;
            let mut files = vec![];
            for name in FILES {
                let file = File::open(folder.join(name))?;
                files.push((name, file.metadata()?.len(), file));
            }
            Ok((text, files))
        };
        let (text, files) = match opened() {
            Ok(opened) => opened,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(Trouble::disk(folder, &e)),
        };
        let damaged = |what: String| Trouble {
            reason: MirrorFailure::Damaged,
            text: format!("{}: {what}", folder.display()),
            bars: false,
        };
        let sums: BTreeMap<String, String> = serde_json::from_str(&text).map_err(|e| damaged(format!("{COMPLETE}: {e}")))?;
        held(self.status).transfer = Some(Transfer {
            step,
            bytes: 0,
            of: files.iter().map(|(_, size, _)| size).sum(),
        });
        // What stands there under this step counts no more from here on.
        self.lease.check()?;
        for mark in [COMPLETE, DAMAGED] {
            self.prefix.delete(&object(step, mark))?;
        }
        for (name, size, mut file) in files {
            let want = sums.get(name).ok_or_else(|| damaged(format!("{COMPLETE} does not name {name}")))?;
            self.put(&object(step, name), &mut file, size, Some(want))?;
        }
        self.run_files(run_dir, sent, pictures)?;
        self.lease.check()?;
        self.prefix.put(&object(step, COMPLETE), text.clone())?;
        Ok(Some(text))
    }

    /// Uploads the files beside the checkpoints that changed since `sent`, and deletes those of the mirror's `pictures` that the run folder let go of.
    pub(super) fn run_files(
        &self,
        run_dir: &Path,
        sent: &mut BTreeMap<String, Seen>,
        pictures: &mut BTreeSet<String>,
    ) -> Result<(), Trouble> {
        let here = in_folder(run_dir).map_err(|e| Trouble::disk(run_dir, &e))?;
        let stay: BTreeSet<&String> = here.iter().map(|(name, _)| name).collect();
        let gone: Vec<String> = pictures.iter().filter(|name| !stay.contains(name)).cloned().collect();
        for name in gone {
            self.lease.check()?;
            self.prefix.delete(&name)?;
            pictures.remove(&name);
            sent.remove(&name);
        }
        for (name, path) in here {
            let opened = File::open(&path).and_then(|file| {
                let meta = file.metadata()?;
                Ok((file, (meta.len(), meta.modified()?)))
            });
            let (mut file, seen) = match opened {
                Ok(opened) => opened,
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
                Err(e) => return Err(Trouble::disk(&path, &e)),
            };
            if sent.get(&name) == Some(&seen) {
                continue;
            }
            // A file that was cut meanwhile is no damaged checkpoint; it is read again.
            self.put(&name, &mut file, seen.0, None).map_err(|trouble| match trouble.reason {
                MirrorFailure::Damaged => Trouble {
                    reason: MirrorFailure::Disk,
                    ..trouble
                },
                _ => trouble,
            })?;
            if is_earlier_picture(&name) {
                pictures.insert(name.clone());
            }
            sent.insert(name, seen);
        }
        Ok(())
    }

    /// Says which checkpoint is the best.
    pub(super) fn best(&self, step: u64) -> Result<(), Trouble> {
        self.lease.check()?;
        Ok(self.prefix.put(BEST, checkpoint::name_of(step))?)
    }

    /// Deletes what `policy` does not keep, what an upload that died has left, and steps beyond `local`, the newest here, if that one is there: the run
    /// went back. Never the newest whole one.
    pub(super) fn prune(&self, inventory: &mut Inventory, policy: &Policy, local: Option<u64>) -> Result<Vec<u64>, Trouble> {
        let beyond = local.filter(|local| inventory.whole.contains_key(local));
        let taken_back = |step: &u64| beyond.is_some_and(|local| *step > local);
        let stay: Vec<u64> = inventory.whole.keys().copied().filter(|step| !taken_back(step)).collect();
        let mut old = checkpoint::surplus(&stay, policy);
        old.extend(inventory.whole.keys().filter(|step| taken_back(step)));
        let newest = stay.last().copied();
        let mut deleted = vec![];
        for step in old {
            if Some(step) != newest {
                self.delete(step)?;
                inventory.whole.remove(&step);
                deleted.push(step);
            }
        }
        while let Some(step) = inventory.torn.first().copied() {
            if !inventory.whole.contains_key(&step) && self.prefix.get(&object(step, DAMAGED))?.is_none() {
                self.delete(step)?;
            }
            inventory.torn.remove(&step);
        }
        Ok(deleted)
    }

    /// Deletes a checkpoint, its list of checksums first.
    fn delete(&self, step: u64) -> Result<(), Trouble> {
        self.lease.check()?;
        self.prefix.delete(&object(step, COMPLETE))?;
        for (name, _) in self.prefix.list(&format!("{CHECKPOINTS}/{}", checkpoint::name_of(step)))? {
            if parsed(&name).is_some_and(|(of, _)| of == step) {
                self.prefix.delete(&name)?;
            }
        }
        Ok(())
    }
}

/// When the checkpoint in `folder` was complete.
pub(super) fn written(folder: &Path) -> Option<SystemTime> {
    fs::metadata(folder.join(COMPLETE)).and_then(|m| m.modified()).ok()
}
