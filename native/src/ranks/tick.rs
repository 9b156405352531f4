//! The tick: a few numbers of which all ranks learn the largest, on their way while a step runs.

use std::sync::Arc;
use std::time::Instant;

use crate::ranks::{Group, Ranks, RanksError, ffi};

/// Numbers that a tick carries at most. Shorter words are filled up with `i64::MIN`, so that ranks cannot send different lengths.
pub const TICK_WORDS: usize = 16;

const CALL: &str = "the tick";

/// A tick on its way; dropped, its answer is lost. Several may be on their way, and calls for bytes between them: all ranks begin them in the same order.
#[derive(Debug)]
pub struct Tick {
    words: usize,
    state: State,
}

#[derive(Debug)]
enum State {
    Alone(Vec<i64>),
    Sent {
        work: ffi::Tick,
        group: Arc<Group>,
        since: Instant,
    },
}

impl Ranks {
    /// Sends `word` (at most [`TICK_WORDS`] numbers, as many on every rank) over the hosts' network; the answer is the largest of each number over all
    /// ranks. Returns at once: send it, run the step, read it at the boundary.
    ///
    /// # Errors
    /// Too many numbers, or what libtorch said.
    pub fn begin_tick(&self, word: &[i64]) -> Result<Tick, RanksError> {
        if word.len() > TICK_WORDS {
            return Err(RanksError::Usage {
                call: CALL,
                reason: format!("{} numbers, and {TICK_WORDS} fit", word.len()),
            });
        }
        let words = word.len();
        let Some(group) = &self.group else {
            let state = State::Alone(word.to_vec());
            return Ok(Tick { words, state });
        };
        let since = group.together(CALL)?;
        let mut full = [i64::MIN; TICK_WORDS];
        full[..words].copy_from_slice(word);
        let work = group.links.begin_tick(&full).map_err(|failure| group.judge(CALL, since, failure))?;
        let group = Arc::clone(group);
        let state = State::Sent { work, group, since };
        Ok(Tick { words, state })
    }

    /// [`Self::begin_tick`] and [`Tick::finish`].
    ///
    /// # Errors
    /// As theirs.
    pub fn tick(&self, word: &[i64]) -> Result<Vec<i64>, RanksError> {
        self.begin_tick(word)?.finish()
    }
}

impl Tick {
    /// Whether [`Self::finish`] would not wait.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        match &self.state {
            State::Alone(_) => true,
            State::Sent { work, .. } => work.ready(),
        }
    }

    /// Waits for the largest of each number.
    ///
    /// # Errors
    /// [`RanksError::Lost`], also where a rank did not come within the control time-out.
    pub fn finish(self) -> Result<Vec<i64>, RanksError> {
        match self.state {
            State::Alone(word) => Ok(word),
            State::Sent { work, group, since } => {
                group.together(CALL)?;
                let mut full = [i64::MIN; TICK_WORDS];
                work.finish(&mut full).map_err(|failure| group.judge(CALL, since, failure))?;
                Ok(full[..self.words].to_vec())
            }
        }
    }
}
