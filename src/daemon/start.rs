//! A start is a reload from nothing: against the newest checkpoint, if the run folder has one.
//!
//! It reads files that may lie on a disk that does not answer, so a thread of its own does it, while the caller's waits for that or for a signal.

use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender};
use std::time::Duration;

use splitmask_pipeline::bucket::secret::hidden;
use torch_ext::ranks::{Launch, Launcher};

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
use crate::config::{Change, Config, ConfigError, RunConfig, Source};
use crate::exit::{CliError, ExitCode};
use crate::mirror;
use crate::signals::Signal;
use crate::telemetry::metrics::TrainMetrics;

/// Time that a start which is stopped has to take back what it made.
const UNDO_LIMIT: Duration = Duration::from_secs(1);

/// Makes the start in a thread and waits for it. Answers also whether a SIGHUP came meanwhile: the file may have changed behind its reading.
///
/// # Errors
/// Exit code 64 for a config, run folder or input that was refused, 75 if a signal came first. Nothing is left behind.
pub(super) fn begin(
    source: &Source,
    metrics: &TrainMetrics,
    launch: &Launch,
    events: &Sender<Event>,
    inbox: &Receiver<Event>,
) -> Result<(Started, bool), CliError> {
    let launcher = launch.by;
    let (copy, metrics, launch, tell) = (source.clone(), metrics.clone(), launch.clone(), events.clone());
    let body = move || {
        let _ = tell.send(Event::Started(Box::new(make(&copy, &metrics, &launch))));
    };
    let thread = std::thread::Builder::new().name("start".into()).spawn(body);
    thread.map_err(|e| CliError::io(format!("no thread for the start: {e}")))?;
    let mut hangup = false;
    loop {
        match inbox.recv() {
            Ok(Event::Started(started)) => return (*started).map(|started| (started, hangup)),
            Ok(Event::Signal(signal, _)) if is_stop(signal, launcher) => {
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

/// Whether a signal tells a process to end. torchrun hands its own end on by whichever signal it got.
#[must_use]
pub fn is_stop(signal: Signal, launcher: Launcher) -> bool {
    matches!(signal, Signal::Terminate | Signal::Interrupt) || (signal == Signal::Hangup && launcher == Launcher::Torchrun)
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
fn make(source: &Source, metrics: &TrainMetrics, launch: &Launch) -> Result<Started, CliError> {
    let loaded = source.load().map_err(|e| refused(e, source))?;
    let (file_sha256, warnings) = (loaded.file_sha256.clone(), warnings(&loaded.config));
    let settings = Settings::of(loaded);
    let (policy, tls) = (settings.policy()?, settings.tls()?);
    let run_dir = settings.config.run_dir();
    let (mut from, mut lock, mut opened) = (None, None, None);
    if launch.rank == 0 {
        let (taken, mirror, checkpoint) = take_run(&settings, metrics)?;
        (from, lock, opened) = (checkpoint, Some(taken), Some(mirror));
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
            let (mirror, told) = opened.map_or((None, None), |opened| (Some(opened.mirror), opened.told));
            // As check-config says them.
            warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
            Ok(Started {
                settings,
                file_sha256,
                policy,
                lock: lock.map(Arc::new),
                listener,
                from,
                mirror,
                told,
                tls,
            })
        }
        Err(e) => {
            opened.iter().for_each(|opened| opened.mirror.leave(UNDO_LIMIT));
            lock.iter().for_each(RunLock::undo);
            Err(e)
        }
    }
}

/// The checkpoint that a run goes on from, and what differs from its config.
type From = Option<(u64, Vec<Change>)>;

/// Locks the run folder and opens the mirror, if there is one. Nothing is left behind if a part fails.
fn take_run(settings: &Settings, metrics: &TrainMetrics) -> Result<(RunLock, mirror::Opened, From), CliError> {
    let mirrored = settings.config.mirror();
    // A mirror may bring the checkpoint to compare with, and brings it into a folder that is locked.
    let compare = || against_checkpoint(&settings.config);
    let mut from = if mirrored.is_none() { compare()? } else { None };
    let lock = RunLock::take(&settings.config.run_dir()).map_err(|e| settings.at("run.dir", e))?;
    let opened = open_mirror(settings, &lock, metrics).and_then(|opened| {
        if mirrored.is_some() {
            from = compare().inspect_err(|_| opened.mirror.leave(UNDO_LIMIT))?;
        }
        Ok(opened)
    });
    let opened = opened.inspect_err(|_| lock.undo())?;
    Ok((lock, opened, from))
}

/// Opens the mirror, if there is one, and brings what the run folder lacks.
fn open_mirror(settings: &Settings, lock: &RunLock, metrics: &TrainMetrics) -> Result<mirror::Opened, CliError> {
    let config = &settings.config;
    let wanted = config.mirror();
    if let (Some(address), Some(wanted)) = (config.run.address(), &wanted) {
        tracing::info!(
            "run.dir = {address:?} is an address: the run folder on this machine is {}, and the mirror of it is {}",
            config.run_dir().display(),
            hidden(&wanted.address)
        );
    }
    let opening = mirror::Opening {
        run_dir: config.run_dir(),
        lock: lock.held().clone(),
        run: config.run.name.clone(),
        metrics: metrics.mirror.clone(),
        patience: Duration::from_secs_f64(config.pipeline.retry_budget_s),
    };
    let key = wanted.as_ref().map_or("checkpoint.mirror", |wanted| wanted.key);
    mirror::open(&opening, wanted).map_err(|e| settings.at(key, e))
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
    // Settings of another kind are another kind's: their differences say nothing more.
    let kind = frozen.iter().find(|change| change.path == "objective.kind");
    Err(CliError::usage(
        match kind {
            Some(kind) => format!(
                "{} holds a run of objective.kind = {} (checkpoint at step {step}), and this config says {}: it cannot go on with that run",
                run_dir.display(),
                kind.old,
                kind.new
            ),
            None => format!(
                "{} holds a run (checkpoint at step {step}) that this config cannot go on with: {}",
                run_dir.display(),
                listed(&frozen)
            ),
        },
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
            "nothing was started; the config that was accepted last is {0}: put right what is named above, in the file or behind --set, or go on with `splitmask train --config {0}`",
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
    let run = RunConfig {
        dir: named("dir").unwrap_or_default(),
        name: named("name").unwrap_or_default(),
        ..RunConfig::default()
    };
    (!run.dir.is_empty() || !run.name.is_empty()).then(|| run.folder())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

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
    fn a_hangup_is_a_stop_where_torchrun_sent_it() {
        for launcher in [Launcher::Alone, Launcher::Slurm, Launcher::Environment, Launcher::Torchrun] {
            assert!(is_stop(Signal::Terminate, launcher) && is_stop(Signal::Interrupt, launcher));
            assert!(!is_stop(Signal::User1, launcher));
            assert_eq!(is_stop(Signal::Hangup, launcher), launcher == Launcher::Torchrun);
        }
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
