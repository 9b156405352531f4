//! The one combinator for item parallelism: an ordered, bounded map over OS threads.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use super::{Meter, panic_text};
use crate::error::PipelineError;

struct Ring<O> {
    /// Results of items `base`, `base + 1`, …; `None` while a worker is at it.
    slots: VecDeque<Option<Result<O, String>>>,
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
    failed: bool,
}

/// Maps `input` on `threads` threads, each with its own worker from `make`; at most `ahead` items are taken and not yet handed out.
///
/// The output order is the input order at any number of threads. A panic in the input or a worker ends the stream with
/// [`PipelineError::Panicked`] at that item's place.
///
/// # Errors
/// [`PipelineError::Io`] if a thread cannot be started.
pub fn ordered_map<It, O, W>(
    stage: &'static str,
    input: It,
    threads: usize,
    ahead: usize,
    meter: Meter,
    make: impl Fn() -> W,
) -> Result<OrderedMap<It, O>, PipelineError>
where
    It: Iterator + Send + 'static,
    O: Send + 'static,
    W: FnMut(It::Item) -> O + Send + 'static,
{
    let ahead = ahead.max(threads).max(1);
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
        ahead,
        meter,
    });
    let mut map = OrderedMap {
        shared,
        threads: Vec::with_capacity(threads),
        stage,
        failed: false,
    };
    for n in 0..threads.max(1) {
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

fn work<It: Iterator, O, W: FnMut(It::Item) -> O>(shared: &Shared<It, O>, mut worker: W) {
    while let Some((number, item)) = take(shared) {
        let result = item.and_then(|item| catch_unwind(AssertUnwindSafe(|| worker(item))).map_err(|p| panic_text(&*p)));
        let panicked = result.is_err();
        let mut ring = shared.ring();
        let place = (number - ring.base) as usize;
        ring.slots[place] = Some(result);
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
        loop {
            if matches!(ring.slots.front(), Some(Some(_))) {
                break;
            }
            if ring.end == Some(ring.base) || ring.cancelled {
                return None;
            }
            ring = self.shared.ready.wait(ring).unwrap_or_else(PoisonError::into_inner);
        }
        let result = ring.slots.pop_front().flatten()?;
        ring.base += 1;
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
        for thread in self.threads.drain(..) {
            // Panics of workers were caught; one outside them has nothing left to say.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus::Counter;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    fn meter() -> Meter {
        Meter {
            blocked_get: Counter::new("get", "get").unwrap(),
            blocked_put: Counter::new("put", "put").unwrap(),
        }
    }

    #[test]
    fn the_output_order_is_the_input_order_at_any_number_of_threads() {
        for threads in [1, 2, 8] {
            let map = ordered_map("test", 0..500u64, threads, 16, meter(), || {
                |i: u64| {
                    std::thread::sleep(Duration::from_micros(crate::seed::mix(i) % 300));
                    i * 2
                }
            })
            .unwrap();
            let out: Vec<u64> = map.map(Result::unwrap).collect();
            assert_eq!(out, (0..500).map(|i| i * 2).collect::<Vec<_>>());
        }
    }

    #[test]
    fn no_more_than_ahead_items_are_in_flight() {
        let taken = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&taken);
        let input = (0..100).inspect(move |_| {
            counter.fetch_add(1, Ordering::SeqCst);
        });
        let mut map = ordered_map("test", input, 2, 5, meter(), || |i: i32| i).unwrap();
        std::thread::sleep(Duration::from_millis(50));
        assert_eq!(taken.load(Ordering::SeqCst), 5);
        assert_eq!(map.next().unwrap().unwrap(), 0);
        std::thread::sleep(Duration::from_millis(50));
        assert_eq!(taken.load(Ordering::SeqCst), 6);
    }

    #[test]
    fn a_panic_becomes_an_error_at_its_place_and_ends_the_stream() {
        let mut map = ordered_map("test", 0..100, 3, 8, meter(), || {
            |i: i32| {
                assert_ne!(i, 5, "five is bad");
                i
            }
        })
        .unwrap();
        for i in 0..5 {
            assert_eq!(map.next().unwrap().unwrap(), i);
        }
        let error = map.next().unwrap().unwrap_err();
        assert!(error.to_string().contains("five is bad"), "{error}");
        assert!(map.next().is_none());
    }

    #[test]
    fn a_panic_in_the_input_becomes_an_error() {
        let input = (0..10).inspect(|i| assert_ne!(*i, 3, "three is bad"));
        let out: Vec<_> = ordered_map("test", input, 2, 4, meter(), || |i: i32| i).unwrap().collect();
        assert_eq!(out.len(), 4);
        assert!(matches!(&out[3], Err(PipelineError::Panicked { detail, .. }) if detail.contains("three is bad")));
    }

    #[test]
    fn dropping_it_early_joins_its_threads() {
        let alive = Arc::new(());
        let held = Arc::clone(&alive);
        let mut map = ordered_map("test", 0..1_000_000, 4, 8, meter(), move || {
            let held = Arc::clone(&held);
            move |i: i32| {
                let _ = &held;
                i
            }
        })
        .unwrap();
        assert_eq!(map.next().unwrap().unwrap(), 0);
        drop(map);
        assert_eq!(Arc::strong_count(&alive), 1, "workers are gone, and with them their state");
    }
}
