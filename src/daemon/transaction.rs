//! The rules of a reload, without files, clocks or threads: what is under way × what happens → what to do.
//!
//! A reload ends in exactly one of two ways: the new config is in force ([`Action::Commit`]), or the old one goes on ([`Action::GiveUp`]). What to do
//! is done by the supervisor, which brings back what comes of it as the next event.

use crate::config::Class;
use crate::trainer::control::Reach;

/// How far the reload that is under way has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(test, derive(PartialOrd, Ord))]
pub(super) enum Stage {
    /// There is none.
    #[default]
    Idle,
    /// The file is read and checked by another thread.
    Reading,
    /// The trainer was asked to take the config over.
    Asked,
    /// The trainer was asked for the checkpoint that its successor begins from.
    Saving,
    /// The trainer was told to stop.
    Stopping,
    /// A trainer with the new config builds itself.
    Starting {
        /// No trainer ran before: the run was waiting for its bucket.
        waited: bool,
    },
    /// That one failed; a trainer with the old config builds itself.
    Returning,
}

/// How a trainer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// It was told to stop, and wrote a checkpoint.
    Stopped,
    /// The schedule is done.
    Finished,
    /// It could not start because its bucket does not answer, and the run may wait for it.
    Away,
    /// It could not write: the last checkpoint of a stop, for instance.
    Disk,
    /// Whatever else it failed with.
    Failed,
}

/// What happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Event {
    /// A reload is asked for, and none is under way.
    Begin,
    /// The file could not be read, or holds what is refused.
    Refused,
    /// The file says what is in force already.
    Unchanged,
    /// The file is valid, and this is the strongest class among the changed keys (never frozen: that is refused).
    Valid(Class),
    /// The trainer took the config over.
    TookOver,
    /// The trainer kept the old config.
    Declined,
    /// The checkpoint that was asked for is on disk.
    Saved,
    /// It is not.
    Unsaved,
    /// The trainer took its first batch.
    Ready,
    /// The trainer is gone.
    Ended(End),
    /// It is time to look whether the bucket is back.
    Retry,
    /// The process is told to end.
    Drain,
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    /// Read and check the file.
    Read,
    /// Ask the trainer to take the new config over.
    Ask(Reach),
    /// Ask the trainer for a checkpoint.
    Save,
    /// Tell the trainer to write a checkpoint and stop.
    Stop,
    /// Start a trainer with the new config.
    StartNew,
    /// Start a trainer with the config in force.
    StartOld,
    /// Put the new config in force and answer.
    Commit,
    /// Answer that the config in force goes on.
    GiveUp,
    /// Answer that nothing has changed.
    Same,
    /// Wait for the bucket, then [`Event::Retry`].
    Await,
    /// The run ends as its trainer did, or, if there is none, as told.
    End,
}

/// The trainer that a run has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(test, derive(PartialOrd, Ord))]
enum Trainer {
    /// None: the run waits for its bucket.
    Gone,
    /// It builds itself and has not taken a batch; the newest checkpoint holds all that it has.
    Building,
    /// It trains.
    Training,
}

/// The state of the run, as far as reloads are concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(test, derive(PartialOrd, Ord))]
pub(super) struct Transaction {
    stage: Stage,
    trainer: Trainer,
    draining: bool,
}

impl Transaction {
    /// A run whose first trainer builds itself.
    pub(super) const FIRST: Self = Self {
        stage: Stage::Idle,
        trainer: Trainer::Building,
        draining: false,
    };

    /// A reload may begin: none is under way, and what it would reach is there or awaited.
    pub(super) fn may_begin(self) -> bool {
        self.stage == Stage::Idle && self.trainer != Trainer::Building && !self.draining
    }

    /// No reload is under way.
    #[cfg(test)]
    fn is_idle(self) -> bool {
        self.stage == Stage::Idle
    }

    /// The file is being read.
    pub(super) fn is_reading(self) -> bool {
        self.stage == Stage::Reading
    }

    /// No trainer runs: the run waits for its bucket.
    pub(super) fn waits(self) -> bool {
        self.trainer == Trainer::Gone
    }

    /// Takes in what happens; answers what to do, in order. What does not concern the stage does nothing: an answer may come late.
    pub(super) fn on(&mut self, event: Event) -> Vec<Action> {
        let actions = match event {
            Event::Drain => self.drain(),
            Event::Ended(end) => self.ended(end),
            Event::Ready => {
                self.trainer = Trainer::Training;
                self.advance(event)
            }
            other => self.advance(other),
        };
        if actions.iter().any(|a| matches!(a, Action::StartNew | Action::StartOld)) {
            self.trainer = Trainer::Building;
        }
        actions
    }

