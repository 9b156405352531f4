//! The epoch as one sequence: shards in plan order, several open ahead, joined end to end.

use std::collections::VecDeque;
use std::sync::Arc;

use crossbeam_channel::select;

use super::plan::ShardPlan;
use super::reader::{OpenShard, Portion};
use super::samples::{Grouped, LabelMember, SampleOptions};
use super::stripes::{Part, Stripes};
use super::subset::Balance;
use super::tally::Tally;
use crate::bucket::Bucket;
use crate::error::{PipelineError, ShardError};
use crate::stage::Stop;

/// Which samples, in which order of shards.
#[derive(Debug, Clone)]
pub struct SequenceOptions {
    /// Seed of the shard order; `None` = one pass in index order.
    pub seed: Option<u64>,
    /// Shards open at once.
    pub readers: usize,
    /// Share of samples to keep.
    pub fraction: f64,
    /// Extensions of the image, in order of preference; empty = the only picture of a key.
    pub images: Arc<[String]>,
    /// The label map beside the image.
    pub map: LabelMember,
    /// The objects in it.
    pub objects: LabelMember,
    /// Bytes above which an image is refused.
    pub max_member_bytes: u64,
    /// One stripe of the epoch alone; `None` = all of it.
    pub stripe: Option<(Arc<Stripes>, u32)>,
    /// Samples that a reader hands over together. With 1, each is preceded by exactly its own [`Step::Entries`].
    pub portion: usize,
}

/// What comes next.
#[derive(Debug)]
pub enum Step {
    /// The entries that the next samples, and what lies between them, were made of.
    Entries(Tally),
    /// A sample, and the place of its shard in the epoch's plan.
    Sample(u32, Grouped),
    /// A shard ended early; the next one follows.
    ShardFailed(ShardError),
    /// All shards of this epoch are done; the next epoch follows.
    EpochEnd(u32),
    /// The single pass is over, or the stop was triggered.
    End,
}

struct Ahead {
    epoch: u32,
    position: u32,
    last_of_epoch: bool,
    shard: OpenShard,
    samples: std::vec::IntoIter<Grouped>,
    /// How it ended behind `samples`.
    end: Option<Result<(), ShardError>>,
}

/// Reads shards in plan order, `readers` at a time.
pub struct Sequence {
    bucket: Arc<Bucket>,
    options: SequenceOptions,
    balance: Option<Arc<Balance>>,
    /// Classes of the manifest, if it names any.
    classes: Option<u32>,
    stop: Stop,
    /// What this epoch reads, in order.
    parts: Vec<Part>,
    /// Next one to open; the first `skip` samples of its shard are passed over.
    epoch: u32,
    position: u32,
    skip: u32,
    exhausted: bool,
    open: VecDeque<Ahead>,
}

impl Sequence {
    /// Starts at a shard of an epoch's plan, `skip` samples into it.
    ///
    /// # Errors
    /// [`PipelineError::BadSetting`] if the plan has no such place: the shards are not those of the checkpoint.
    pub fn new(
        bucket: Arc<Bucket>,
        options: SequenceOptions,
        epoch: u32,
        position: u32,
        skip: u32,
        stop: Stop,
    ) -> Result<Self, PipelineError> {
        let parts = parts(&options, epoch, bucket.shards.len() as u32);
        if position as usize >= parts.len() {
            return Err(PipelineError::BadSetting {
                key: "cursor.plan_position".into(),
                value: position.to_string(),
                detail: format!(
                    "the place has {} shards; it is not the one this position was taken from",
                    bucket.shards.len()
                ),
            });
        }
        let balance = bucket.manifest.as_ref().filter(|_| options.fraction < 1.0);
        let balance = balance.map(|m| Arc::new(Balance::new(options.fraction, &m.label_counts, m.samples())));
        let classes = bucket.manifest.as_ref().map(|m| m.classes.len() as u32).filter(|n| *n > 0);
        Ok(Self {
            balance,
            classes,
            bucket,
            options,
            stop,
            parts,
            epoch,
            position,
            skip,
            exhausted: false,
            open: VecDeque::new(),
        })
    }

    /// The next step; waits for it.
    ///
    /// # Errors
    /// [`PipelineError::Io`] if a thread cannot be started.
    pub fn step(&mut self) -> Result<Step, PipelineError> {
        loop {
            self.open_ahead()?;
            let Some(front) = self.open.front_mut() else {
                return Ok(Step::End);
            };
            if let Some(sample) = front.samples.next() {
                return Ok(Step::Sample(front.position, sample));
            }
            match front.end.take() {
                // Reported once, behind the samples before it; the shard is done at the next step.
                Some(Err(error)) => {
                    front.end = Some(Ok(()));
                    return Ok(Step::ShardFailed(error));
                }
                Some(Ok(())) => {
                    let (epoch, last) = (front.epoch, front.last_of_epoch);
                    self.open.pop_front();
                    if last {
                        return Ok(Step::EpochEnd(epoch));
                    }
                }
                None => {
                    let portion = select! {
                        recv(front.shard.portions) -> portion => portion,
                        recv(self.stop.receiver()) -> _ => return Ok(Step::End),
                    };
                    let Portion { samples, tally, end } = portion.map_err(|_| PipelineError::Broken {
                        stage: "read",
                        detail: format!("the reader at place {} of the plan ended without a word", front.position),
                    })?;
                    front.samples = samples.into_iter();
                    front.end = end;
                    if !tally.is_empty() {
                        return Ok(Step::Entries(tally));
                    }
                }
            }
        }
    }

    fn open_ahead(&mut self) -> Result<(), PipelineError> {
        while self.open.len() < self.options.readers && !self.exhausted && !self.stop.is_triggered() {
            let Part { shard: index, from, until } = self.parts[self.position as usize];
            let options = SampleOptions {
                epoch: self.epoch,
                shard: index,
                path: Arc::clone(&self.bucket.shards[index as usize].path),
                skip: std::mem::take(&mut self.skip).max(from),
                until,
                fraction: self.options.fraction,
                balance: self.balance.clone(),
                images: Arc::clone(&self.options.images),
                map: self.options.map.clone(),
                objects: self.options.objects.clone(),
                classes: self.classes,
                max_member_bytes: self.options.max_member_bytes,
            };
            let shard = OpenShard::start(Arc::clone(&self.bucket), options, self.options.portion).map_err(|source| PipelineError::Io {
                path: "reader thread".into(),
                source,
            })?;
            let last_of_epoch = self.position as usize + 1 == self.parts.len();
            self.open.push_back(Ahead {
                epoch: self.epoch,
                position: self.position,
                last_of_epoch,
                shard,
                samples: vec![].into_iter(),
                end: None,
            });
            self.position += 1;
            if last_of_epoch {
                self.exhausted = self.options.seed.is_none();
                self.epoch += 1;
                self.position = 0;
                self.parts = parts(&self.options, self.epoch, self.bucket.shards.len() as u32);
            }
        }
        Ok(())
    }
}

fn parts(options: &SequenceOptions, epoch: u32, shards: u32) -> Vec<Part> {
    let plan = options
        .seed
        .map_or_else(|| ShardPlan::sequential(shards), |seed| ShardPlan::shuffled(seed, epoch, shards));
    match &options.stripe {
        Some((stripes, number)) => stripes.parts(&plan, *number),
        None => plan.shards().map(Part::whole).collect(),
    }
}
