//! One key of one layer, and what is wrong with it on its own.

use toml::{Table, Value};

use super::problem::{nearest, shown};
use super::tree::{self, Flat};
use super::{Config, Place, Problem, keys};

/// One key of one layer.
pub(super) struct Entry {
    pub(super) path: String,
    pub(super) value: Value,
    pub(super) place: Place,
}

/// The last value of a key that chooses which other keys exist.
pub(super) fn chosen<S: AsRef<str>>(entries: &[Entry], path: &str, allowed: &[S], problems: &mut Vec<Problem>) -> Option<String> {
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

/// What a key takes, told by its default.
pub(super) fn wanted(default: &Value) -> &'static str {
    match default {
        Value::Boolean(_) => "true or false",
        Value::Integer(_) => "a whole number",
        Value::Float(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        _ => "a value",
    }
}

/// What is wrong with one entry on its own, if anything.
pub(super) fn check_entry(entry: &Entry, defaults: &Flat, objective: &str, table: &Table) -> Option<Problem> {
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
    let wanted = wanted(default);
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
            Value::String(s) if default.is_integer() && !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit()) => {
                Some(format!("it is too large: at most {}", i64::MAX))
            }
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
