//! The stream of undecoded samples where an epoch is cut into stripes: each process reads its own ones and nothing else.

use std::sync::Arc;
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, bounded, select};

use super::filler::{Entries, no_sample, passed_over};
use super::plan::{ShardPlan, permutation};
use super::ranks::Ranks;
use super::reader::PORTION_SAMPLES;
use super::samples::Grouped;
use super::sequence::{Sequence, SequenceOptions, Step};
use super::stripes::{Part, Place, Stripes};
use super::window::{Order, Positioned, WindowOptions};
use crate::bucket::Bucket;
use crate::cursor::Cursor;
use crate::error::PipelineError;
use crate::seed::{Purpose, derive, rng};
use crate::stage::Stop;

/// Samples of a stripe that are permuted among each other; where the manifest counts one that is not there, there is none.
struct Window {
    epoch: u32,
    number: u64,
    samples: Vec<Option<Grouped>>,
}

/// One stripe: its reader, and the window that is being emptied.
struct Stripe {
    number: u32,
    windows: Receiver<Result<Window, PipelineError>>,
    /// One token per sample held, so that at most 1¼ windows are in memory.
    tokens: Receiver<()>,
    thread: Option<JoinHandle<()>>,
    current: Option<(Window, Vec<u32>)>,
}

/// Blocking iterator over [`Positioned`] samples, as [`PositionedStream`](super::window::PositionedStream). Dropping it stops and joins all its threads.
///
/// Its cursors hold the number of samples consumed over all processes, from which every stripe's place follows. A sample that the manifest counts and
/// that is not there counts as consumed, so the places stay right in shards that cannot be read.
pub struct StripedStream {
    stripes: Arc<Stripes>,
    own: Vec<Stripe>,
    seed: u64,
    position: u64,
    ranks: Ranks,
    world: u64,
    /// What every cursor has: the size that `data.shuffle_window` had.
    window: u32,
    stop: Stop,
    ended: bool,
}

impl StripedStream {
    /// Starts reading the stripes of this process, of `number` in all; `stop` ends it, and everything else that shares it.
    ///
    /// # Errors
    /// [`PipelineError::BadSetting`] for a place without a manifest, processes that do not divide the stripes, another `data.shuffle_window` than the
    /// one that the run began with; [`PipelineError::Io`] for threads.
    pub fn start(bucket: &Arc<Bucket>, options: &WindowOptions, number: u32, stop: Stop) -> Result<Self, PipelineError> {
        let wrong = |key: &str, value: String, detail: String| PipelineError::BadSetting {
            key: key.into(),
            value,
            detail,
        };
        let Order::Shuffled { seed, start, rank, world } = options.order else {
            return Err(wrong("data.stripes", number.to_string(), "1 where a single pass is made".into()));
        };
        let counts = bucket.shards.iter().map(|shard| shard.samples.ok_or(&shard.path));
        let counts = counts.collect::<Result<Vec<u32>, _>>().map_err(|shard| {
            let detail = format!(
                "stripes are cut by the counts of manifest.json, and {shard} has none: `splitmask pack` writes it, and 1 needs none"
            );
            wrong("data.stripes", number.to_string(), detail)
        })?;
        if !number.is_multiple_of(world) {
            let worlds: Vec<String> = (1..=number).filter(|w| number.is_multiple_of(*w)).map(|w| w.to_string()).collect();
            let detail = format!("{world} ranks cannot share them equally; these numbers can: {}", worlds.join(", "));
            return Err(wrong("data.stripes", number.to_string(), detail));
        }
        if start.samples() > 0 && start.window != options.window {
            let detail = format!(
                "this run's stripes are shuffled in windows of data.shuffle_window = {}, which a run with data.stripes = {number} keeps",
                start.window
            );
            return Err(wrong("data.shuffle_window", options.window.to_string(), detail));
        }
        let position = start.samples();
        let ranks = Ranks::new(rank, world, position)?;
        let stripes = Arc::new(Stripes::new(counts, number, options.window)?);
        let mine: Vec<u32> = (0..number)
            .filter(|stripe| u64::from(*stripe % world) == (position + u64::from(rank)) % u64::from(world))
            .collect();
        let readers = options.readers.div_ceil(mine.len()).max(1);
        let own = mine
            .into_iter()
            .map(|stripe| Stripe::start(bucket, options, (&stripes, stripe), readers, (seed, position), &stop))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            stripes,
            own,
            seed,
            position: position + u64::from(rank),
            ranks,
            world: world.into(),
            window: options.window,
            stop,
            ended: false,
        })
    }

    /// Ends the stream from another thread: a waiting `next` returns `None`.
    #[must_use]
    pub fn stopper(&self) -> Stop {
        self.stop.clone()
    }

    /// Takes the sample at this place of a stripe out of its window; `None` in it where there is none. `None` at the end.
    fn take(&mut self, number: u32, place: Place) -> Option<Result<Option<Grouped>, PipelineError>> {
        let stripe = self.own.iter_mut().find(|stripe| stripe.number == number)?;
        let is_current = |(window, _): &(Window, Vec<u32>)| (window.epoch, window.number) == (place.epoch, place.window);
        if !stripe.current.as_ref().is_some_and(is_current) {
            let window = select! {
                recv(stripe.windows) -> window => match window.ok()? {
                    Ok(window) => window,
                    Err(error) => return Some(Err(error)),
                },
                recv(self.stop.receiver()) -> _ => return None,
            };
            debug_assert_eq!(
                (window.epoch, window.number),
                (place.epoch, place.window),
                "windows come in their order"
            );
            let own = derive(self.seed, Purpose::WindowOrder, u64::from(number), 1, 0);
            let mut random = rng(own, Purpose::WindowOrder, u64::from(window.epoch), window.number);
            let order = permutation(window.samples.len() as u32, &mut random);
            stripe.current = Some((window, order));
            // Taken before the stream began.
            for before in 0..place.place {
                stripe.take(before);
            }
        }
        Some(Ok(stripe.take(place.place)))
    }
}

