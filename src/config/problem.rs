//! What can be wrong with a config, said so that it can be mended: place, key, value, what is allowed.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use serde::{Serialize, Serializer};
use splitmask_pipeline::bucket::secret::{hidden, hidden_in_text};

/// Where a value was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// In the file; line and column count from 1.
    File {
        /// As given on the command line.
        #[serde(serialize_with = "path_without_secrets")]
        file: PathBuf,
        /// Line.
        line: usize,
        /// Column, in characters.
        column: usize,
    },
    /// In an environment variable.
    Environment(String),
    /// In an argument of the command line.
    CommandLine,
    /// Nowhere: the default.
    Default,
    /// Nowhere: the default would not have fitted, and this is the nearest that does.
    Fitted {
        /// The default.
        from: String,
        /// What it would not have fitted.
        why: String,
    },
}

impl Place {
    /// Where a key was written: the key itself, or the list of tables that it lies in.
    #[must_use]
    pub fn of(places: &BTreeMap<String, Self>, key: &str) -> Self {
        let list = || places.get(key.split_once('[')?.0);
        places.get(key).or_else(list).cloned().unwrap_or(Self::Default)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { file, line, column } => write!(f, "{}:{line}:{column}", hidden(&file.to_string_lossy())),
            Self::Environment(name) => write!(f, "environment {name}"),
            Self::CommandLine => f.write_str("command line"),
            Self::Default => f.write_str("default"),
            Self::Fitted { from, why } => write!(f, "fitted: the default {from} gives way: {why}"),
        }
    }
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// Where.
    pub place: Place,
    /// Dotted key; empty for the file as a whole. Somebody may have written an address here, with what belongs into the environment.
    #[serde(serialize_with = "without_secrets")]
    pub key: String,
    /// Offending value as TOML, credentials cut; empty if there is none.
    pub value: String,
    /// What is wrong or what is allowed; what was written may be repeated in it.
    #[serde(serialize_with = "without_secrets")]
    pub message: String,
    /// What to do.
    pub hint: Option<String>,
}

fn without_secrets<S: Serializer>(text: &str, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&hidden_in_text(text))
}

fn path_without_secrets<S: Serializer>(path: &std::path::Path, serializer: S) -> Result<S::Ok, S::Error> {
    without_secrets(&path.to_string_lossy(), serializer)
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.place)?;
        match (self.key.is_empty(), self.value.is_empty()) {
            (true, _) => {}
            (false, true) => write!(f, "{}: ", hidden_in_text(&self.key))?,
            (false, false) => write!(f, "{} = {}: ", hidden_in_text(&self.key), self.value)?,
        }
        f.write_str(&hidden_in_text(&self.message))?;
        if let Some(hint) = &self.hint {
            write!(f, " ({hint})")?;
        }
        Ok(())
    }
}

/// A config that was refused, with everything that was found wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct ConfigError {
    /// At least one.
    pub problems: Vec<Problem>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.problems.iter().enumerate() {
            if i > 0 {
                writeln!(f)?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

impl From<ConfigError> for crate::exit::CliError {
    fn from(e: ConfigError) -> Self {
        Self::usage(
            e.to_string(),
            "`splitmask check-config FILE` explains a config; docs/reload.md lists every key".to_owned(),
        )
    }
}

/// A value as it may be shown: user names, passwords and query strings of addresses are cut.
#[must_use]
pub fn shown(value: &toml::Value) -> String {
    match value {
        toml::Value::String(text) => toml::Value::String(hidden(text)).to_string(),
        toml::Value::Array(items) => {
            let items: Vec<String> = items.iter().map(shown).collect();
            format!("[{}]", items.join(", "))
        }
        toml::Value::Table(table) => {
            let items: Vec<String> = table.iter().map(|(k, v)| format!("{k} = {}", shown(v))).collect();
            format!("{{ {} }}", items.join(", "))
        }
        other => other.to_string(),
    }
}

/// The nearest of `candidates` to what was written, if near enough to be a slip.
#[must_use]
pub fn nearest<'a>(written: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let last = |path: &str| path.rsplit('.').next().unwrap_or_default().to_owned();
    candidates
        .into_iter()
        .map(|candidate| {
            let whole = strsim::normalized_damerau_levenshtein(&written.to_lowercase(), candidate);
            // A right name in the wrong table is as likely as a slip in the name.
            let name = if last(written) == last(candidate) { 0.8 } else { 0.0 };
            (candidate, f64::max(whole, name) + 1e-3 * strsim::jaro_winkler(written, candidate))
        })
        .filter(|(_, near)| *near > 0.55)
        .max_by(|a, b| a.1.total_cmp(&b.1))
        .map(|(candidate, _)| candidate)
}
