//! Files and folders that appear whole or not at all, and the checksums that tell their contents apart.

use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use sha2::{Digest, Sha256};

/// A neighbour that nobody has locked or written to for so long was left by a process that was killed.
const ABANDONED: Duration = Duration::from_secs(60);

/// Bytes as lower-case hexadecimal digits.
#[must_use]
pub fn hex(bytes: impl AsRef<[u8]>) -> String {
    bytes.as_ref().iter().map(|b| format!("{b:02x}")).collect()
}

/// SHA-256 of bytes, 64 hexadecimal digits.
#[must_use]
pub fn sha256(bytes: impl AsRef<[u8]>) -> String {
    hex(Sha256::digest(bytes))
}

/// SHA-256 of everything that `input` gives, and how many bytes that was.
///
/// # Errors
/// Those of `input`.
pub fn sha256_of(mut input: impl Read) -> io::Result<(String, u64)> {
    let (mut hasher, mut total) = (Sha256::new(), 0);
    let mut buffer = vec![0; 256 << 10];
    loop {
        match input.read(&mut buffer) {
            Ok(0) => return Ok((hex(hasher.finalize()), total)),
            Ok(n) => {
                hasher.update(&buffer[..n]);
                total += n as u64;
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

/// Writes a file whole or not at all: a hidden neighbour, synced, renamed over `path`, and the folder synced.
///
/// # Errors
/// Those of the file system; then `path` is as it was and no neighbour is left.
pub fn write(path: &Path, bytes: impl AsRef<[u8]>) -> io::Result<()> {
    write_with(path, |out| out.write_all(bytes.as_ref()))
}

/// As [`write`], with what `fill` writes. The new file has the permissions that any new file of this process has.
///
/// # Errors
/// Those of `fill` and of the file system; then `path` is as it was and no neighbour is left.
pub fn write_with(path: &Path, fill: impl FnOnce(&mut BufWriter<&File>) -> io::Result<()>) -> io::Result<()> {
    let name = path
        .file_name()
        .ok_or_else(|| io::Error::new(io::ErrorKind::IsADirectory, "names no file"))?;
    let folder = folder_of(path);
    let mut prefix = std::ffi::OsString::from(".");
    prefix.push(name);
    prefix.push(".");
    remove_abandoned(folder, &prefix);
    let mut builder = tempfile::Builder::new();
    builder.prefix(&prefix).suffix(SUFFIX);
    #[cfg(unix)]
    let permissions = std::os::unix::fs::PermissionsExt::from_mode(0o666); // minus the umask, as for any other new file
    #[cfg(unix)]
    builder.permissions(permissions);
    // Removed when it is dropped, that is if anything below fails.
    let neighbour = builder.tempfile_in(folder).map_err(without_path)?;
    // Tells other processes that it is not abandoned. File systems without locks still write files.
    let _ = neighbour.as_file().try_lock();
    let mut out = BufWriter::new(neighbour.as_file());
    fill(&mut out)?;
    out.flush()?;
    drop(out);
    neighbour.as_file().sync_all()?;
    neighbour.persist(path).map_err(|e| e.error)?;
    sync(folder)
}

const SUFFIX: &str = ".tmp";

/// `tempfile` adds the neighbour's random name to its message; who reads it wants to know about the file that was asked for.
fn without_path(error: io::Error) -> io::Error {
    let plain = io::Error::from(error.kind());
    // A kind without a name says less than the message.
    if plain.to_string().contains("uncategorized") {
        error
    } else {
        plain
    }
}

/// Removes neighbours of an earlier [`write`] whose process was killed in its middle.
fn remove_abandoned(folder: &Path, prefix: &std::ffi::OsStr) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let bytes = name.as_encoded_bytes();
        let ours = bytes.starts_with(prefix.as_encoded_bytes()) && bytes.ends_with(SUFFIX.as_bytes());
        let old = || entry.metadata().and_then(|m| m.modified());
        if ours
            && old().is_ok_and(|time| time.elapsed().is_ok_and(|age| age > ABANDONED))
            && File::open(entry.path()).is_ok_and(|f| f.try_lock().is_ok())
        {
            // If it cannot be removed, it stays: a hidden file does no harm.
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Whether new files can be made in a folder, tried with an empty one.
///
/// # Errors
/// Those of the file system.
pub fn check_writable(folder: &Path) -> io::Result<()> {
    tempfile::tempfile_in(folder).map(drop).map_err(without_path)
}

/// Puts a finished file or folder in the place of `target` and syncs the folder around it. An older folder there is exchanged in one act
/// where the file system can, so that no moment is without one, and is removed then.
///
/// # Errors
/// Those of the file system. Unless the older folder could neither be exchanged nor put back, `target` is as it was.
pub fn put_in_place(finished: &Path, target: &Path) -> io::Result<()> {
    if target.is_dir() && !target.is_symlink() {
        replace_folder(finished, target)?;
    } else {
        fs::rename(finished, target)?;
    }
    sync(folder_of(target))
}

fn replace_folder(finished: &Path, target: &Path) -> io::Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    if renameat_with(CWD, finished, CWD, target, RenameFlags::EXCHANGE).is_ok() {
        return fs::remove_dir_all(finished);
    }
    let mut aside = finished.as_os_str().to_owned();
    aside.push(".old");
    let aside = PathBuf::from(aside);
    let _ = fs::remove_dir_all(&aside);
    fs::rename(target, &aside)?;
    if let Err(error) = fs::rename(finished, target) {
        let _ = fs::rename(&aside, target);
        return Err(error);
    }
    fs::remove_dir_all(&aside)
}

/// Makes what was written to a file, or renamed in a folder, outlast a loss of power.
///
/// # Errors
/// Those of the file system.
pub fn sync(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// The folder that a file lies in: `.` for a bare name.
#[must_use]
pub fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::time::SystemTime;

    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(folder)
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn checksums_are_those_of_sha256sum() {
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(sha256("abc"), abc);
        assert_eq!(sha256_of(&b"abc"[..]).unwrap(), (abc.to_owned(), 3));
        assert_eq!(hex([0, 0xab, 9]), "00ab09");
    }

    #[test]
    fn a_write_replaces_and_leaves_no_neighbour() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.json");
        write(&path, "one").unwrap();
        write(&path, "two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(names(dir.path()), ["a.json"]);
        let plain = dir.path().join("plain");
        fs::write(&plain, "").unwrap();
        let mode = |p: &Path| fs::metadata(p).unwrap().permissions().mode();
        assert_eq!(mode(&path), mode(&plain), "readable for those who may read other new files");
    }

    #[test]
    fn a_write_that_fails_in_its_middle_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.json");
        write(&path, "old").unwrap();
        let full = || io::Error::from_raw_os_error(28);
        let error = write_with(&path, |out| {
            out.write_all(&[7; 100_000])?;
            Err(full())
        });
        assert_eq!(error.unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(names(dir.path()), ["a.json"]);
    }

    #[test]
    fn a_missing_folder_is_named_by_its_kind_and_not_by_a_random_name() {
        let error = write(Path::new("/none/such/a.json"), "x").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        assert!(!error.to_string().contains("a.json"), "{error}");
    }

    #[test]
    fn what_a_killed_process_left_goes_and_what_a_living_one_writes_stays() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let old = |name: &str| {
            let file = File::create(at(name)).unwrap();
            file.set_modified(SystemTime::now() - 2 * ABANDONED).unwrap();
            file
        };
        drop(old(".a.json.dead.tmp"));
        drop(old(".b.json.other.tmp"));
        let living = old(".a.json.living.tmp");
        living.lock().unwrap();
        fs::write(at(".a.json.young.tmp"), "").unwrap();
        write(&at("a.json"), "x").unwrap();
        assert_eq!(
            names(dir.path()),
            [".a.json.living.tmp", ".a.json.young.tmp", ".b.json.other.tmp", "a.json"]
        );
    }

    #[test]
    fn a_folder_takes_the_place_of_an_older_one() {
        let dir = tempfile::tempdir().unwrap();
        let (new, target) = (dir.path().join("new"), dir.path().join("target"));
        for round in 0..2 {
            fs::create_dir(&new).unwrap();
            fs::write(new.join(format!("file-{round}")), "").unwrap();
            put_in_place(&new, &target).unwrap();
            assert_eq!(names(&target), [format!("file-{round}")]);
            assert_eq!(names(dir.path()), ["target"]);
        }
        assert!(put_in_place(&new, &target).is_err(), "nothing to put there");
        assert_eq!(names(&target), ["file-1"]);
    }
}