impl Stripe {
    fn start(
        bucket: &Arc<Bucket>,
        options: &WindowOptions,
        (stripes, number): (&Arc<Stripes>, u32),
        readers: usize,
        (seed, position): (u64, u64),
        stop: &Stop,
    ) -> Result<Self, PipelineError> {
        let first = stripes.place(number, stripes.taken(number, position));
        let begin = first.window * u64::from(stripes.window());
        let parts = stripes.parts(&ShardPlan::shuffled(seed, first.epoch, bucket.shards.len() as u32), number);
        let starts = stripes.starts(&parts);
        // The part with the window's first sample.
        let at = starts.partition_point(|start| *start <= begin) - 1;
        let skip = parts[at].from + (begin - starts[at]) as u32;
        let sequence = SequenceOptions {
            seed: Some(seed),
            readers,
            fraction: options.fraction,
            images: Arc::clone(&options.images),
            map: options.map.clone(),
            objects: options.objects.clone(),
            max_member_bytes: options.max_member_bytes,
            stripe: Some((Arc::clone(stripes), number)),
            portion: PORTION_SAMPLES,
        };
        let sequence = Sequence::new(Arc::clone(bucket), sequence, first.epoch, at as u32, skip, stop.clone())?;
        let most = stripes.window() as usize;
        let (window_sender, windows) = bounded(1);
        let (token_sender, tokens) = bounded(most + (most / 4).max(1));
        let filler = Filler {
            bucket: Arc::clone(bucket),
            stripes: Arc::clone(stripes),
            number,
            seed,
            sequence,
            refuse_two_images: options.refuse_two_images,
            stop_on_shard_error: options.stop_on_shard_error,
            tokens: token_sender,
            windows: window_sender,
            stop: stop.clone(),
        };
        let thread = std::thread::Builder::new()
            .name(format!("stripe-{number}"))
            .spawn(move || filler.run(first))
            .map_err(|source| PipelineError::Io {
                path: format!("thread stripe-{number}"),
                source,
            })?;
        Ok(Self {
            number,
            windows,
            tokens,
            thread: Some(thread),
            current: None,
        })
    }

    fn take(&mut self, place: u32) -> Option<Grouped> {
        let (window, order) = self.current.as_mut()?;
        let sample = window.samples[order[place as usize] as usize].take()?;
        let _ = self.tokens.try_recv();
        Some(sample)
    }
}

impl Iterator for StripedStream {
    type Item = Result<Positioned, PipelineError>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.ended {
            let (stripe, nth) = self.stripes.of(self.position);
            let place = self.stripes.place(stripe, nth);
            let sample = match self.take(stripe, place) {
                None => {
                    self.ended = true;
                    break;
                }
                Some(Err(error)) => {
                    self.ended = true;
                    return Some(Err(error));
                }
                Some(Ok(sample)) => sample,
            };
            let end = self
                .ranks
                .row_end(self.position)
                .expect("every world-th position is this process's");
            self.position += self.world;
            let Some(sample) = sample else {
                continue;
            };
            return Some(Ok(Positioned {
                sample,
                cursor: Cursor {
                    epoch: self.stripes.epoch(end),
                    before: end,
                    window: self.window,
                    ..Cursor::default()
                },
            }));
        }
        None
    }
}

