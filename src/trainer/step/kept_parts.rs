//! What is left in the run folder where a step did not fit into the memory of one of several ranks. It ends the run, for the others have gone on without that
//! rank; the next start begins with more parts.

use std::path::Path;

use serde::{Deserialize, Serialize};
use torch_ext::ranks::{Cause, RanksError};

use crate::trainer::error::TrainError;

/// Name of the file.
const FILE: &str = "parts.json";

#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct KeptParts {
    /// Images that a rank takes at once, at most.
    pub(super) images: usize,
    /// The step that did not fit.
    pub(super) step: u64,
    /// Whose memory it was, and what was said of it.
    pub(super) error: String,
}

impl KeptParts {
    /// What an earlier start has left, if anything.
    pub(super) fn read(run_dir: &Path) -> Option<Self> {
        let path = run_dir.join(FILE);
        let text = std::fs::read_to_string(&path).ok()?;
        serde_json::from_str(&text)
            .inspect_err(|error| tracing::warn!(%error, "{} cannot be read: as if it were not there", path.display()))
            .ok()
    }

    /// Leaves it for the next start.
    ///
    /// # Errors
    /// Those of the file system.
    pub(super) fn write(&self, run_dir: &Path) -> std::io::Result<()> {
        let text = serde_json::to_string_pretty(self).expect("two numbers and a text are JSON");
        std::fs::write(run_dir.join(FILE), text + "\n")
    }
}

/// Whether memory was lacking here, or, by its last words, on the rank that was lost.
pub(super) fn lacked_memory(error: &TrainError) -> bool {
    let tells = |text: &str| matches!(TrainError::of_device(text), Some(TrainError::OutOfMemory { .. }));
    match error {
        TrainError::OutOfMemory { .. } => true,
        TrainError::Ranks(RanksError::Lost(loss)) => loss
            .causes
            .iter()
            .any(|cause| matches!(cause, Cause::Words { text, .. } if tells(text))),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use torch_ext::ranks::Loss;

    use super::*;

    #[test]
    fn a_rank_that_is_lost_for_lack_of_memory_is_known_by_its_last_words() {
        let lost = |cause: Cause| {
            TrainError::Ranks(RanksError::Lost(Box::new(Loss {
                call: "backward",
                after: Duration::from_millis(9),
                message: "Connection closed by peer".into(),
                causes: vec![cause],
            })))
        };
        let words = |text: &str| Cause::Words {
            rank: 3,
            host: "b".into(),
            text: text.into(),
        };
        let own = TrainError::of_device("CUDA out of memory. Tried to allocate 2 GiB").unwrap();
        assert!(lacked_memory(&own));
        assert!(lacked_memory(&lost(words(&own.to_string()))));
        assert!(lacked_memory(&lost(words(
            "libtorch, backward: CUDA out of memory. Tried to allocate 2 GiB"
        ))));
        assert!(!lacked_memory(&lost(words("No space left on device"))));
        let silent = Cause::Silent { rank: 3, host: "b".into() };
        assert!(!lacked_memory(&lost(silent)));
        assert!(!lacked_memory(&TrainError::OtherRank("out of patience".into())));
    }

    #[test]
    fn the_next_start_finds_what_was_kept_and_passes_over_what_it_cannot_read() {
        let folder = tempfile::tempdir().unwrap();
        let run_dir = folder.path();
        assert_eq!(KeptParts::read(run_dir), None);
        let kept = KeptParts {
            images: 4,
            step: 120,
            error: "rank 3 on host b: CUDA out of memory".into(),
        };
        kept.write(run_dir).unwrap();
        assert_eq!(KeptParts::read(run_dir), Some(kept));
        std::fs::write(run_dir.join(FILE), "{\"images\": 4").unwrap();
        assert_eq!(KeptParts::read(run_dir), None);
    }
}
