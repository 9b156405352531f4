//! Layers → one validated config: defaults, file, environment, `--set`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use sha2::{Digest, Sha256};
use toml::de::{DeTable, DeValue};
use toml::{Table, Value};

use super::problem::{nearest, shown};
use super::tree::{self, Flat};
use super::{Config, ConfigError, Place, Problem, Shadowed, file, hex, keys, rules};
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

/// One key of one layer.
pub(super) struct Entry {
    pub(super) path: String,
    pub(super) value: Value,
    pub(super) place: Place,
}

impl Source {
    /// A file with the process's environment.
    #[must_use]
    pub fn of_process(file: PathBuf, sets: Vec<String>) -> Self {
        let environment = std::env::vars()
            .filter(|(name, _)| name.starts_with(ENVIRONMENT_PREFIX) && name.contains("__"))
            .collect();
        Self { file, environment, sets }
    }

    /// Reads and validates.
    ///
    /// # Errors
    /// Everything that was found wrong, each with its place.
    pub fn load(&self) -> Result<Loaded, ConfigError> {
        let whole = |message: String, hint: Option<String>| {
            let place = Place::File {
                file: self.file.clone(),
                line: 1,
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
                format!("cannot be read: {e}"),
                Some("--config takes the path of a TOML file".into()),
            )
        })?;
        let file_sha256 = hex(&Sha256::digest(&bytes));
        let text = std::str::from_utf8(&bytes).map_err(|e| whole(format!("is not UTF-8 text: {e}"), None))?;
        self.load_text(text).map(|(config, places)| Loaded {
            config,
            places,
            file_sha256,
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

        let mut places = BTreeMap::new();
        for entry in entries {
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

/// The last value of a key that chooses which other keys exist.
fn chosen<S: AsRef<str>>(entries: &[Entry], path: &str, allowed: &[S], problems: &mut Vec<Problem>) -> Option<String> {
    let entry = entries.iter().rev().find(|e| e.path == path)?;
    match entry.value.as_str() {
        Some(name) if allowed.iter().any(|a| a.as_ref() == name) => Some(name.to_owned()),
        other => {
            let hint = other
                .and_then(|name| nearest(name, allowed.iter().map(AsRef::as_ref)))
                .map(|n| format!("did you mean \"{n}\"?"));
            problems.push(problem(entry, format!("expected one of {}", quoted(allowed)), hint));
            None
        }
    }
}

fn quoted<S: AsRef<str>>(names: &[S]) -> String {
    names.iter().map(|n| format!("\"{}\"", n.as_ref())).collect::<Vec<_>>().join(", ")
}

fn problem(entry: &Entry, message: String, hint: Option<String>) -> Problem {
    let value = match &entry.value {
        Value::Table(t) if t.is_empty() => String::new(),
        value => shown(value),
    };
    Problem {
        place: entry.place.clone(),
        key: entry.path.clone(),
        value,
        message,
        hint,
    }
}

/// What is wrong with one entry on its own, if anything.
fn check_entry(entry: &Entry, defaults: &Flat, objective: &str, table: &Table) -> Option<Problem> {
    let Some(default) = defaults.get(&entry.path) else {
        let is_table = defaults.keys().any(|k| k.starts_with(&format!("{}.", entry.path)));
        return match &entry.value {
            Value::Table(t) if is_table && t.is_empty() => None,
            _ if is_table => Some(problem(entry, format!("is a table, written [{}]", entry.path), None)),
            _ => Some(unknown(entry, defaults, objective)),
        };
    };
    let key = keys::of(&entry.path, objective);
    let doc = key.map_or("", |k| k.doc.as_str());
    let wanted = match default {
        Value::Boolean(_) => "true or false",
        Value::Integer(_) => "a whole number",
        Value::Float(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        _ => "a value",
    };
    let fits = match (default, &entry.value) {
        (Value::Float(_), Value::Integer(_)) => true,
        (Value::Integer(_), Value::Integer(i)) if *i < 0 => return Some(problem(entry, format!("expected 0 or more: {doc}"), None)),
        (Value::Float(_), Value::Float(f)) if !f.is_finite() => {
            return Some(problem(entry, format!("expected a finite number: {doc}"), None));
        }
        // Where one string may stand for a list of them.
        (Value::String(_), Value::Array(_)) => tried(entry, table).is_ok(),
        (default, value) => default.same_type(value),
    };
    if !fits {
        let unit = entry
            .value
            .as_str()
            .is_some_and(|s| s.trim_start().starts_with(|c: char| c.is_ascii_digit()));
        let hint = match &entry.value {
            Value::String(_) if unit && !default.is_str() => {
                Some(format!("write a bare number in the key's unit; the default is {default}"))
            }
            _ => Some(format!("the default is {default}")),
        };
        return Some(problem(
            entry,
            format!("expected {wanted}, found {}: {doc}", entry.value.type_str()),
            hint,
        ));
    }
    if let (Value::Array(default), Value::Array(items)) = (default, &entry.value)
        && !default.is_empty()
        && default.len() != items.len()
    {
        return Some(problem(
            entry,
            format!("expected {} values, found {}: {doc}", default.len(), items.len()),
            None,
        ));
    }
    let choices = key.map_or(&[] as &[&str], |k| k.choices());
    if let (false, Some(written)) = (choices.is_empty(), entry.value.as_str())
        && !choices.contains(&written)
    {
        let hint = nearest(written, choices.iter().copied()).map(|n| format!("did you mean \"{n}\"?"));
        return Some(problem(entry, format!("expected one of {}", quoted(choices)), hint));
    }
    // Ranges of integer types, and tables in lists: try this value among defaults.
    let error = tried(entry, table).err()?;
    let message = error.message().lines().next().unwrap_or_default();
    Some(problem(entry, format!("{message}: {doc}"), None))
}

/// The defaults with this value among them.
fn tried(entry: &Entry, table: &Table) -> Result<Config, toml::de::Error> {
    let mut trial = table.clone();
    tree::put(&mut trial, &entry.path, entry.value.clone());
    trial.try_into()
}

fn unknown(entry: &Entry, defaults: &Flat, objective: &str) -> Problem {
    if keys::exists(&entry.path) {
        let (table, _) = entry.path.rsplit_once('.').unwrap_or_default();
        let chooser = if keys::of(&entry.path, objective).is_some() {
            format!("this {table}.kind")
        } else {
            format!("objective.kind = \"{objective}\"")
        };
        return problem(
            entry,
            format!("has no meaning with {chooser}"),
            Some("remove it, or choose the kind that owns it".into()),
        );
    }
    let hint = nearest(&entry.path, defaults.keys().map(String::as_str)).map(|n| format!("did you mean {n}?"));
    // The value of a key that does not exist may be a credential that someone tried to put here.
    Problem {
        value: String::new(),
        ..problem(
            entry,
            "unknown key".into(),
            hint.or_else(|| Some("docs/reload.md lists every key".into())),
        )
    }
}
