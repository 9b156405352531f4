//! Has the content of the config file changed? Compared by digest, so every way of replacing a file counts and touching it does not.

use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use crate::config::file::{Content, content};

/// Looks in a row after which a file that is not there is told: it is no moment between a deletion and what follows it.
const GONE_LOOKS: u32 = 5;
/// Looks in a row after which a content without its last newline is told: whoever writes it has stopped.
const UNFINISHED_LOOKS: u32 = 40;

/// What a look finds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// New content of this digest.
    Changed(String),
    /// New content that does not end with a newline, for long: it may be half written, and is left to an explicit reload.
    Unfinished,
    /// No file, for long.
    Gone,
}

/// Follows one path by content.
#[derive(Debug)]
pub(super) struct ContentWatch {
    path: PathBuf,
    seen: Option<String>,
    /// What the last looks found, and how many of them in a row; `None` = no file.
    candidate: Option<(Option<Content>, u32)>,
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

    /// Looks once. Answers each finding once. A new content counts when two looks in a row found it and it ends with a newline: a file that is being
    /// written is left alone, however long its writer pauses within a line.
    pub(super) fn look(&mut self) -> Option<Found> {
        let now = content(&self.path);
        if now.as_ref().is_some_and(|now| self.seen.as_ref() == Some(&now.sha256)) {
            self.candidate = None;
            return None;
        }
        let looks = match self.candidate.take() {
            Some((before, looks)) if before == now => looks.saturating_add(1),
            _ => 1,
        };
        self.candidate = Some((now.clone(), looks));
        match now {
            None if looks == GONE_LOOKS => {
                // If the same content comes back, that is to be told, too.
                self.seen = None;
                Some(Found::Gone)
            }
            Some(Content { whole: false, .. }) => (looks == UNFINISHED_LOOKS).then_some(Found::Unfinished),
            Some(Content { sha256, .. }) if looks >= 2 => {
                self.candidate = None;
                self.seen = Some(sha256.clone());
                Some(Found::Changed(sha256))
            }
            _ => None,
        }
    }

    /// Whether the next look may tell something soon.
    fn unsettled(&self) -> bool {
        matches!(&self.candidate, Some((Some(_), looks)) if *looks < UNFINISHED_LOOKS)
    }
}

/// Looks every `every` (sooner while a change settles) until `stop` closes; calls `tell` with each finding.
pub(super) fn follow(mut watch: ContentWatch, every: Duration, stop: &Receiver<()>, tell: impl Fn(Found)) {
    loop {
        let pause = if watch.unsettled() { every / 4 } else { every };
        match stop.recv_timeout(pause) {
            Err(RecvTimeoutError::Timeout) => {}
            Ok(()) | Err(RecvTimeoutError::Disconnected) => return,
        }
        if let Some(found) = watch.look() {
            tell(found);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::file::fingerprint;
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::Path;

    fn watch(path: &Path) -> ContentWatch {
        ContentWatch::new(path.to_path_buf(), fingerprint(path).unwrap())
    }

    fn sees(watch: &mut ContentWatch) -> bool {
        let found: Vec<Found> = (0..3).filter_map(|_| watch.look()).collect();
        assert!(found.iter().all(|f| matches!(f, Found::Changed(_))), "{found:?}");
        found.len() == 1
    }

    #[test]
    fn every_way_of_replacing_a_file_is_seen_once() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::write(at("c.toml"), "a\n").unwrap();
        let mut w = watch(&at("c.toml"));
        assert!(!sees(&mut w), "nothing changed");
        fs::write(at("c.toml"), "b\n").unwrap();
        assert!(sees(&mut w), "written in place");
        fs::write(at("c.toml"), "b\n").unwrap();
        assert!(!sees(&mut w), "same content again");
        fs::write(at("new"), "c\n").unwrap();
        fs::rename(at("new"), at("c.toml")).unwrap();
        assert!(sees(&mut w), "renamed over");
        fs::remove_file(at("c.toml")).unwrap();
        assert!(!sees(&mut w), "gone");
        fs::write(at("c.toml"), "d\n").unwrap();
        assert!(sees(&mut w), "made again");
    }

    #[test]
    fn swapped_symlinks_are_seen() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::write(at("v1.toml"), "1\n").unwrap();
        fs::write(at("v2.toml"), "2\n").unwrap();
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
            fs::write(at(folder).join("c.toml"), format!("{text}\n")).unwrap();
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
        fs::write(&path, "a\n").unwrap();
        let mut w = watch(&path);
        for text in ["b\n", "b\nc\n", "b\nc\nd\n"] {
            fs::write(&path, text).unwrap();
            assert_eq!(w.look(), None, "{text} is still growing");
        }
        assert!(w.look().is_some());
        assert_eq!(w.look(), None);
    }

    #[test]
    fn a_file_that_ends_within_a_line_is_never_taken_and_told_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.toml");
        fs::write(&path, "steps = 100\n").unwrap();
        let mut w = watch(&path);
        fs::write(&path, "steps = 10").unwrap();
        let found: Vec<Found> = (0..3 * UNFINISHED_LOOKS).filter_map(|_| w.look()).collect();
        assert_eq!(found, [Found::Unfinished]);
        fs::write(&path, "steps = 1000\n").unwrap();
        assert!(sees(&mut w), "its writer went on");
        // A file without content is one whose writer has just begun.
        fs::write(&path, "").unwrap();
        assert!(!sees(&mut w));
    }

    #[test]
    fn a_file_that_is_gone_for_long_is_told_once_and_so_is_its_return() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.toml");
        fs::write(&path, "a\n").unwrap();
        let mut w = watch(&path);
        fs::remove_file(&path).unwrap();
        symlink("nowhere", &path).unwrap();
        let found: Vec<Found> = (0..4 * GONE_LOOKS).filter_map(|_| w.look()).collect();
        assert_eq!(found, [Found::Gone]);
        fs::remove_file(&path).unwrap();
        fs::write(&path, "a\n").unwrap();
        assert!(sees(&mut w), "the same content is there again");
    }
}
