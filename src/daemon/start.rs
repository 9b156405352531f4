//! A start is a reload from nothing: against the newest checkpoint, if the run folder has one.
//!
//! It reads files that may lie on a disk that does not answer, so a thread of its own does it, while the caller's waits for that or for a signal.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender};
use std::time::Duration;

use torch_ext::ranks::Launch;

use super::changes::{frozen, listed};
use super::events::Event;
use super::journal::LAST_GOOD_FILE;
use super::listen;
use super::lock::RunLock;
use super::settings::Settings;
use super::started::Started;
use crate::checkpoint;
use crate::config::diff::diff_stored;
use crate::config::explain::warnings;
use crate::config::{Change, Config, ConfigError, Source};
use crate::exit::{CliError, ExitCode};
use crate::signals::Signal;

/// Time that a start which is stopped has to take back what it made.
const UNDO_LIMIT: Duration = Duration::from_secs(1);

/// Makes the start in a thread and waits for it. Answers also whether a SIGHUP came meanwhile: the file may have changed behind its reading.
///
/// # Errors
/// Exit code 64 for a config, run folder or input that was refused, 75 if a signal came first. Nothing is left behind.
pub(super) fn begin(
    source: &Source,
    launch: &Launch,
    events: &Sender<Event>,
    inbox: &Receiver<Event>,
) -> Result<(Started, bool), CliError> {
    let (copy, launch, tell) = (source.clone(), launch.clone(), events.clone());
    let body = move || {
        let _ = tell.send(Event::Started(Box::new(make(&copy, &launch))));
    };
    let thread = std::thread::Builder::new().name("start".into()).spawn(body);
    thread.map_err(|e| CliError::io(format!("no thread for the start: {e}")))?;
    let mut hangup = false;
    loop {
        match inbox.recv() {
            Ok(Event::Started(started)) => return (*started).map(|started| (started, hangup)),
            Ok(Event::Signal(Signal::Terminate | Signal::Interrupt, _)) => {
                if let Ok(Event::Started(started)) = inbox.recv_timeout(UNDO_LIMIT)
                    && let Ok(started) = *started
                {
                    started.lock.iter().for_each(|lock| lock.undo());
                }
                return Err(stopped());
            }
            Ok(Event::Signal(Signal::Hangup, _)) => hangup = true,
            Ok(Event::Signal(Signal::User1, _)) => tracing::warn!("no checkpoint: the run has not started"),
            Ok(_) => {}
            Err(_) => unreachable!("a sender is held"),
        }
    }
}

/// A signal ended the process before its first step.
pub(super) fn stopped() -> CliError {
    CliError {
        code: ExitCode::Stopped,
        message: "stopped before the first step of this process; there is nothing to save".into(),
        hint: Some("the same command starts again".into()),
    }
}

/// Reads, validates, compares, locks and binds. What was made is taken back if a later part fails. Of several ranks, rank 0 alone has the run folder.
fn make(source: &Source, launch: &Launch) -> Result<Started, CliError> {
    let loaded = source.load().map_err(|e| refused(e, source))?;
    let (file_sha256, warnings) = (loaded.file_sha256.clone(), warnings(&loaded));
    let settings = Settings::of(loaded);
    let policy = settings.policy()?;
    let run_dir = settings.config.run_dir();
    let (mut from, mut lock) = (None, None);
    if launch.rank == 0 {
        from = against_checkpoint(&settings.config)?;
        lock = Some(RunLock::take(&run_dir).map_err(|e| settings.at("run.dir", e))?);
    }
    let rest = || -> Result<Option<TcpListener>, CliError> {
        let listener = listen::bind(&settings.config.admin.bind, launch.local_rank).map_err(|e| CliError {
            hint: Some("choose another admin.bind, or \"\" for none".into()),
            ..settings.wrong("admin.bind", e).into()
        })?;
        let address = listener.as_ref().and_then(|l| l.local_addr().ok());
        let described = lock.as_ref().map_or(Ok(()), |lock| lock.describe(address));
        described.map_err(|e| CliError::io(format!("{}: {e}", run_dir.display())))?;
        Ok(listener)
    };
    match rest() {
        Ok(listener) => {
            // As check-config says them.
            warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
            Ok(Started {
                settings,
                file_sha256,
                policy,
                lock: lock.map(Arc::new),
                listener,
                from,
            })
        }
        Err(e) => {
            lock.iter().for_each(RunLock::undo);
            Err(e)
        }
    }
}

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
            let text = String::from_utf8(crate::config::file::read(&source.file).ok()?).ok()?;
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
        assert_eq!(error.code, crate::exit::ExitCode::Usage);
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
