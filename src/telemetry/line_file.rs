//! Files of lines that tell what a run does (`metrics.jsonl`, `journal.jsonl`). They are worth less than the run: a full disk or an I/O error never ends
//! training. A line that cannot be written waits in memory, and is written with the next one that can.

use std::collections::VecDeque;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use prometheus::IntCounter;

use crate::held_lock::HeldLock;

/// Bytes of lines that wait at most; the oldest go first.
const MOST_WAITING: usize = 16 << 20;

/// A file that lines are appended to.
#[derive(Debug)]
pub struct LineFile {
    path: PathBuf,
    /// What the file must hold before the next line, if that is not yet so.
    content: Option<String>,
    /// Lines that are not in it yet, each with its end.
    waiting: VecDeque<String>,
    waiting_bytes: usize,
    dropped: u64,
    failures: IntCounter,
    /// Whether a line survives a power cut once it is written.
    synced: bool,
    /// Asked before the file is opened by its path, so that a folder that was put in the place of ours gets none of our lines.
    lock: Option<HeldLock>,
    /// Open from the first line on, until a write fails or the file goes from its place: a folder that is renamed keeps its file.
    file: Option<Opened>,
}

/// A file that is open, and the folder in which it was found.
#[derive(Debug)]
struct Opened {
    file: File,
    folder: (u64, u64),
}

/// A file or folder as the file system knows it, whatever its name.
fn identity(found: &Metadata) -> (u64, u64) {
    (found.dev(), found.ino())
}

impl LineFile {
    /// The file at `path`, made by its first line. `failures` counts writes that failed.
    #[must_use]
    pub fn new(path: PathBuf, failures: IntCounter) -> Self {
        Self {
            path,
            content: None,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            dropped: 0,
            failures,
            synced: false,
            lock: None,
            file: None,
        }
    }

    /// Each line is synced to the disk.
    #[must_use]
    pub fn synced(mut self) -> Self {
        self.synced = true;
        self
    }

    /// A file of the folder that is recognised by `lock`.
    #[must_use]
    pub fn of_folder(mut self, lock: Option<HeldLock>) -> Self {
        self.lock = lock;
        self
    }

    /// Before anything is opened or renamed by a path.
    fn check_folder(&self) -> io::Result<()> {
        self.lock.as_ref().map_or(Ok(()), HeldLock::check).map_err(io::Error::other)
    }

    /// Its place.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Lines that wait for room.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Appends a line (without its end), and those that wait before it.
    pub fn append(&mut self, line: &str) {
        self.waiting_bytes += line.len() + 1;
        self.waiting.push_back(format!("{line}\n"));
        while self.waiting_bytes > MOST_WAITING && self.waiting.len() > 1 {
            self.waiting_bytes -= self.waiting.pop_front().map_or(0, |line| line.len());
            self.dropped += 1;
        }
        self.flush();
    }

    /// Puts `content` in place of all that the file holds; lines that wait stay waiting behind it.
    pub fn replace(&mut self, content: String) {
        self.content = Some(content);
        self.flush();
    }

