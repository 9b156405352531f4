//! Layers → one validated config: defaults, file, environment, `--set`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use sha2::{Digest, Sha256};
use toml::de::{DeTable, DeValue};
use toml::{Table, Value};

use super::entry::{Entry, check_entry, chosen};
use super::{Config, ConfigError, Place, Problem, Shadowed, file, hex, rules};
use super::{keys, tree};
use crate::objective::{self, OBJECTIVES};

/// Prefix of environment variables that set keys; tables and keys are joined by two underscores.
pub const ENVIRONMENT_PREFIX: &str = "SPLITMASK_";

/// (name of old, name of today): the configs that lie in checkpoints must stay readable.
const RENAMED: [(&str, &str); 1] = [("train.nonfinite_limit", "stability.nonfinite_run")];

/// Where a config comes from. Loading again gives what the file says by then.
#[derive(Debug, Clone, Default)]
pub struct Source {
    /// The file.
    pub file: PathBuf,
    /// (name, value) of the environment variables that start with [`ENVIRONMENT_PREFIX`].
    pub environment: Vec<(String, String)>,
    /// `key=value` of the command line, in order.
    pub sets: Vec<String>,
    /// Environment variables that probably were meant to set a key and set nothing, in words.
    pub remarks: Vec<String>,
}

/// A valid config and where each of its keys was set.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The config.
    pub config: Config,
    /// Where keys that do not come from the defaults were set.
    pub places: BTreeMap<String, Place>,
    /// Hex SHA-256 of the file's bytes.
    pub file_sha256: String,
    /// Keys that the file sets and a later layer sets otherwise.
    pub shadowed: BTreeMap<String, Shadowed>,
}

impl Source {
    /// A file with the process's environment.
    #[must_use]
    pub fn of_process(file: PathBuf, sets: Vec<String>) -> Self {
        let (environment, others) = std::env::vars()
            .filter(|(name, _)| name.starts_with(ENVIRONMENT_PREFIX))
            .partition::<Vec<_>, _>(|(name, _)| name.contains("__"));
        let told = |(name, _): &(String, String)| {
            Some(format!(
                "{name} sets nothing: for {}, table and key are joined by two underscores",
                meant(name)?
            ))
        };
        Self {
            remarks: others.iter().filter_map(told).collect(),
            file,
            environment,
            sets,
        }
    }

    /// Reads and validates.
    ///
    /// # Errors
    /// Everything that was found wrong, each with its place.
    pub fn load(&self) -> Result<Loaded, ConfigError> {
        let whole = |line: usize, message: String, hint: Option<String>| {
            let place = Place::File {
                file: self.file.clone(),
                line,
                column: 1,
            };
            ConfigError {
                problems: vec![Problem {
                    place,
                    key: String::new(),
                    value: String::new(),
                    message,
                    hint,
                }],
            }
        };
        let bytes = file::read(&self.file).map_err(|e| {
            whole(
                1,
                format!("cannot be read: {e}"),
                Some("--config takes the path of a TOML file".into()),
            )
        })?;
        let text = std::str::from_utf8(&bytes).map_err(|e| {
            let line = bytes[..e.valid_up_to()].iter().filter(|byte| **byte == b'\n').count() + 1;
            whole(line, format!("is not UTF-8 text: {e}"), None)
        })?;
        self.load_as(text)
    }

    /// As [`Self::load`] would if the file held this.
    ///
    /// # Errors
    /// As there.
    pub fn load_as(&self, text: &str) -> Result<Loaded, ConfigError> {
        self.load_text(text).map(|(config, places)| Loaded {
            config,
            places,
            file_sha256: hex(&Sha256::digest(text)),
            shadowed: self.shadowed(text),
        })
    }

    /// The file's [`file::fingerprint`] as it is now.
    #[must_use]
    pub fn file_sha256(&self) -> Option<String> {
        file::fingerprint(&self.file)
    }

