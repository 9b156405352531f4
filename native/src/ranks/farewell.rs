//! The orderly end. A connection that closes cuts off what is still under way on it, so nobody closes before all have said that they need it no more.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::ranks::last_words::{Shared, within};

/// How long ranks wait for each other.
const PARTING: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(10);

/// How many have read the answer of the last tick.
const READ: &str = "farewell/read";
/// How many have seen that all have.
const SEEN: &str = "farewell/seen";

/// Second half of [`crate::ranks::Ranks::leave`], behind the tick in which all met: says that this rank has read that tick's answer, and waits until all
/// have said so. Rank 0, whose process takes the store along, then waits until all others have seen it. Whoever does not come within [`PARTING`] has
/// died behind the tick, and is not waited for.
pub(super) fn part(shared: &Arc<Shared>) {
    let shared = Arc::clone(shared);
    // A store that is silent is not waited for either.
    let _ = within(2 * PARTING, move || {
        if say_and_await(&shared, READ, shared.members.len()) {
            let others = if shared.serves() { shared.members.len() } else { 0 };
            say_and_await(&shared, SEEN, others);
        }
    });
}

/// Counts this rank under `key`, and waits until `all` are; false if they are not in time or the store is gone.
fn say_and_await(shared: &Shared, key: &str, all: usize) -> bool {
    let since = Instant::now();
    let mut here = shared.store.count(key).ok();
    while let Some(n) = here {
        if usize::try_from(n).is_ok_and(|n| n >= all) {
            return true;
        }
        if since.elapsed() >= PARTING {
            return false;
        }
        std::thread::sleep(LOOK);
        here = shared.store.get(key).ok().flatten().and_then(|n| n.parse().ok());
    }
    false
}
