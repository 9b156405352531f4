//! `[objective]` of a config: the table whose `kind` chooses a row of [`OBJECTIVES`].

use std::sync::Arc;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use toml::{Table, Value};

use super::{Kind, OBJECTIVES, Plan, Scope};
use crate::setting::Fitting;

/// The objective of a name.
#[must_use]
pub fn kind(name: &str) -> Option<&'static Kind> {
    OBJECTIVES.iter().copied().find(|kind| kind.name == name)
}

/// `[objective]`: a plan, shared.
#[derive(Debug, Clone)]
pub struct ObjectiveConfig(Arc<dyn Plan>);

impl ObjectiveConfig {
    /// The default settings of a kind.
    ///
    /// # Panics
    /// If the kind has no variant.
    #[must_use]
    pub fn default_of(kind: &Kind) -> Self {
        let first = (kind.variants)().into_iter().next();
        Self(first.expect("a kind has default settings").into())
    }

    /// The plan.
    #[must_use]
    pub fn plan(&self) -> &dyn Plan {
        self.0.as_ref()
    }

    /// Replaces defaults that do not fit `at`; see [`Plan::fit`].
    pub fn fit(&mut self, at: &Scope<'_>, fitting: &mut Fitting<'_>) {
        let again = (self.kind().read)(self.0.table());
        let mut plan = again.expect("a plan can read what it wrote");
        plan.fit(at, fitting);
        self.0 = plan.into();
    }

    fn whole_table(&self) -> Table {
        let mut table = self.0.table();
        table.insert("kind".into(), Value::String(self.kind().name.into()));
        table
    }
}

impl std::ops::Deref for ObjectiveConfig {
    type Target = dyn Plan;

    fn deref(&self) -> &Self::Target {
        self.0.as_ref()
    }
}

impl<T: Plan> From<T> for ObjectiveConfig {
    fn from(plan: T) -> Self {
        Self(Arc::new(plan))
    }
}

impl From<Box<dyn Plan>> for ObjectiveConfig {
    fn from(plan: Box<dyn Plan>) -> Self {
        Self(plan.into())
    }
}

impl Default for ObjectiveConfig {
    fn default() -> Self {
        Self::default_of(OBJECTIVES[0])
    }
}

impl PartialEq for ObjectiveConfig {
    fn eq(&self, other: &Self) -> bool {
        self.whole_table() == other.whole_table()
    }
}

impl Serialize for ObjectiveConfig {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.whole_table().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for ObjectiveConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut table = Table::deserialize(deserializer)?;
        let name = match table.remove("kind") {
            None => OBJECTIVES[0].name.to_owned(),
            Some(Value::String(name)) => name,
            Some(other) => return Err(D::Error::custom(format!("objective.kind = {other}: expected a string"))),
        };
        let kind = kind(&name).ok_or_else(|| D::Error::custom(format!("objective.kind = \"{name}\": there is no such objective")))?;
        let plan = (kind.read)(table).map_err(|v| D::Error::custom(v.allowed))?;
        Ok(Self(plan.into()))
    }
}

#[cfg(test)]
mod tests {
    use splitmask_pipeline::request::Filter;

    use super::*;
    use crate::model::config::VitConfig;

    #[test]
    fn every_kind_is_whole() {
        let model = VitConfig::default();
        let at = Scope::new(&model, 4, 8192);
        for kind in OBJECTIVES {
            assert_eq!(OBJECTIVES.iter().filter(|k| k.name == kind.name).count(), 1, "{}", kind.name);
            assert!(!kind.doc.is_empty() && !kind.reference.is_empty());
            for (n, variant) in (kind.variants)().into_iter().enumerate() {
                assert_eq!(variant.kind().name, kind.name);
                assert_eq!(variant.check(&at), [], "{} variant {n}", kind.name);
                assert!(!variant.request(&at).views.is_empty());
                assert!(variant.forward_flops(&at) > 0.0);
                let again = (kind.read)(variant.table()).unwrap();
                assert_eq!(again.table(), variant.table());
            }
            for (name, columns) in kind.sheets {
                assert!(
                    name.chars().all(|c| c.is_ascii_lowercase() || c == '_') && !columns.is_empty(),
                    "{name}"
                );
            }
            for (n, number) in kind.numbers.iter().enumerate() {
                assert!(!kind.numbers[..n].iter().any(|m| m.name == number.name), "{} twice", number.name);
                assert!(number.help.ends_with('.'), "{}", number.help);
            }
            for rule in kind.collapse {
                assert!(!rule.help.is_empty() && !rule.remedy.is_empty(), "{}", rule.name);
            }
        }
    }

    #[test]
    fn views_of_moco_v3_are_bilinear_and_all_others_bicubic() {
        let model = VitConfig::default();
        let at = Scope::new(&model, 4, 8192);
        for kind in OBJECTIVES {
            let filter = match kind.name {
                "moco-v3" => Filter::Bilinear,
                _ => Filter::Bicubic,
            };
            for variant in (kind.variants)() {
                assert!(variant.request(&at).views.iter().all(|view| view.filter == filter), "{}", kind.name);
            }
        }
    }

    #[test]
    fn settings_go_through_toml() {
        let text = "kind = \"splitmask\"\nmatch = false\n[mask]\nkind = \"uniform-split\"\nkeep = 0.25\n";
        let config: ObjectiveConfig = toml::from_str(text).unwrap();
        assert_eq!(config.kind().name, "splitmask");
        assert_eq!(config.table()["mask"]["keep"].as_float(), Some(0.25));
        assert!(toml::from_str::<ObjectiveConfig>("kind = \"splitmask\"\nmatchh = false\n").is_err());
        assert!(toml::from_str::<ObjectiveConfig>("kind = \"spitmask\"\n").is_err());
        for kind in OBJECTIVES {
            let config = ObjectiveConfig::default_of(kind);
            let text = toml::to_string(&config).unwrap();
            assert_eq!(toml::from_str::<ObjectiveConfig>(&text).unwrap(), config);
            assert_ne!(ObjectiveConfig::default(), ObjectiveConfig::default_of(OBJECTIVES[1]));
        }
    }
}
