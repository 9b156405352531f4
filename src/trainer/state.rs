//! What a run is at a step boundary: everything that a step changes. With the counters of `/metrics` and the config it is all that a checkpoint holds.

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;

use splitmask_pipeline::cursor::Cursor;
use tch::{Device, Tensor, nn};

use super::error::TrainError;
use super::meter::{Meter, WordUsage};
use super::resume;
use super::spec::TrainerSpec;
use super::stability::Ladder;
use super::step::recordings::Recordings;
use crate::checkpoint::{Progress, Snapshot};
use crate::eval::patience::Patience;
use crate::eval::{EvalError, fenced};
use crate::objective::Objective;
use crate::optim::Weights;
use crate::optim::{AdamW, Ema};
use crate::telemetry::metrics::TrainMetrics;
use crate::words::Words;

/// What losses have a gradient for.
pub(super) struct Trained {
    /// Parameters by name, in its order.
    pub(super) named: Vec<(String, Tensor)>,
    /// Steps done when there will be more, where some are still frozen.
    pub(super) more_at: Option<u64>,
}

/// The state of a run between two steps.
pub(super) struct RunState {
    /// Optimizer steps done.
    pub(super) step: u64,
    /// Where the data goes on behind the last trained batch.
    pub(super) cursor: Cursor,
    /// Of each of several ranks: where its data goes on, and the images that it counted; as gathered for the checkpoint that is written now.
    pub(super) places: Vec<(Cursor, u64)>,
    /// The parameters of `objective`.
    pub(super) vars: nn::VarStore,
    /// The network, on top of `vars`.
    pub(super) objective: Box<dyn Objective>,
    /// With the moments of `vars`.
    pub(super) optimizer: AdamW,
    /// Averages of `vars`, if the run keeps them.
    pub(super) ema: Option<Ema>,
    /// Sums of the running log interval.
    pub(super) meter: Meter,
    /// How often each visual word came lately.
    pub(super) usage: WordUsage,
    /// The best evaluation, and how many came after it.
    pub(super) patience: Patience,
    /// Tells apart lists of shards: that of the data which is read.
    pub(super) shards: String,
    /// Log intervals in a row for which a rule of collapse held, by its name.
    pub(super) collapsed: BTreeMap<String, u64>,
    /// Losses and norms of the latest steps, and the rollbacks so far.
    pub(super) ladder: Ladder,
    /// Micro-batches that a batch is processed in; 0 = to be found at the first step.
    pub(super) micro_batches: usize,
    /// Where the batches since the last stability check began, oldest first: one of them may have to be read again for the replay folder. No
    /// checkpoint holds it: a run that is resumed can only replay what it has read itself.
    pub(super) trail: VecDeque<Cursor>,
    /// Steps recorded as CUDA graphs: in no checkpoint either, for they change no number.
    pub(super) recordings: Recordings,
}

/// What to say where a checkpoint was trained on another list of shards.
pub(super) const OTHER_SHARDS: &str =
    "the shards are others than before (their names, sizes or numbers of samples): training goes on at the same place in the new list";

impl RunState {
    /// That of a new run, its weights drawn from the seed. Averages begin with [`RunState::begin_averages`], once the weights are those to start from.
    pub(super) fn new(spec: &TrainerSpec, device: Device, words: &Words) -> Self {
        let scope = spec.scope(words.len());
        tch::manual_seed(spec.seed as i64);
        let vars = nn::VarStore::new(device);
        let objective = spec.objective.build(&vars.root(), &scope);
        let optimizer = AdamW::new(vars.variables(), |name, dims| objective.rule(name, dims), &spec.optim);
        Self {
            step: 0,
            cursor: Cursor::default(),
            places: Vec::new(),
            vars,
            objective,
            optimizer,
            ema: None,
            meter: Meter::default(),
            usage: WordUsage::new(words.len()),
            patience: Patience::default(),
            shards: String::new(),
            collapsed: BTreeMap::new(),
            ladder: Ladder::default(),
            micro_batches: spec.train.accumulate as usize,
            trail: VecDeque::new(),
            recordings: Recordings::default(),
        }
    }

    /// Goes on from a checkpoint in `folder`.
    ///
    /// # Errors
    /// [`crate::checkpoint::CheckpointError::Mismatch`] saying what differs from this config's model; the state is then of no use.
    pub(super) fn restore(&mut self, folder: &Path, snapshot: &Snapshot, spec: &TrainerSpec, words: &Words) -> Result<(), TrainError> {
        resume::restore(folder, snapshot, &self.vars, &mut self.optimizer, words, spec)?;
        self.begin_averages(folder, &snapshot.model, spec)
    }

    /// Takes over what a checkpoint holds besides tensors; data goes on at `cursor`, with `images` of each batch for this process.
    pub(super) fn take_progress(&mut self, p: Progress, cursor: Cursor, images: u32, spec: &TrainerSpec) {
        self.step = p.step;
        self.cursor = cursor;
        self.meter = Meter::restore(&p.meter);
        self.usage = WordUsage::restore(p.word_counts, p.token_entropy, p.codebook_perplexity);
        self.patience = p.patience;
        self.shards = p.shards;
        self.collapsed = p.collapsed;
        self.ladder = Ladder::restore(p.stability);
        // A number that was found once stays, so that a resumed run computes alike; one that the config names is taken anew.
        let found = p.micro_batches.max(spec.train.accumulate);
        if images.is_multiple_of(found.max(1)) {
            self.micro_batches = found as usize;
        }
    }

