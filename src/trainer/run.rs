//! The loop: a step, then the hooks that are due at its boundary. Commands are heard between two steps and while no batch comes.

use std::sync::Arc;
use std::sync::mpsc::TryRecvError;
use std::task::Poll;
use std::time::{Duration, Instant};

use splitmask_pipeline::request::SampleRequest;

use super::control::{Command, Commands, Outcome, Reach, State};
use super::epochs::fit_schedule;
use super::error::TrainError;
use super::feed::{Feed, PATIENCE, Staged, Supply, check_val};
use super::hooks::{Boundary, Flow, Hooks};
use super::outlets::Outlets;
use super::pause::Pause;
use super::ranks::peers::Peers;
use super::reading_labels::still_labels_of;
use super::setup::Setup;
use super::spec::TrainerSpec;
use super::stability::Instability;
use super::state::RunState;
use super::step::take_step;
use crate::exit::CliError;
use crate::telemetry::metrics::Phase;

/// How a stretch of training ended.
pub(super) enum Ended {
    /// As it should.
    Done(Outcome),
    /// By steps that went wrong; the trainer is to go back.
    Unstable(Box<Trainer>, Instability),
}

/// Whether to go on behind a boundary.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Heard {
    GoOn,
    /// A checkpoint, then the end.
    Stop,
    /// The daemon ends without waiting for this trainer, so that nothing more may be written.
    Nobody,
}

/// One training run: its state, what it is taken with, where its batches come from, what is done at its boundaries, and where it tells.
pub(super) struct Trainer {
    pub(super) state: RunState,
    pub(super) setup: Setup,
    pub(super) feed: Feed,
    pub(super) hooks: Hooks,
    pub(super) out: Outlets,
    /// Since when no batch has come.
    waiting_since: Option<Instant>,
    /// The run cannot go on by itself.
    pub(super) paused: Option<Pause>,
    /// Somebody asked for a pause.
    pub(super) held: Option<Pause>,
}

/// What a reload has built and not yet put in place.
pub(super) struct Prepared {
    spec: TrainerSpec,
    pub(super) pipeline: Option<(Feed, Arc<SampleRequest>)>,
}

impl Trainer {
    pub(super) fn new(state: RunState, hooks: Hooks, setup: Setup, feed: Feed, out: Outlets) -> Self {
        Self {
            state,
            setup,
            feed,
            hooks,
            out,
            waiting_since: None,
            paused: None,
            held: None,
        }
    }

    /// Trains to the end of the schedule, a stop, a failure, or steps that go wrong.
    pub(super) fn train(mut self, commands: &Commands) -> Result<Ended, TrainError> {
        self.hooks.begin(&self.state, &self.setup, &self.out);
        self.show(State::Training);
        loop {
            let done = self.state.step >= self.setup.spec.optim.total_steps;
            if done && !self.is_paused() && self.last_checkpoint()? {
                break;
            }
            let heard = self.obey(commands);
            if heard != Heard::GoOn {
                self.show(State::Draining);
                if heard == Heard::Stop {
                    self.checkpoint_within_grace()?;
                }
                return Ok(Ended::Done(Outcome::Stopped { step: self.state.step }));
            }
            // Data is what a run waits for that cannot go on by itself; one that was asked to stand still waits for nothing.
            let waits = self.held.is_none() || self.paused.is_some();
            self.out.clock.switch(if waits { Phase::DataWait } else { Phase::Other });
            if self.is_paused() {
                self.stay_paused()?;
                continue;
            }
            let next = match self.starves(self.state.step, PATIENCE) {
                true => Ok(Poll::Pending),
                false => self.feed.next(PATIENCE),
            };
            match next {
                Ok(Poll::Ready(staged)) => {
                    self.waiting_since = None;
                    match self.boundary(staged) {
                        Ok(None) => {}
                        Ok(Some(instability)) => return Ok(Ended::Unstable(Box::new(self), instability)),
                        // The step was not taken; the weights are those of the one before.
                        Err(e @ TrainError::OutOfMemory { .. }) => {
                            self.checkpoint_before_failing();
                            return Err(e);
                        }
                        Err(e) => return Err(e),
                    }
                }
                Ok(Poll::Pending) => {
                    let since = *self.waiting_since.get_or_insert_with(Instant::now);
                    if since.elapsed() > Duration::from_secs(1) {
                        self.show(State::WaitingForData);
                    }
                }
                Err(e) => self.pause_or_end(e)?,
            }
        }
        self.hooks.pictures.draw(&mut self.state, &self.setup, &mut self.out);
        self.show(State::Finished);
        Ok(Ended::Done(Outcome::Finished { step: self.state.step }))
    }

