//! Several places as one stream: each with its own order and position, drawn from in turns.

use std::sync::Arc;

use super::interleave::Interleave;
use super::ranks::Ranks;
use super::window::{Order, Positioned, PositionedStream, WindowOptions};
use crate::bucket::Bucket;
use crate::cursor::{Cursor, Places, SourcePlace};
use crate::error::PipelineError;
use crate::seed::{Purpose, derive, mix};
use crate::stage::Stop;

/// One place of a mixture.
#[derive(Debug, Clone)]
pub struct Source {
    /// Its name; positions in checkpoints belong to it.
    pub name: Arc<str>,
    /// Share of the samples, relative to the others'.
    pub weight: f64,
    /// Its shards.
    pub bucket: Arc<Bucket>,
}

/// What a checkpoint calls a source.
#[must_use]
pub fn name_hash(name: &str) -> u64 {
    name.bytes().fold(name.len() as u64, |hash, byte| mix(hash ^ u64::from(byte)))
}

struct Drawn {
    stream: PositionedStream,
    name: u64,
    /// Behind its last sample.
    cursor: Cursor,
    /// Index of its first shard among those of all sources.
    base: u32,
}

/// Blocking iterator over the samples of all sources, in an order that depends on seed, weights and positions alone.
///
/// A source that ends begins its next epoch, shuffled anew; the epoch of the mixture is the lowest of its sources'. With several ranks
/// each reads all sources and keeps every `world`-th sample, as for a single place.
pub struct MixedStream {
    sources: Vec<Drawn>,
    order: Interleave,
    /// Position of the next sample, over all ranks.
    position: u64,
    ranks: Ranks,
    stop: Stop,
    ended: bool,
}

impl MixedStream {
    /// Starts reading all sources at the positions that `options.order` holds for their names; a new name begins at its beginning.
    ///
    /// # Errors
    /// Those of [`PositionedStream::start`]; [`PipelineError::BadSetting`] for a sequential order, which a mixture does not have.
    pub fn start(sources: &[Source], options: &WindowOptions, stop: Stop) -> Result<Self, PipelineError> {
        let Order::Shuffled { seed, start, rank, world } = options.order else {
            return Err(PipelineError::BadSetting {
                key: "data.sources".into(),
                value: format!("{} sources", sources.len()),
                detail: "one place where a single pass is made".into(),
            });
        };
        let ranks = Ranks::new(rank, world, start.samples())?;
        let mut drawn = Vec::with_capacity(sources.len());
        let mut base = 0;
        for source in sources {
            let name = name_hash(&source.name);
            let mut cursor = start.sources.of(name).map_or_else(Cursor::default, SourcePlace::cursor);
            if cursor.taken == 0 {
                // Other ranks may draw from it before this one does, and then the sizes of its windows must be known.
                (cursor.window, cursor.next_window) = (options.window, options.window);
            }
            let options = WindowOptions {
                order: Order::Shuffled {
                    seed: derive(seed, Purpose::Mixture, name, 1, 0),
                    start: cursor,
                    rank: 0,
                    world: 1,
                },
                readers: options.readers.div_ceil(sources.len()),
                ..options.clone()
            };
            drawn.push(Drawn {
                stream: PositionedStream::start(Arc::clone(&source.bucket), &options, stop.clone())?,
                name,
                cursor,
                base,
            });
            base += source.bucket.shards.len() as u32;
        }
        Ok(Self {
            sources: drawn,
            order: Interleave::new(seed, &sources.iter().map(|s| s.weight).collect::<Vec<_>>()),
            position: start.samples(),
            ranks,
            stop,
            ended: false,
        })
    }

    /// Ends the stream from another thread.
    #[must_use]
    pub fn stopper(&self) -> Stop {
        self.stop.clone()
    }

    /// The cursor behind the row of `world` samples that ends before `end`; those not yet drawn count as taken by the other ranks.
    fn cursor(&mut self, end: u64) -> Cursor {
        let mut more = [0u32; crate::cursor::MAX_SOURCES];
        for position in self.position..end {
            more[self.order.source(position)] += 1;
        }
        let mut places = Places::default();
        for (source, more) in self.sources.iter().zip(more) {
            let taken = source.cursor.taken + more;
            places.push(SourcePlace::new(source.name, Cursor { taken, ..source.cursor }));
        }
        Cursor {
            epoch: self.sources.iter().map(|s| s.cursor.epoch).min().unwrap_or(0),
            before: end,
            sources: places,
            ..Cursor::default()
        }
    }

    fn draw(&mut self) -> Option<Result<Positioned, PipelineError>> {
        loop {
            let position = self.position;
            let index = self.order.source(position);
            let source = &mut self.sources[index];
            let mut item = match source.stream.next()? {
                Ok(item) => item,
                Err(error) => return Some(Err(error)),
            };
            source.cursor = item.cursor;
            let id = match &mut item.sample {
                Ok(sample) => &mut sample.id,
                Err(rejected) => &mut rejected.id,
            };
            id.shard += source.base;
            self.position += 1;
            if let Some(end) = self.ranks.row_end(position) {
                item.cursor = self.cursor(end);
                return Some(Ok(item));
            }
        }
    }
}

impl Iterator for MixedStream {
    type Item = Result<Positioned, PipelineError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let item = self.draw();
        self.ended = !matches!(item, Some(Ok(_)));
        item
    }
}