    /// As [`Self::load`], with the file's text given.
    ///
    /// # Errors
    /// As there.
    pub fn load_text(&self, text: &str) -> Result<(Config, BTreeMap<String, Place>), ConfigError> {
        let mut problems = Vec::new();
        let mut entries = self.file_entries(text, &mut problems);
        if !problems.is_empty() {
            return Err(ConfigError { problems });
        }
        self.environment_entries(&mut entries);
        self.argument_entries(&mut entries, &mut problems);
        for entry in &mut entries {
            if let Some((old, new)) = RENAMED.iter().find(|(old, _)| entry.path == *old) {
                tracing::warn!("{}: {old} is called {new} now", entry.place);
                entry.path = (*new).into();
            }
        }

        let kinds: Vec<&str> = OBJECTIVES.iter().map(|kind| kind.name).collect();
        let kind = chosen(&entries, "objective.kind", &kinds, &mut problems);
        let unknown_kind = kind.is_none() && entries.iter().any(|entry| entry.path == "objective.kind");
        let kind = kind.and_then(|name| objective::kind(&name)).unwrap_or(OBJECTIVES[0]);
        let mut choices = BTreeMap::new();
        for (key, values) in tree::choosers(kind) {
            if let Some(value) = chosen(&entries, &key, &values, &mut problems) {
                choices.insert(key, value);
            }
        }
        let template = tree::with_objective(tree::variant(kind, &choices));
        let mut table = tree::of(&template);
        let defaults = tree::flatten(&table);

        // A kind that a later layer replaces chooses nothing, so there is nothing to say of it.
        let kinds = entries.iter().enumerate().filter(|(_, entry)| entry.path.ends_with(".kind"));
        let last: BTreeMap<String, usize> = kinds.map(|(at, entry)| (entry.path.clone(), at)).collect();
        let mut places = BTreeMap::new();
        for (at, entry) in entries.into_iter().enumerate() {
            if last.get(&entry.path).is_some_and(|last| *last != at) {
                continue;
            }
            // Of what the keys of a kind that does not exist may be, nothing is known.
            if unknown_kind && entry.path.starts_with("objective.") && entry.path != "objective.kind" && keys::exists(&entry.path) {
                continue;
            }
            if let Some(problem) = check_entry(&entry, &defaults, kind.name, &table) {
                // `kind` keys were reported when they were chosen.
                if !problems.iter().any(|p| p.key == problem.key && p.place == problem.place) {
                    problems.push(problem);
                }
                continue;
            }
            tree::put(&mut table, &entry.path, entry.value);
            places.insert(entry.path, entry.place);
        }
        if !problems.is_empty() {
            return Err(ConfigError { problems });
        }
        let mut config: Config = table.try_into().expect("each value was tried on its own");
        rules::fit(&mut config, &mut places);
        let problems = rules::problems(&config, &places);
        if problems.is_empty() {
            Ok((config, places))
        } else {
            Err(ConfigError { problems })
        }
    }

    pub(super) fn file_entries(&self, text: &str, problems: &mut Vec<Problem>) -> Vec<Entry> {
        let place = |offset: usize| {
            let before = text.get(..offset).unwrap_or(text);
            let line = before.matches('\n').count() + 1;
            let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
            Place::File {
                file: self.file.clone(),
                line,
                column,
            }
        };
        let (spans, errors) = DeTable::parse_recoverable(text);
        for e in errors {
            // The error's own text shows the line; a line can hold a credential, so only its message is used.
            let at = place(e.span().map_or(0, |s| s.start));
            problems.push(Problem {
                place: at,
                key: String::new(),
                value: String::new(),
                message: format!("not TOML: {}", e.message().replace('\n', ", ")),
                hint: None,
            });
        }
        if !problems.is_empty() {
            return Vec::new();
        }
        let values: Table = match text.parse() {
            Ok(values) => values,
            Err(e) => {
                let e: toml::de::Error = e;
                let at = place(e.span().map_or(0, |s| s.start));
                problems.push(Problem {
                    place: at,
                    key: String::new(),
                    value: String::new(),
                    message: e.message().to_owned(),
                    hint: None,
                });
                return Vec::new();
            }
        };
        let mut entries = Vec::new();
        walk("", spans.get_ref(), &values, &mut |path, value, offset| {
            entries.push(Entry {
                path,
                value,
                place: place(offset),
            });
        });
        entries
    }

