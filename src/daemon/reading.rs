//! Reads the config file for a reload and compares it with the config in force. All that touches files is here, for a thread that may hang.

use std::net::TcpListener;
use std::sync::Arc;

use super::changes::{frozen, listed};
use super::listen;
use super::policy::Policy;
use super::settings::Settings;
use super::tls::Identity;

use crate::config::diff::strongest;
use crate::config::{Change, Class, ConfigError, Problem, Source, diff, explain};
use crate::telemetry::metrics::ReloadOutcome;

/// What came of it.
#[derive(Debug)]
pub struct Reading {
    /// Digest of the file, if it could be read: the file watch need not report it again.
    pub(super) file_sha256: Option<String>,
    pub(super) found: Result<NewConfig, Refusal>,
}

/// A valid config that this run can go on with.
#[derive(Debug)]
pub(super) struct NewConfig {
    pub(super) settings: Settings,
    pub(super) changes: Vec<Change>,
    /// The farthest among the changes; none = there are no changes.
    pub(super) class: Option<Class>,
    pub(super) policy: Policy,
    pub(super) tls: Option<Identity>,
    /// Edits of the file that environment or command line keep from having an effect, in words.
    pub(super) shadowed: Vec<String>,
    /// What it has that is allowed and probably not meant, and the config in force has not, in words.
    pub(super) warnings: Vec<String>,
    /// The admin server moves to this one (`Some(None)`: it ends).
    pub(super) listener: Option<Option<TcpListener>>,
}

/// Why a reload ends with the old config.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) outcome: ReloadOutcome,
    pub(super) changes: Vec<Change>,
    pub(super) error: String,
    pub(super) problems: Vec<Problem>,
}

impl Refusal {
    pub(super) fn failed(changes: Vec<Change>, error: String) -> Self {
        Self {
            outcome: ReloadOutcome::Failed,
            changes,
            error,
            problems: Vec::new(),
        }
    }

    fn of(outcome: ReloadOutcome, changes: Vec<Change>, error: ConfigError) -> Self {
        Self {
            outcome,
            changes,
            error: error.to_string(),
            problems: error.problems,
        }
    }
}

/// Reads and compares, for a run of `world` ranks.
pub(super) fn read(source: &Source, in_force: &Settings, world: usize) -> Reading {
    match source.load() {
        Ok(loaded) => Reading {
            file_sha256: Some(loaded.file_sha256.clone()),
            found: compare(Settings::of(loaded), in_force, world),
        },
        Err(e) => Reading {
            file_sha256: source.file_sha256(),
            found: Err(Refusal::of(ReloadOutcome::Invalid, Vec::new(), e)),
        },
    }
}

/// What [`read`] would find, without anything coming of it; and all keys that the text changes, those that do not count among a refusal too.
pub(super) fn rehearse(source: &Source, text: &str, in_force: &Settings, world: usize) -> (Vec<Change>, Result<NewConfig, Refusal>) {
    match source.load_as(text) {
        Ok(loaded) => {
            let new = Settings::of(loaded);
            (diff(&in_force.config, &new.config), compare(new, in_force, world))
        }
        Err(e) => (Vec::new(), Err(Refusal::of(ReloadOutcome::Invalid, Vec::new(), e))),
    }
}

fn compare(mut settings: Settings, in_force: &Settings, world: usize) -> Result<NewConfig, Refusal> {
    let changes = diff(&in_force.config, &settings.config);
    let (policy, tls) = match settings.policy().and_then(|policy| Ok((policy, settings.tls()?))) {
        Ok(read) => read,
        Err(e) => return Err(Refusal::of(ReloadOutcome::Invalid, changes, e)),
    };
    let shadowed = settings.newly_shadowed(in_force);
    // What was told at a reload is told at the next one too: the edit still has no effect.
    settings.shadowed = Arc::clone(&in_force.shadowed);
    let class = strongest(&changes);
    if class == Some(Class::Frozen) {
        let refused = frozen(&changes);
        let places = refused.iter().filter_map(|change| settings.places.get(&change.path));
        let places: Vec<String> = places.map(ToString::to_string).collect();
        let error = format!(
            "{}{}a run cannot change {}; the old config goes on. Start a new run for it: another run.dir, and run.init_from to keep the weights",
            places.join(", "),
            if places.is_empty() { "" } else { ": " },
            listed(&refused)
        );
        return Err(Refusal {
            outcome: ReloadOutcome::Frozen,
            ..Refusal::failed(refused, error)
        });
    }
    if class == Some(Class::Restart) && world > 1 {
        let new_trainer: Vec<Change> = changes.iter().filter(|change| change.class == Class::Restart).cloned().collect();
        let error = format!(
            "{world} ranks train, and these keys need a new trainer: {}; the old config goes on. Stop all ranks and start them with the new config",
            listed(&new_trainer)
        );
        return Err(Refusal::failed(new_trainer, error));
    }
    let bind = &settings.config.admin.bind;
    let listener = if *bind == in_force.config.admin.bind {
        None
    } else {
        match listen::bind(bind, 0) {
            Ok(listener) => Some(listener),
            Err(e) => return Err(Refusal::of(ReloadOutcome::Failed, changes, settings.wrong("admin.bind", e))),
        }
    };
    let known = explain::warnings(&in_force.config);
    let warnings = explain::warnings(&settings.config)
        .into_iter()
        .filter(|told| !known.contains(told))
        .collect();
    Ok(NewConfig {
        settings,
        changes,
        warnings,
        class,
        policy,
        tls,
        shadowed,
        listener,
    })
}