    /// Whether a fault that is injected keeps back the batch of the step behind `step`; then this waits for `patience`.
    pub(super) fn starves(&self, step: u64, patience: Duration) -> bool {
        let batch = self.state.ladder.consumed() + 1 + (step - self.state.step);
        let rank = self.setup.peers.as_deref().map_or(0, |peers| peers.rank());
        self.setup.spec.debug.starve(batch, rank, patience)
    }

    /// One step, then the hooks that are due. Answers why to go back, if so.
    pub(super) fn boundary(&mut self, staged: Staged) -> Result<Option<Instability>, TrainError> {
        self.hooks.checkpoint.notice_end();
        self.show(State::Training);
        take_step(&mut self.state, &self.setup, &staged, &mut self.out)?;
        self.feed.recycle(staged.batch);
        let peers = self.setup.peers.as_deref();
        let mut at = Boundary::behind(&self.state, &self.setup);
        if !at.last {
            // The device is busy with this step, and nothing has asked it for a number yet.
            self.out.clock.switch(Phase::Copy);
            self.feed.stage();
            self.out.clock.switch(Phase::Other);
        }
        // Whether rank 0 does something that the others wait for, and which may ask for a checkpoint.
        let mut awaited = false;
        for hook in self.hooks.in_order() {
            if let Some(peers) = peers.filter(|_| awaited && !hook.beside_training()) {
                self.out.show(State::Evaluating, &self.state, &self.setup);
                self.out.clock.switch(Phase::Eval);
                at.checkpoint_asked = peers.tick(&[i64::from(at.checkpoint_asked)])?[0] != 0;
                awaited = false;
            }
            if !hook.due(&at) {
                continue;
            }
            if let Some(peers) = peers.filter(|_| hook.beside_training()) {
                awaited = true;
                if !peers.first() {
                    hook.help(&mut self.state, &at, &mut self.out)?;
                    continue;
                }
            }
            match hook.run(&mut self.state, &at, &mut self.out)? {
                Flow::GoOn => {}
                Flow::Checkpoint => at.checkpoint_asked = true,
                Flow::RollBack(instability) => return Ok(Some(instability)),
            }
        }
        self.out.clock.switch(Phase::Other);
        Ok(None)
    }

    /// Handles waiting commands; answers whether to go on.
    fn obey(&mut self, commands: &Commands) -> Heard {
        loop {
            match commands.try_recv() {
                Ok(Command::Stop) => return Heard::Stop,
                Err(TryRecvError::Disconnected) => return Heard::Nobody,
                Err(TryRecvError::Empty) => return Heard::GoOn,
                Ok(Command::Checkpoint { reply }) => {
                    let done = self
                        .checkpoint_of_step()
                        .map(|path| (path, self.state.step))
                        .map_err(|e| e.to_string());
                    reply.send(done);
                }
                Ok(Command::Pause { reply }) => reply.send(Ok(self.hold())),
                Ok(Command::Resume { reply }) => reply.send(Ok(self.let_go())),
                Ok(Command::Reconfigure { spec, reach, reply }) => {
                    self.out.clock.switch(Phase::Reload);
                    let done = self
                        .reconfigure(*spec, reach)
                        .map(|()| self.state.step)
                        .map_err(|e| CliError::from(e).with_hint());
                    reply.send(done);
                    self.out.clock.switch(Phase::Other);
                }
            }
        }
    }