    /// The lines that wait.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.waiting.iter().map(|line| line.trim_end())
    }

    /// Lets go of waiting lines that `keep` refuses.
    pub fn retain(&mut self, mut keep: impl FnMut(&str) -> bool) {
        self.waiting.retain(|line| keep(line.trim_end()));
        self.waiting_bytes = self.waiting.iter().map(String::len).sum();
    }

    /// Writes what waits, if it can be written now.
    pub fn flush(&mut self) {
        let waited = self.waiting.len();
        let written = self.put_content().and_then(|()| self.put_lines());
        match written {
            Ok(()) => {
                // One line is the one of now; more have waited.
                if waited > 1 {
                    tracing::info!(file = %self.path.display(), lines = waited, dropped = self.dropped, "the file can be written again; what had waited is in it");
                }
                self.dropped = 0;
            }
            Err(error) => {
                self.failures.inc();
                // The first failure of an outage; a warning a line would fill what is left of the disk.
                if waited <= 1 {
                    tracing::warn!(file = %self.path.display(), %error, "a line could not be written; it waits in memory, and training goes on");
                }
            }
        }
    }

    fn put_content(&mut self) -> io::Result<()> {
        let Some(content) = &self.content else { return Ok(()) };
        self.file = None;
        self.check_folder()?;
        // A file that only loses its end needs no room.
        if let Ok(mut file) = OpenOptions::new().read(true).write(true).open(&self.path)
            && starts_with(&mut file, content)?
        {
            file.set_len(content.len() as u64)?;
        } else {
            splitmask_pipeline::file::write(&self.path, content)?;
        }
        self.content = None;
        Ok(())
    }

    /// Opens the file by its path, and makes it if there is none.
    fn open(&self) -> io::Result<Opened> {
        self.check_folder()?;
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty());
        Ok(Opened {
            folder: identity(&fs::metadata(folder.unwrap_or(Path::new(".")))?),
            file: OpenOptions::new().create(true).read(true).append(true).open(&self.path)?,
        })
    }

    /// Whether somebody moved, deleted or replaced the file in a folder that is still the one in which it was opened (to rotate logs, say).
    fn went(&self, opened: &Opened) -> bool {
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let same = |path: &Path, as_before: (u64, u64)| fs::metadata(path).map(|found| identity(&found) == as_before);
        let Ok(is) = opened.file.metadata() else { return false };
        let gone = match same(&self.path, identity(&is)) {
            Ok(same) => !same,
            Err(e) => e.kind() == io::ErrorKind::NotFound,
        };
        gone && same(folder.unwrap_or(Path::new(".")), opened.folder).unwrap_or(false)
    }

    fn put_lines(&mut self) -> io::Result<()> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        let mut opened = match self.file.take() {
            Some(opened) if !self.went(&opened) => opened,
            Some(_) => {
                tracing::warn!(file = %self.path.display(), "the file was moved, deleted or replaced during the run; it is made again, and earlier lines are where it went");
                self.open()?
            }
            None => self.open()?,
        };
        let file = &mut opened.file;
        let length = file.metadata()?.len();
        let mut text = String::with_capacity(self.waiting_bytes + 1);
        if length > 0 && last_byte(file)? != Some(b'\n') {
            // A process died within a line.
            text.push('\n');
        }
        text.extend(self.waiting.iter().map(String::as_str));
        let put = file
            .write_all(text.as_bytes())
            .and_then(|()| if self.synced { file.sync_data() } else { Ok(()) });
        if put.is_err() {
            // What went in is half a line, perhaps; it will be written as a whole.
            let _ = file.set_len(length);
        }
        put?;
        self.file = Some(opened);
        self.waiting.clear();
        self.waiting_bytes = 0;
        Ok(())
    }
}

impl Drop for LineFile {
    fn drop(&mut self) {
        if !self.waiting.is_empty() {
            self.flush();
        }
        if !self.waiting.is_empty() {
            tracing::error!(file = %self.path.display(), lines = self.waiting.len(), "lines could not be written to the end; they are lost");
        }
    }
}

fn starts_with(file: &mut File, content: &str) -> io::Result<bool> {
    let mut have = vec![0u8; content.len()];
    match file.read_exact(&mut have) {
        Ok(()) => Ok(have == content.as_bytes()),
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(e) => Err(e),
    }
}

