//! The loop over several ranks: as `run`, but nothing is done before all ranks have said what they have and want. They say it before a step and hear it
//! behind it, so that nobody waits for the words of a rank that has its next batch. A rank whose bucket is slow keeps all waiting here, where they still
//! hear commands, and never inside of a step.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::rc::Rc;
use std::task::Poll;
use std::time::{Duration, Instant};

use splitmask_pipeline::error::PipelineError;

use super::control::{Command, Commands, Outcome, PausedAt, Reach, Reply, ResumedAt, State};
use super::error::TrainError;
use super::feed::PATIENCE;
use super::pause::{Due, Pause};
use super::ranks::boundary::Word;
use super::ranks::peers::{Peers, Said};
use super::run::{Ended, Trainer};
use super::spec::TrainerSpec;
use crate::exit::CliError;
use crate::telemetry::metrics::Phase;

/// What this rank has said of a boundary.
struct Statement {
    word: Word,
    said: Said,
    /// Whether it has a batch, or how its stream ended.
    fetched: Result<bool, PipelineError>,
}

/// What the daemon of this rank has asked for, and not got yet; a rollback may come before it gets it.
#[derive(Default)]
pub(super) struct Asked {
    stop: bool,
    /// The run is to stand still until this is taken back.
    hold: bool,
    checkpoints: Vec<Reply<(PathBuf, u64)>>,
    pauses: Vec<Reply<PausedAt>>,
    resumes: Vec<Reply<ResumedAt>>,
    reloads: VecDeque<(Box<TrainerSpec>, Reach, Reply<u64>)>,
}

impl Asked {
    fn hear(&mut self, commands: &Commands, peers: &Peers) {
        use std::sync::mpsc::TryRecvError;
        loop {
            match commands.try_recv() {
                Ok(Command::Stop) | Err(TryRecvError::Disconnected) => {
                    self.stop = true;
                    return;
                }
                Err(TryRecvError::Empty) => return,
                Ok(Command::Checkpoint { reply }) => self.checkpoints.push(reply),
                Ok(Command::Pause { reply }) if peers.first() => {
                    self.hold = true;
                    self.pauses.push(reply);
                }
                Ok(Command::Resume { reply }) if peers.first() => {
                    self.hold = false;
                    self.resumes.push(reply);
                }
                Ok(Command::Reconfigure { spec, reach, reply }) if peers.first() => self.reloads.push_back((spec, reach, reply)),
                Ok(Command::Pause { reply }) => reply.send(Err(format!("a run is paused through {}", peers.named(0)))),
                Ok(Command::Resume { reply }) => reply.send(Err(format!("a run goes on through {}", peers.named(0)))),
                Ok(Command::Reconfigure { reply, .. }) => reply.send(Err(format!("a config is taken over through {}", peers.named(0)))),
            }
        }
    }
}

/// Error of another rank, told by all in a round of texts: empty = none.
fn first_error(peers: &Peers, texts: &[Vec<u8>]) -> Option<String> {
    let told = texts.iter().enumerate().filter(|(_, text)| !text.is_empty());
    let told: Vec<String> = told
        .map(|(rank, text)| format!("{}: {}", peers.named(rank), String::from_utf8_lossy(text)))
        .collect();
    (!told.is_empty()).then(|| told.join("; "))
}

