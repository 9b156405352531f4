//! Event files of TensorBoard: scalars and pictures of a run, written so that training never waits for them in vain nor ends by them.
//!
//! Written by hand, 200 lines with the encoding, because no crate does what a resumable run needs: of those on crates.io the one in use
//! (tensorboard-rs, last released in 2022, on protobuf 2) panics on a full disk, and neither it nor tboard can say that steps are void.

mod encoding;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus::IntCounter;

use encoding::{Event, What};

/// The event files of one run folder. One file is begun for each start of the process, at its first event.
///
/// Nothing here answers an error: an event that cannot be written (full disk, folder gone) is counted in `lost`, the first of a row is
/// logged, and so is the end of the row. A file never keeps half an event between whole ones, since readers stop there.
#[derive(Debug)]
pub struct EventFiles {
    folder: PathBuf,
    /// Steps that are void when the next file begins: this one and later ones.
    purge: Option<u64>,
    open: Option<Open>,
    lost: IntCounter,
    /// Events lost since the last one that was written.
    row: u64,
}

/// The file that is written to, and its length up to the end of the last whole event.
#[derive(Debug)]
struct Open {
    path: PathBuf,
    file: File,
    whole: u64,
}

impl EventFiles {
    /// Event files in `folder`, which is made with the first of them. `done` = steps that the run has done: whatever earlier files hold of
    /// later ones is void (the process was killed behind its last checkpoint, or training was rolled back), and TensorBoard is told to
    /// forget it. `lost` counts events that could not be written.
    #[must_use]
    pub fn new(folder: &Path, done: u64, lost: IntCounter) -> Self {
        Self {
            folder: folder.to_owned(),
            purge: Some(done + 1),
            open: None,
            lost,
            row: 0,
        }
    }

    /// Training has gone back to `done` steps: later ones are void.
    pub fn rolled_back(&mut self, done: u64) {
        self.purge = Some(done + 1);
        self.open = None;
    }

    /// Writes numbers of one step: name and value, kept as f32. They are one event, there as a whole or not at all.
    pub fn scalars(&mut self, step: u64, values: &[(&str, f64)]) {
        if !values.is_empty() {
            self.write(step, What::Scalars(values));
        }
    }

    /// Writes a picture of one step: name and the bytes of a PNG file.
    pub fn picture(&mut self, step: u64, name: &str, png: &[u8]) {
        let Some((width, height)) = png_size(png) else {
            self.lose(
                step,
                &io::Error::new(io::ErrorKind::InvalidData, format!("picture {name} is no PNG file")),
            );
            return;
        };
        self.write(step, What::Picture { name, png, width, height });
    }

    fn write(&mut self, step: u64, what: What<'_>) {
        let now = SystemTime::now();
        let written = match self.open.take() {
            Some(open) => Ok(open),
            None => Open::begin(&self.folder, self.purge, now),
        }
        .and_then(|mut open| {
            let outcome = open.append(&Event { time: now, step, what }.record());
            // A file that could not be cut back to whole events is left alone; the next event begins another.
            let usable = outcome.is_ok() || open.cut().is_ok();
            self.open = usable.then_some(open);
            outcome
        });
        match written {
            Ok(()) => {
                self.purge = None;
                if self.row > 0 {
                    tracing::info!(lost = self.row, "TensorBoard's event files can be written again");
                    self.row = 0;
                }
            }
            Err(e) => self.lose(step, &e),
        }
    }

    fn lose(&mut self, step: u64, why: &io::Error) {
        self.lost.inc();
        self.row += 1;
        if self.row == 1 {
            tracing::warn!(folder = %self.folder.display(), step, error = %why, "an event for TensorBoard was not written; training goes on");
        }
    }
}

impl Open {
    /// Begins a file: its version, and which steps of earlier files are void.
    fn begin(folder: &Path, purge: Option<u64>, now: SystemTime) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        let path = folder.join(next_name(folder, now)?);
        let file = OpenOptions::new().create_new(true).append(true).open(&path)?;
        let mut open = Self { path, file, whole: 0 };
        let mut head = Event {
            time: now,
            step: 0,
            what: What::Version,
        }
        .record();
        if let Some(step) = purge {
            head.extend(
                Event {
                    time: now,
                    step,
                    what: What::Restart,
                }
                .record(),
            );
        }
        if let Err(e) = open.append(&head) {
            // Without its head the file means something else, and on a full disk there would be one for each event.
            let _ = fs::remove_file(&open.path);
            return Err(e);
        }
        Ok(open)
    }

    fn append(&mut self, records: &[u8]) -> io::Result<()> {
        self.file.write_all(records)?;
        // A file that someone deleted takes bytes and keeps none of them; looking costs a microsecond.
        fs::metadata(&self.path)?;
        self.whole += records.len() as u64;
        Ok(())
    }

    fn cut(&self) -> io::Result<()> {
        fs::metadata(&self.path)?;
        self.file.set_len(self.whole)
    }
}

/// A name that sorts behind those of all earlier files, however the clock was set meanwhile: TensorBoard reads files in order of name.
fn next_name(folder: &Path, now: SystemTime) -> io::Result<String> {
    const HEAD: &str = "events.out.tfevents.";
    let mut seconds = now.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs();
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let earlier = name.strip_prefix(HEAD).and_then(|n| n.split('.').next()?.parse::<u64>().ok());
        seconds = seconds.max(earlier.map_or(0, |e| e.saturating_add(1)));
    }
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    Ok(format!(
        "{HEAD}{seconds:010}.{}.{}",
        host.trim().replace('/', "-"),
        std::process::id()
    ))
}

/// Width and height in the header of a PNG file (ISO 15948, 11.2.2).
fn png_size(png: &[u8]) -> Option<(u32, u32)> {
    let header = png.strip_prefix(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR")?;
    let number = |at: usize| Some(u32::from_be_bytes(header.get(at..at + 4)?.try_into().ok()?));
    Some((number(0)?, number(4)?))
}

#[cfg(test)]
mod tests;
