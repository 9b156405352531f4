//! What a row of the registry holds.

use std::fmt;

use serde::Serialize;
use serde::de::DeserializeOwned;
use toml::{Table, Value};

use super::{CollapseRule, Number, Plan};
use crate::setting::{Key, Violation};

/// A row of the registry: what is known of an objective before its settings are read.
pub struct Kind {
    /// `objective.kind`.
    pub name: &'static str,
    /// One line.
    pub doc: &'static str,
    /// Where it is described.
    pub reference: &'static str,
    /// Its keys in `[objective]` besides `kind`: those of its settings, and of tables inside them. A name may mean something else in another kind.
    pub keys: &'static [&'static [Key]],
    /// The numbers that it may report.
    pub numbers: &'static [Number],
    /// The ways in which it may learn nothing.
    pub collapse: &'static [CollapseRule],
    /// The pictures that it may draw: (name, what its columns show from left to right, separated by " · ").
    pub sheets: &'static [(&'static str, &'static str)],
    /// Its default settings; and where the value of a key decides which other keys exist, the defaults for each such value.
    pub variants: fn() -> Vec<Box<dyn Plan>>,
    /// Reads a table with all its keys, `kind` left out: [`read`] for a struct of serde's.
    pub read: fn(Table) -> Result<Box<dyn Plan>, Violation>,
}

impl fmt::Debug for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kind").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Kind {
    /// All of its keys.
    pub fn keys(&self) -> impl Iterator<Item = &'static Key> {
        self.keys.iter().copied().flatten()
    }
}

/// [`Kind::read`] for settings that are a struct of serde's.
///
/// # Errors
/// serde's words for the first value that does not fit.
pub fn read<T: Plan + DeserializeOwned>(table: Table) -> Result<Box<dyn Plan>, Violation> {
    let shown = Value::Table(table.clone()).to_string();
    let plan = table.try_into::<T>().map_err(|e| Violation {
        key: "objective".into(),
        value: shown,
        allowed: e.message().to_owned(),
        hint: None,
    })?;
    Ok(Box::new(plan))
}

/// [`Plan::table`] for settings that are a struct of serde's.
///
/// # Panics
/// For values that TOML lacks.
#[must_use]
pub fn table<T: Serialize>(settings: &T) -> Table {
    Table::try_from(settings).expect("settings are tables, numbers, booleans and strings")
}