impl Trainer {
    /// Trains with the other ranks to the end of the schedule, a stop at any of them, a failure, or steps that go wrong.
    pub(super) fn train_together(mut self, commands: &Commands, asked: &mut Asked) -> Result<Ended, TrainError> {
        let peers = Rc::clone(self.setup.peers.as_ref().expect("there are several ranks"));
        let peers = peers.as_ref();
        self.hooks.begin(&self.state, &self.setup, &self.out);
        self.show(State::Training);
        let mut waiting_since: Option<Instant> = None;
        // Said of the next boundary before the step began, so that nobody waits for it there.
        let mut early: Option<Statement> = None;
        loop {
            let done = self.state.step >= self.setup.spec.optim.total_steps;
            let own = match early.take() {
                Some(own) => own,
                None => self.state_own(asked, commands, peers, self.state.step, PATIENCE)?,
            };
            self.out.clock.switch(Phase::Ranks);
            let (heard, fetched) = (own.word.hear(own.said, peers)?, own.fetched);
            if heard.no_batch {
                // Some rank waits for data, so all do.
                self.out.clock.rename(Phase::DataWait);
            }
            self.out.clock.switch(Phase::Other);
            if heard.failed {
                return Err(self.end_without_data(peers, fetched.err())?);
            }
            if heard.reload {
                self.reload_together(peers, asked.reloads.pop_front())?;
                continue;
            }
            if heard.checkpoint {
                let written = self.write_together(peers, Self::checkpoint_of_step)?;
                // A pause that was taken back before it began is one all the same, and ends at the next boundary.
                if heard.hold || !asked.pauses.is_empty() {
                    let at = self.hold_behind(written.clone());
                    asked.pauses.drain(..).for_each(|reply| reply.send(Ok(at.clone())));
                }
                let written = written.map(|path| (path, self.state.step));
                asked.checkpoints.drain(..).for_each(|reply| reply.send(written.clone()));
                continue;
            }
            if !heard.hold && self.held.is_some() {
                self.let_go();
            }
            for reply in asked.resumes.drain(..) {
                let step = self.state.step;
                reply.send(Ok(ResumedAt { step, paused: None }));
            }
            if heard.stop || (done && !heard.hold) {
                self.show(State::Draining);
                let written = self.write_together(peers, |trainer| match trainer.hooks.checkpoint.last_step() {
                    // The one that was due at the last step, or that a finished run was resumed from.
                    Some(step) if done && step == trainer.state.step => Ok(PathBuf::new()),
                    _ => trainer.checkpoint_within_grace(),
                })?;
                let step = self.state.step;
                written.map_err(TrainError::OtherRank)?;
                if heard.stop {
                    return Ok(Ended::Done(Outcome::Stopped { step }));
                }
                break;
            }
            if heard.hold {
                std::thread::sleep(PATIENCE);
                continue;
            }
            if heard.no_batch {
                let since = *waiting_since.get_or_insert_with(Instant::now);
                if since.elapsed() > Duration::from_secs(1) {
                    self.show(State::WaitingForData);
                }
                continue;
            }
            waiting_since = None;
            let Poll::Ready(staged) = self.feed.next(Duration::ZERO)? else {
                unreachable!("the batch was there a moment ago");
            };
            let own = self.state_own(asked, commands, peers, self.state.step + 1, Duration::ZERO)?;
            if let Some(instability) = self.boundary(staged)? {
                own.word.hear(own.said, peers)?;
                let word = Word {
                    unstable: Some(instability.first_bad),
                    ..Word::default()
                };
                word.exchange(peers)?;
                return Ok(Ended::Unstable(Box::new(self), instability));
            }
            early = Some(own);
        }
        if peers.first() {
            self.hooks.pictures.draw(&mut self.state, &self.setup, &mut self.out);
        }
        self.show(State::Finished);
        Ok(Ended::Done(Outcome::Finished { step: self.state.step }))
    }

    /// Says what this rank has and wants at the boundary behind `step`. A batch for the step after it is waited for as long as `patience` says; behind the
    /// last one none is needed.
    ///
    /// # Errors
    /// A lost rank.
    fn state_own(
        &mut self,
        asked: &mut Asked,
        commands: &Commands,
        peers: &Peers,
        step: u64,
        patience: Duration,
    ) -> Result<Statement, TrainError> {
        asked.hear(commands, peers);
        self.out.clock.switch(Phase::DataWait);
        let done = step >= self.setup.spec.optim.total_steps;
        let fetched = match done {
            true => Ok(true),
            false if self.starves(step, patience) => Ok(false),
            false => self.feed.fetch(patience),
        };
        self.out.clock.switch(Phase::Ranks);
        // The checkpoint that a pause could not have is tried again, unless the pause is to end.
        let again = asked.hold && matches!(self.held.as_mut().and_then(Pause::due), Some(Due::Checkpoint));
        let word = Word {
            no_batch: !matches!(fetched, Ok(true)),
            stop: asked.stop,
            checkpoint: again || !asked.checkpoints.is_empty() || !asked.pauses.is_empty(),
            hold: asked.hold,
            reload: !asked.reloads.is_empty(),
            failed: fetched.is_err(),
            unstable: None,
        };
        let said = word.say(peers)?;
        Ok(Statement { word, said, fetched })
    }

