//! What a settings struct says about its own keys: how far a change of one reaches, what it is, which values are refused, and which defaults
//! make room for what was set.
//!
//! A struct of settings is declared with [`settings!`], which makes its `KEYS`, and keeps its `check` and, where needed, its `fit` in its own file; the
//! configuration only gathers them.

mod choices;

use std::fmt::{self, Display};

use serde::Serialize;

pub use crate::settings;
pub use choices::choices;

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
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// Name within its table, dotted where the table holds tables: `mask.keep`.
    pub name: &'static str,
    /// Reach of a change.
    pub class: Class,
    /// Reach of a change from or to 0, where that reaches farther: something is turned on or off by it.
    pub switch: Option<Class>,
    /// What it is, with its unit.
    pub doc: &'static str,
    /// The values that it can have, if they can be listed.
    pub choices: fn() -> &'static [&'static str],
}

/// A [`Key`] in one line.
#[must_use]
pub const fn key(class: Class, name: &'static str, doc: &'static str) -> Key {
    Key {
        name,
        class,
        switch: None,
        doc: doc.trim_ascii(),
        choices: || &[],
    }
}

impl Key {
    /// Its documentation as it stands behind a colon: without the full stop, and without a capital that only begins the sentence.
    #[must_use]
    pub fn phrase(&self) -> String {
        let text = self.doc.trim_end_matches('.');
        let mut letters = text.chars();
        let name = text.chars().skip(1).take_while(|c| c.is_alphanumeric()).any(char::is_uppercase);
        match letters.next() {
            Some(first) if !name => first.to_lowercase().chain(letters).collect(),
            _ => text.to_owned(),
        }
    }
}

