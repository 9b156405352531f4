//! The other ranks, as a trainer sees them: gradients, sums, and what all must know.

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tch::{Kind, Tensor};
use torch_ext::ranks::{BUCKET_BYTES, Part, Ranks, Reduce, Reducer, Tick};

use super::pace::Pace;
use crate::tensor::SentBatch;
use crate::trainer::error::TrainError;
use crate::trainer::spec::TrainerSpec;
use crate::trainer::state::Trained;

/// Makes of rank 0's config, as TOML, what a trainer of this process is built from. The error is for people.
pub(super) type Reread = dyn Fn(&str) -> Result<TrainerSpec, String> + Send + Sync;

/// Numbers that are on their way to the other ranks.
pub(in crate::trainer) struct Said {
    tick: Tick,
    /// How long sending them took.
    took: Duration,
}

/// All ranks of a run, seen from one of them. Every rank makes the same calls in the same order.
pub(in crate::trainer) struct Peers {
    // Dropped first: it uses the connections.
    reducer: RefCell<Option<Reducer>>,
    /// Steps done when parameters are trained that the reducer does not know yet.
    more_at: Cell<Option<u64>>,
    pace: RefCell<Pace>,
    /// Whether a step was asked for.
    begun: Cell<bool>,
    /// How long the last word between two steps took here, nanoseconds.
    last_tick: Cell<i64>,
    ranks: Ranks,
    reread: Arc<Reread>,
}

impl Peers {
    pub(super) fn new(ranks: Ranks, reread: Arc<Reread>) -> Self {
        Self {
            reducer: RefCell::new(None),
            more_at: Cell::new(None),
            pace: RefCell::default(),
            begun: Cell::new(false),
            last_tick: Cell::new(0),
            ranks,
            reread,
        }
    }

    /// What asks all ranks from inside of a pass.
    pub(in crate::trainer) fn ranks(&self) -> &Ranks {
        &self.ranks
    }

    /// This rank's number, from 0.
    pub(in crate::trainer) fn rank(&self) -> usize {
        self.ranks.rank()
    }

    /// How many there are.
    pub(in crate::trainer) fn world(&self) -> usize {
        self.ranks.world()
    }

    /// Whether this is the rank that writes and answers.
    pub(in crate::trainer) fn first(&self) -> bool {
        self.rank() == 0
    }

    /// A rank with its host, for messages.
    pub(in crate::trainer) fn named(&self, rank: usize) -> String {
        let host = self.ranks.members().get(rank).map_or("?", |m| m.host.as_str());
        format!("rank {rank} on host {host}")
    }

    /// What rank 0's config makes of this rank's spec.
    ///
    /// # Errors
    /// What this process cannot make of it, in words.
    pub(in crate::trainer) fn reread(&self, config_toml: &str) -> Result<TrainerSpec, String> {
        (self.reread)(config_toml)
    }

    /// From here on the gradients of these parameters are averaged in [`Peers::backward`].
    ///
    /// # Errors
    /// Parameters that are not the same on all ranks, or a lost rank.
    pub(in crate::trainer) fn reduce(&self, trained: &Trained) -> Result<(), TrainError> {
        // The one of before goes first.
        self.reducer.replace(None);
        self.reducer.replace(Some(Reducer::new(&self.ranks, &trained.named, BUCKET_BYTES)?));
        self.more_at.set(trained.more_at);
        Ok(())
    }

    /// Whether, after so many steps, more parameters are trained than [`Peers::reduce`] was told of.
    pub(in crate::trainer) fn trains_more_at(&self, step: u64) -> bool {
        self.more_at.get().is_some_and(|at| step >= at)
    }

    /// The parameters of before are no longer trained.
    pub(in crate::trainer) fn release(&self) {
        self.reducer.replace(None);
        // What begins behind a rollback is tried anew: its checkpoint may be older than the parts that the ranks came to.
        self.begun.set(false);
    }

    /// Whether this is the first call in this process, or behind a rollback.
    pub(in crate::trainer) fn begins_first_step(&self) -> bool {
        !self.begun.replace(true)
    }

    /// Before the first forward pass of a step.
    ///
    /// # Errors
    /// A lost rank.
    pub(in crate::trainer) fn begin_step(&self) -> Result<(), TrainError> {
        self.with_reducer(Reducer::begin)?;
        self.pace.borrow_mut().begin(Instant::now(), self.ranks.waited());
        Ok(())
    }

