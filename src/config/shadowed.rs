//! Keys whose value in the file has no effect, because a later layer decides.

use std::collections::BTreeMap;

use toml::Value;

use super::problem::shown;
use super::{Place, Source};

/// A key that the file sets and environment or command line set otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shadowed {
    /// Value in the file, as TOML.
    pub in_file: String,
    /// Where it stands there.
    file: Place,
    /// Value that holds.
    value: String,
    /// What sets it.
    by: Place,
}

impl Shadowed {
    /// In words, for `key`.
    #[must_use]
    pub fn told(&self, key: &str) -> String {
        let Self { in_file, file, value, by } = self;
        let by = match by {
            Place::CommandLine => "the command line (--set)".to_owned(),
            by => by.to_string(),
        };
        format!("{key} = {in_file} at {file} has no effect: {by} sets {value}, and wins over the file for the life of this process")
    }
}

impl Source {
    /// The keys of the file's `text` that later layers set otherwise. Of a file that is no TOML, none.
    pub(super) fn shadowed(&self, text: &str) -> BTreeMap<String, Shadowed> {
        let mut file: BTreeMap<String, (Value, Place)> = BTreeMap::new();
        for entry in self.file_entries(text, &mut Vec::new()) {
            file.insert(entry.path, (entry.value, entry.place));
        }
        let mut later = Vec::new();
        self.environment_entries(&mut later);
        self.argument_entries(&mut later, &mut Vec::new());
        let mut shadowed = BTreeMap::new();
        for entry in later {
            let Some((in_file, place)) = file.get(&entry.path) else { continue };
            let is = Shadowed {
                in_file: shown(in_file),
                file: place.clone(),
                value: shown(&entry.value),
                by: entry.place,
            };
            // The last layer decides; it may say what the file says.
            if *in_file == entry.value {
                shadowed.remove(&entry.path);
            } else {
                shadowed.insert(entry.path, is);
            }
        }
        shadowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_told_where_a_later_layer_says_otherwise() {
        let source = Source {
            file: "c.toml".into(),
            environment: vec![("SPLITMASK_TRAIN__BATCH".into(), "64".into())],
            sets: vec!["optim.lr=5e-4".into(), "optim.clip=3.0".into()],
            ..Source::default()
        };
        let found = source.shadowed("[optim]\nlr = 2e-3\nclip = 3.0\nwarmup_steps = 3\n[train]\nbatch = 8\n");
        let told: Vec<String> = found.iter().map(|(key, s)| s.told(key)).collect();
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(told[0].starts_with("optim.lr = 0.002 at c.toml:2:"), "{told:?}");
        assert!(told[0].contains("the command line (--set) sets 0.0005"), "{told:?}");
        assert!(told[1].contains("environment SPLITMASK_TRAIN__BATCH sets 64"), "{told:?}");
    }
}
