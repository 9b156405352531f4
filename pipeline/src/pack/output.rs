//! The output folder: written beside its final place and renamed at the end, so that it is whole or absent.

use std::ffi::OsString;
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use super::error::PackError;
use crate::bucket::manifest::MANIFEST_NAME;
use crate::file;

/// Marks a folder under construction; locked while its process lives.
const LOCK_NAME: &str = "lock";

/// Name of the list of refused files in the output folder: reason, path, message, separated by tabs.
pub const REFUSED_NAME: &str = "refused.tsv";

/// What a packing run leaves in its output.
const OURS: [&str; 3] = ["train", "val", REFUSED_NAME];

/// Extensions of what `splitmask codebook` and `splitmask inspect` write, often beside the shards: a new pack keeps such files.
const KEPT: [&str; 2] = ["safetensors", "png"];

/// Names of the files in `output` that a new pack keeps.
fn kept(output: &Path) -> std::io::Result<Vec<OsString>> {
    let mut kept = vec![];
    for entry in fs::read_dir(output)? {
        let entry = entry?;
        let name = entry.file_name();
        let ours = Path::new(&name)
            .extension()
            .is_some_and(|e| KEPT.iter().any(|k| e.eq_ignore_ascii_case(k)));
        if ours && entry.file_type()?.is_file() {
            kept.push(name);
        }
    }
    Ok(kept)
}

/// The first entry of the folders of shards that no packing run writes there.
fn foreign_among_shards(output: &Path) -> std::io::Result<Option<String>> {
    let mut found = vec![];
    for set in ["train", "val"] {
        let entries = match fs::read_dir(output.join(set)) {
            Ok(entries) => entries,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
            Err(e) => return Err(e),
        };
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let shard = name
                .strip_suffix(".tar")
                .is_some_and(|number| number.bytes().all(|b| b.is_ascii_digit()));
            if !(shard || name == MANIFEST_NAME) || entry.file_type()?.is_dir() {
                found.push(format!("{set}/{name}"));
            }
        }
    }
    found.sort();
    Ok(found.into_iter().next())
}

/// An output under construction; removed when dropped before [`Staging::publish`].
pub(super) struct Staging {
    /// Where to write.
    pub(super) dir: PathBuf,
    output: PathBuf,
    /// Files of the earlier pack that are kept.
    taken: Vec<PathBuf>,
    published: bool,
    _lock: File,
}

/// Where an output that is a link really lies; none for any other.
pub(super) fn followed(output: &Path) -> Result<Option<PathBuf>, PackError> {
    match output.is_symlink() {
        true => output.canonicalize().map(Some).map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => PackError::OutputDangling {
                output: output.to_path_buf(),
            },
            _ => PackError::io(output)(e),
        }),
        false => Ok(None),
    }
}

/// Whether a folder is the root of another file system than its parent's, so that nothing can be renamed to it.
fn is_mounted(output: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let device = |path: &Path| path.metadata().map(|m| m.dev()).ok();
    device(output) != device(&output.join(".."))
}

/// Refuses an output that would overwrite something.
pub(super) fn check(input: &Path, output: &Path, force: bool) -> Result<(), PackError> {
    let entries = match fs::read_dir(output) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(PackError::io(output)(e)),
    };
    if is_mounted(output) {
        return Err(PackError::OutputMounted {
            output: output.to_path_buf(),
        });
    }
    let names = entries.map(|e| e.map(|e| e.file_name().to_string_lossy().into_owned()));
    let mut names = names.collect::<Result<Vec<_>, _>>().map_err(PackError::io(output))?;
    if names.is_empty() {
        return Ok(());
    }
    if !force {
        return Err(PackError::OutputNotEmpty {
            output: output.to_path_buf(),
        });
    }
    names.sort();
    let kept = kept(output).map_err(PackError::io(output))?;
    let foreign = names
        .iter()
        .find(|n| !OURS.contains(&n.as_str()) && !kept.iter().any(|k| k.to_string_lossy() == **n));
    let unmarked = || (!output.join("train").join(MANIFEST_NAME).is_file()).then(|| &names[0]);
    let among_shards = foreign_among_shards(output).map_err(PackError::io(output))?;
    if let Some(found) = foreign.or_else(unmarked).cloned().or(among_shards) {
        return Err(PackError::OutputForeign {
            output: output.to_path_buf(),
            found,
        });
    }
    let real = |p: &Path| p.canonicalize().map_err(PackError::io(p));
    if real(input)?.starts_with(real(output)?) {
        return Err(PackError::InputInOutput {
            input: input.to_path_buf(),
            output: output.to_path_buf(),
        });
    }
    Ok(())
}