    /// Backward of one part of a step; behind the last one all gradients are means over the ranks.
    ///
    /// # Errors
    /// A lost rank, a parameter without gradient, or what libtorch said.
    pub(in crate::trainer) fn backward(&self, loss: &Tensor, last: bool) -> Result<(), TrainError> {
        let part = if last { Part::Last } else { Part::More };
        self.with_reducer(|reducer| reducer.backward(loss, part))?;
        if last {
            self.pace.borrow_mut().end(Instant::now(), self.ranks.waited());
        }
        Ok(())
    }

    /// How long this rank's part of the steps took since the last call.
    pub(in crate::trainer) fn take_pace(&self) -> Pace {
        self.pace.borrow_mut().take(self.ranks.waited())
    }

    /// What every rank says of its steps, in their order: seconds of own work in one.
    ///
    /// # Errors
    /// A lost rank.
    pub(in crate::trainer) fn paces(&self, own: f64) -> Result<Vec<f64>, TrainError> {
        let all = self.gather(&own.to_le_bytes())?;
        let number = |bytes: &Vec<u8>| f64::from_le_bytes(bytes.as_slice().try_into().expect("eight bytes were sent"));
        Ok(all.iter().map(number).collect())
    }

    fn with_reducer(&self, call: impl FnOnce(&mut Reducer) -> Result<(), torch_ext::ranks::RanksError>) -> Result<(), TrainError> {
        let mut reducer = self.reducer.borrow_mut();
        Ok(call(reducer.as_mut().expect("a step comes behind Peers::reduce"))?)
    }

    /// Numbers of a step in one message: the mean of each scalar over the ranks, in f64, and the sum of each histogram (i64).
    ///
    /// # Errors
    /// A lost rank, or what libtorch said.
    pub(in crate::trainer) fn sum_up(&self, scalars: &mut [&mut Tensor], counts: &mut [&mut Tensor]) -> Result<(), TrainError> {
        let flat = |list: &[&mut Tensor], kind: Kind| -> Result<Option<Tensor>, TrainError> {
            let list: Vec<Tensor> = list.iter().map(|t| t.detach().to_kind(kind).flatten(0, -1)).collect();
            Ok((!list.is_empty()).then(|| Tensor::f_cat(&list, 0)).transpose()?)
        };
        let (means, sums) = (flat(scalars, Kind::Double)?, flat(counts, Kind::Int64)?);
        let both = means.iter().map(|t| (t, Reduce::Mean)).chain(sums.iter().map(|t| (t, Reduce::Sum)));
        self.ranks.all_reduce(&both.collect::<Vec<_>>())?;
        put_back(means.as_ref(), scalars);
        put_back(sums.as_ref(), counts);
        Ok(())
    }

    /// Descriptors of all ranks' images in the order of the batch (branches × W·n × width) from this rank's n, without a gradient.
    ///
    /// # Errors
    /// A lost rank, or what libtorch said.
    pub(in crate::trainer) fn whole_batch(&self, described: &Tensor) -> Result<Tensor, TrainError> {
        let (branches, n, width) = described.size3()?;
        if width == 0 {
            // Nothing is compared, and nothing need travel.
            return Ok(described.detach().f_expand([branches, n * self.world() as i64, 0], false)?);
        }
        let all = self.ranks.gather(&described.detach().contiguous())?;
        // Rank r has the images r, r + W, … of the batch.
        Ok(all.f_permute([1, 2, 0, 3])?.f_reshape([branches, n * self.world() as i64, width])?)
    }

    /// This rank's share of what belongs to the images of the whole batch (branches × W·n × width).
    pub(in crate::trainer) fn own_images(&self, whole: &Tensor) -> Tensor {
        let (rank, world) = (self.rank() as i64, self.world() as i64);
        whole.slice(1, rank, None, world)
    }

    /// The rank that has the images which this rank's are mixed with: image i of a batch of B is with image B−1−i.
    pub(in crate::trainer) fn partner(&self) -> usize {
        self.world() - 1 - self.rank()
    }

    /// The partner's images where this rank has `own`.
    ///
    /// # Errors
    /// A lost rank, or what libtorch said.
    pub(in crate::trainer) fn partners(&self, own: &SentBatch) -> Result<SentBatch, TrainError> {
        Ok(own.counterpart(|t| self.ranks.exchange(t, self.partner()))?)
    }

