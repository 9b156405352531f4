//! `[run]`: which run this is.

use std::path::PathBuf;

use splitmask_pipeline::bucket::prefix::Prefix;
use splitmask_pipeline::bucket::secret::hidden;

use crate::setting::{Findings, settings};

settings! {
    /// `[run]`: which run this is. Paths here, as all in a config, are relative to the current directory.
    pub struct RunConfig in "run" {
        /// Name of the run, in status and journal.
        Frozen name: String = "run".into(),
        /// Folder of the run; empty = runs/NAME. An address (s3://…) is the mirror of a folder that is chosen under runs/.
        Frozen dir: String = String::new(),
        /// Seed of everything random.
        Frozen seed: u64 = 0,
        /// Checkpoint whose weights a new run starts from; a run that has begun does not read it again.
        Live init_from: String = String::new(),
        /// Whether parts of the encoder that run.init_from does not hold may start at random (they are listed), and a head of the same classes that is built otherwise be new. Read with run.init_from.
        Live init_partial: bool = false,
    }
}

impl RunConfig {
    /// Folder of the run on this machine.
    #[must_use]
    pub fn folder(&self) -> PathBuf {
        if self.dir.is_empty() {
            return PathBuf::from("runs").join(&self.name);
        }
        match self.address() {
            Some(address) => PathBuf::from("runs").join(scratch_name(address)),
            None => PathBuf::from(self.dir.strip_prefix("file://").unwrap_or(&self.dir)),
        }
    }

    /// The address in a store that stands in the place of the folder: the run's mirror.
    #[must_use]
    pub fn address(&self) -> Option<&str> {
        let dir = self.dir.trim();
        (dir.contains("://") && !dir.starts_with("file://")).then_some(dir)
    }

    /// Checks that the name can be one of a folder, that an address in place of the folder can be written to, and that the seed is one of TOML's numbers.
    pub fn check(&self, found: &mut Findings) {
        let name = &self.name;
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        found.need(
            !name.is_empty() && name.len() <= 64 && name.chars().all(plain) && !name.starts_with('.'),
            "run.name",
            format!("{name:?}"),
            "1 to 64 letters, digits, '-', '_' or '.', not beginning with '.'",
        );
        if let Some(Err(why)) = self.address().map(Prefix::check) {
            let shown = format!("{:?}", hidden(&self.dir));
            found.need(
                false,
                "run.dir",
                shown,
                format!("a folder, or an address that can be written to, such as s3://bucket/runs/x: {why}"),
            );
        }
        found.need(
            i64::try_from(self.seed).is_ok(),
            "run.seed",
            self.seed,
            "at most 9223372036854775807",
        );
    }
}

/// Name of the local folder for the run at an address: its bucket and path.
fn scratch_name(address: &str) -> String {
    let place = address.split_once("://").map_or(address, |(_, place)| place);
    let plain = |c: char| {
        if c.is_ascii_alphanumeric() || matches!(c, '.' | '_') {
            c
        } else {
            '-'
        }
    };
    let name: String = place.trim_matches('/').chars().map(plain).collect();
    name.trim_start_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_mirror_with_a_folder_under_runs() {
        let run = |dir: &str| RunConfig {
            dir: dir.to_owned(),
            ..RunConfig::default()
        };
        for (dir, folder, address) in [
            ("", "runs/run", None),
            ("/data/x", "/data/x", None),
            ("file:///data/x", "/data/x", None),
            ("s3://bucket/runs/x", "runs/bucket-runs-x", Some("s3://bucket/runs/x")),
            ("gs://b/x y/", "runs/b-x-y", Some("gs://b/x y/")),
        ] {
            let run = run(dir);
            assert_eq!((run.folder(), run.address()), (PathBuf::from(folder), address), "{dir}");
        }
        let mut found = Findings::default();
        run("https://host/runs").check(&mut found);
        assert!(found.found()[0].allowed.contains("web server"));
    }
}
