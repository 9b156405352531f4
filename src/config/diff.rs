//! What changed between two configs, and how far each change reaches.

use serde::Serialize;
use toml::Value;

use super::Config;
use super::classes::{self, Class};
use super::problem::shown;
use super::tree::{self, Flat};

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
    compare(&tree::flatten(&tree::of(old)), &tree::flatten(&tree::of(new)))
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
    let same_objective = old.get("objective.kind") == tree::flatten(&tree::of(new)).get("objective.kind");
    for (key, value) in tree::every_key() {
        if !key.starts_with("objective.") || same_objective && !key.starts_with("objective.mask.") {
            old.entry(key).or_insert(value);
        }
    }
    let mut new = tree::flatten(&tree::of(new));
    // Keys of other versions are no settings of this one, and keys of another objective are no settings of this run.
    let exists = |key: &String| classes::of(key).is_some();
    old.retain(|key, _| exists(key) && (key.starts_with("objective.") || new.contains_key(key)));
    if same_objective {
        old.retain(|key, _| new.contains_key(key) || key.starts_with("objective.mask."));
    }
    old.remove("run.dir");
    new.remove("run.dir");
    Ok(compare(&old, &new))
}

fn compare(old: &Flat, new: &Flat) -> Vec<Change> {
    let keys: std::collections::BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let text = |value: Option<&Value>| value.map_or_else(|| "absent".to_owned(), shown);
    keys.into_iter()
        .filter(|key| old.get(*key) != new.get(*key))
        .map(|key| Change {
            path: key.clone(),
            old: text(old.get(key)),
            new: text(new.get(key)),
            class: classes::reach(key, old.get(key), new.get(key)),
        })
        .collect()
}

/// The farthest-reaching class of some changes.
#[must_use]
pub fn strongest(changes: &[Change]) -> Option<Class> {
    changes.iter().map(|c| c.class).max()
}