    /// Labels of the whole batch in its order (i64 W·n).
    ///
    /// # Errors
    /// A lost rank, or what libtorch said.
    pub(in crate::trainer) fn all_labels(&self, own: &SentBatch) -> Result<Tensor, TrainError> {
        Ok(self.ranks.gather(own.labels())?.tr().f_reshape([-1])?)
    }

    /// The largest of each number over all ranks.
    ///
    /// # Errors
    /// A lost rank.
    pub(in crate::trainer) fn tick(&self, word: &[i64]) -> Result<Vec<i64>, TrainError> {
        self.hear(self.say(word)?)
    }

    /// Sends numbers of which [`Peers::hear`] tells the largest over all ranks; does not wait.
    ///
    /// Every rank adds how long the word before this one took it. The shortest of these times is that of the rank that came last and waited for nobody,
    /// so it is what the word takes by itself.
    ///
    /// # Errors
    /// A lost rank.
    pub(super) fn say(&self, word: &[i64]) -> Result<Said, TrainError> {
        let began = Instant::now();
        let mut said = word.to_vec();
        // The largest of the negative is the smallest.
        said.push(-self.last_tick.get());
        let tick = self.ranks.begin_tick(&said)?;
        Ok(Said {
            tick,
            took: began.elapsed(),
        })
    }

    /// Waits until all have said it.
    ///
    /// # Errors
    /// A lost rank.
    pub(super) fn hear(&self, said: Said) -> Result<Vec<i64>, TrainError> {
        let began = Instant::now();
        let mut heard = said.tick.finish()?;
        let least = heard.pop().map_or(0, |longest| -longest);
        let whole = said.took + began.elapsed();
        self.last_tick.set(whole.as_nanos() as i64);
        self.pace.borrow_mut().ticked(whole, Duration::from_nanos(least.unsigned_abs()));
        Ok(heard)
    }

    /// What every rank says, in their order.
    ///
    /// # Errors
    /// A lost rank.
    pub(in crate::trainer) fn gather(&self, bytes: &[u8]) -> Result<Vec<Vec<u8>>, TrainError> {
        Ok(self.ranks.gather_bytes(bytes)?)
    }

    /// What rank 0 says; the others' is not sent.
    ///
    /// # Errors
    /// A lost rank.
    pub(in crate::trainer) fn of_first(&self, bytes: &[u8]) -> Result<Vec<u8>, TrainError> {
        let own = if self.first() { bytes } else { &[] };
        let mut all = self.gather(own)?;
        Ok(all.swap_remove(0))
    }

    /// Refuses ranks that say something else of `what` than rank 0.
    ///
    /// # Errors
    /// [`torch_ext::ranks::RanksError::Misfit`] naming who differs, on all ranks; a lost rank.
    pub(in crate::trainer) fn agree(&self, what: &str, text: &str) -> Result<(), TrainError> {
        Ok(self.ranks.agree(what, text)?)
    }

    /// Overwrites the tensors with rank 0's.
    ///
    /// # Errors
    /// A lost rank, or what libtorch said.
    pub(super) fn broadcast(&self, tensors: &[Tensor]) -> Result<(), TrainError> {
        Ok(self.ranks.broadcast(tensors)?)
    }

    /// Ends the run if the weights are no longer the same on all ranks, bit for bit.
    ///
    /// # Errors
    /// [`torch_ext::ranks::RanksError::Drift`], a lost rank.
    pub(in crate::trainer) fn compare(&self, named: &[(String, Tensor)]) -> Result<(), TrainError> {
        Ok(self.ranks.compare(named)?)
    }

    /// The orderly end, made by all: nobody fails because this rank goes.
    ///
    /// # Errors
    /// A rank was lost before.
    pub(in crate::trainer) fn leave(self) -> Result<(), TrainError> {
        drop(self.reducer);
        Ok(self.ranks.leave()?)
    }

    /// This rank ends: says why to the others.
    pub(in crate::trainer) fn fail(&self, why: &str) {
        self.ranks.fail(why);
    }
}

/// Replaces each tensor by its part of `whole`, in which all of them lie one after the other.
fn put_back(whole: Option<&Tensor>, list: &mut [&mut Tensor]) {
    let Some(whole) = whole else { return };
    let mut at = 0;
    for t in list.iter_mut() {
        let (n, shape) = (t.numel() as i64, t.size());
        **t = whole.narrow(0, at, n).view(shape.as_slice()).copy();
        at += n;
    }
}