    fn advance(&mut self, event: Event) -> Vec<Action> {
        use Action as A;
        let (next, actions) = match (self.stage, event) {
            (Stage::Idle, Event::Begin) if self.may_begin() => (Stage::Reading, vec![A::Read]),
            (Stage::Idle, Event::Retry) if self.waits() && !self.draining => (Stage::Idle, vec![A::StartOld]),
            (Stage::Reading, Event::Refused) => (Stage::Idle, vec![A::GiveUp]),
            // Whoever asks while the run waits for its bucket wants it to look now.
            (Stage::Reading, Event::Unchanged) if self.waits() => (Stage::Idle, vec![A::Same, A::StartOld]),
            (Stage::Reading, Event::Unchanged) => (Stage::Idle, vec![A::Same]),
            (Stage::Reading, Event::Valid(Class::Frozen)) => (Stage::Idle, vec![A::GiveUp]),
            (Stage::Reading, Event::Valid(_)) if self.waits() => (Stage::Starting { waited: true }, vec![A::StartNew]),
            (Stage::Reading, Event::Valid(Class::Live)) => (Stage::Asked, vec![A::Ask(Reach::Live)]),
            (Stage::Reading, Event::Valid(Class::Rebuild)) => (Stage::Asked, vec![A::Ask(Reach::Rebuild)]),
            // The checkpoint comes first: a trainer that cannot write one goes on.
            (Stage::Reading, Event::Valid(Class::Restart)) => (Stage::Saving, vec![A::Save]),
            (Stage::Asked, Event::TookOver) => (Stage::Idle, vec![A::Commit]),
            (Stage::Asked, Event::Declined) => (Stage::Idle, vec![A::GiveUp]),
            (Stage::Saving, Event::Saved) => (Stage::Stopping, vec![A::Stop]),
            (Stage::Saving, Event::Unsaved) => (Stage::Idle, vec![A::GiveUp]),
            (Stage::Starting { .. }, Event::Ready) => (Stage::Idle, vec![A::Commit]),
            (Stage::Returning, Event::Ready) => (Stage::Idle, vec![A::GiveUp]),
            (stage, _) => (stage, vec![]),
        };
        self.stage = next;
        actions
    }

    fn ended(&mut self, end: End) -> Vec<Action> {
        use Action as A;
        self.trainer = Trainer::Gone;
        let pending = self.stage != Stage::Idle;
        let given_up = |then: A| if pending { vec![A::GiveUp, then] } else { vec![then] };
        let (next, actions) = match (self.stage, end) {
            _ if self.draining => (Stage::Idle, given_up(A::End)),
            (Stage::Stopping, End::Stopped) => (Stage::Starting { waited: false }, vec![A::StartNew]),
            // The disk filled up between the checkpoint and the stop.
            (Stage::Stopping, End::Disk) => (Stage::Returning, vec![A::StartOld]),
            (Stage::Starting { .. }, End::Finished) => (Stage::Idle, vec![A::Commit, A::End]),
            // Nothing ran that could go on with the old config, and nothing says that the new one is wrong.
            (Stage::Starting { waited: true }, End::Away) => (Stage::Idle, vec![A::Commit, A::Await]),
            (Stage::Starting { waited: true }, End::Disk | End::Failed) => (Stage::Idle, vec![A::GiveUp, A::Await]),
            (Stage::Starting { waited: false }, End::Away | End::Disk | End::Failed) => (Stage::Returning, vec![A::StartOld]),
            (_, End::Away) => (Stage::Idle, given_up(A::Await)),
            (_, End::Stopped | End::Finished | End::Disk | End::Failed) => (Stage::Idle, given_up(A::End)),
        };
        self.stage = next;
        actions
    }

    fn drain(&mut self) -> Vec<Action> {
        use Action as A;
        if std::mem::replace(&mut self.draining, true) {
            return vec![];
        }
        // One that has not taken a batch has nothing to save.
        let last = if self.trainer == Trainer::Training { A::Stop } else { A::End };
        match self.stage {
            Stage::Idle => vec![last],
            // The trainer answers before it stops: its checkpoint holds what it took over.
            Stage::Asked => vec![last],
            // It was told to stop already.
            Stage::Stopping => {
                self.stage = Stage::Idle;
                vec![A::GiveUp]
            }
            Stage::Reading | Stage::Saving | Stage::Starting { .. } | Stage::Returning => {
                self.stage = Stage::Idle;
                vec![A::GiveUp, last]
            }
        }
    }
}

#[cfg(test)]
mod tests;
