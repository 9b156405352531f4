//! The stream of undecoded samples: windows of the epoch's sequence, each permuted as a whole, filled ahead by a thread of their own.

use std::sync::Arc;
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, bounded, select};

use super::filler::{Entries, Filler, Window};
use super::plan::permutation;
use super::ranks::Ranks;
use super::reader::PORTION_SAMPLES;
use super::samples::{Grouped, LabelMember};
use super::sequence::{Sequence, SequenceOptions};
use super::window_size::WindowSizes;
use crate::bucket::Bucket;
use crate::cursor::Cursor;
use crate::error::PipelineError;
use crate::seed::{Purpose, rng};
use crate::stage::Stop;

/// In which order, from where, and which part of the samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "one for each stream, and Copy as its cursor is")]
pub enum Order {
    /// One pass in the order of shards and members.
    Sequential,
    /// Every `world`-th sample of that pass.
    EveryOther {
        /// This process.
        rank: u32,
        /// Number of processes.
        world: u32,
    },
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
    /// Extensions of the image, in order of preference; empty = the only picture of a key.
    pub images: Arc<[String]>,
    /// The label map beside the image.
    pub map: LabelMember,
    /// The objects in it.
    pub objects: LabelMember,
    /// Whether two images under one key end the stream: everywhere in a single pass, else in the first window. Later such a sample is dropped
    /// as any bad one: a run that goes on well does not end for it.
    pub refuse_two_images: bool,
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
    ranks: Ranks,
    order: Order,
    ended: bool,
}

impl PositionedStream {
    /// Starts reading; `stop` ends it, and everything else that shares it.
    ///
    /// # Errors
    /// [`PipelineError::BadSetting`] for a rank outside the world or a cursor outside the plan; [`PipelineError::Io`] for threads.
    pub fn start(bucket: Arc<Bucket>, options: &WindowOptions, stop: Stop) -> Result<Self, PipelineError> {
        let (seed, start, ranks) = match options.order {
            Order::Sequential => (None, Cursor::default(), Ranks::ALONE),
            Order::EveryOther { rank, world } => (None, Cursor::default(), Ranks::new(rank, world, 0)?),
            Order::Shuffled { seed, start, rank, world } => (Some(seed), start, Ranks::new(rank, world, start.samples())?),
        };
        let sequence = SequenceOptions {
            seed,
            readers: options.readers.max(1),
            fraction: options.fraction,
            images: Arc::clone(&options.images),
            map: options.map.clone(),
            objects: options.objects.clone(),
            max_member_bytes: options.max_member_bytes,
            stripe: None,
            portion: PORTION_SAMPLES,
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
            single_pass: seed.is_none(),
            refuse_two_images: options.refuse_two_images,
            stop_on_shard_error: options.stop_on_shard_error,
            tokens: token_sender,
            windows: window_sender,
            stop: stop.clone(),
            before: start.before,
            entries: Entries::default(),
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
            ranks,
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
                Order::Sequential | Order::EveryOther { .. } => (0..len).collect(),
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
            // Behind it, all of its row counts as taken, be it in the next window.
            let Some(end) = self.ranks.row_end(start.before + u64::from(place)) else {
                continue;
            };
            let taken = (end - start.before) as u32;
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