fn last_byte(file: &mut File) -> io::Result<Option<u8>> {
    let mut byte = [0u8];
    file.seek(SeekFrom::End(-1))?;
    Ok((file.read(&mut byte)? == 1).then_some(byte[0]))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn file(path: &Path) -> LineFile {
        LineFile::new(path.to_owned(), IntCounter::new("failures", "Failures.").unwrap())
    }

    #[test]
    fn a_folder_in_the_place_of_ours_gets_no_line() {
        let dir = tempfile::tempdir().unwrap();
        let (run, moved) = (dir.path().join("run"), dir.path().join("moved"));
        fs::create_dir(&run).unwrap();
        let locked = File::create(run.join("lock")).unwrap();
        let lock = HeldLock::new(&run.join("lock"), &locked).unwrap();
        let mut lines = file(&run.join("metrics.jsonl")).of_folder(Some(lock.clone()));
        let mut begun = file(&run.join("journal.jsonl")).of_folder(Some(lock));
        begun.append("one");
        fs::rename(&run, &moved).unwrap();
        fs::create_dir(&run).unwrap();
        lines.append("first");
        lines.replace(String::new());
        begun.append("two");
        assert_eq!(fs::read_dir(&run).unwrap().count(), 0);
        assert_eq!(lines.waiting(), 1);
        assert_eq!(fs::read_to_string(moved.join("journal.jsonl")).unwrap(), "one\ntwo\n");
        // It is back.
        fs::remove_dir(&run).unwrap();
        fs::rename(&moved, &run).unwrap();
        lines.append("second");
        assert_eq!(fs::read_to_string(run.join("metrics.jsonl")).unwrap(), "first\nsecond\n");
    }

    #[test]
    fn lines_that_find_no_room_wait_and_come_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.jsonl");
        file(&path).append("one");
        // Every write to /dev/full finds no room.
        let aside = dir.path().join("aside");
        fs::rename(&path, &aside).unwrap();
        symlink("/dev/full", &path).unwrap();
        let mut lines = file(&path);
        lines.append("two");
        lines.append("three");
        assert_eq!((lines.waiting(), lines.failures.get()), (2, 2));
        fs::rename(&aside, &path).unwrap();
        lines.append("four");
        assert_eq!((lines.waiting(), lines.failures.get()), (0, 2));
        assert_eq!(fs::read_to_string(&path).unwrap(), "one\ntwo\nthree\nfour\n");
    }

    #[test]
    fn a_folder_that_is_renamed_keeps_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let (run, other) = (dir.path().join("run"), dir.path().join("other"));
        fs::create_dir(&run).unwrap();
        let mut lines = file(&run.join("journal.jsonl"));
        lines.append("one");
        fs::rename(&run, &other).unwrap();
        fs::create_dir(&run).unwrap();
        lines.append("two");
        assert_eq!(fs::read_to_string(other.join("journal.jsonl")).unwrap(), "one\ntwo\n");
        assert!(!run.join("journal.jsonl").exists());
    }

    #[test]
    fn a_file_that_is_moved_or_deleted_during_a_run_is_made_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.jsonl");
        let mut lines = file(&path);
        lines.append("one");
        fs::rename(&path, dir.path().join("metrics.jsonl.1")).unwrap();
        lines.append("two");
        lines.append("three");
        assert_eq!(fs::read_to_string(&path).unwrap(), "two\nthree\n");
        assert_eq!(fs::read_to_string(dir.path().join("metrics.jsonl.1")).unwrap(), "one\n");
        fs::remove_file(&path).unwrap();
        lines.append("four");
        assert_eq!(fs::read_to_string(&path).unwrap(), "four\n");
        // Another file in its place is gone on with, as at a start.
        fs::write(dir.path().join("other"), "other\n").unwrap();
        fs::rename(dir.path().join("other"), &path).unwrap();
        lines.append("five");
        assert_eq!((fs::read_to_string(&path).unwrap().as_str(), lines.waiting()), ("other\nfive\n", 0));
    }

    #[test]
    fn what_waits_at_the_end_is_tried_once_more() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.jsonl");
        symlink("/dev/full", &path).unwrap();
        let mut lines = file(&path);
        lines.append("one");
        fs::remove_file(&path).unwrap();
        drop(lines);
        assert_eq!(fs::read_to_string(&path).unwrap(), "one\n");
    }

    #[test]
    fn memory_is_bounded_and_the_oldest_line_goes_first() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.jsonl");
        symlink("/dev/full", &path).unwrap();
        let mut lines = file(&path);
        let long = "x".repeat(MOST_WAITING / 4);
        (0..6).for_each(|n| lines.append(&format!("{n}{long}")));
        assert_eq!((lines.waiting(), lines.dropped), (3, 3));
        fs::remove_file(&path).unwrap();
        lines.flush();
        assert!(fs::read_to_string(&path).unwrap().starts_with('3'));
    }

    #[test]
    fn a_line_that_was_cut_short_by_a_kill_does_not_spoil_the_next() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal.jsonl");
        fs::write(&path, "one\ntw").unwrap();
        file(&path).append("three");
        assert_eq!(fs::read_to_string(&path).unwrap(), "one\ntw\nthree\n");
    }

    #[test]
    fn content_is_replaced_in_place_where_it_only_gets_shorter() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.jsonl");
        fs::write(&path, "one\ntwo\n").unwrap();
        let mut lines = file(&path);
        let place = |path: &Path| std::os::unix::fs::MetadataExt::ino(&fs::metadata(path).unwrap());
        let before = place(&path);
        lines.replace("one\n".into());
        assert_eq!(
            (fs::read_to_string(&path).unwrap().as_str(), place(&path)),
            ("one\n", before),
            "the same file, shorter"
        );
        // Nothing can be put in the place of a folder.
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        lines.replace("other\n".into());
        lines.append("line");
        assert_eq!(lines.waiting(), 1);
        fs::remove_dir(&path).unwrap();
        lines.append("more");
        assert_eq!(fs::read_to_string(&path).unwrap(), "other\nline\nmore\n");
    }
}