impl Staging {
    /// Opens `OUTPUT.partial`, taking over what a killed run left there.
    pub(super) fn open(output: &Path) -> Result<Self, PackError> {
        let Some(name) = output.file_name() else {
            return Err(PackError::OutputForeign {
                output: output.to_path_buf(),
                found: output.display().to_string(),
            });
        };
        let mut partial = name.to_os_string();
        partial.push(".partial");
        let dir = output.with_file_name(partial);
        fs::create_dir_all(&dir).map_err(PackError::io(&dir))?;
        // A killed run leaves nothing else here; what somebody else put here would be published as part of the pack.
        let rest = kept(&dir).map_err(PackError::io(&dir))?;
        for entry in fs::read_dir(&dir).map_err(PackError::io(&dir))? {
            let name = entry.map_err(PackError::io(&dir))?.file_name();
            let ours = OURS.into_iter().chain([LOCK_NAME]).any(|own| name == own) || rest.contains(&name);
            if !ours {
                return Err(PackError::OutputForeign {
                    output: dir.clone(),
                    found: name.to_string_lossy().into_owned(),
                });
            }
        }
        let lock_path = dir.join(LOCK_NAME);
        let lock = File::options()
            .create(true)
            .append(true)
            .open(&lock_path)
            .map_err(PackError::io(&lock_path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(PackError::Busy {
                    output: output.to_path_buf(),
                });
            }
            Err(TryLockError::Error(e)) => return Err(PackError::io(&lock_path)(e)),
        }
        let staging = Self {
            dir,
            output: output.to_path_buf(),
            taken: vec![],
            published: false,
            _lock: lock,
        };
        for name in OURS {
            remove(&staging.dir.join(name))?;
        }
        Ok(staging)
    }

    /// Puts the finished folder in its place; an earlier pack there goes away last.
    pub(super) fn publish(mut self) -> Result<(), PackError> {
        let lock = self.dir.join(LOCK_NAME);
        fs::remove_file(&lock).map_err(PackError::io(&lock))?;
        if self.output.exists() {
            self.take_over()?;
        }
        for folder in ["train", "val", ""] {
            let folder = self.dir.join(folder);
            if folder.is_dir() {
                file::sync(&folder).map_err(PackError::io(&folder))?;
            }
        }
        file::put_in_place(&self.dir, &self.output).map_err(PackError::io(&self.output))?;
        self.published = true;
        Ok(())
    }
}

impl Staging {
    /// Brings what is kept of the earlier pack into the new one; a second name where the file system can, so that no moment is without it.
    fn take_over(&mut self) -> Result<(), PackError> {
        for name in kept(&self.output).map_err(PackError::io(&self.output))? {
            let (from, to) = (self.output.join(&name), self.dir.join(&name));
            remove(&to)?;
            self.taken.push(to.clone());
            fs::hard_link(&from, &to)
                .or_else(|_| fs::copy(&from, &to).map(drop))
                .map_err(PackError::io(&from))?;
        }
        Ok(())
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if !self.published {
            for name in OURS.into_iter().chain([LOCK_NAME]) {
                let _ = remove(&self.dir.join(name));
            }
            for path in &self.taken {
                let _ = remove(path);
            }
            let _ = fs::remove_dir(&self.dir);
        }
    }
}

/// Removes a file or folder that may be absent.
fn remove(path: &Path) -> Result<(), PackError> {
    let removed = match path.symlink_metadata() {
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(e) => Err(e),
    };
    match removed {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(PackError::io(path)(e)),
        _ => Ok(()),
    }
}