    /// Rank 0 writes a checkpoint of this boundary by `write`, with every rank's place in the data; all hear what came of it.
    ///
    /// # Errors
    /// A lost rank; on rank 0, what no other rank could do better.
    fn write_together(
        &mut self,
        peers: &Peers,
        write: impl FnOnce(&mut Self) -> Result<PathBuf, TrainError>,
    ) -> Result<Result<PathBuf, String>, TrainError> {
        self.state.places = peers.places(self.state.cursor, self.out.telemetry.train.images.get())?;
        let mut own = None;
        let text = if peers.first() {
            self.hooks.checkpoint.settle();
            match write(self) {
                Ok(path) => format!("+{}", path.display()),
                Err(error) => {
                    let text = format!("-{error}");
                    own = Some(error);
                    text
                }
            }
        } else {
            self.show(State::Checkpointing);
            String::new()
        };
        self.out.clock.switch(Phase::Checkpoint);
        let heard = peers.of_first(text.as_bytes())?;
        self.out.clock.switch(Phase::Other);
        let heard = String::from_utf8_lossy(&heard).into_owned();
        if let Some(path) = heard.strip_prefix('+') {
            return Ok(Ok(PathBuf::from(path)));
        }
        if let Some(error) = own {
            tracing::error!(%error, "a checkpoint could not be written; an older one, if there is any, stands");
        }
        Ok(Err(format!("{}: {}", peers.named(0), heard.trim_start_matches('-'))))
    }

    /// Some rank's data has ended with an error: all write a checkpoint and end, that rank with its error: one rank alone would stand still until the data is back.
    fn end_without_data(&mut self, peers: &Peers, own: Option<PipelineError>) -> Result<TrainError, TrainError> {
        if let Err(error) = self.write_together(peers, Self::checkpoint_within_grace)? {
            tracing::error!(error, "no checkpoint could be written; an older one, if there is any, stands");
        }
        let text = own.as_ref().map(ToString::to_string).unwrap_or_default();
        let texts = peers.gather(text.as_bytes())?;
        let told = first_error(peers, &texts).unwrap_or_default();
        Ok(own.map_or(TrainError::OtherRank(told), TrainError::from))
    }

    /// Rank 0's config with what belongs to this process left as it is.
    fn of_this_process(&self, peers: &Peers, config_toml: &str) -> Result<TrainerSpec, String> {
        let (mut spec, own) = (peers.reread(config_toml)?, &self.setup.spec);
        spec.grace = own.grace;
        spec.pipeline.workers = own.pipeline.workers;
        spec.pipeline.cache_dir.clone_from(&own.pipeline.cache_dir);
        spec.train.threads = own.train.threads;
        Ok(spec)
    }

    /// Takes over rank 0's changed config at this boundary on all ranks, or on none: each builds what it needs and says whether it could.
    ///
    /// # Errors
    /// A lost rank.
    fn reload_together(&mut self, peers: &Peers, own: Option<(Box<TrainerSpec>, Reach, Reply<u64>)>) -> Result<(), TrainError> {
        self.out.clock.switch(Phase::Reload);
        let text = own.as_ref().map(|(spec, reach, _)| match reach {
            Reach::Live => format!("L{}", spec.config_toml),
            Reach::Rebuild => format!("R{}", spec.config_toml),
        });
        let heard = peers.of_first(text.unwrap_or_default().as_bytes())?;
        let heard = String::from_utf8_lossy(&heard).into_owned();
        let reach = if heard.starts_with('R') { Reach::Rebuild } else { Reach::Live };
        let (spec, reply) = match own {
            Some((spec, _, reply)) => (Ok(*spec), Some(reply)),
            None => (self.of_this_process(peers, &heard[1..]), None),
        };
        let prepared = spec.and_then(|spec| self.prepare(spec, reach).map_err(|e| CliError::from(e).with_hint()));
        let vote = prepared.as_ref().err().cloned().unwrap_or_default();
        let votes = peers.gather(vote.as_bytes())?;
        let shards = prepared
            .as_ref()
            .ok()
            .and_then(|p| p.pipeline.as_ref())
            .map_or("", |(feed, _)| feed.shards());
        let lists = peers.gather(shards.as_bytes())?;
        let refusal = first_error(peers, &votes).or_else(|| {
            let other = lists.iter().position(|list| *list != lists[0])?;
            Some(format!("{} finds another list of shards than rank 0", peers.named(other)))
        });
        let answer = match (refusal, prepared) {
            (None, Ok(prepared)) => {
                self.take_over(prepared)?;
                tracing::info!(
                    step = self.state.step,
                    rank = peers.rank(),
                    "all ranks have taken over the changed config"
                );
                Ok(self.state.step)
            }
            (Some(refusal), _) | (None, Err(refusal)) => {
                tracing::warn!(refusal, "no rank takes over the changed config");
                Err(refusal)
            }
        };
        self.out.clock.switch(Phase::Other);
        if let Some(reply) = reply {
            reply.send(answer);
        }
        Ok(())
    }
}
