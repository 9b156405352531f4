//! `[run]`: which run this is.

use std::path::PathBuf;

use crate::setting::{Findings, settings};

settings! {
    /// `[run]`: which run this is. Paths here, as all in a config, are relative to the current directory.
    pub struct RunConfig in "run" {
        /// Name of the run, in status and journal.
        Frozen name: String = "run".into(),
        /// Folder of the run; empty = runs/NAME.
        Frozen dir: String = String::new(),
        /// Seed of everything random.
        Frozen seed: u64 = 0,
        /// Checkpoint whose weights a new run starts from; a run that has begun does not read it again.
        Live init_from: String = String::new(),
        /// Whether parts of the encoder that run.init_from does not hold may start at random; they are listed. Read with run.init_from.
        Live init_partial: bool = false,
    }
}

impl RunConfig {
    /// Folder of the run.
    #[must_use]
    pub fn folder(&self) -> PathBuf {
        if self.dir.is_empty() {
            PathBuf::from("runs").join(&self.name)
        } else {
            PathBuf::from(&self.dir)
        }
    }

    /// Checks that the name can be one of a folder, and that the seed is one of TOML's numbers.
    pub fn check(&self, found: &mut Findings) {
        let name = &self.name;
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        found.need(
            !name.is_empty() && name.len() <= 64 && name.chars().all(plain) && !name.starts_with('.'),
            "run.name",
            format!("{name:?}"),
            "1 to 64 letters, digits, '-', '_' or '.', not beginning with '.'",
        );
        found.need(
            i64::try_from(self.seed).is_ok(),
            "run.seed",
            self.seed,
            "at most 9223372036854775807",
        );
    }
}
