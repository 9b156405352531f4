//! The one combinator for item parallelism: an ordered map over OS threads, bounded in items and in bytes.

mod claim;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use super::{Meter, panic_text};
use crate::error::PipelineError;

pub use claim::Claim;
use claim::Memory;

/// How far the workers may run ahead of who takes the results.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// OS threads; at least one.
    pub threads: usize,
    /// Items taken and not yet handed out, at most; at least one a thread.
    pub items: usize,
    /// Bytes that items in flight [claim](Claim::set) together, at most; more only for the item that is handed out next.
    pub bytes: u64,
}

/// An item's result, or the text of a panic, and the bytes that it claims.
type Outcome<O> = (Result<O, String>, u64);

struct Ring<O> {
    /// Results of items `base`, `base + 1`, …; `None` while a worker is at it.
    slots: VecDeque<Option<Outcome<O>>>,
    base: u64,
    /// Number of items, once the input has ended.
    end: Option<u64>,
    cancelled: bool,
}

struct Input<It> {
    items: It,
    next: u64,
    done: bool,
}

struct Shared<It, O> {
    /// Held while an item is taken, so that sequence numbers follow the input's order.
    input: Mutex<Input<It>>,
    ring: Mutex<Ring<O>>,
    ready: Condvar,
    room: Condvar,
    memory: Memory,
    ahead: usize,
    meter: Meter,
}

impl<It, O> Shared<It, O> {
    fn ring(&self) -> MutexGuard<'_, Ring<O>> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Outputs in the order of the inputs. Dropping it stops the workers and joins them; the input must not block for ever by then.
pub struct OrderedMap<It, O>
where
    It: Iterator + Send + 'static,
    O: Send + 'static,
{
    shared: Arc<Shared<It, O>>,
    threads: Vec<JoinHandle<()>>,
    stage: &'static str,
    /// Bytes that the item handed out last claims: it counts until the next one is asked for.
    handed_out: u64,
    failed: bool,
}

/// Maps `input` on several threads, each with its own worker from `make`. A worker may claim memory for the item at hand.
///
/// The output order is the input order at any number of threads. A panic in the input or a worker ends the stream with
/// [`PipelineError::Panicked`] at that item's place.
///
/// # Errors
/// [`PipelineError::Io`] if a thread cannot be started.
pub fn ordered_map<It, O, W>(
    stage: &'static str,
    input: It,
    bounds: Bounds,
    meter: Meter,
    make: impl Fn() -> W,
) -> Result<OrderedMap<It, O>, PipelineError>
where
    It: Iterator + Send + 'static,
    O: Send + 'static,
    W: FnMut(It::Item, &mut Claim<'_>) -> O + Send + 'static,
{
    let threads = bounds.threads.max(1);
    let ahead = bounds.items.max(threads);
    let shared = Arc::new(Shared {
        input: Mutex::new(Input {
            items: input,
            next: 0,
            done: false,
        }),
        ring: Mutex::new(Ring {
            slots: VecDeque::with_capacity(ahead),
            base: 0,
            end: None,
            cancelled: false,
        }),
        ready: Condvar::new(),
        room: Condvar::new(),
        memory: Memory::new(bounds.bytes),
        ahead,
        meter,
    });
    let mut map = OrderedMap {
        shared,
        threads: Vec::with_capacity(threads),
        stage,
        handed_out: 0,
        failed: false,
    };
    for n in 0..threads {
        let shared = Arc::clone(&map.shared);
        let worker = make();
        let thread = std::thread::Builder::new()
            .name(format!("{stage}-{n}"))
            .spawn(move || work(&shared, worker))
            .map_err(|source| PipelineError::Io {
                path: format!("thread {stage}-{n}"),
                source,
            })?;
        map.threads.push(thread);
    }
    Ok(map)
}

fn work<It: Iterator, O, W: FnMut(It::Item, &mut Claim<'_>) -> O>(shared: &Shared<It, O>, mut worker: W) {
    while let Some((number, item)) = take(shared) {
        let mut claim = Claim::new(&shared.memory, number);
        let result = item.and_then(|item| catch_unwind(AssertUnwindSafe(|| worker(item, &mut claim))).map_err(|p| panic_text(&*p)));
        let panicked = result.is_err();
        let mut ring = shared.ring();
        let place = (number - ring.base) as usize;
        ring.slots[place] = Some((result, claim.bytes()));
        if place == 0 {
            shared.ready.notify_one();
        }
        if panicked {
            return; // its state may be broken
        }
    }
}

/// The next item and its number; `None` at the end or when cancelled. An input that panics counts as an item that failed.
fn take<It: Iterator, O>(shared: &Shared<It, O>) -> Option<(u64, Result<It::Item, String>)> {
    let mut input = shared.input.lock().unwrap_or_else(PoisonError::into_inner);
    if input.done {
        return None;
    }
    {
        let mut ring = shared.ring();
        let waiting = Instant::now();
        while !ring.cancelled && input.next >= ring.base + shared.ahead as u64 {
            ring = shared.room.wait(ring).unwrap_or_else(PoisonError::into_inner);
        }
        shared.meter.blocked_put.inc_by(waiting.elapsed().as_secs_f64());
        if ring.cancelled {
            input.done = true;
            return None;
        }
    }
    let room_at = Instant::now();
    let item = catch_unwind(AssertUnwindSafe(|| input.items.next())).map_err(|p| panic_text(&*p));
    shared.meter.blocked_get.inc_by(room_at.elapsed().as_secs_f64());
    let mut ring = shared.ring();
    let number = input.next;
    let item = match item {
        Ok(Some(item)) => Ok(item),
        Ok(None) => {
            input.done = true;
            ring.end = Some(number);
            shared.ready.notify_one();
            return None;
        }
        Err(panic) => {
            input.done = true;
            Err(panic)
        }
    };
    input.next += 1;
    ring.slots.push_back(None);
    drop(ring);
    Some((number, item))
}

impl<It, O> Iterator for OrderedMap<It, O>
where
    It: Iterator + Send + 'static,
    O: Send + 'static,
{
    type Item = Result<O, PipelineError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let mut ring = self.shared.ring();
        self.shared.memory.release(std::mem::take(&mut self.handed_out), ring.base);
        loop {
            if matches!(ring.slots.front(), Some(Some(_))) {
                break;
            }
            if ring.end == Some(ring.base) || ring.cancelled {
                return None;
            }
            ring = self.shared.ready.wait(ring).unwrap_or_else(PoisonError::into_inner);
        }
        let (result, bytes) = ring.slots.pop_front().flatten()?;
        ring.base += 1;
        self.handed_out = bytes;
        // Only the worker that holds the input waits for room.
        self.shared.room.notify_one();
        drop(ring);
        Some(result.map_err(|detail| {
            self.failed = true;
            PipelineError::Panicked { stage: self.stage, detail }
        }))
    }
}

impl<It, O> Drop for OrderedMap<It, O>
where
    It: Iterator + Send + 'static,
    O: Send + 'static,
{
    fn drop(&mut self) {
        self.shared.ring().cancelled = true;
        self.shared.room.notify_all();
        self.shared.memory.cancel();
        for thread in self.threads.drain(..) {
            // Panics of workers were caught; one outside them has nothing left to say.
            let _ = thread.join();
        }
    }
}