    /// Takes note of the list of shards that is read from here on; answers whether another one was before.
    pub(super) fn take_shards(&mut self, shards: &str) -> bool {
        let others = !self.shards.is_empty() && self.shards != shards;
        shards.clone_into(&mut self.shards);
        others
    }

    /// Everything that must be the same on all ranks: parameters and buffers, moments, averages. Shares storage.
    pub(super) fn tensors(&self) -> Vec<(String, Tensor)> {
        let mut all: Vec<(String, Tensor)> = self.vars.variables().into_iter().collect();
        all.extend(self.optimizer.state().into_iter().map(|(name, t)| (format!("optimizer.{name}"), t)));
        all.extend(self.ema.iter().flat_map(Ema::state));
        all
    }

    /// What the next step trains.
    pub(super) fn trained(&self) -> Trained {
        let mut named: Vec<(String, Tensor)> = self.vars.variables().into_iter().filter(|(_, t)| t.requires_grad()).collect();
        named.sort_by(|a, b| a.0.cmp(&b.0));
        let begins = |name: &str| self.objective.frozen_until(name);
        let more_at = named.iter().map(|(name, _)| begins(name)).filter(|at| *at > self.step).min();
        named.retain(|(name, _)| begins(name) <= self.step);
        Trained { named, more_at }
    }

    /// Begins the averages of the weights, if the run keeps them: with those among `saved`, else as the weights are now.
    ///
    /// # Errors
    /// Averages of another model, or what libtorch said.
    pub(super) fn begin_averages(&mut self, folder: &Path, saved: &[(String, Tensor)], spec: &TrainerSpec) -> Result<(), TrainError> {
        if spec.ema.decay > 0.0 {
            let mut ema = Ema::new(self.vars.variables());
            ema.load(saved).map_err(|e| resume::unfit(folder, e))?;
            self.ema = Some(ema);
        }
        Ok(())
    }

    /// Number, counted from 1, of the step that took the batch `consumed`. Holds for batches since the last rollback.
    pub(super) fn step_of(&self, consumed: u64) -> u64 {
        self.step.saturating_sub(self.ladder.consumed().saturating_sub(consumed))
    }

    /// A copy on the CPU, for a checkpoint. Losses and norms must have been read from the device before.
    pub(super) fn snapshot(&mut self, spec: &TrainerSpec, words: &Words, metrics: &TrainMetrics) -> Snapshot {
        let copy = |t: &Tensor| t.detach().to_device(Device::Cpu).copy();
        let mut model: Vec<(String, Tensor)> = self.vars.variables().iter().map(|(name, t)| (name.clone(), copy(t))).collect();
        model.extend(self.ema.iter().flat_map(Ema::state).map(|(name, t)| (name, copy(&t))));
        model.sort_by(|a, b| a.0.cmp(&b.0));
        let optimizer = self.optimizer.state().into_iter().map(|(name, t)| (name, copy(&t))).collect();
        let (word_counts, token_entropy, codebook_perplexity) = self.usage.save();
        let mut counters = metrics.snapshot();
        if !self.places.is_empty() {
            let images = self.places.iter().map(|(_, images)| *images as f64).sum();
            counters.insert(metrics.images_name(), images);
        }
        let lowest = self.places.iter().map(|(cursor, _)| *cursor).min_by_key(Cursor::samples);
        let progress = Progress {
            step: self.step,
            cursor: lowest.unwrap_or(self.cursor),
            cursors: self.places.iter().map(|(cursor, _)| *cursor).collect(),
            counters,
            meter: self.meter.save(),
            word_counts,
            token_entropy,
            codebook_perplexity,
            codebook: words.id(),
            classes: spec.labels.names.clone(),
            patience: self.patience,
            shards: self.shards.clone(),
            collapsed: self.collapsed.clone(),
            stability: self.ladder.save(),
            // Only where it is not the config's own.
            micro_batches: if self.micro_batches == spec.train.accumulate as usize {
                0
            } else {
                self.micro_batches as u32
            },
        };
        Snapshot {
            model,
            optimizer,
            progress,
            config_toml: spec.config_toml.clone(),
        }
    }

    /// Does `work` behind a fence, with the averaged weights in place of the trained ones if `weights` says so and there are any.
    ///
    /// # Errors
    /// Those of `work`, a panic of it, or no room for the exchange; the trained weights are in place again in any case.
    pub(super) fn fenced_with<T>(&mut self, weights: Weights, work: impl FnOnce(&Self) -> Result<T, EvalError>) -> Result<T, EvalError> {
        let averaged = weights == Weights::Ema && self.ema.is_some();
        if averaged {
            self.swap_averages()?;
        }
        let done = fenced(|| work(self));
        if averaged {
            // What was exchanged once can be exchanged back; if not, the weights are not those of the run any more, and it must end.
            self.swap_averages().expect("the trained weights are put back");
        }
        done
    }

    fn swap_averages(&mut self) -> Result<(), EvalError> {
        self.ema.as_mut().map_or(Ok(()), |ema| Ok(ema.swap()?))
    }
}

#[cfg(test)]
mod tests;
