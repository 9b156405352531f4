//! A config with the places where its keys were set, so that whatever fails because of a key can say where it stands.

use std::collections::BTreeMap;
use std::sync::Arc;

use splitmask_pipeline::bucket::secret::hidden;
use toml::Value;

use super::policy::Policy;
use super::tls::Identity;
use crate::config::{Config, ConfigError, Loaded, Place, Problem, Shadowed, tree};
use crate::exit::CliError;
use crate::trainer::control::{Blame, Failure};

/// A valid config and the places of its keys.
#[derive(Debug, Clone)]
pub struct Settings {
    pub(super) config: Arc<Config>,
    pub(super) places: Arc<BTreeMap<String, Place>>,
    /// What the file said at the start of keys that later layers set otherwise.
    pub(super) shadowed: Arc<BTreeMap<String, Shadowed>>,
}

impl Settings {
    pub(super) fn of(loaded: Loaded) -> Self {
        Self {
            config: Arc::new(loaded.config),
            places: Arc::new(loaded.places),
            shadowed: Arc::new(loaded.shadowed),
        }
    }

    /// Keys whose value in the file is another than at the start, though a later layer decides: which, and what does.
    pub(super) fn newly_shadowed(&self, start: &Self) -> Vec<String> {
        let edited = self
            .shadowed
            .iter()
            .filter(|(key, now)| start.shadowed.get(*key).is_none_or(|then| then.in_file != now.in_file));
        edited.map(|(key, now)| now.told(key)).collect()
    }

    /// Reads the token files.
    pub(super) fn policy(&self) -> Result<Policy, ConfigError> {
        Policy::of(&self.config.admin).map_err(|(key, why)| self.wrong(key, why))
    }

    /// Reads certificate and key of the admin server, where it has them.
    pub(super) fn tls(&self) -> Result<Option<Identity>, ConfigError> {
        Identity::of(&self.config.admin).map_err(|(key, why)| self.wrong(key, why))
    }

    /// A key that turned out to be wrong when it was used.
    pub(super) fn wrong(&self, key: &str, message: String) -> ConfigError {
        let value = tree::flatten(&tree::of(&self.config)).remove(key);
        let problem = Problem {
            place: Place::of(&self.places, key),
            key: key.to_owned(),
            value: value.as_ref().map(crate::config::problem::shown).unwrap_or_default(),
            message,
            hint: None,
        };
        ConfigError { problems: vec![problem] }
    }

    /// The failure with the place of the key that is to blame, if there is one and somebody set it.
    pub(super) fn located(&self, failure: Failure) -> CliError {
        let key = match failure.blame {
            Some(Blame::Key(key)) => Some(key),
            Some(Blame::Address(url)) => self.key_of(&url),
            None => None,
        };
        match key {
            Some(key) => self.at(&key, failure.error),
            None => failure.error,
        }
    }

    /// The error with the place of a key, if somebody set it.
    pub(super) fn at(&self, key: &str, mut error: CliError) -> CliError {
        if let Some(place) = self.places.get(key) {
            let named = error.message.starts_with(key);
            let key = if named { String::new() } else { format!("{key}: ") };
            error.message = format!("{place}: {key}{}", error.message);
        }
        error
    }

    /// The key that names these shards.
    fn key_of(&self, url: &str) -> Option<String> {
        fn names(value: &Value, url: &str) -> bool {
            match value {
                Value::String(text) => text.trim() == url || hidden(text) == url,
                Value::Array(items) => items.iter().any(|item| names(item, url)),
                Value::Table(table) => table.iter().any(|(_, item)| names(item, url)),
                _ => false,
            }
        }
        let keys = tree::flatten(&tree::of(&self.config));
        // The training data first: it may be validated on, too.
        ["data.train", "data.sources", "data.val"]
            .into_iter()
            .find(|key| keys.get(*key).is_some_and(|value| names(value, url)))
            .map(Into::into)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Source;

    fn settings(text: &str) -> Settings {
        let source = Source {
            file: "c.toml".into(),
            ..Source::default()
        };
        let (config, places) = source.load_text(&format!("[codebook]\npath = \"w\"\n{text}")).unwrap();
        Settings {
            config: Arc::new(config),
            places: Arc::new(places),
            shadowed: Arc::default(),
        }
    }

    #[test]
    fn failures_tell_where_the_key_that_is_to_blame_stands() {
        let place_of = |settings: &Settings, blame: Blame| {
            let failure = Failure {
                blame: Some(blame),
                ..Failure::from(CliError::usage("what is wrong", None))
            };
            settings.located(failure).message
        };
        let simple = settings("[data]\ntrain = \"s3://b/x\"\nval = \"s3://b/y\"\n");
        let address = |url: &str| Blame::Address(url.to_owned());
        assert_eq!(place_of(&simple, address("s3://b/x")), "c.toml:4:1: data.train: what is wrong");
        assert_eq!(place_of(&simple, address("s3://b/y")), "c.toml:5:1: data.val: what is wrong");
        assert_eq!(place_of(&simple, address("s3://b/z")), "what is wrong");
        assert_eq!(
            place_of(&simple, Blame::Key("train.device".into())),
            "what is wrong",
            "nobody set it: there is no place to go to"
        );
        let mixed = settings(
            "[[data.sources]]\nname = \"a\"\nurl = \"s3://b/x\"\nweight = 1\n[[data.sources]]\nname = \"b\"\nurl = \"s3://b/y\"\nweight = 1\n",
        );
        assert!(place_of(&mixed, address("s3://b/y")).contains("data.sources: what is wrong"));
        let named = simple.at("data.train", CliError::usage("data.train = \"s3://b/x\": no", None));
        assert_eq!(named.message, "c.toml:4:1: data.train = \"s3://b/x\": no");
    }
}
