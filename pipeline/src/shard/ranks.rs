//! How several processes share one stream: all of them go through the same global order, and each keeps every `world`-th sample.

use crate::error::PipelineError;

/// One process's part of a global order of samples.
///
/// The order is cut into rows of `world` samples, counted from where the stream began, and each process takes one sample of every row. A
/// cursor always lies between two rows, so all processes can go on from the same one, in whatever number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ranks {
    rank: u64,
    world: u64,
    /// Samples consumed before the stream began, over all processes.
    origin: u64,
}

impl Ranks {
    /// A single process, for which rows do not matter.
    pub(super) const ALONE: Self = Self {
        rank: 0,
        world: 1,
        origin: 0,
    };

    /// Process `rank` of `world`, in a stream that begins behind `origin` samples.
    ///
    /// # Errors
    /// [`PipelineError::BadSetting`] for a rank outside the world.
    pub(super) fn new(rank: u32, world: u32, origin: u64) -> Result<Self, PipelineError> {
        if rank >= world {
            return Err(PipelineError::BadSetting {
                key: "rank".into(),
                value: rank.to_string(),
                detail: format!("must be below world = {world}"),
            });
        }
        Ok(Self {
            rank: rank.into(),
            world: world.into(),
            origin,
        })
    }

    /// Whether the sample at `position` of the global order (at or behind the origin) is this process's: then the position behind its row,
    /// up to which everything counts as consumed once every process has taken its sample.
    pub(super) fn row_end(&self, position: u64) -> Option<u64> {
        let number = position - self.origin;
        let end = self.origin + (number / self.world + 1) * self.world;
        (number % self.world == self.rank).then_some(end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_sample_has_one_process_and_all_of_a_row_share_its_end() {
        let ranks: Vec<Ranks> = (0..3).map(|rank| Ranks::new(rank, 3, 10).unwrap()).collect();
        for position in 10..40 {
            let ends: Vec<u64> = ranks.iter().filter_map(|r| r.row_end(position)).collect();
            assert_eq!(ends, [10 + ((position - 10) / 3 + 1) * 3], "position {position}");
        }
        assert_eq!(Ranks::ALONE.row_end(7), Some(8));
        assert!(Ranks::new(3, 3, 0).unwrap_err().to_string().contains("world = 3"));
    }
}
