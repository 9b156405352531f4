//! A start is a reload from nothing: against the newest checkpoint, if the run folder has one.

use std::path::{Path, PathBuf};

use crate::checkpoint;
use crate::config::diff::diff_stored;
use crate::config::{Change, Class, Config, ConfigError, Source};
use crate::error::CliError;

use super::journal::LAST_GOOD_FILE;

/// Differences from the checkpoint that the run will go on from.
///
/// # Errors
/// Exit code 64 naming every frozen key that differs; 74 if the checkpoints cannot be listed.
pub fn against_checkpoint(config: &Config) -> Result<Option<(u64, Vec<Change>)>, CliError> {
    let run_dir = config.run_dir();
    let found = checkpoint::newest_good(&checkpoint::folder_of(&run_dir)).map_err(|e| CliError::io(e.to_string()))?;
    let Some(good) = found.good else { return Ok(None) };
    let step = good.progress.step;
    let changes = diff_stored(&good.config_toml, config)
        .map_err(|e| CliError::io(format!("{}: config.toml of the checkpoint at step {step}: {e}", run_dir.display())))?;
    let frozen = frozen(&changes);
    if frozen.is_empty() {
        return Ok(Some((step, changes)));
    }
    Err(CliError::usage(
        format!(
            "{} holds a run (checkpoint at step {step}) that this config cannot go on with: {}",
            run_dir.display(),
            listed(&frozen)
        ),
        format!(
            "keep the old values, or start a new run from the weights: another run.dir and run.init_from = \"{}\"",
            good.folder.display()
        ),
    ))
}

/// The frozen ones among some changes.
#[must_use]
pub fn frozen(changes: &[Change]) -> Vec<Change> {
    changes.iter().filter(|c| c.class == Class::Frozen).cloned().collect()
}

/// Changes in one line.
#[must_use]
pub fn listed(changes: &[Change]) -> String {
    changes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// A refused config at the start: as the config error, and where the last accepted one is, if the file still tells the run folder.
#[must_use]
pub fn refused(error: ConfigError, source: &Source) -> CliError {
    let kept = run_dir_in(source).map(|dir| dir.join(LAST_GOOD_FILE)).filter(|p| p.is_file());
    let mut error = CliError::from(error);
    if let Some(kept) = kept {
        error.hint = Some(format!(
            "nothing was started; the config that was accepted last is {0}: mend the file, or go on with `splitmask train --config {0}`",
            kept.display()
        ));
    }
    error
}

/// Run folder by a lenient look at a file that may be broken elsewhere.
fn run_dir_in(source: &Source) -> Option<PathBuf> {
    let named = |key: &str| {
        let set = source
            .sets
            .iter()
            .rev()
            .find_map(|s| s.strip_prefix(&format!("run.{key}=")).map(|v| v.trim_matches('"').to_owned()));
        set.or_else(|| {
            let text = std::fs::read_to_string(&source.file).ok()?;
            let (table, _) = toml::de::DeTable::parse_recoverable(&text);
            let run = table.get_ref().get("run")?.get_ref().as_table()?.clone();
            Some(run.get(key)?.get_ref().as_str()?.to_owned())
        })
    };
    named("dir")
        .filter(|d| !d.is_empty())
        .map(PathBuf::from)
        .or_else(|| named("name").map(|n| Path::new("runs").join(n)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(dir: &Path, more: &str) -> Config {
        let text = format!(
            "[data]\ntrain = \"x\"\n[codebook]\npath = \"w\"\n[run]\ndir = {:?}\n{more}",
            dir.display().to_string()
        );
        Source::default().load_text(&text).unwrap().0
    }

    fn save(run_dir: &Path, step: u64, config_toml: String) -> PathBuf {
        let progress = serde_json::json!({
            "step": step, "cursor": splitmask_pipeline::cursor::Cursor::default(), "counters": {}, "meter": {}, "word_counts": [],
            "token_entropy": 0.0, "codebook_perplexity": 0.0, "codebook": "",
        });
        let snapshot = checkpoint::Snapshot {
            model: Vec::new(),
            optimizer: Vec::new(),
            progress: serde_json::from_value(progress).unwrap(),
            config_toml,
        };
        checkpoint::save(&checkpoint::folder_of(run_dir), &snapshot).unwrap()
    }

    #[test]
    fn frozen_differences_refuse_a_start_and_others_are_told() {
        let dir = tempfile::tempdir().unwrap();
        let old = config(dir.path(), "");
        save(dir.path(), 100, old.to_toml());
        let (step, changes) = against_checkpoint(&config(dir.path(), "[optim]\nlr = 1e-3\n")).unwrap().unwrap();
        assert_eq!((step, listed(&changes).as_str()), (100, "optim.lr 0.0015 → 0.001 (live)"));
        let error = against_checkpoint(&config(dir.path(), "[model]\ndepth = 6\n")).unwrap_err();
        assert_eq!(error.code, crate::error::ExitCode::Usage);
        assert!(error.message.contains("model.depth 0 → 6 (frozen)"), "{}", error.message);
        assert!(error.hint.unwrap().contains("run.init_from"));
    }

    #[test]
    fn a_start_is_compared_with_the_checkpoint_that_it_will_go_on_from() {
        let dir = tempfile::tempdir().unwrap();
        save(dir.path(), 100, config(dir.path(), "[model]\ndepth = 6\n").to_toml());
        let newer = save(dir.path(), 200, config(dir.path(), "").to_toml());
        let new = config(dir.path(), "[model]\ndepth = 6\n");
        assert!(against_checkpoint(&new).unwrap_err().message.contains("step 200"));
        // The trainer will set this one aside, so it says nothing.
        std::fs::write(newer.join("config.toml"), "").unwrap();
        assert_eq!(against_checkpoint(&new).unwrap().unwrap().0, 100);
    }

    #[test]
    fn broken_file_is_told_where_the_last_good_one_is() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(LAST_GOOD_FILE), "").unwrap();
        let file = dir.path().join("c.toml");
        std::fs::write(
            &file,
            format!("[run]\ndir = {:?}\n[optim]\nlr = \n", dir.path().display().to_string()),
        )
        .unwrap();
        let source = Source { file, ..Source::default() };
        let error = refused(source.load().unwrap_err(), &source);
        assert!(error.message.contains("c.toml:4:"), "{}", error.message);
        assert!(error.hint.unwrap().contains(LAST_GOOD_FILE));
    }
}
