//! The lines of a file that grows, each once: what was read is not read again, unless the file turns out to be another or to have lost its end.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Bytes of a line at most; a longer one is counted as unreadable.
const LINE_BYTES: u64 = 1 << 20;
/// Bytes before the place where reading goes on, by which the file is recognised.
const RECOGNISED_BY: usize = 256;

/// What a look at the file finds.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Item<'a> {
    /// The file is not what was read before: what is known of it is void, and its lines follow from the first one on.
    Anew,
    /// A line, without its end.
    Line(&'a str),
    /// A line that is too long or no text.
    Unreadable,
}

/// How far a file was read.
#[derive(Debug)]
pub(super) struct NewLines {
    path: PathBuf,
    inode: u64,
    offset: u64,
    /// The last bytes before `offset`.
    before: Vec<u8>,
    /// Bytes of the file at the last look.
    length: u64,
}

impl NewLines {
    /// Nothing of `path` was read.
    pub(super) fn of(path: PathBuf) -> Self {
        Self {
            path,
            inode: 0,
            offset: 0,
            before: Vec::new(),
            length: 0,
        }
    }

    /// Share of the file that was read.
    pub(super) fn share(&self) -> f64 {
        if self.length == 0 {
            1.0
        } else {
            self.offset as f64 / self.length as f64
        }
    }

    /// Hands over what is new, at most `bytes` and the rest of a line. Answers whether that was all; else it goes on at the next look. A last line without
    /// an end is left for then. A file that is not there has no line.
    ///
    /// # Errors
    /// Those of the file system.
    pub(super) fn look(&mut self, bytes: u64, mut item: impl FnMut(Item<'_>)) -> io::Result<bool> {
        let mut file = match File::open(&self.path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                if self.offset > 0 {
                    item(Item::Anew);
                }
                *self = Self::of(std::mem::take(&mut self.path));
                return Ok(true);
            }
            Err(e) => return Err(e),
        };
        let is = file.metadata()?;
        self.length = is.len();
        if self.offset > 0 && !self.recognises(&mut file, is.ino())? {
            (self.offset, self.before) = (0, Vec::new());
            item(Item::Anew);
        }
        self.inode = is.ino();
        file.seek(SeekFrom::Start(self.offset))?;
        let mut reader = BufReader::with_capacity(64 << 10, file);
        let (mut buffer, end) = (Vec::new(), self.offset.saturating_add(bytes));
        while self.offset < end {
            buffer.clear();
            let read = reader.by_ref().take(LINE_BYTES).read_until(b'\n', &mut buffer)?;
            let ends = buffer.last() == Some(&b'\n');
            if !ends && (read as u64) < LINE_BYTES {
                return Ok(true);
            }
            let rest = if ends { 0 } else { skip_line(&mut reader)? };
            self.offset += read as u64 + rest;
            self.remember(&buffer, rest);
            let text = std::str::from_utf8(&buffer[..read - usize::from(ends)]).ok().filter(|_| ends);
            item(text.map_or(Item::Unreadable, Item::Line));
        }
        Ok(self.offset >= self.length)
    }

    /// Whether the file begins with what was read.
    fn recognises(&self, file: &mut File, inode: u64) -> io::Result<bool> {
        if inode != self.inode || self.length < self.offset {
            return Ok(false);
        }
        let mut have = vec![0; self.before.len()];
        file.seek(SeekFrom::Start(self.offset - have.len() as u64))?;
        file.read_exact(&mut have)?;
        Ok(have == self.before)
    }

    fn remember(&mut self, line: &[u8], rest: u64) {
        if rest > 0 {
            // What was skipped is not held: the file is recognised by nothing more than its length here.
            self.before.clear();
            return;
        }
        self.before.extend_from_slice(&line[line.len().saturating_sub(RECOGNISED_BY)..]);
        let surplus = self.before.len().saturating_sub(RECOGNISED_BY);
        self.before.drain(..surplus);
    }

    /// The file.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

/// Reads to the end of a line, or of the file; answers the bytes.
fn skip_line(reader: &mut impl BufRead) -> io::Result<u64> {
    let mut skipped = 0;
    loop {
        let have = reader.fill_buf()?;
        if have.is_empty() {
            return Ok(skipped);
        }
        let end = have.iter().position(|b| *b == b'\n');
        let used = end.map_or(have.len(), |at| at + 1);
        skipped += used as u64;
        reader.consume(used);
        if end.is_some() {
            return Ok(skipped);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// Lines of a look, `-` for an unreadable one, `!` for what begins anew; and whether it read all.
    fn look(lines: &mut NewLines, bytes: u64) -> (String, bool) {
        let mut text = String::new();
        let complete = lines.look(bytes, |item| match item {
            Item::Anew => text += "!",
            Item::Line(line) => text += &format!("{line},"),
            Item::Unreadable => text += "-,",
        });
        (text, complete.unwrap())
    }

    #[test]
    fn each_line_is_read_once_until_the_file_is_another() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.jsonl");
        let mut lines = NewLines::of(path.clone());
        assert_eq!(look(&mut lines, 100), (String::new(), true));
        fs::write(&path, "one\ntwo\nthr").unwrap();
        assert_eq!(look(&mut lines, 100), ("one,two,".into(), true));
        assert_eq!(look(&mut lines, 100), (String::new(), true));
        fs::write(&path, "one\ntwo\nthree\nfour\n").unwrap();
        assert_eq!(look(&mut lines, 3), ("three,".into(), false), "the rest is for the next look");
        assert_eq!(look(&mut lines, 100), ("four,".into(), true));
        assert!((lines.share() - 1.0).abs() < 1e-9);
        // A rollback cut it, and it has grown again.
        fs::write(&path, "one\ntwo\nTHREE\nFOUR\nFIVE\n").unwrap();
        assert_eq!(look(&mut lines, 100), ("!one,two,THREE,FOUR,FIVE,".into(), true));
        fs::write(dir.path().join("other"), "one\n").unwrap();
        fs::rename(dir.path().join("other"), &path).unwrap();
        assert_eq!(look(&mut lines, 100), ("!one,".into(), true));
        fs::remove_file(&path).unwrap();
        assert_eq!(look(&mut lines, 100), ("!".into(), true));
    }

    #[test]
    fn what_is_no_line_of_text_is_told_and_passed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal.jsonl");
        let mut bytes = b"\xff\n".to_vec();
        bytes.extend(vec![b'x'; 3 << 20]);
        bytes.extend(b"\nlast\n");
        fs::write(&path, bytes).unwrap();
        let mut lines = NewLines::of(path);
        assert_eq!(look(&mut lines, u64::MAX >> 1), ("-,-,last,".into(), true));
    }
}
