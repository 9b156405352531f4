//! Memory that items in flight take together.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

#[derive(Debug, Default)]
struct Held {
    /// Bytes claimed by items in flight.
    bytes: u64,
    /// Number of the item that is handed out next.
    turn: u64,
    cancelled: bool,
}

/// A budget of bytes for items with numbers.
///
/// The item whose turn it is never waits: so one item that is larger than the whole budget passes, alone, and nothing can lock up.
#[derive(Debug)]
pub(super) struct Memory {
    held: Mutex<Held>,
    changed: Condvar,
    budget: u64,
}

impl Memory {
    pub(super) fn new(budget: u64) -> Self {
        Self {
            held: Mutex::default(),
            changed: Condvar::new(),
            budget,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives the bytes of a finished item back; it is now `turn`'s turn.
    pub(super) fn release(&self, bytes: u64, turn: u64) {
        let mut held = self.lock();
        held.bytes -= bytes;
        held.turn = turn;
        drop(held);
        self.changed.notify_all();
    }

    /// Nobody waits any more.
    pub(super) fn cancel(&self) {
        self.lock().cancelled = true;
        self.changed.notify_all();
    }
}

/// One item's claim on the memory.
#[derive(Debug)]
pub struct Claim<'a> {
    memory: &'a Memory,
    number: u64,
    bytes: u64,
}

impl<'a> Claim<'a> {
    pub(super) fn new(memory: &'a Memory, number: u64) -> Self {
        Self { memory, number, bytes: 0 }
    }

    /// Changes the claim to `bytes`; waits for memory if that is more than before. Not for ever: when the map is dropped, nobody waits.
    pub fn set(&mut self, bytes: u64) {
        let before = self.bytes;
        let must_wait = |h: &mut Held| {
            let fits = (h.bytes - before).checked_add(bytes).is_some_and(|sum| sum <= self.memory.budget);
            !(bytes <= before || fits || h.turn == self.number || h.cancelled)
        };
        let mut held = self
            .memory
            .changed
            .wait_while(self.memory.lock(), must_wait)
            .unwrap_or_else(PoisonError::into_inner);
        held.bytes = held.bytes - before + bytes;
        drop(held);
        self.memory.changed.notify_all();
        self.bytes = bytes;
    }

    /// What it claims.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }
}
