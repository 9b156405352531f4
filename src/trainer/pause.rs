//! A run that cannot have its data pauses rather than ends: weights stay in memory, and a reload or the bucket's consent lets it go on.

use std::time::{Duration, Instant};

use splitmask_pipeline::config::OnBudget;
use splitmask_pipeline::error::{PipelineError, ShardError};

use super::PATIENCE;
use super::assemble::Trainer;
use super::control::State;
use super::feed::Feed;
use crate::telemetry::metrics::PauseReason;

/// Time between two looks whether credentials were renewed.
const RETRY: Duration = Duration::from_secs(30);

/// Why and how the run is paused.
pub(super) struct Pause {
    /// Since the last try, if the checkpoint of this pause is not written.
    unsafe_since: Option<Instant>,
    /// When the bucket is asked again; `None` = only a reload helps.
    again: Option<Instant>,
    every: Duration,
}

impl Trainer {
    /// Why, if this end of the stream is worth waiting for a person. A run that has not taken a step ends instead: its config is wrong,
    /// and whoever started it is still there.
    pub(super) fn may_pause(&self, error: &PipelineError) -> Option<PauseReason> {
        let begun = self.status.lock().unwrap_or_else(std::sync::PoisonError::into_inner).ready;
        let reason = match error {
            PipelineError::FailureBudget { .. } if self.spec.data.on_budget == OnBudget::Pause => PauseReason::FailureBudget,
            PipelineError::Shard(ShardError::Denied { .. }) => PauseReason::Denied,
            _ => return None,
        };
        begun.then_some(reason)
    }

    /// Writes a checkpoint and says why nothing moves. Where none can be written now, it is tried again while the pause lasts.
    pub(super) fn pause(&mut self, why: PauseReason, error: &PipelineError) {
        let safe = self.checkpoint_or_say();
        let reason = match error.hint() {
            Some(hint) => format!("{error}; {hint}"),
            None => error.to_string(),
        };
        tracing::error!(step = self.step, "paused: {reason}");
        let every = RETRY.min(Duration::from_secs_f64(self.spec.pipeline.retry_budget_s));
        self.paused = Some(Pause {
            unsafe_since: (!safe).then(Instant::now),
            again: (why == PauseReason::Denied).then(|| Instant::now() + every),
            every,
        });
        self.status.lock().unwrap_or_else(std::sync::PoisonError::into_inner).paused = Some(reason);
        self.telemetry.train.set_paused(Some(why));
        self.set_state(State::Paused);
    }

    /// Writes a checkpoint; whether it could be written. Why not is logged.
    fn checkpoint_or_say(&mut self) -> bool {
        let written = self.checkpoint();
        if let Err(error) = &written {
            tracing::error!(step = self.step, %error, "no checkpoint could be written at the pause; the older one stands, and it is tried again");
        }
        written.is_ok()
    }

    /// Waits a little; asks the bucket again when it is time.
    pub(super) fn stay_paused(&mut self) {
        std::thread::sleep(PATIENCE);
        let Some(pause) = &mut self.paused else { return };
        if pause.unsafe_since.is_some_and(|since| since.elapsed() > RETRY) {
            let safe = self.checkpoint_or_say();
            self.set_state(State::Paused);
            if let Some(pause) = &mut self.paused {
                pause.unsafe_since = (!safe).then(Instant::now);
            }
            return;
        }
        if pause.again.is_none_or(|again| Instant::now() < again) {
            return;
        }
        pause.again = Some(Instant::now() + pause.every);
        match Feed::open(
            &self.supply,
            &self.spec,
            &self.plan,
            self.words.tokenizer(),
            self.cursor,
            self.device,
            &self.telemetry.pipeline,
        ) {
            Ok(feed) => {
                self.feed = feed;
                self.resume();
            }
            Err(error) => tracing::warn!("still paused: {error}"),
        }
    }

    /// The feed was opened anew.
    pub(super) fn resume(&mut self) {
        if self.paused.take().is_some() {
            tracing::info!(step = self.step, "no longer paused");
            self.status.lock().unwrap_or_else(std::sync::PoisonError::into_inner).paused = None;
            self.telemetry.train.set_paused(None);
            self.set_state(State::WaitingForData);
        }
    }
}