    /// Takes over a changed spec at this boundary: all or nothing. Everything new is built first, beside what runs; then it takes its place.
    ///
    /// # Errors
    /// Nothing has changed, and training goes on as if nothing had been asked.
    fn reconfigure(&mut self, spec: TrainerSpec, reach: Reach) -> Result<(), TrainError> {
        let prepared = self.prepare(spec, reach)?;
        self.take_over(prepared)
    }

    /// Builds what a changed spec needs, beside what runs.
    ///
    /// # Errors
    /// What cannot be built.
    pub(super) fn prepare(&self, mut spec: TrainerSpec, reach: Reach) -> Result<Prepared, TrainError> {
        let setup = &self.setup;
        let samples = match reach {
            Reach::Live => self.feed.samples(),
            // Before a pipeline is started that would have to be stopped again.
            Reach::Rebuild => Feed::try_opening(&setup.supply, &spec)?,
        };
        fit_schedule(&mut spec, samples)?;
        let labels = match reach {
            Reach::Live => setup.spec.labels.clone(),
            Reach::Rebuild => still_labels_of(&spec, &setup.spec.labels, &setup.supply)?,
        };
        spec.take_labels(labels);
        let judged_anew = (&spec.data.val, &spec.eval) != (&setup.spec.data.val, &setup.spec.eval);
        if judged_anew && matches!(setup.supply, Supply::Bucket) && setup.peers.as_deref().is_none_or(Peers::first) {
            check_val(&spec)?;
        }
        let pipeline = match reach {
            Reach::Live => None,
            Reach::Rebuild => {
                let request = Arc::new(setup.words.request(spec.objective.request(&spec.scope(setup.words.len()))));
                let metrics = &self.out.telemetry.pipeline;
                let feed = Feed::open(
                    &setup.supply,
                    &spec,
                    &request,
                    &setup.words,
                    self.state.cursor,
                    setup.launching.share(),
                    setup.device,
                    metrics,
                )?;
                Some((feed, request))
            }
        };
        Ok(Prepared { spec, pipeline })
    }

    /// Puts in place what was built.
    ///
    /// # Errors
    /// Nothing has changed.
    pub(super) fn take_over(&mut self, prepared: Prepared) -> Result<(), TrainError> {
        let Prepared { spec, pipeline } = prepared;
        // The last step that can fail; it changes nothing then.
        self.state.objective.take_live(spec.objective.plan())?;
        let (step, total) = (self.state.step, spec.optim.total_steps);
        if total <= step && total < self.setup.spec.optim.total_steps {
            tracing::warn!(
                "optim.total_steps = {total} is behind the run, which is at step {step}: it ends here; the same start goes on once it is raised"
            );
        }
        self.commit(spec, pipeline);
        Ok(())
    }

    /// The part of a reload that cannot fail.
    fn commit(&mut self, spec: TrainerSpec, pipeline: Option<(Feed, Arc<SampleRequest>)>) {
        if let Some((feed, request)) = pipeline {
            tracing::debug!(
                staged = self.feed.has_staged(),
                "the pipeline begins anew behind the last trained batch"
            );
            // Other shards were asked for, or the same ones: neither is news.
            self.state.take_shards(feed.shards());
            (self.feed, self.setup.request) = (feed, request);
            self.resume();
        }
        self.state.optimizer.reconfigure(&spec.optim);
        let kept = self.setup.retention(&self.state);
        self.setup.own_pipeline = self.setup.launching.share().pipeline(&spec.pipeline);
        self.setup.spec = spec;
        self.hooks.reconfigured(&kept, &self.state, &self.setup, &self.out);
    }

    /// Shows what the trainer is doing, with the queue before it.
    pub(super) fn show(&self, doing: State) {
        self.out.show(doing, &self.state, &self.setup);
        let mut board = self.out.board();
        board.queue = (self.feed.level(), self.setup.spec.pipeline.queue_batches);
        board.last_checkpoint_step = self.hooks.checkpoint.last_step();
    }
}