impl Drop for StripedStream {
    fn drop(&mut self) {
        self.stop.trigger();
        for stripe in &mut self.own {
            if let Some(thread) = stripe.thread.take() {
                // Its panic was seen as the stream's end by then.
                let _ = thread.join();
            }
        }
    }
}

/// The thread that fills a stripe's windows ahead of their consumer.
struct Filler {
    bucket: Arc<Bucket>,
    stripes: Arc<Stripes>,
    number: u32,
    seed: u64,
    sequence: Sequence,
    refuse_two_images: bool,
    stop_on_shard_error: bool,
    tokens: Sender<()>,
    windows: Sender<Result<Window, PipelineError>>,
    stop: Stop,
}

impl Filler {
    fn run(mut self, first: Place) {
        if let Err(error) = self.fill(first) {
            self.send(Err(error));
        }
    }

    /// What the stripe reads of an epoch, and where each part begins in it.
    fn epoch(&self, epoch: u32) -> (Vec<Part>, Vec<u64>) {
        let plan = ShardPlan::shuffled(self.seed, epoch, self.bucket.shards.len() as u32);
        let parts = self.stripes.parts(&plan, self.number);
        let starts = self.stripes.starts(&parts);
        (parts, starts)
    }

    fn fresh(&self, epoch: u32, number: u64) -> Window {
        let mut samples = vec![];
        samples.resize_with(self.stripes.window_size(self.number, number), || None);
        Window { epoch, number, samples }
    }

    fn fill(&mut self, first: Place) -> Result<(), PipelineError> {
        let (mut parts, mut starts) = self.epoch(first.epoch);
        let mut window = self.fresh(first.epoch, first.window);
        let size = u64::from(self.stripes.window());
        let windows = self.stripes.size(self.number).div_ceil(size);
        // Whether anything of this epoch was seen; a resume in its middle counts as having seen something.
        let mut lively = first.window > 0;
        let (mut entries, mut last_error) = (Entries::default(), None);
        loop {
            match self.sequence.step()? {
                Step::Entries(tally) => {
                    tally.count(self.bucket.metrics());
                    entries.add(tally);
                }
                Step::Sample(position, sample) => {
                    let id = match &sample {
                        Ok(sample) => sample.id,
                        Err(rejected) => rejected.id,
                    };
                    if let (true, Err(rejected)) = (self.refuse_two_images, &sample) {
                        rejected.refuse_two_images(&entries.epoch)?;
                    }
                    let (part, start) = (parts[position as usize], starts[position as usize]);
                    // More samples than the manifest counts, which is told where shards end, have no place.
                    let Some(offset) = self.stripes.offset(part, start, id.member) else {
                        continue;
                    };
                    lively = true;
                    while window.number < offset / size {
                        if !self.send_on(&mut window, windows) {
                            return Ok(());
                        }
                    }
                    select! {
                        send(self.tokens, ()) -> sent => if sent.is_err() { return Ok(()) },
                        recv(self.stop.receiver()) -> _ => return Ok(()),
                    }
                    window.samples[(offset % size) as usize] = Some(sample);
                    // The last one of a window; those of an epoch's last window are followed by its end.
                    let full = offset % size + 1 == window.samples.len() as u64 && window.number + 1 < windows;
                    if full && !self.send_on(&mut window, windows) {
                        return Ok(());
                    }
                }
                Step::ShardFailed(error) => last_error = Some(passed_over(&self.bucket, error, self.stop_on_shard_error)?),
                Step::EpochEnd(epoch) => {
                    let tally = entries.end_epoch(epoch);
                    if !std::mem::take(&mut lively) {
                        return Err(no_sample(&self.bucket, &tally, last_error));
                    }
                    while window.epoch == epoch {
                        if !self.send_on(&mut window, windows) {
                            return Ok(());
                        }
                    }
                    (parts, starts) = self.epoch(epoch + 1);
                }
                Step::End => return Ok(()),
            }
        }
    }

    /// Sends a window as far as it is filled, and begins the next one, of `windows` in an epoch; whether somebody waits for more.
    fn send_on(&mut self, window: &mut Window, windows: u64) -> bool {
        let next = match window.number + 1 < windows {
            true => self.fresh(window.epoch, window.number + 1),
            false => self.fresh(window.epoch + 1, 0),
        };
        self.refuse_two_images = false;
        self.send(Ok(std::mem::replace(window, next)))
    }

    fn send(&self, window: Result<Window, PipelineError>) -> bool {
        select! {
            send(self.windows, window) -> sent => sent.is_ok(),
            recv(self.stop.receiver()) -> _ => false,
        }
    }
}
