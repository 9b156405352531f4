//! What the ranks tell each other between two steps: a few numbers of which all hear the largest, so that all do the same at the same boundary.

use super::peers::{Peers, Said};
use crate::trainer::error::TrainError;

/// What one rank says, or what all have heard.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::trainer) struct Word {
    /// It has no batch yet, and the schedule is not done: no step can be taken.
    pub(in crate::trainer) no_batch: bool,
    /// It was told to stop.
    pub(in crate::trainer) stop: bool,
    /// It was asked for a checkpoint.
    pub(in crate::trainer) checkpoint: bool,
    /// The run is to stand still; only rank 0 asks for it.
    pub(in crate::trainer) hold: bool,
    /// A changed config is to be taken over; only rank 0 asks for it.
    pub(in crate::trainer) reload: bool,
    /// Its stream of batches ended with an error.
    pub(in crate::trainer) failed: bool,
    /// The first consumed batch of an instability, counted from 1, for which the run is to go back.
    pub(in crate::trainer) unstable: Option<u64>,
}

impl Word {
    fn numbers(self) -> [i64; 8] {
        let Self {
            no_batch,
            stop,
            checkpoint,
            hold,
            reload,
            failed,
            unstable,
        } = self;
        let since = unstable.map_or(0, |n| n as i64);
        let [a, b, c, d, e, f] = [no_batch, stop, checkpoint, hold, reload, failed].map(i64::from);
        // The largest of its negative is the smallest.
        [a, b, c, d, e, f, since, -since]
    }

    /// Says it, and hears what all say.
    ///
    /// # Errors
    /// A lost rank; ranks that judge the last steps differently, which is a bug.
    pub(in crate::trainer) fn exchange(self, peers: &Peers) -> Result<Self, TrainError> {
        let said = self.say(peers)?;
        self.hear(said, peers)
    }

    /// Says it, without waiting for what the others say.
    ///
    /// # Errors
    /// A lost rank.
    pub(in crate::trainer) fn say(self, peers: &Peers) -> Result<Said, TrainError> {
        peers.say(&self.numbers())
    }

    /// Hears what all say where this rank has said it.
    ///
    /// # Errors
    /// As [`Word::exchange`].
    pub(in crate::trainer) fn hear(self, said: Said, peers: &Peers) -> Result<Self, TrainError> {
        self.heard(&peers.hear(said)?)
    }

    fn heard(self, all: &[i64]) -> Result<Self, TrainError> {
        if all[6] != -all[7] {
            return Err(TrainError::Torch(format!(
                "the ranks judge the last steps differently (this one: {:?}), which is a bug",
                self.unstable
            )));
        }
        Ok(Self {
            no_batch: all[0] != 0,
            stop: all[1] != 0,
            checkpoint: all[2] != 0,
            hold: all[3] != 0,
            reload: all[4] != 0,
            failed: all[5] != 0,
            unstable: (all[6] > 0).then_some(all[6] as u64),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What all hear where each says one of `words`.
    fn heard(words: &[Word]) -> Option<Word> {
        let largest = |i: usize| words.iter().map(|w| w.numbers()[i]).max().unwrap();
        let all: Vec<i64> = (0..8).map(largest).collect();
        words[0].heard(&all).ok()
    }

    #[test]
    fn what_one_rank_says_all_hear() {
        let silent = Word::default();
        let stop = Word { stop: true, ..silent };
        let hungry = Word { no_batch: true, ..silent };
        let both = Word {
            no_batch: true,
            stop: true,
            ..silent
        };
        assert_eq!(heard(&[silent, silent]), Some(silent));
        assert_eq!(heard(&[silent, stop, hungry]), Some(both));
    }

    #[test]
    fn ranks_that_judge_differently_do_not_go_on() {
        let at = |n| Word {
            unstable: n,
            ..Word::default()
        };
        assert_eq!(heard(&[at(Some(7)), at(Some(7))]), Some(at(Some(7))));
        assert_eq!(heard(&[at(Some(7)), at(None)]), None);
        assert_eq!(heard(&[at(Some(7)), at(Some(8))]), None);
    }
}
