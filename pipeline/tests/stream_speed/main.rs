//! How fast the stream is from stores that are far, slow or refuse. These tests measure time, so they take turns.
#![expect(clippy::print_stdout, reason = "measurements that are read with --nocapture")]

#[path = "../stream_support/fault_server.rs"]
#[allow(dead_code, reason = "each test binary uses a part")]
mod fault_server;
#[path = "../stream_support/mod.rs"]
mod stream_support;

mod latency;
mod load;
mod slow;
mod throttle;

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Held by the test whose time is measured.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}
