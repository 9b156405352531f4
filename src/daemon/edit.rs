//! A change of the config file by its text: what would come of it, and putting it in the file's place. All that touches files is here, for a thread that
//! may hang.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use serde::Serialize;
use sha2::{Digest, Sha256};
use splitmask_pipeline::bucket::secret::{hidden, hidden_in_text};

use super::events::as_label;
use super::reading;
use super::settings::Settings;
use crate::config::{Change, Config, Problem, Shadowed, Source, file, hex};
use crate::telemetry::metrics::ReloadOutcome;

/// Where the config comes from, for those who edit its file.
#[derive(Debug, Clone)]
pub(crate) struct Editor {
    source: Source,
    /// What the file said at the start of keys that later layers set otherwise.
    at_start: Arc<BTreeMap<String, Shadowed>>,
    /// Ranks of the run.
    world: usize,
}

/// What a reload with some text would come to.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct Rehearsal {
    /// Always true: nothing was changed.
    dry_run: bool,
    /// How it would end, as far as that is known without the trainer.
    #[serde(serialize_with = "as_label")]
    pub(super) outcome: ReloadOutcome,
    /// All keys that differ from the config in force.
    pub(super) changes: Vec<Change>,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) error: Option<String>,
    /// Keys whose value in the text has no effect, and why.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    shadowed: Vec<String>,
    /// What is allowed and probably not meant, and was not so before.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
    /// What is wrong with it, by place.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    problems: Vec<Problem>,
}

/// The config file as it is.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct FileText {
    file: String,
    /// Hex SHA-256 of the bytes, which a change names.
    sha256: String,
    text: String,
}

/// Why the file is not shown or not replaced.
#[derive(Debug, PartialEq)]
pub(super) enum Unedited {
    /// It is not the one that was edited.
    Overtaken(String),
    /// The text would be refused as a config.
    Refused(Box<Rehearsal>),
    /// The system, or what it holds.
    Failed(String),
}

impl Editor {
    pub(super) fn new(source: Source, at_start: Arc<BTreeMap<String, Shadowed>>, world: usize) -> Self {
        Self { source, at_start, world }
    }

    fn shown_path(&self) -> String {
        hidden(&self.source.file.display().to_string())
    }

    fn failed(&self, what: &str, why: impl std::fmt::Display) -> Unedited {
        Unedited::Failed(format!("{}: {what}: {why}", self.shown_path()))
    }

    /// What the file holds now.
    ///
    /// # Errors
    /// It cannot be read, is no text, or holds an address with a password: that is edited where nobody looks over a network.
    pub(super) fn text(&self) -> Result<FileText, Unedited> {
        let bytes = file::read(&self.source.file).map_err(|e| self.failed("cannot be read", e))?;
        let sha256 = hex(&Sha256::digest(&bytes));
        let text = String::from_utf8(bytes).map_err(|e| self.failed("is not UTF-8 text", e))?;
        if hidden_in_text(&text) != text {
            return Err(self.failed(
                "is not shown",
                "it holds an address with a user, a password or a query string; edit it on the machine",
            ));
        }
        Ok(FileText {
            file: self.shown_path(),
            sha256,
            text,
        })
    }

    /// What a reload would come to if the file held `text`, or with the file as it is. Changes nothing; an address that would be bound is tried and let go.
    ///
    /// # Errors
    /// The file cannot be read.
    pub(super) fn rehearse(&self, text: Option<&str>, in_force: &Arc<Config>) -> Result<Rehearsal, Unedited> {
        let read;
        let text = if let Some(text) = text {
            text
        } else {
            let bytes = file::read(&self.source.file).map_err(|e| self.failed("cannot be read", e))?;
            read = String::from_utf8(bytes).map_err(|e| self.failed("is not UTF-8 text", e))?;
            &read
        };
        let in_force = Settings {
            config: Arc::clone(in_force),
            places: Arc::default(),
            shadowed: Arc::clone(&self.at_start),
        };
        let (changes, found) = reading::rehearse(&self.source, text, &in_force, self.world);
        let rehearsal = |outcome, error, [shadowed, warnings]: [Vec<String>; 2], problems| Rehearsal {
            dry_run: true,
            outcome,
            changes,
            error,
            shadowed,
            warnings,
            problems,
        };
        Ok(match found {
            Ok(new) => {
                let outcome = if new.class.is_some() {
                    ReloadOutcome::Applied
                } else {
                    ReloadOutcome::Unchanged
                };
                rehearsal(outcome, None, [new.shadowed, new.warnings], Vec::new())
            }
            Err(refusal) => rehearsal(refusal.outcome, Some(refusal.error), [vec![], vec![]], refusal.problems),
        })
    }

