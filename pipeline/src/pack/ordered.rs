//! A parallel map whose results arrive in order, with bounded memory.
//!
//! Workers take items in order and declare how many bytes each will hold; an item waits while the bytes in flight (being worked on,
//! or done and waiting for their turn) exceed the budget. The item whose turn it is never waits, so one item larger than the whole
//! budget still passes, alone, and nothing can lock up.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Items that may be ahead of the one whose turn it is, per worker.
const AHEAD: usize = 64;

#[derive(Default)]
struct State {
    /// Next item to hand out.
    next: usize,
    /// Item whose result the sink waits for.
    turn: usize,
    /// Bytes in flight.
    held: u64,
    /// The sink failed or a worker panicked.
    stopped: bool,
}

struct Gate {
    state: Mutex<State>,
    changed: Condvar,
    budget: u64,
    window: usize,
}

impl Gate {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `ready`, then changes the state and wakes the others.
    fn when<R>(&self, ready: impl Fn(&State) -> bool, change: impl FnOnce(&mut State) -> R) -> R {
        let mut state = self
            .changed
            .wait_while(self.lock(), |s| !s.stopped && !ready(s))
            .unwrap_or_else(PoisonError::into_inner);
        let answer = change(&mut state);
        drop(state);
        self.changed.notify_all();
        answer
    }

    fn take(&self, len: usize) -> Option<usize> {
        self.when(
            |s| s.next >= len || s.next < s.turn + self.window,
            |s| {
                let index = s.next;
                s.next += 1;
                (index < len && !s.stopped).then_some(index)
            },
        )
    }

    fn stop(&self) {
        self.when(|_| true, |s| s.stopped = true);
    }
}

/// A worker's claim on memory for the item at hand.
pub(super) struct Claim<'a> {
    gate: &'a Gate,
    index: usize,
    bytes: u64,
}

impl Claim<'_> {
    /// Changes the claim to `bytes`; waits for memory if that is more than before.
    pub(super) fn set(&mut self, bytes: u64) {
        let before = self.bytes;
        let fits = |s: &State| bytes <= before || s.turn == self.index || s.held - before + bytes <= self.gate.budget;
        self.gate.when(fits, |s| s.held = s.held - before + bytes);
        self.bytes = bytes;
    }
}

/// Wakes everybody if its thread unwinds; otherwise they would wait for its result for ever.
struct StopOnPanic<'a>(&'a Gate);

impl Drop for StopOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.stop();
        }
    }
}

/// Maps `items` on `workers` threads and hands the results to `sink` on this thread, in order.
///
/// `worker` makes one thread's function (with its scratch memory). `budget` bounds the bytes that the claims add up to.
///
/// # Errors
/// The first error of `sink`; remaining items are dropped.
pub(super) fn ordered_map<T: Sync, R: Send, E, W: FnMut(&T, &mut Claim<'_>) -> R>(
    items: &[T],
    workers: usize,
    budget: u64,
    worker: impl Fn() -> W + Sync,
    mut sink: impl FnMut(usize, R) -> Result<(), E>,
) -> Result<(), E> {
    let gate = Gate {
        state: Mutex::default(),
        changed: Condvar::new(),
        budget,
        window: workers.max(1) * AHEAD,
    };
    let (sender, results) = crossbeam_channel::unbounded();
    std::thread::scope(|scope| {
        for _ in 0..workers.max(1) {
            let (gate, worker, sender) = (&gate, &worker, sender.clone());
            scope.spawn(move || {
                let _guard = StopOnPanic(gate);
                let mut work = worker();
                while let Some(index) = gate.take(items.len()) {
                    let mut claim = Claim { gate, index, bytes: 0 };
                    let result = work(&items[index], &mut claim);
                    if sender.send((index, result, claim.bytes)).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        let mut early = std::collections::BTreeMap::new();
        let mut turn = 0;
        for (index, result, bytes) in results {
            early.insert(index, (result, bytes));
            while let Some((result, bytes)) = early.remove(&turn) {
                if let Err(e) = sink(turn, result) {
                    gate.stop();
                    return Err(e);
                }
                turn += 1;
                gate.when(
                    |_| true,
                    |s| {
                        s.held -= bytes;
                        s.turn = turn;
                    },
                );
            }
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    use super::*;

    /// Results come in order although later items finish first.
    #[test]
    fn keeps_order_when_early_items_are_slow() {
        let items: Vec<u64> = (0..500).collect();
        let mut got = Vec::new();
        let work = || {
            |&i: &u64, claim: &mut Claim<'_>| {
                claim.set(10);
                if i % 50 == 0 {
                    std::thread::sleep(Duration::from_millis(3));
                }
                i * 3
            }
        };
        ordered_map(&items, 8, 1000, work, |index, r| -> Result<(), ()> {
            got.push((index as u64, r));
            Ok(())
        })
        .unwrap();
        assert_eq!(got, items.iter().map(|&i| (i, i * 3)).collect::<Vec<_>>());
    }

    /// Claims add up to the budget plus the one item whose turn it is at most, and an item above the budget passes.
    #[test]
    fn holds_memory_within_the_budget() {
        let items: Vec<u64> = (0..200).map(|i| if i % 40 == 7 { 1000 } else { 60 }).collect();
        let (held, peak) = (AtomicU64::new(0), AtomicU64::new(0));
        let work = || {
            |&bytes: &u64, claim: &mut Claim<'_>| {
                claim.set(bytes);
                peak.fetch_max(held.fetch_add(bytes, Ordering::SeqCst) + bytes, Ordering::SeqCst);
                if bytes == 1000 {
                    std::thread::sleep(Duration::from_millis(20)); // the others would run 64 items a worker ahead
                }
                bytes
            }
        };
        let mut sum = 0;
        ordered_map(&items, 4, 200, work, |_, bytes| -> Result<(), ()> {
            held.fetch_sub(bytes, Ordering::SeqCst);
            sum += bytes;
            Ok(())
        })
        .unwrap();
        assert_eq!(sum, items.iter().sum::<u64>());
        assert!(peak.load(Ordering::SeqCst) <= 1200, "{peak:?} bytes in flight");
    }

    #[test]
    fn an_error_of_the_sink_ends_the_run() {
        let items: Vec<u32> = (0..10_000).collect();
        let done = AtomicU64::new(0);
        let work = || {
            |_: &u32, _: &mut Claim<'_>| {
                done.fetch_add(1, Ordering::SeqCst);
            }
        };
        let result = ordered_map(&items, 4, 100, work, |index, ()| if index == 5 { Err("disk full") } else { Ok(()) });
        assert_eq!(result, Err("disk full"));
        assert!(done.load(Ordering::SeqCst) < 1000, "workers went on: {done:?}");
    }

    /// A panic surfaces instead of leaving the other threads waiting.
    #[test]
    #[should_panic(expected = "a scoped thread panicked")]
    fn a_panicking_worker_does_not_hang_the_run() {
        let items: Vec<u32> = (0..1000).collect();
        let work = || |&i: &u32, _: &mut Claim<'_>| assert!(i != 17, "planted");
        let _ = ordered_map(&items, 3, 100, work, |_, ()| Ok::<(), ()>(()));
    }
}
