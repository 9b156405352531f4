//! The stream of undecoded samples: windows of the epoch's sequence, each permuted as a whole, filled ahead by a thread of their own.

use std::sync::Arc;
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, bounded, select};

use super::group::Grouped;
use super::plan::permutation;
use super::sequence::{Sequence, SequenceOptions, Step};
use super::window_size::WindowSizes;
use crate::bucket::Bucket;
use crate::cursor::Cursor;
use crate::error::{PipelineError, ShardError};
use crate::metrics::Scheme;
use crate::seed::{Purpose, rng};
use crate::stage::Stop;

/// In which order, from where, and which part of the samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "one for each stream, and Copy as its cursor is")]
pub enum Order {
    /// One pass in the order of shards and members.
    Sequential,
    /// Endless; order a function of (seed, epoch). Each rank gets every `world`-th sample of the one global order.
    Shuffled {
        /// Seed of the run.
        seed: u64,
        /// Where to go on; `Cursor::default()` is the beginning.
        start: Cursor,
        /// This process.
        rank: u32,
        /// Number of processes.
        world: u32,
    },
}

/// What the stream needs to know.
#[derive(Debug, Clone)]
pub struct WindowOptions {
    /// Order of the samples.
    pub order: Order,
    /// Samples permuted among each other; a window that `order` begins in the middle of keeps its size.
    pub window: u32,
    /// Shards open at once.
    pub readers: usize,
    /// Share of samples to keep.
    pub fraction: f64,
    /// Bytes above which an image is refused.
    pub max_member_bytes: u64,
    /// End the stream at the first shard that cannot be read to its end.
    pub stop_on_shard_error: bool,
}

/// A sample and where the stream goes on behind it.
#[derive(Debug)]
pub struct Positioned {
    /// The sample, or why it is none.
    pub sample: Grouped,
    /// Everything up to here is consumed, over all ranks.
    pub cursor: Cursor,
}

struct Window {
    /// Cursor of its first sample, nothing taken.
    start: Cursor,
    samples: Vec<Option<Grouped>>,
}

struct Draining {
    start: Cursor,
    samples: Vec<Option<Grouped>>,
    order: Vec<u32>,
    next: u32,
}

/// Blocking iterator over [`Positioned`] samples. Dropping it stops and joins all its threads.
pub struct PositionedStream {
    windows: Receiver<Result<Window, PipelineError>>,
    /// One token per sample held in windows, so that at most 1¼ windows are in memory.
    tokens: Receiver<()>,
    stop: Stop,
    thread: Option<JoinHandle<()>>,
    current: Option<Draining>,
    /// Samples at the beginning that were taken before the stream began; they may reach beyond the first window.
    taken: u32,
    /// Samples consumed before the stream began, over all ranks.
    origin: u64,
    order: Order,
    ended: bool,
}

impl PositionedStream {
    /// Starts reading; `stop` ends it, and everything else that shares it.
    ///
    /// # Errors
    /// [`PipelineError::BadSetting`] for a rank outside the world or a cursor outside the plan; [`PipelineError::Io`] for threads.
    pub fn start(bucket: Arc<Bucket>, options: &WindowOptions, stop: Stop) -> Result<Self, PipelineError> {
        let (seed, start) = match options.order {
            Order::Sequential => (None, Cursor::default()),
            Order::Shuffled { rank, world, .. } if rank >= world => {
                return Err(PipelineError::BadSetting {
                    key: "rank".into(),
                    value: rank.to_string(),
                    detail: format!("must be below world = {world}"),
                });
            }
            Order::Shuffled { seed, start, .. } => (Some(seed), start),
        };
        let sequence = SequenceOptions {
            seed,
            readers: options.readers.max(1),
            fraction: options.fraction,
            max_member_bytes: options.max_member_bytes,
        };
        let sequence = Sequence::new(
            Arc::clone(&bucket),
            sequence,
            start.epoch,
            start.plan_position,
            start.member,
            stop.clone(),
        )?;
        // A single pass needs no shuffling, so small windows keep its memory and its first sample's delay small.
        let size = if seed.is_some() {
            options.window.max(1)
        } else {
            options.window.clamp(1, 64)
        };
        let sizes = WindowSizes::new(&start, size);
        let most = sizes.largest() as usize;
        let (window_sender, windows) = bounded(1);
        let (token_sender, tokens) = bounded(most + (most / 4).max(1));
        let filler = Filler {
            bucket,
            sequence,
            sizes,
            stop_on_shard_error: options.stop_on_shard_error,
            tokens: token_sender,
            windows: window_sender,
            stop: stop.clone(),
            before: start.before,
        };
        let thread = std::thread::Builder::new()
            .name("window".into())
            .spawn(move || filler.run(start))
            .map_err(|source| PipelineError::Io {
                path: "thread window".into(),
                source,
            })?;
        Ok(Self {
            windows,
            tokens,
            stop,
            thread: Some(thread),
            current: None,
            taken: start.taken,
            origin: start.samples(),
            order: options.order,
            ended: false,
        })
    }

    /// Ends the stream from another thread: a waiting `next` returns `None`.
    #[must_use]
    pub fn stopper(&self) -> Stop {
        self.stop.clone()
    }