    /// Puts `text` in the place of the file, whole or not at all, if a reload would take it and the file still is the one of digest `edited`. A link stays a
    /// link: the file behind it is replaced, and keeps its mode.
    ///
    /// # Errors
    /// Why not; the file is as it was.
    pub(super) fn put(&self, text: &str, edited: &str, in_force: &Arc<Config>) -> Result<(), Unedited> {
        let rehearsal = self.rehearse(Some(text), in_force)?;
        if rehearsal.error.is_some() {
            return Err(Unedited::Refused(Box::new(rehearsal)));
        }
        let path = fs::canonicalize(&self.source.file).map_err(|e| self.failed("cannot be read", e))?;
        let is = file::read(&path).map_err(|e| self.failed("cannot be read", e))?;
        if hex(&Sha256::digest(&is)) != edited {
            return Err(Unedited::Overtaken(format!(
                "{} is no longer the file that was edited: read it again",
                self.shown_path()
            )));
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let beside = path.with_file_name(format!(".{name}.edit-{}", std::process::id()));
        replace(&path, &beside, text).map_err(|e| {
            let _ = fs::remove_file(&beside);
            self.failed("cannot be replaced", e)
        })
    }
}

fn replace(path: &Path, beside: &Path, text: &str) -> std::io::Result<()> {
    let mode = fs::metadata(path)?.permissions();
    let mut file = OpenOptions::new().write(true).create_new(true).open(beside)?;
    file.set_permissions(mode)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(beside, path)?;
    // The rename survives a power cut once the folder is on the disk.
    path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    const BASE: &str = "[data]\ntrain = \"x\"\n[codebook]\npath = \"w\"\n";

    fn editor(path: &Path) -> Editor {
        let source = Source {
            file: path.to_owned(),
            ..Source::default()
        };
        Editor::new(source, Arc::default(), 1)
    }

    fn digest(path: &Path) -> String {
        hex(&Sha256::digest(fs::read(path).unwrap()))
    }

    #[test]
    fn a_rehearsal_names_every_change_with_its_class_and_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.toml");
        fs::write(&path, BASE).unwrap();
        let editor = editor(&path);
        let in_force = Arc::new(editor.source.load().unwrap().config);
        let rehearse = |more: &str| editor.rehearse(Some(&format!("{BASE}{more}")), &in_force).unwrap();
        assert_eq!(rehearse("").outcome, ReloadOutcome::Unchanged);
        let live = rehearse("[optim]\nlr = 1e-3\n");
        assert_eq!(
            (live.outcome, live.changes.len(), live.changes[0].path.as_str()),
            (ReloadOutcome::Applied, 1, "optim.lr")
        );
        let frozen = rehearse("[model]\ndepth = 6\n[optim]\nlr = 1e-3\n");
        assert_eq!((frozen.outcome, frozen.changes.len()), (ReloadOutcome::Frozen, 2), "{frozen:?}");
        assert!(frozen.error.unwrap().contains("model.depth"));
        let invalid = rehearse("[optim]\nlrr = 1e-3\n");
        assert_eq!((invalid.outcome, invalid.problems.len()), (ReloadOutcome::Invalid, 1));
        assert_eq!(editor.rehearse(None, &in_force).unwrap().outcome, ReloadOutcome::Unchanged);
        let threads = "[train]\nthreads = 3\n[optim]\nlr = 1e-3\n";
        assert_eq!(rehearse(threads).outcome, ReloadOutcome::Applied);
        let two_ranks = Editor {
            world: 2,
            ..editor.clone()
        };
        let refused = two_ranks.rehearse(Some(&format!("{BASE}{threads}")), &in_force).unwrap();
        let why = refused.error.unwrap();
        assert!(
            refused.outcome == ReloadOutcome::Failed && why.contains("train.threads") && !why.contains("optim.lr"),
            "{why}"
        );
        assert_eq!(fs::read_to_string(&path).unwrap(), BASE);
    }

    #[test]
    fn only_a_valid_text_for_the_file_that_was_edited_comes_in_its_place() {
        let dir = tempfile::tempdir().unwrap();
        let (path, link) = (dir.path().join("real.toml"), dir.path().join("c.toml"));
        fs::write(&path, BASE).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        symlink("real.toml", &link).unwrap();
        let editor = editor(&link);
        let in_force = Arc::new(editor.source.load().unwrap().config);
        let shown = editor.text().unwrap();
        assert_eq!((shown.text.as_str(), &shown.sha256), (BASE, &digest(&path)));
        for text in ["[optim]\nlr = \n".to_owned(), format!("{BASE}[run]\nseed = 3\n")] {
            assert!(
                matches!(editor.put(&text, &shown.sha256, &in_force), Err(Unedited::Refused(_))),
                "{text}"
            );
        }
        let new = format!("{BASE}[optim]\nlr = 1e-3\n");
        let overtaken = editor.put(&new, &digest(&path).replace(|c: char| c.is_ascii_digit(), "0"), &in_force);
        assert!(matches!(overtaken, Err(Unedited::Overtaken(_))));
        assert_eq!(fs::read_to_string(&path).unwrap(), BASE);
        editor.put(&new, &shown.sha256, &in_force).unwrap();
        assert_eq!(fs::read_to_string(&link).unwrap(), new);
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "nothing is left beside it");
    }

    #[test]
    fn a_file_with_a_password_is_not_shown() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.toml");
        fs::write(&path, "[data]\ntrain = \"https://me:CANARY@host/x\"\n").unwrap();
        let Err(Unedited::Failed(why)) = editor(&path).text() else {
            panic!("it was shown")
        };
        assert!(why.contains("password") && !why.contains("CANARY"), "{why}");
    }
}
