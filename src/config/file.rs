//! Reads a small file that a person points at, without being kept by what only looks like one.

use std::fs::OpenOptions;
use std::io::{Error, ErrorKind, Read, Result};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

use sha2::{Digest, Sha256};

use super::hex;

/// Bytes of such a file at most. A config with every key and its comments has under 40 KB.
pub const MOST_BYTES: u64 = 1 << 20;

/// The bytes of a regular file; links are followed. A pipe is not waited for, and a file without end not read.
///
/// # Errors
/// The system's, [`ErrorKind::InvalidInput`] for what is no regular file, [`ErrorKind::FileTooLarge`] beyond [`MOST_BYTES`].
pub fn read(path: &Path) -> Result<Vec<u8>> {
    // Without this flag, opening a pipe waits for its writer.
    let flags = rustix::fs::OFlags::NONBLOCK.bits();
    let file = OpenOptions::new().read(true).custom_flags(flags as i32).open(path)?;
    let kind = file.metadata()?.file_type();
    if !kind.is_file() {
        let what = match () {
            () if kind.is_dir() => "a folder",
            () if kind.is_fifo() => "a pipe",
            () if kind.is_socket() => "a socket",
            () => "a device",
        };
        return Err(Error::new(
            ErrorKind::InvalidInput,
            format!("it is {what}, expected a regular file"),
        ));
    }
    let mut bytes = Vec::new();
    file.take(MOST_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MOST_BYTES {
        return Err(Error::new(
            ErrorKind::FileTooLarge,
            format!("it is larger than {} MiB", MOST_BYTES >> 20),
        ));
    }
    Ok(bytes)
}

/// What a file holds, as far as a watch must know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    /// Hex SHA-256 by which a change is noticed.
    pub sha256: String,
    /// Whether it ends with a newline: a file that does not may be half written.
    pub whole: bool,
}

/// What the file holds now; what [`read`] refuses is a content too, so that it can be told. `None` if there is nothing to be read: between a deletion
/// and what follows it.
#[must_use]
pub fn content(path: &Path) -> Option<Content> {
    let (of, whole) = match read(path) {
        Ok(bytes) => (Sha256::digest(&bytes), bytes.last() == Some(&b'\n')),
        Err(e) if matches!(e.kind(), ErrorKind::InvalidInput | ErrorKind::FileTooLarge) => (Sha256::digest(e.to_string()), true),
        Err(_) => return None,
    };
    Some(Content { sha256: hex(&of), whole })
}

/// The digest of [`content`].
#[must_use]
pub fn fingerprint(path: &Path) -> Option<String> {
    content(path).map(|content| content.sha256)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{CWD, FileType, Mode, mknodat};

    #[test]
    fn only_regular_files_of_a_bounded_size_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::write(at("c.toml"), "a").unwrap();
        std::os::unix::fs::symlink("c.toml", at("link")).unwrap();
        assert_eq!(read(&at("c.toml")).unwrap(), b"a");
        assert_eq!(read(&at("link")).unwrap(), b"a");
        std::fs::write(at("largest"), vec![b'#'; MOST_BYTES as usize]).unwrap();
        assert_eq!(read(&at("largest")).unwrap().len() as u64, MOST_BYTES);
        std::fs::write(at("large"), vec![b'#'; MOST_BYTES as usize + 1]).unwrap();
        mknodat(CWD, at("fifo"), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
        for (path, words) in [
            (at("large"), "larger than 1 MiB"),
            (at("fifo"), "a pipe"),
            (at("."), "a folder"),
            ("/dev/zero".into(), "a device"),
            (at("socket"), ""),
            (at("none"), "No such file"),
        ] {
            let error = read(&path).unwrap_err().to_string();
            assert!(error.contains(words), "{}: {error}", path.display());
            assert_eq!(
                fingerprint(&path).is_some(),
                ["large", "pipe", "folder", "device"].iter().any(|w| words.contains(w))
            );
        }
    }
}