    pub(super) fn environment_entries(&self, entries: &mut Vec<Entry>) {
        let mut environment: Vec<_> = self.environment.iter().collect();
        environment.sort();
        for (name, text) in environment {
            let Some(rest) = name.strip_prefix(ENVIRONMENT_PREFIX) else {
                continue;
            };
            let path = rest.to_lowercase().replace("__", ".");
            add_flat(entries, &path, scalar(&path, text), &Place::Environment(name.clone()));
        }
    }

    pub(super) fn argument_entries(&self, entries: &mut Vec<Entry>, problems: &mut Vec<Problem>) {
        for set in &self.sets {
            match set.split_once('=') {
                Some((path, text)) if !path.trim().is_empty() => {
                    add_flat(entries, path.trim(), scalar(path.trim(), text.trim()), &Place::CommandLine);
                }
                _ => problems.push(Problem {
                    place: Place::CommandLine,
                    key: String::new(),
                    value: String::new(),
                    message: format!("--set {set}: expected KEY=VALUE"),
                    hint: Some("for example --set optim.lr=1e-3".into()),
                }),
            }
        }
    }
}

/// The key that an environment variable without two underscores was probably meant to set: one of a table that its name begins with.
pub(super) fn meant(name: &str) -> Option<String> {
    let rest = name.strip_prefix(ENVIRONMENT_PREFIX)?.to_lowercase();
    let tables = tree::every_default();
    let keys = tables.iter().flat_map(|(_, flat)| flat.keys());
    let (table, key) = rest.split_once('_')?;
    let known = keys.clone().any(|known| known.split('.').next() == Some(table));
    keys.clone()
        .find(|known| known.replace('.', "_") == rest)
        .cloned()
        .or_else(|| known.then(|| format!("{table}.{key}")))
}

/// Text of an environment variable or `--set` as a value: TOML, or for keys that are strings also bare text.
fn scalar(path: &str, text: &str) -> Value {
    let is_text = tree::every_default()
        .iter()
        .all(|(_, flat)| flat.get(path).is_none_or(Value::is_str));
    let parsed = format!("v = {text}")
        .parse::<Table>()
        .ok()
        .and_then(|mut t| if t.len() == 1 { t.remove("v") } else { None });
    match parsed {
        Some(value) if !is_text || value.is_str() || value.is_table() || value.is_array() => value,
        _ => Value::String(text.to_owned()),
    }
}

fn add_flat(entries: &mut Vec<Entry>, path: &str, value: Value, place: &Place) {
    match value {
        Value::Table(table) if !table.is_empty() => {
            for (key, value) in tree::flatten(&table) {
                entries.push(Entry {
                    path: format!("{path}.{key}"),
                    value,
                    place: place.clone(),
                });
            }
        }
        value => entries.push(Entry {
            path: path.to_owned(),
            value,
            place: place.clone(),
        }),
    }
}

/// Visits the leaves with the byte offset of their keys.
fn walk(prefix: &str, spans: &DeTable<'_>, values: &Table, visit: &mut dyn FnMut(String, Value, usize)) {
    for (key, spanned) in spans {
        let name: &str = key.get_ref();
        let Some(value) = values.get(name) else { continue };
        let path = if prefix.is_empty() {
            name.to_owned()
        } else {
            format!("{prefix}.{name}")
        };
        match (spanned.get_ref(), value) {
            (DeValue::Table(inner), Value::Table(table)) if !inner.is_empty() => walk(&path, inner, table, visit),
            _ => visit(path, value.clone(), key.span().start),
        }
    }
}
