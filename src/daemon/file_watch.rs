//! Has the content of the config file changed? Compared by digest, so every way of replacing a file counts and touching it does not.

use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use crate::config::file::fingerprint;

/// Follows one path by content.
#[derive(Debug)]
pub(super) struct ContentWatch {
    path: PathBuf,
    seen: Option<String>,
    candidate: Option<String>,
}

impl ContentWatch {
    /// Starts from a content that is already known (hex SHA-256).
    #[must_use]
    pub(super) fn new(path: PathBuf, seen: String) -> Self {
        Self {
            path,
            seen: Some(seen),
            candidate: None,
        }
    }

    /// Looks once. Answers the digest of a new content when two looks in a row found it: a file that is being written, or is gone for a
    /// moment between delete and create, is left alone.
    pub(super) fn look(&mut self) -> Option<String> {
        let Some(now) = fingerprint(&self.path) else {
            self.candidate = None;
            return None;
        };
        if self.seen.as_ref() == Some(&now) {
            self.candidate = None;
            return None;
        }
        if self.candidate.as_ref() != Some(&now) {
            self.candidate = Some(now);
            return None;
        }
        self.candidate = None;
        self.seen = Some(now.clone());
        Some(now)
    }

    fn unsettled(&self) -> bool {
        self.candidate.is_some()
    }
}

/// Looks every `every` (sooner while a change settles) until `stop` closes; calls `changed` with the digest of each new content.
pub(super) fn follow(mut watch: ContentWatch, every: Duration, stop: &Receiver<()>, changed: impl Fn(String)) {
    loop {
        let pause = if watch.unsettled() { every / 4 } else { every };
        match stop.recv_timeout(pause) {
            Err(RecvTimeoutError::Timeout) => {}
            Ok(()) | Err(RecvTimeoutError::Disconnected) => return,
        }
        if let Some(digest) = watch.look() {
            changed(digest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::Path;

    fn watch(path: &Path) -> ContentWatch {
        ContentWatch::new(path.to_path_buf(), fingerprint(path).unwrap())
    }

    fn sees(watch: &mut ContentWatch) -> bool {
        (0..3).filter_map(|_| watch.look()).count() == 1
    }

    #[test]
    fn every_way_of_replacing_a_file_is_seen_once() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::write(at("c.toml"), "a").unwrap();
        let mut w = watch(&at("c.toml"));
        assert!(!sees(&mut w), "nothing changed");
        fs::write(at("c.toml"), "b").unwrap();
        assert!(sees(&mut w), "written in place");
        fs::write(at("c.toml"), "b").unwrap();
        assert!(!sees(&mut w), "same content again");
        fs::write(at("new"), "c").unwrap();
        fs::rename(at("new"), at("c.toml")).unwrap();
        assert!(sees(&mut w), "renamed over");
        fs::remove_file(at("c.toml")).unwrap();
        assert!(!sees(&mut w), "gone");
        fs::write(at("c.toml"), "d").unwrap();
        assert!(sees(&mut w), "made again");
    }

    #[test]
    fn swapped_symlinks_are_seen() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::write(at("v1.toml"), "1").unwrap();
        fs::write(at("v2.toml"), "2").unwrap();
        symlink("v1.toml", at("c.toml")).unwrap();
        let mut w = watch(&at("c.toml"));
        symlink("v2.toml", at("tmp")).unwrap();
        fs::rename(at("tmp"), at("c.toml")).unwrap();
        assert!(sees(&mut w));
    }

    #[test]
    fn kubernetes_data_swap_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for (folder, text) in [("..2026_1", "1"), ("..2026_2", "2")] {
            fs::create_dir(at(folder)).unwrap();
            fs::write(at(folder).join("c.toml"), text).unwrap();
        }
        symlink("..2026_1", at("..data")).unwrap();
        symlink("..data/c.toml", at("c.toml")).unwrap();
        let mut w = watch(&at("c.toml"));
        symlink("..2026_2", at("..data_tmp")).unwrap();
        fs::rename(at("..data_tmp"), at("..data")).unwrap();
        fs::remove_dir_all(at("..2026_1")).unwrap();
        assert!(sees(&mut w));
    }

    #[test]
    fn half_written_file_waits_until_it_settles() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.toml");
        fs::write(&path, "a").unwrap();
        let mut w = watch(&path);
        for text in ["b", "bc", "bcd"] {
            fs::write(&path, text).unwrap();
            assert_eq!(w.look(), None, "{text} is still growing");
        }
        assert!(w.look().is_some());
        assert_eq!(w.look(), None);
    }
}
