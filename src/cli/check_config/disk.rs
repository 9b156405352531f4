//! Whether the disk of the run folder has room for checkpoints.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::cli::amount::human;
use crate::config::Config;
use crate::config::explain::backbone_parameters;
use crate::objective::Start;

/// Free space that is asked for, in checkpoints: the first, the second that is written beside it, and half of one for metrics and pictures.
const CHECKPOINTS: f64 = 2.5;

/// What checkpoints take, and what is free.
pub(super) struct Room {
    /// Bytes of a checkpoint at least.
    checkpoint: u64,
    /// Checkpoints that are kept.
    keep: u64,
    /// Where the run folder is, or the nearest folder above it that exists.
    folder: PathBuf,
    /// Bytes that this user may write there, or why that is not known.
    free: std::io::Result<u64>,
}

/// Bytes of a checkpoint at least, f32: weights of the backbone, their average, both moments of the optimizer. Heads, decoders and teachers come on top.
fn at_least(config: &Config) -> u64 {
    let average = u64::from(config.ema.decay > 0.0);
    // Only an encoder that does not learn needs the weights of another run, and the optimizer keeps nothing of it.
    let moments = if matches!(config.objective.start(), Start::Pretrained(_)) {
        0
    } else {
        2
    };
    4 * backbone_parameters(config) * (1 + average + moments)
}

impl Room {
    pub(super) fn of(config: &Config) -> Self {
        let wanted = std::path::absolute(config.run_dir()).unwrap_or_else(|_| config.run_dir());
        let folder = wanted
            .ancestors()
            .find(|folder| folder.is_dir())
            .unwrap_or(Path::new("/"))
            .to_owned();
        Self {
            checkpoint: at_least(config),
            keep: u64::from(config.checkpoint.keep),
            free: rustix::fs::statvfs(&folder)
                .map(|disk| disk.f_bavail * disk.f_frsize)
                .map_err(Into::into),
            folder,
        }
    }

    /// What is missing, if a run would fail at its first checkpoints.
    pub(super) fn lacks(&self) -> Option<String> {
        let free = *self.free.as_ref().ok()?;
        ((free as f64) < self.checkpoint as f64 * CHECKPOINTS).then(|| {
            format!(
                "{} free in {}: a checkpoint takes at least {}, and room for {CHECKPOINTS} of them is needed",
                human(free),
                self.folder.display(),
                human(self.checkpoint)
            )
        })
    }
}

impl fmt::Display for Room {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let folder = self.folder.display();
        write!(
            f,
            "disk: the encoder takes {} of a checkpoint, heads, decoders and teachers come on top, and {} are kept; ",
            human(self.checkpoint),
            self.keep
        )?;
        match &self.free {
            Ok(free) => write!(f, "{} free in {folder}", human(*free)),
            Err(e) => write!(f, "what is free in {folder} is not known: {e}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room(checkpoint: u64, free: u64) -> Room {
        Room {
            checkpoint,
            keep: 3,
            folder: "/somewhere".into(),
            free: Ok(free),
        }
    }

    #[test]
    fn a_disk_with_room_for_fewer_than_two_and_a_half_checkpoints_is_refused() {
        assert_eq!(room(100 << 20, 250 << 20).lacks(), None);
        let lacks = room(100 << 20, 249 << 20).lacks().unwrap();
        assert!(
            lacks.starts_with("249.00 MiB free in /somewhere: a checkpoint takes at least 100.00 MiB"),
            "{lacks}"
        );
        let unknown = Room {
            free: Err(std::io::ErrorKind::PermissionDenied.into()),
            ..room(100 << 20, 0)
        };
        assert_eq!(unknown.lacks(), None);
        assert!(unknown.to_string().contains("is not known: permission denied"), "{unknown}");
    }

    #[test]
    fn the_folder_that_is_asked_is_the_nearest_one_that_exists() {
        let dir = tempfile::tempdir().unwrap();
        let mut config = Config::default();
        config.run.dir = dir.path().join("not/yet").display().to_string();
        let found = Room::of(&config);
        assert_eq!(found.folder, dir.path());
        assert!(found.free.unwrap() > 0);
        // ViT-S/16: 21.7 million weights, as many in each moment.
        let three = found.checkpoint;
        assert!((250 << 20) > three && three > (240 << 20), "{three}");
        config.ema.decay = 0.99;
        assert_eq!(Room::of(&config).checkpoint, three / 3 * 4);
    }
}
