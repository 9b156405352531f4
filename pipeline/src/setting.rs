//! What a settings struct says about its own keys: how far a change of one reaches, what it is, which values are refused, and which defaults
//! make room for what was set.
//!
//! A struct of settings keeps its `KEYS`, its `check` and, where needed, its `fit` in its own file; the configuration only gathers them.

use std::fmt::{self, Display};

use serde::Serialize;

/// How far a change reaches, from near to far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    /// Taken over at the next step boundary.
    Live,
    /// The pipeline is rebuilt from the last consumed batch.
    Rebuild,
    /// A checkpoint is written and the trainer rebuilt from it in the same process.
    Restart,
    /// Refused: another value is another run.
    Frozen,
}

impl Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Live => "live",
            Self::Rebuild => "rebuild",
            Self::Restart => "restart",
            Self::Frozen => "frozen",
        })
    }
}

/// One key of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key {
    /// Name within its table, dotted where the table holds tables: `mask.keep`.
    pub name: &'static str,
    /// Reach of a change.
    pub class: Class,
    /// What it is, with its unit.
    pub doc: &'static str,
}

/// A [`Key`] in one line.
#[must_use]
pub const fn key(class: Class, name: &'static str, doc: &'static str) -> Key {
    Key { name, class, doc }
}

/// A value that is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Dotted key, table included: `objective.mask.keep`.
    pub key: String,
    /// The value, as a person would write it.
    pub value: String,
    /// What would be allowed, to be read after "expected".
    pub allowed: String,
}

impl Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} = {}: expected {}", self.key, self.value, self.allowed)
    }
}

/// Collects violations, so that all of them are told at once.
#[derive(Debug, Default)]
pub struct Findings(Vec<Violation>);

impl Findings {
    /// Notes a violation unless `ok`. Write comparisons so that NaN is not ok.
    pub fn need(&mut self, ok: bool, key: &str, value: impl Display, allowed: impl Into<String>) {
        if !ok {
            self.0.push(Violation {
                key: key.to_owned(),
                value: value.to_string(),
                allowed: allowed.into(),
            });
        }
    }

    /// Needs a probability or share.
    pub fn share(&mut self, key: &str, value: impl Display + Into<f64> + Copy) {
        self.need((0.0..=1.0).contains(&value.into()), key, value, "0 to 1");
    }

    /// Takes over what others found.
    pub fn extend(&mut self, found: impl IntoIterator<Item = Violation>) {
        self.0.extend(found);
    }

    /// What was found, in the order of the checks.
    #[must_use]
    pub fn found(self) -> Vec<Violation> {
        self.0
    }
}

/// A default that made room for something that was set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fitted {
    /// Dotted key.
    pub key: String,
    /// The default.
    pub from: String,
    /// What it is instead.
    pub to: String,
    /// What it would not have fitted.
    pub why: String,
}

/// Fits defaults: a value that somebody wrote is never touched, and every one that is changed is told.
pub struct Fitting<'a> {
    is_set: &'a dyn Fn(&str) -> bool,
    fitted: Vec<Fitted>,
}

impl<'a> Fitting<'a> {
    /// `is_set` answers for a dotted key whether somebody wrote its value.
    #[must_use]
    pub fn new(is_set: &'a dyn Fn(&str) -> bool) -> Self {
        Self { is_set, fitted: vec![] }
    }

    /// Puts `to` in the place of a default, if it is one.
    pub fn fit<T: Display + PartialEq + Copy>(&mut self, key: &str, value: &mut T, to: T, why: impl Into<String>) {
        if *value == to || (self.is_set)(key) {
            return;
        }
        self.fitted.push(Fitted {
            key: key.to_owned(),
            from: value.to_string(),
            to: to.to_string(),
            why: why.into(),
        });
        *value = to;
    }

    /// What was changed.
    #[must_use]
    pub fn fitted(self) -> Vec<Fitted> {
        self.fitted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_nobody_wrote_is_fitted_and_told() {
        let mut fitting = Fitting::new(&|key| key == "a.set");
        let (mut set, mut default, mut right) = (1, 1, 2);
        fitting.fit("a.set", &mut set, 2, "");
        fitting.fit("a.default", &mut default, 2, "a reason");
        fitting.fit("a.right", &mut right, 2, "");
        assert_eq!((set, default, right), (1, 2, 2));
        let told = fitting.fitted();
        assert_eq!(told.len(), 1);
        assert_eq!(
            (told[0].key.as_str(), told[0].from.as_str(), told[0].to.as_str()),
            ("a.default", "1", "2")
        );
    }

    #[test]
    fn not_a_number_is_a_violation() {
        let mut found = Findings::default();
        found.share("a.b", f32::NAN);
        found.share("a.c", 1.0);
        let found = found.found();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].to_string(), "a.b = NaN: expected 0 to 1");
    }
}