    fn next_window(&mut self) -> Option<Result<Draining, PipelineError>> {
        let window = select! {
            recv(self.windows) -> window => window.ok()?,
            recv(self.stop.receiver()) -> _ => return None,
        };
        Some(window.map(|Window { start, samples }| {
            let len = samples.len() as u32;
            let order = match self.order {
                Order::Sequential => (0..len).collect(),
                Order::Shuffled { seed, .. } => {
                    let place = (u64::from(start.plan_position) << 32) | u64::from(start.member);
                    permutation(len, &mut rng(seed, Purpose::WindowOrder, u64::from(start.epoch), place))
                }
            };
            let mut draining = Draining {
                start,
                samples,
                order,
                next: 0,
            };
            let passed = self.taken.min(len);
            self.taken -= passed;
            for _ in 0..passed {
                drop(draining.take(&self.tokens));
            }
            draining
        }))
    }
}

impl Draining {
    fn take(&mut self, tokens: &Receiver<()>) -> Option<(u32, Grouped)> {
        let place = self.next;
        let index = *self.order.get(place as usize)?;
        self.next += 1;
        let _ = tokens.try_recv();
        Some((place, self.samples[index as usize].take()?))
    }
}

impl Iterator for PositionedStream {
    type Item = Result<Positioned, PipelineError>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.ended {
            let Some(current) = &mut self.current else {
                match self.next_window() {
                    Some(Ok(window)) => self.current = Some(window),
                    Some(Err(error)) => {
                        self.ended = true;
                        return Some(Err(error));
                    }
                    None => self.ended = true,
                }
                continue;
            };
            let Some((place, sample)) = current.take(&self.tokens) else {
                self.current = None;
                continue;
            };
            let start = current.start;
            let taken = match self.order {
                Order::Sequential => place + 1,
                Order::Shuffled { rank, world, .. } => {
                    // Rows are counted from where this stream began, so that all ranks of any world are at the same row.
                    let row_start = self.origin;
                    let number = start.before + u64::from(place) - row_start;
                    if number % u64::from(world) != u64::from(rank) {
                        continue;
                    }
                    // All ranks take one sample of a row of `world`; behind it, all of the row counts as taken, be it in the next window.
                    (row_start + (number / u64::from(world) + 1) * u64::from(world) - start.before) as u32
                }
            };
            return Some(Ok(Positioned {
                sample,
                cursor: Cursor { taken, ..start },
            }));
        }
        None
    }
}

impl Drop for PositionedStream {
    fn drop(&mut self) {
        self.stop.trigger();
        if let Some(thread) = self.thread.take() {
            // Its panic was seen as the stream's end by then.
            let _ = thread.join();
        }
    }
}

/// Fills windows ahead of their consumer.
struct Filler {
    bucket: Arc<Bucket>,
    sequence: Sequence,
    sizes: WindowSizes,
    stop_on_shard_error: bool,
    tokens: Sender<()>,
    windows: Sender<Result<Window, PipelineError>>,
    stop: Stop,
    before: u64,
}

impl Filler {
    fn run(mut self, start: Cursor) {
        if let Err(error) = self.fill(start) {
            self.send(Err(error));
        }
    }

    fn fill(&mut self, start: Cursor) -> Result<(), PipelineError> {
        let mut samples: Vec<Option<Grouped>> = vec![];
        let mut first = start;
        // Whether anything of this epoch was seen; a resume in its middle counts as having seen something.
        let mut lively = start.plan_position > 0 || start.member > 0;
        let mut last_error = None;
        loop {
            let over = match self.sequence.step()? {
                Step::Sample(position, sample) => {
                    lively = true;
                    if samples.is_empty() {
                        let id = match &sample {
                            Ok(sample) => sample.id,
                            Err(rejected) => rejected.id,
                        };
                        first = Cursor {
                            epoch: id.epoch,
                            plan_position: position,
                            member: id.member,
                            taken: 0,
                            before: self.before,
                            window: self.sizes.current(),
                            ..Cursor::default()
                        };
                    }
                    select! {
                        send(self.tokens, ()) -> sent => if sent.is_err() { return Ok(()) },
                        recv(self.stop.receiver()) -> _ => return Ok(()),
                    }
                    samples.push(Some(sample));
                    if (samples.len() as u32) < self.sizes.current() {
                        continue;
                    }
                    false
                }
                Step::ShardFailed(error) => {
                    self.bucket.metrics().shard_error(&error);
                    tracing::warn!(reason = error.reason(), "{}", error.to_string().escape_debug());
                    // Refused credentials concern the whole place: going on would pass over the data of the rest of the run.
                    let denied = matches!(error, ShardError::Denied { .. }) && self.bucket.scheme != Scheme::File;
                    if self.stop_on_shard_error || denied {
                        return Err(error.into());
                    }
                    last_error = Some(error);
                    continue;
                }
                Step::EpochEnd(epoch) => {
                    if !std::mem::take(&mut lively) {
                        return Err(self.nothing(epoch, last_error));
                    }
                    false
                }
                Step::End => true,
            };
            if !samples.is_empty() {
                first.next_window = self.sizes.filled(samples.len() as u32);
                let window = Window {
                    start: first,
                    samples: std::mem::take(&mut samples),
                };
                self.before += window.samples.len() as u64;
                if !self.send(Ok(window)) {
                    return Ok(());
                }
            }
            if over {
                return Ok(());
            }
        }
    }

    fn send(&self, window: Result<Window, PipelineError>) -> bool {
        select! {
            send(self.windows, window) -> sent => sent.is_ok(),
            recv(self.stop.receiver()) -> _ => false,
        }
    }

    /// An epoch without a sample would repeat for ever.
    fn nothing(&self, epoch: u32, error: Option<ShardError>) -> PipelineError {
        error.map_or_else(
            || PipelineError::Empty {
                url: self.bucket.shards[0].path.to_string(),
                detail: format!(
                    "epoch {epoch} read {} shards and found no sample that data.fraction keeps",
                    self.bucket.shards.len()
                ),
            },
            PipelineError::from,
        )
    }
}
