//! Walks a folder tree and finds its image files. Whatever is not one is counted by the reason for which it was passed over.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use walkdir::{DirEntry, WalkDir};

use super::report::{EXAMPLES, PackProgress, PassedOver, Refusal};
use crate::decode::{EXTENSIONS, Format, foreign_format};
use crate::printable::printable;

/// What a walk saw that is no image to pack.
#[derive(Debug, Default)]
pub(super) struct Rest {
    /// Files of any kind.
    pub(super) files: u64,
    /// By reason: `hidden`, `hidden_folder`, `link`, `special`.
    pub(super) passed_over: BTreeMap<&'static str, PassedOver>,
    /// Files that are no images, by extension.
    pub(super) other_files: BTreeMap<String, u64>,
    /// What cannot be read, link loops, and images of formats that are not decoded.
    pub(super) refused: Vec<(String, Refusal)>,
}

impl Rest {
    pub(super) fn pass_over(&mut self, reason: &'static str, path: String) {
        let passed = self.passed_over.entry(reason).or_default();
        passed.files += 1;
        if passed.examples.len() < EXAMPLES {
            passed.examples.push(path);
        }
    }
}

/// An image file: where it is, its path below the root as bytes with `/` between folders, and its size.
pub(super) struct ImageFile {
    pub(super) path: PathBuf,
    pub(super) relative: Vec<u8>,
    pub(super) bytes: u64,
}

/// What a file turned out to be.
enum Kind {
    Image,
    Foreign(&'static str),
    Other,
    Unreadable(std::io::Error),
}

/// The first bytes decide where the name does not.
fn look_into(path: &Path) -> Kind {
    let mut start = Vec::with_capacity(32);
    if let Err(error) = File::open(path).and_then(|f| f.take(32).read_to_end(&mut start)) {
        return Kind::Unreadable(error);
    }
    match foreign_format(&start) {
        Some(name) => Kind::Foreign(name),
        None if Format::of(&start).is_ok() => Kind::Image,
        None => Kind::Other,
    }
}

/// What to walk.
pub(super) struct Walk<'a> {
    /// The root.
    pub(super) root: &'a Path,
    /// Whether symbolic links are followed.
    pub(super) follow_links: bool,
    /// Folders below the root that are not entered: the output, and a folder that is walked by itself.
    pub(super) without: &'a [PathBuf],
    /// What stands before paths of this root in messages.
    pub(super) prefix: &'a str,
}

impl Walk<'_> {
    /// All image files, in no particular order.
    pub(super) fn run(&self, rest: &mut Rest, progress: &mut dyn FnMut(PackProgress)) -> Vec<ImageFile> {
        let mut images = vec![];
        let mut entries = WalkDir::new(self.root).follow_links(self.follow_links).into_iter();
        while let Some(entry) = entries.next() {
            let entry = match entry {
                Ok(entry) => entry,
                Err(e) => {
                    let at = self.shown(e.path().unwrap_or(self.root));
                    let detail = match e.loop_ancestor() {
                        Some(up) => format!("symbolic link back to its own folder {:?}", self.shown(up)),
                        None => e.into_io_error().map_or_else(|| "not readable".into(), |e| e.to_string()),
                    };
                    rest.refused.push((at, Refusal::Unreadable { detail }));
                    continue;
                }
            };
            if entry.file_type().is_dir() {
                if entry.depth() > 0 && is_hidden(&entry) {
                    self.count_hidden(&entry, rest);
                    entries.skip_current_dir();
                } else if entry.depth() > 0 && entry.path().canonicalize().is_ok_and(|p| self.without.contains(&p)) {
                    entries.skip_current_dir();
                }
                continue;
            }
            rest.files += 1;
            if rest.files.is_multiple_of(1024) {
                progress(PackProgress {
                    done: rest.files,
                    ..PackProgress::default()
                });
            }
            if let Some(image) = self.look_at(&entry, rest) {
                images.push(image);
            }
        }
        images
    }

    fn look_at(&self, entry: &DirEntry, rest: &mut Rest) -> Option<ImageFile> {
        let path = entry.path();
        let reason = match entry.file_type() {
            t if t.is_symlink() => Some("link"),
            // A pipe or device would block its reader.
            t if !t.is_file() => Some("special"),
            _ if is_hidden(entry) => Some("hidden"),
            _ => None,
        };
        if let Some(reason) = reason {
            rest.pass_over(reason, self.shown(path));
            return None;
        }
        let extension = path.extension().unwrap_or_default().as_encoded_bytes().to_ascii_lowercase();
        if !EXTENSIONS.iter().any(|e| e.as_bytes() == extension) {
            match look_into(path) {
                Kind::Image => {}
                Kind::Foreign(name) => {
                    rest.refused.push((self.shown(path), Refusal::Foreign { name }));
                    return None;
                }
                Kind::Other => {
                    let label = if extension.is_empty() {
                        "no extension".into()
                    } else {
                        printable(&extension)
                    };
                    *rest.other_files.entry(label).or_default() += 1;
                    return None;
                }
                Kind::Unreadable(error) => {
                    let detail = error.to_string();
                    rest.refused.push((self.shown(path), Refusal::Unreadable { detail }));
                    return None;
                }
            }
        }
        Some(ImageFile {
            relative: self.relative(path),
            bytes: entry.metadata().map_or(0, |m| m.len()),
            path: path.to_owned(),
        })
    }

    /// Counts the files of a hidden folder without looking into them.
    fn count_hidden(&self, folder: &DirEntry, rest: &mut Rest) {
        let inside = WalkDir::new(folder.path())
            .into_iter()
            .flatten()
            .filter(|e| !e.file_type().is_dir());
        for entry in inside {
            rest.files += 1;
            rest.pass_over("hidden_folder", self.shown(entry.path()));
        }
    }

    /// Path below the root, `/` between folders.
    fn relative(&self, path: &Path) -> Vec<u8> {
        let parts = path.strip_prefix(self.root).unwrap_or(path).components();
        let parts: Vec<&[u8]> = parts.map(|c| c.as_os_str().as_encoded_bytes()).collect();
        parts.join(&b'/')
    }

    fn shown(&self, path: &Path) -> String {
        format!("{}{}", self.prefix, printable(&self.relative(path)))
    }
}

fn is_hidden(entry: &DirEntry) -> bool {
    entry.file_name().as_encoded_bytes().starts_with(b".")
}
