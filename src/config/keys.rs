//! Every key, gathered from the structs that own them: how far a change of it reaches, and what it is.

use std::sync::OnceLock;

use splitmask_pipeline::config::{DataConfig, PipelineConfig};
use splitmask_pipeline::request::{ColourConfig, CropConfig};
use toml::Value;

use super::{AdminConfig, RunConfig};
use crate::checkpoint::CheckpointConfig;
use crate::eval::config::EvalConfig;
use crate::model::config::VitConfig;
use crate::objective::OBJECTIVES;
use crate::optim::EmaConfig;
use crate::optim::config::OptimConfig;
use crate::picture::PictureConfig;
use crate::setting::{self, Class, key};
use crate::telemetry::log_config::LogConfig;
use crate::trainer::spec::{DebugConfig, RanksConfig, StabilityConfig, TrainConfig};
use crate::words::CodebookConfig;

/// One key.
#[derive(Debug, Clone)]
pub struct Key {
    /// Dotted path.
    pub path: String,
    /// What its owner says of it.
    own: setting::Key,
    /// What it is, with its unit, to be read behind a colon.
    pub doc: String,
    /// Of a key in `[objective]`: the kind that it belongs to. Another kind may have a key of the same path.
    pub objective: Option<&'static str>,
}

impl Key {
    fn of(table: &str, own: &setting::Key, objective: Option<&'static str>) -> Self {
        Self {
            path: format!("{table}.{}", own.name),
            own: *own,
            doc: own.phrase(),
            objective,
        }
    }

    /// Reach of a change.
    #[must_use]
    pub fn class(&self) -> Class {
        self.own.class
    }

    /// The values that it can have, if they can be listed.
    #[must_use]
    pub fn choices(&self) -> &'static [&'static str] {
        (self.own.choices)()
    }
}

/// The tables above `[objective]` in the order of docs/reload.md.
const BEFORE: &[(&str, &[setting::Key])] = &[
    (RunConfig::TABLE, RunConfig::KEYS),
    (DataConfig::TABLE, DataConfig::KEYS),
    (PipelineConfig::TABLE, PipelineConfig::KEYS),
    (CropConfig::TABLE, CropConfig::KEYS),
    (ColourConfig::TABLE, ColourConfig::KEYS),
    (CodebookConfig::TABLE, CodebookConfig::KEYS),
    (VitConfig::TABLE, VitConfig::KEYS),
];

/// The tables below it.
const AFTER: &[(&str, &[setting::Key])] = &[
    (OptimConfig::TABLE, OptimConfig::KEYS),
    (EmaConfig::TABLE, EmaConfig::KEYS),
    (TrainConfig::TABLE, TrainConfig::KEYS),
    (RanksConfig::TABLE, RanksConfig::KEYS),
    (StabilityConfig::TABLE, StabilityConfig::KEYS),
    (CheckpointConfig::TABLE, CheckpointConfig::KEYS),
    (EvalConfig::TABLE, EvalConfig::KEYS),
    (PictureConfig::TABLE, PictureConfig::KEYS),
    (LogConfig::TABLE, LogConfig::KEYS),
    (AdminConfig::TABLE, AdminConfig::KEYS),
    (DebugConfig::TABLE, DebugConfig::KEYS),
];

/// All keys, grouped by table.
#[must_use]
pub fn keys() -> &'static [Key] {
    static ALL: OnceLock<Vec<Key>> = OnceLock::new();
    ALL.get_or_init(|| {
        let tables = |tables: &'static [(&str, &[setting::Key])]| {
            let of_table = |(table, keys): &'static (&str, &[setting::Key])| keys.iter().map(|own| Key::of(table, own, None));
            tables.iter().flat_map(of_table)
        };
        let kinds: Vec<String> = OBJECTIVES.iter().map(|k| format!("`{}`", k.name)).collect();
        let kind = Key {
            doc: format!("what is learnt: {}", kinds.join(", ")),
            ..Key::of("objective", &key(Class::Frozen, "kind", ""), None)
        };
        let objectives = OBJECTIVES
            .iter()
            .flat_map(|kind| kind.keys().map(|own| Key::of("objective", own, Some(kind.name))));
        tables(BEFORE).chain([kind]).chain(objectives).chain(tables(AFTER)).collect()
    })
}

/// The entry of a key, under an objective.
#[must_use]
pub fn of(path: &str, objective: &str) -> Option<&'static Key> {
    keys()
        .iter()
        .find(|k| k.path == path && k.objective.is_none_or(|kind| kind == objective))
}

/// Whether a key exists under some objective.
#[must_use]
pub fn exists(path: &str) -> bool {
    keys().iter().any(|k| k.path == path)
}

/// How far a change of one key from `old` to `new` reaches: its class, or farther where the change turns something on or off.
#[must_use]
pub fn reach(path: &str, objective: &str, old: Option<&Value>, new: Option<&Value>) -> Class {
    let off = |value: Option<&Value>| value.and_then(Value::as_float) == Some(0.0);
    match of(path, objective) {
        Some(key) if off(old) != off(new) => key.own.switch.unwrap_or(key.own.class),
        Some(key) => key.own.class,
        None => Class::Frozen,
    }
}

#[cfg(test)]
mod tests;
