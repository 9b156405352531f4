//! What changed between two configs, and how far each change reaches.

use serde::Serialize;
use toml::Value;

use super::keys;
use super::problem::shown;
use super::tree::{self, Flat};
use super::{Class, Config};

/// The key of which checkpoints hold the number that was found for 0.
const CLASSES: &str = "objective.classes";

/// One changed key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Change {
    /// Dotted key.
    pub path: String,
    /// Value before, as TOML; `absent` where the key did not exist.
    pub old: String,
    /// Value after.
    pub new: String,
    /// What happens.
    pub class: Class,
}

impl std::fmt::Display for Change {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {} → {} ({})", self.path, self.old, self.new, self.class)
    }
}

/// The changed keys in alphabetical order.
#[must_use]
pub fn diff(old: &Config, new: &Config) -> Vec<Change> {
    compare(
        &tree::flatten(&tree::of(old)),
        &tree::flatten(&tree::of(new)),
        new.objective.kind().name,
    )
}

/// Compares with a config that an earlier version may have written: a key that it lacks counts as having its default.
///
/// `run.dir` is left out, since the folder was found where the new config says.
///
/// # Errors
/// The TOML error's text.
pub fn diff_stored(stored: &str, new: &Config) -> Result<Vec<Change>, String> {
    let table: toml::Table = stored.parse().map_err(|e: toml::de::Error| e.message().to_owned())?;
    let mut old = tree::flatten(&table);
    let kind = new.objective.kind();
    let same_objective = old
        .get("objective.kind")
        .and_then(Value::as_str)
        .is_none_or(|name| name == kind.name);
    // Which keys the old config could have had depends on the values it chose.
    let defaults = tree::with_objective(tree::variant(kind, &tree::chosen(kind, &old)));
    for (key, value) in tree::flatten(&tree::of(&defaults)) {
        if same_objective || !key.starts_with("objective.") {
            old.entry(key).or_insert(value);
        }
    }
    let mut new = tree::flatten(&tree::of(new));
    // Keys of other versions are no settings of this one. Those of another objective, or of another choice in this one, are a difference.
    old.retain(|key, _| new.contains_key(key) || key.starts_with("objective.") && keys::exists(key));
    old.remove("run.dir");
    new.remove("run.dir");
    // A checkpoint says how many classes 0 (those of the manifest) were; the trainer compares their names.
    if new.get(CLASSES).and_then(Value::as_integer) == Some(0) {
        old.remove(CLASSES);
        new.remove(CLASSES);
    }
    Ok(compare(&old, &new, kind.name))
}

fn compare(old: &Flat, new: &Flat, objective: &str) -> Vec<Change> {
    let keys: std::collections::BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let text = |value: Option<&Value>| value.map_or_else(|| "absent".to_owned(), shown);
    keys.into_iter()
        .filter(|key| old.get(*key) != new.get(*key))
        .map(|key| Change {
            path: key.clone(),
            old: text(old.get(key)),
            new: text(new.get(key)),
            class: keys::reach(key, objective, old.get(key), new.get(key)),
        })
        .collect()
}

/// The farthest-reaching class of some changes.
#[must_use]
pub fn strongest(changes: &[Change]) -> Option<Class> {
    changes.iter().map(|c| c.class).max()
}
