//! The pictures of earlier steps: `RUN/pictures/NAME/step-00001000.png`, a bounded number of each, spread over the run.

use std::io;
use std::path::{Path, PathBuf};

/// Folder of them in a run folder.
const FOLDER: &str = "pictures";

fn folder(run_dir: &Path, name: &str) -> PathBuf {
    run_dir.join(FOLDER).join(name)
}

/// The file of the picture `name` as it was drawn at `step`.
#[must_use]
pub fn file(run_dir: &Path, name: &str, step: u64) -> PathBuf {
    folder(run_dir, name).join(format!("step-{step:08}.png"))
}

/// Steps of which the picture `name` is kept, ascending; none where there is no such folder.
///
/// # Errors
/// The folder cannot be listed.
pub fn steps(run_dir: &Path, name: &str) -> io::Result<Vec<u64>> {
    let entries = match std::fs::read_dir(folder(run_dir, name)) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(e),
    };
    let mut found = Vec::new();
    for entry in entries {
        let name = entry?.file_name();
        found.extend(
            name.to_str()
                .and_then(|n| n.strip_prefix("step-")?.strip_suffix(".png")?.parse::<u64>().ok()),
        );
    }
    found.sort_unstable();
    Ok(found)
}

/// Keeps the picture that lies in the run folder as `NAME.png` now as that of `step`, and lets go of others until there are at most `most`. Those of later
/// steps belong to a course that the run gave up, and go first. `most` = 0 keeps nothing.
///
/// # Errors
/// Those of the file system, with the file.
pub fn keep(run_dir: &Path, name: &str, step: u64, most: usize) -> Result<(), String> {
    let told = |path: &Path, e: io::Error| format!("{}: {e}", path.display());
    let here = folder(run_dir, name);
    let mut kept = steps(run_dir, name).map_err(|e| told(&here, e))?;
    if most > 0 {
        let (drawn, path) = (run_dir.join(format!("{name}.png")), file(run_dir, name, step));
        std::fs::create_dir_all(&here).map_err(|e| told(&here, e))?;
        match std::fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(told(&path, e)),
            _ => {}
        }
        // The next picture is renamed over this one's name, so a second name costs no room; not every file system has them.
        if std::fs::hard_link(&drawn, &path).is_err() {
            std::fs::copy(&drawn, &path).map_err(|e| told(&path, e))?;
        }
        kept.retain(|s| *s != step);
        kept.push(step);
        kept.sort_unstable();
    }
    for gone in surplus(kept, step, most) {
        let path = file(run_dir, name, gone);
        std::fs::remove_file(&path).map_err(|e| told(&path, e))?;
    }
    Ok(())
}

/// What to let go of: what is later than `step`, and then, one after the other, the one whose neighbours are nearest to each other, so that the first and the
/// last stay and the rest is spread over the run.
fn surplus(mut kept: Vec<u64>, step: u64, most: usize) -> Vec<u64> {
    let mut gone: Vec<u64> = kept.extract_if(.., |s| *s > step).collect();
    while kept.len() > most {
        let nearest = (1..kept.len().saturating_sub(1)).min_by_key(|n| kept[n + 1] - kept[n - 1]);
        // Of two or fewer the older goes.
        gone.push(kept.remove(nearest.unwrap_or(0)));
    }
    gone
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn pictures_of_the_whole_run_are_kept_and_never_too_many() {
        let dir = tempfile::tempdir().unwrap();
        let draw = |step: u64, most| {
            let (beside, path) = (dir.path().join("beside"), dir.path().join("features.png"));
            fs::write(&beside, format!("at {step}")).unwrap();
            fs::rename(beside, path).unwrap();
            keep(dir.path(), "features", step, most).unwrap();
        };
        (1..=100).for_each(|n| draw(10 * n, 8));
        let kept = steps(dir.path(), "features").unwrap();
        assert_eq!((kept.len(), kept[0], kept[7]), (8, 10, 1000));
        let gaps: Vec<u64> = kept.windows(2).map(|w| w[1] - w[0]).collect();
        assert!(gaps.iter().max().unwrap() <= &400, "{kept:?}");
        for step in &kept {
            assert_eq!(
                fs::read_to_string(file(dir.path(), "features", *step)).unwrap(),
                format!("at {step}")
            );
        }
        // The run went back to step 500; a picture is drawn again at a step that had one.
        draw(500, 8);
        draw(500, 8);
        let kept = steps(dir.path(), "features").unwrap();
        assert!(kept.iter().all(|s| *s <= 500) && kept.last() == Some(&500), "{kept:?}");
        draw(510, 1);
        assert_eq!(steps(dir.path(), "features").unwrap(), [510]);
        draw(520, 0);
        assert_eq!(steps(dir.path(), "features").unwrap(), [0u64; 0]);
        assert_eq!(steps(dir.path(), "attention").unwrap(), [0u64; 0]);
    }
}
