//! Which run a folder and a mirror belong to: a random id that both hold, so that no run prunes or continues another's checkpoints.

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};
use splitmask_pipeline::bucket::prefix::Prefix;
use splitmask_pipeline::file;

use super::failure::Trouble;
use super::holder::drawn_name;
use crate::telemetry::wall_time::rfc3339;

/// The file, in the run folder and in the mirror.
pub(super) const RUN_FILE: &str = "run.json";

/// A run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Run {
    /// Random.
    id: String,
    /// `run.name`.
    name: String,
    /// When it was first mirrored, RFC 3339.
    since: String,
}

fn local(run_dir: &Path) -> Option<Run> {
    serde_json::from_slice(&fs::read(run_dir.join(RUN_FILE)).ok()?).ok()
}

/// What the mirror says.
fn mirrored(prefix: &Prefix) -> Result<Option<Run>, Trouble> {
    let Some((text, _)) = prefix.get(RUN_FILE)? else { return Ok(None) };
    serde_json::from_slice(&text).map(Some).map_err(|e| {
        Trouble::lease(
            format!(
                "{}/{RUN_FILE} cannot be read ({e}); it says which run the mirror belongs to",
                prefix.shown()
            ),
            true,
        )
    })
}

/// Puts the run's name into a mirror that somebody emptied since it was opened. Answers whether that was so: nothing that was there is there any more.
///
/// # Errors
/// The mirror is of another run by now ([`Trouble::bars`]); the store's or the disk's words.
pub(super) fn renew(prefix: &Prefix, run_dir: &Path) -> Result<bool, Trouble> {
    let Some(here) = local(run_dir) else {
        return Err(Trouble::lease(
            format!(
                "{} is gone or cannot be read; it says which run the folder belongs to",
                run_dir.join(RUN_FILE).display()
            ),
            true,
        ));
    };
    match mirrored(prefix)? {
        Some(there) if there.id == here.id => Ok(false),
        Some(there) => Err(Trouble::lease(
            format!(
                "{} belongs to another run by now (\"{}\", mirrored since {})",
                prefix.shown(),
                there.name,
                there.since
            ),
            true,
        )),
        None => {
            prefix.put(RUN_FILE, serde_json::to_string_pretty(&here).expect("plain data serialises"))?;
            Ok(true)
        }
    }
}

/// Makes sure that folder and mirror are of one run. `here` and `there` say whether they hold checkpoints: what holds none takes the other's name.
///
/// # Errors
/// They are of two runs ([`Trouble::bars`]); the store's or the disk's words.
pub(super) fn agree(prefix: &Prefix, run_dir: &Path, name: &str, here: bool, there: bool) -> Result<(), Trouble> {
    let mirrored = mirrored(prefix)?;
    let keep_here = |run: &Run| {
        let path = run_dir.join(RUN_FILE);
        let text = serde_json::to_string_pretty(run).expect("plain data serialises");
        file::write(&path, text).map_err(|e| Trouble::disk(&path, &e))
    };
    let put_there = |run: &Run| -> Result<(), Trouble> {
        let text = serde_json::to_string_pretty(run).expect("plain data serialises");
        Ok(prefix.put(RUN_FILE, text)?)
    };
    match (local(run_dir), mirrored) {
        (Some(a), Some(b)) if a.id == b.id => Ok(()),
        (Some(a), Some(_)) if here && !there => put_there(&a),
        (_, Some(b)) if !here || !there => keep_here(&b),
        (a, Some(b)) => {
            let of = a.map_or_else(
                || "that was not mirrored so far".to_owned(),
                |a| format!("\"{}\", mirrored since {}", a.name, a.since),
            );
            Err(Trouble::lease(
                format!(
                    "{} holds checkpoints of another run (\"{}\", mirrored since {}) than {} (a run {of})",
                    prefix.shown(),
                    b.name,
                    b.since,
                    run_dir.display()
                ),
                true,
            ))
        }
        (_, None) if there => Err(Trouble::lease(
            format!("{} holds checkpoints, but no {RUN_FILE} that says of which run", prefix.shown()),
            true,
        )),
        (Some(a), None) => put_there(&a),
        (None, None) => {
            let run = Run {
                id: drawn_name(),
                name: name.to_owned(),
                since: rfc3339(std::time::SystemTime::now()),
            };
            keep_here(&run)?;
            put_there(&run)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_holds_no_checkpoints_takes_the_name_of_what_does_and_two_runs_never_mix() {
        let dir = tempfile::tempdir().unwrap();
        let folder = |name: &str| {
            let folder = dir.path().join(name);
            fs::create_dir_all(&folder).unwrap();
            folder
        };
        let prefix = |name: &str| Prefix::open(&folder(name).display().to_string(), "", "test-io").unwrap();
        let (a, mirror) = (folder("a"), prefix("mirror"));
        agree(&mirror, &a, "x", false, false).unwrap();
        let first = local(&a).unwrap();
        // The folder is lost: the mirror says which run it is.
        let b = folder("b");
        agree(&mirror, &b, "x", false, true).unwrap();
        assert_eq!(local(&b).unwrap(), first);
        agree(&mirror, &b, "x", true, true).unwrap();
        // A new, empty mirror for the same run.
        let second = prefix("second");
        agree(&second, &a, "x", true, false).unwrap();
        assert!(second.get(RUN_FILE).unwrap().is_some());
        // Another run, with checkpoints of its own, whether it was mirrored or not.
        let c = folder("c");
        let refused = agree(&mirror, &c, "y", true, true).unwrap_err();
        assert!(
            refused.bars && refused.text.contains("another run (\"x\"") && refused.text.contains("not mirrored"),
            "{refused}"
        );
        agree(&prefix("third"), &c, "y", true, false).unwrap();
        assert!(agree(&mirror, &c, "y", true, true).unwrap_err().text.contains("a run \"y\""));
        assert_eq!(local(&a).unwrap(), first);
        // Checkpoints of nobody.
        assert!(
            agree(&prefix("fourth"), &a, "x", true, true)
                .unwrap_err()
                .text
                .contains("no run.json")
        );
    }
}
