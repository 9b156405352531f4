//! The files that somebody names, and those of them that cannot be read.

use std::path::{Path, PathBuf};

use serde::Serialize;
use splitmask_pipeline::decode::{Background, EXTENSIONS};
use splitmask_pipeline::name::shown;
use walkdir::WalkDir;

use crate::cli::answer::warn;
use crate::exit::CliError;

/// A file that could not be read.
#[derive(Debug, Serialize)]
pub(super) struct Unreadable {
    pub(super) file: String,
    pub(super) reason: String,
}

/// The files that are meant, those of a folder in the order of their names, and what cannot be looked at.
pub(super) fn files(named: &[PathBuf]) -> Result<(Vec<PathBuf>, Vec<Unreadable>), CliError> {
    let is_image = |path: &Path| {
        path.extension()
            .is_some_and(|e| EXTENSIONS.iter().any(|known| e.eq_ignore_ascii_case(known)))
    };
    let (mut found, mut unreadable) = (vec![], vec![]);
    for path in named {
        if !path.is_dir() {
            found.push(path.clone());
            continue;
        }
        let before = found.len() + unreadable.len();
        for entry in WalkDir::new(path).sort_by_file_name() {
            match entry {
                Ok(entry) if entry.file_type().is_file() && is_image(entry.path()) => found.push(entry.into_path()),
                Ok(_) => {}
                Err(e) => unreadable.push(Unreadable {
                    file: readable(e.path().unwrap_or(path)),
                    reason: e.into_io_error().map_or_else(|| "not readable".into(), |e| e.to_string()),
                }),
            }
        }
        if found.len() + unreadable.len() == before {
            return Err(CliError::usage(
                format!("{}: no image file in this folder", readable(path)),
                format!("image files are those that end in {}", EXTENSIONS.join(", ")),
            ));
        }
    }
    Ok((found, unreadable))
}

/// A file's name as one line of text, whatever its bytes are.
pub(super) fn readable(file: &Path) -> String {
    shown(file.as_os_str().as_encoded_bytes())
}

/// The bytes of a file, `largest` at most, or why it is left out.
pub(super) fn read(file: &Path, largest: u64) -> Result<Vec<u8>, String> {
    let meta = std::fs::metadata(file).map_err(|e| e.to_string())?;
    if !meta.is_file() {
        return Err("is no file but a pipe, device or socket".into());
    }
    if meta.len() > largest {
        return Err(format!("has {} bytes, more than data.max_member_bytes = {}", meta.len(), largest));
    }
    std::fs::read(file).map_err(|e| e.to_string())
}

/// Tells that a file ends before its image does.
pub(super) fn warn_if_truncated(file: &Path, truncated: bool) {
    if truncated {
        warn(&format!(
            "{}: the file ends early; what is there of the image was looked at",
            readable(file)
        ));
    }
}

/// Tells how many images are transparent, where nobody said what they lie on.
pub(super) fn tell_transparent(images: usize, background: Background) {
    if images > 0 && background.is_none() {
        warn(&format!(
            "{images} images are transparent, and the colours beneath show: where training images were packed with --background, give the same here (--background white)"
        ));
    }
}

/// The end of a verb that has answered all but `bad` of `named` files.
pub(super) fn refuse_unreadable(bad: usize, named: usize, json: bool) -> Result<(), CliError> {
    match bad {
        0 => Ok(()),
        bad => Err(CliError::usage(
            format!("{bad} of {named} files could not be read as images"),
            (!json && bad < named).then(|| "they are named above; the others were answered".to_owned()),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_walked_in_order_and_an_empty_one_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let place = |name: &str| dir.path().join(name);
        std::fs::create_dir_all(place("in/b")).unwrap();
        std::fs::create_dir_all(place("empty")).unwrap();
        for name in ["in/b/2.PNG", "in/a.jpg", "in/notes.txt", "alone.bin"] {
            std::fs::write(place(name), "x").unwrap();
        }
        let (found, unreadable) = files(&[place("alone.bin"), place("in"), place("gone.png")]).unwrap();
        assert_eq!(found, ["alone.bin", "in/a.jpg", "in/b/2.PNG", "gone.png"].map(place));
        assert!(unreadable.is_empty(), "a file that is gone is found out when it is read");
        let refused = files(&[place("empty")]).unwrap_err();
        assert!(refused.message.contains("no image file") && refused.hint.unwrap().contains("jpg"));
    }
}
