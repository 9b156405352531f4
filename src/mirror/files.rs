//! Names in the mirror, and which files of a run folder belong there beside checkpoints.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::checkpoint::{COMPLETE, name_of, step_of};

/// Folder of the checkpoints, as in a run folder.
pub(super) const CHECKPOINTS: &str = "checkpoints";
/// Object with the name of the best checkpoint.
pub(super) const BEST: &str = "checkpoints/best";
/// Folder of the pictures of earlier steps, as in a run folder.
pub(super) const PICTURES: &str = "pictures";
/// In place of [`COMPLETE`] in a checkpoint that was found damaged: why.
pub(super) const DAMAGED: &str = "damaged.json";

/// The object of a checkpoint's file.
pub(super) fn object(step: u64, file: &str) -> String {
    format!("{CHECKPOINTS}/{}/{file}", name_of(step))
}

/// Step and file of an object below [`CHECKPOINTS`].
pub(super) fn parsed(object: &str) -> Option<(u64, &str)> {
    let (folder, file) = object.strip_prefix(CHECKPOINTS)?.strip_prefix('/')?.split_once('/')?;
    Some((step_of(folder)?, file))
}

/// Whether an object, or a file by its path in the run folder, is the picture of an earlier step: `pictures/NAME/step-00001000.png`.
pub(super) fn is_earlier_picture(name: &str) -> bool {
    let parts: Vec<&str> = name.split('/').collect();
    let [PICTURES, of, file] = parts[..] else { return false };
    let step = file.strip_prefix("step-").and_then(|rest| rest.strip_suffix(".png"));
    !of.is_empty() && !of.starts_with('.') && step.is_some_and(|step| !step.is_empty() && step.bytes().all(|b| b.is_ascii_digit()))
}

/// Whether a file of this name, at the top of a run folder, is copied: what tells the run's history, what it looks like, and what it was told.
pub(super) fn belongs(name: &str) -> bool {
    let ends = |ends: &[&str]| ends.iter().any(|e| name.ends_with(e));
    !name.starts_with('.')
        && (ends(&[".jsonl", ".png", ".svg"]) || ["last-good.toml", "run.json", "parts.json"].contains(&name) || is_hang(name))
}

fn is_hang(name: &str) -> bool {
    name.starts_with("hang-step-") && name.ends_with(".txt")
}

/// Those files of a run folder, by name; the pictures of earlier steps by their path in it.
///
/// # Errors
/// The folder cannot be listed.
pub(super) fn in_folder(run_dir: &Path) -> io::Result<Vec<(String, PathBuf)>> {
    let mut found = vec![];
    for entry in fs::read_dir(run_dir)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if belongs(&name) && entry.file_type()?.is_file() {
            found.push((name, entry.path()));
        }
    }
    found.extend(earlier_pictures(run_dir)?);
    found.sort();
    Ok(found)
}

fn earlier_pictures(run_dir: &Path) -> io::Result<Vec<(String, PathBuf)>> {
    // A folder that is not there, or goes meanwhile, holds nothing.
    let listed = |folder: &Path| match fs::read_dir(folder) {
        Ok(entries) => entries.collect::<io::Result<Vec<_>>>(),
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(vec![]),
        Err(e) => Err(e),
    };
    let mut found = vec![];
    for kind in listed(&run_dir.join(PICTURES))? {
        for picture in listed(&kind.path())? {
            let (of, file) = (kind.file_name(), picture.file_name());
            let name = format!("{PICTURES}/{}/{}", of.to_string_lossy(), file.to_string_lossy());
            if is_earlier_picture(&name) && picture.file_type()?.is_file() {
                found.push((name, picture.path()));
            }
        }
    }
    Ok(found)
}

/// Text of the list of checksums of a local checkpoint, which tells it from every other.
///
/// # Errors
/// It is not there, or cannot be read.
pub(super) fn checksums(folder: &Path) -> io::Result<String> {
    fs::read_to_string(folder.join(COMPLETE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_go_both_ways_and_only_what_tells_of_the_run_belongs() {
        assert_eq!(object(45, "model.safetensors"), "checkpoints/step-00000045/model.safetensors");
        assert_eq!(parsed(&object(45, COMPLETE)), Some((45, COMPLETE)));
        for foreign in ["checkpoints/best", "metrics.jsonl", "checkpoints/step-x/complete.json"] {
            assert_eq!(parsed(foreign), None, "{foreign}");
        }
        for name in [
            "metrics.jsonl",
            "metrics.before-1.jsonl",
            "journal.jsonl",
            "last-good.toml",
            "run.json",
            "parts.json",
            "inpainting.png",
            "curves.svg",
        ] {
            assert!(belongs(name), "{name}");
        }
        for name in [
            "daemon.lock",
            ".tmp-curves.svg",
            ".last-good.toml.tmp",
            "notes.txt",
            "checkpoints",
            "lease.json",
        ] {
            assert!(!belongs(name), "{name}");
        }
        assert!(is_earlier_picture("pictures/inpaint/step-00001000.png"));
        for name in [
            "inpaint.png",
            "pictures/step-1.png",
            "pictures/inpaint/.tmp-step-1.png",
            "pictures/../step-1.png",
            "pictures/inpaint/step-.png",
            "pictures/inpaint/step-1.png/x",
            "pictures/inpaint/notes.txt",
        ] {
            assert!(!is_earlier_picture(name), "{name}");
        }
    }
}