/// Declares a table of settings, each key once: documentation, class, name, type, default. The documentation is that of the field and of the key.
///
/// Makes the struct, its `Default`, and the constants `TABLE` and `KEYS`. The word behind `in` is where the table stands in a configuration. A class may
/// be followed by the class of a change from or to 0 (`Live (Restart at 0) decay`), a field by the name of its key where that is a word of Rust's
/// (`match_ as "match"`). Tables inside the table stand in a block of their own, `tables { … }`, and tell their keys themselves.
///
/// ```
/// use splitmask_pipeline::setting::settings;
///
/// settings! {
///     /// `[clock]`: an example.
///     pub struct ClockConfig in "clock" {
///         /// Seconds between two ticks.
///         Live period_s: f64 = 1.0,
///     }
/// }
/// let key = &ClockConfig::KEYS[0];
/// assert_eq!((key.name, key.phrase().as_str()), ("period_s", "seconds between two ticks"));
/// assert_eq!(ClockConfig::default().period_s, 1.0);
/// ```
#[macro_export]
macro_rules! settings {
    (
        $(#[$meta:meta])*
        pub struct $name:ident in $table:literal {
            $(
                $(#[doc = $doc:literal])+
                $class:ident $(($switch:ident at 0))? $field:ident $(as $key:literal)? : $type:ty = $default:expr
            ),* $(,)?
        }
        $(tables {
            $( $(#[doc = $inner_doc:literal])+ $inner:ident : $inner_type:ty = $inner_default:expr ),* $(,)?
        })?
    ) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, ::serde::Serialize, ::serde::Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub struct $name {
            $( $(#[doc = $doc])+ $(#[serde(rename = $key)])? pub $field: $type, )*
            $( $( $(#[doc = $inner_doc])+ pub $inner: $inner_type, )* )?
        }

        impl ::std::default::Default for $name {
            fn default() -> Self {
                Self {
                    $( $field: $default, )*
                    $( $( $inner: $inner_default, )* )?
                }
            }
        }

        impl $name {
            /// Where the table stands in a configuration.
            pub const TABLE: &'static str = $table;
            /// Its keys, those of the tables inside it left out.
            pub const KEYS: &'static [$crate::setting::Key] = &[ $( $crate::setting::Key {
                choices: $crate::setting::choices::<$type>,
                $( switch: ::std::option::Option::Some($crate::setting::Class::$switch), )?
                ..$crate::setting::key($crate::setting::Class::$class, [$($key,)? ::std::stringify!($field)][0], ::std::concat!($($doc),+))
            } ),* ];
        }
    };
}

/// The heaviest weight of a loss.
pub const HEAVIEST: f64 = 10_000.0;
/// The coldest temperature of a softmax.
pub const COLDEST: f64 = 0.001;
/// The hottest one.
pub const HOTTEST: f64 = 100.0;

/// A value that is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Dotted key, table included: `objective.mask.keep`.
    pub key: String,
    /// The value, as a person would write it.
    pub value: String,
    /// What would be allowed, to be read after "expected".
    pub allowed: String,
    /// What to do, if it is not plain from that.
    pub hint: Option<String>,
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
                hint: None,
            });
        }
    }

    /// [`Self::need`] with a word on what to do.
    pub fn need_or(&mut self, ok: bool, key: &str, value: impl Display, allowed: impl Into<String>, hint: &str) {
        self.need(ok, key, value, allowed);
        if let (false, Some(last)) = (ok, self.0.last_mut()) {
            last.hint = Some(hint.to_owned());
        }
    }

    /// Needs a probability or share.
    pub fn share(&mut self, key: &str, value: impl Display + Into<f64> + Copy) {
        self.need((0.0..=1.0).contains(&value.into()), key, value, "0 to 1");
    }

    /// Needs the weight of a loss. One beyond [`HEAVIEST`] only overflows what the optimizer's rates are made for.
    pub fn weight(&mut self, key: &str, value: f64) {
        let allowed = format!("0 (not learnt) to {HEAVIEST}");
        self.need((0.0..=HEAVIEST).contains(&value), key, value, allowed);
    }

    /// Needs the temperature of a softmax; `usual` says which one is published. A colder one than [`COLDEST`] overflows, a hotter one than [`HOTTEST`] tells nothing
    /// apart.
    pub fn temperature(&mut self, key: &str, value: f64, usual: &str) {
        let allowed = format!("{COLDEST} to {HOTTEST} ({usual})");
        self.need((COLDEST..=HOTTEST).contains(&value), key, value, allowed);
    }

    /// Takes over what others found.
    pub fn extend(&mut self, found: impl IntoIterator<Item = Violation>) {
        self.0.extend(found);
    }

    /// Refuses with the first one.
    ///
    /// # Errors
    /// It.
    pub fn first(self) -> Result<(), Violation> {
        self.0.into_iter().next().map_or(Ok(()), Err)
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
#[allow(unreachable_pub, reason = "the macro declares public structs")]
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

    crate::settings! {
        /// A table of every sort of key.
        pub struct Sorts in "a.b" {
            /// Share of
            /// the whole.
            Live (Restart at 0) share: f64 = 0.5,
            /// MiB at most.
            Frozen match_ as "match": u32 = 3,
            /// What follows a change.
            Rebuild class: Reach = Reach::Near,
        }
        tables {
            /// A table inside.
            inner: Inner = Inner::default(),
        }
    }

    #[derive(Debug, Clone, PartialEq, Default, Serialize, serde::Deserialize)]
    #[serde(default)]
    pub struct Inner {
        deep: bool,
    }

    #[derive(Debug, Clone, Copy, PartialEq, Serialize, serde::Deserialize)]
    #[serde(rename_all = "lowercase")]
    pub enum Reach {
        Near,
        Far,
    }

    #[test]
    fn a_key_is_declared_once() {
        let told: Vec<_> = Sorts::KEYS
            .iter()
            .map(|k| (k.name, k.class, k.switch, k.phrase(), (k.choices)()))
            .collect();
        let phrases = ["share of the whole", "MiB at most", "what follows a change"].map(str::to_owned);
        let [share, mib, what] = phrases;
        assert_eq!(Sorts::TABLE, "a.b");
        assert_eq!(
            told,
            [
                ("share", Class::Live, Some(Class::Restart), share, &[] as &[_]),
                ("match", Class::Frozen, None, mib, &[]),
                ("class", Class::Rebuild, None, what, &["near", "far"]),
            ]
        );
        let text = serde_json::to_string(&Sorts::default()).unwrap();
        assert_eq!(text, r#"{"share":0.5,"match":3,"class":"near","inner":{"deep":false}}"#);
        assert_eq!(serde_json::from_str::<Sorts>("{}").unwrap(), Sorts::default());
        assert!(serde_json::from_str::<Sorts>(r#"{"match_":1}"#).is_err());
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
