//! What a rank says before it goes, and how the others find out who went and why.
//!
//! A rank that fails leaves words in the store and closes its connections; all others then fail in whatever collective they are in, look up what was
//! said, and leave too. Whoever was killed said nothing, and is known by that: all others left a note that they noticed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::TorchError;
use crate::ranks::ffi::Store;
use crate::ranks::greeting::Member;
use crate::ranks::{Cause, Ranks};

/// How long a rank waits for what the others say.
const LISTEN: Duration = Duration::from_millis(300);
/// How long rank 0 keeps its store open for those who still have to read what was said.
const HOST: Duration = Duration::from_millis(900);
/// How long the store may be silent before it is taken for dead.
const ANSWER: Duration = Duration::from_secs(1);
const LOOK: Duration = Duration::from_millis(10);
/// How long ranks wait for each other at an orderly end.
const PARTING: Duration = Duration::from_secs(5);
/// Words are for a log line.
const LONGEST: usize = 4000;

/// One key of the store, to which each rank adds lines.
const BOOK: &str = "last-words";

/// A line of the book.
#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    rank: usize,
    says: Says,
}

#[derive(Debug, Serialize, Deserialize)]
enum Says {
    /// Why this rank goes.
    Words(String),
    /// That it noticed the loss of another.
    Noticed,
    /// That it has read the book and needs it no more.
    Read,
}

#[derive(Debug)]
struct Found {
    words: Vec<Cause>,
    silent: Vec<Cause>,
    /// How many others noticed and have not read yet.
    readers: usize,
}

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) store: Store,
    pub(super) rank: usize,
    pub(super) members: Vec<Member>,
    /// The launcher's agent holds the store; else rank 0 does.
    pub(super) agent: bool,
}

/// Leaves words for the other ranks; any thread may hold one (a watchdog, a panic hook). Alone it does nothing.
#[derive(Debug, Clone)]
pub struct LastWords(pub(super) Option<Arc<Shared>>);

impl LastWords {
    /// Leaves `text` as this rank's last words; the latest count. Waits at most a second for the store.
    ///
    /// # Errors
    /// The store does not answer.
    pub fn say(&self, text: &str) -> Result<(), TorchError> {
        let Some(shared) = &self.0 else { return Ok(()) };
        let mut end = text.len().min(LONGEST);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let text = text[..end].to_owned();
        within(ANSWER, {
            let shared = Arc::clone(shared);
            move || shared.enter(Says::Words(text))
        })
        .unwrap_or_else(|| Err(silent()))
    }

    /// What other ranks have said so far, in the order of ranks.
    #[must_use]
    pub fn heard(&self) -> Vec<Cause> {
        let Some(shared) = &self.0 else { return Vec::new() };
        let shared = Arc::clone(shared);
        within(ANSWER, move || shared.causes().map(|found| found.words).unwrap_or_default()).unwrap_or_default()
    }
}

impl Ranks {
    /// The handle by which this rank leaves last words.
    #[must_use]
    pub fn last_words(&self) -> LastWords {
        LastWords(self.group.as_ref().map(|g| Arc::clone(&g.words)))
    }
}

fn silent() -> TorchError {
    TorchError {
        call: "the store",
        message: "no answer".into(),
    }
}

/// The answer of `f`, or nothing if it takes longer than `limit`: a store whose host is stopped or cut off answers after minutes. The thread that
/// waits for it is left behind.
fn within<T: Send + 'static>(limit: Duration, f: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let (send, receive) = mpsc::channel();
    std::thread::spawn(move || {
        // Nobody listens any more if it took too long.
        let _ = send.send(f());
    });
    receive.recv_timeout(limit).ok()
}

impl Shared {
    /// Adds a line to the book that all ranks read.
    fn enter(&self, says: Says) -> Result<(), TorchError> {
        let line = serde_json::to_string(&Entry { rank: self.rank, says }).map_err(|e| TorchError {
            call: "last words",
            message: e.to_string(),
        })?;
        self.store.append(BOOK, &format!("{line}\n"))?;
        // An answer to a question behind it shows that it arrived.
        self.store.get(BOOK).map(drop)
    }

    /// What the book says of the others.
    fn causes(&self) -> Result<Found, TorchError> {
        let book = self.store.get(BOOK)?.unwrap_or_default();
        let mut words: BTreeMap<usize, String> = BTreeMap::new();
        let mut known = vec![false; self.members.len()];
        let mut reading = known.clone();
        known[self.rank] = true;
        for Entry { rank, says } in book.lines().filter_map(|line| serde_json::from_str::<Entry>(line).ok()) {
            if rank == self.rank || rank >= known.len() {
                continue;
            }
            known[rank] = true;
            match says {
                Says::Words(text) => drop(words.insert(rank, text)),
                Says::Noticed => reading[rank] = true,
                Says::Read => reading[rank] = false,
            }
        }
        let host = |rank: usize| self.members[rank].host.clone();
        Ok(Found {
            readers: reading.iter().filter(|r| **r).count(),
            words: words
                .into_iter()
                .map(|(rank, text)| Cause::Words {
                    rank,
                    host: host(rank),
                    text,
                })
                .collect(),
            silent: (0..known.len())
                .filter(|&r| !known[r])
                .map(|rank| Cause::Silent { rank, host: host(rank) })
                .collect(),
        })
    }

    fn no_store(&self) -> Cause {
        let host = &self.members[0].host;
        Cause::NoStore {
            whose: if self.agent {
                format!("the launcher's agent for rank 0's host {host}")
            } else {
                format!("rank 0 on host {host}")
            },
        }
    }
}

/// Waits until all ranks have come here: closing a connection cuts off what is still under way on it, and the store goes with rank 0.
pub(super) fn part(shared: &Arc<Shared>) {
    let shared = Arc::clone(shared);
    // A store that is gone or silent means that rank 0 has seen all come and has left.
    let _ = within(PARTING, move || {
        let mut here = shared.store.count("leaving").unwrap_or(i64::MAX);
        while here < i64::try_from(shared.members.len()).unwrap_or(0) {
            std::thread::sleep(LOOK);
            here = shared
                .store
                .get("leaving")
                .ok()
                .flatten()
                .and_then(|n| n.parse().ok())
                .unwrap_or(i64::MAX);
        }
    });
}

/// Says that this rank noticed the loss of another one, and finds out which and why. Call it with the connections cut: then all others notice too.
pub(super) fn inquire(shared: &Arc<Shared>) -> Vec<Cause> {
    let (send, receive) = mpsc::channel();
    let asked = Arc::clone(shared);
    std::thread::spawn(move || look_around(&asked, &send));
    let mut latest = None;
    let since = Instant::now();
    // Each answer of the store renews the patience with it; the thread ends by itself.
    while let Ok(found) = receive.recv_timeout(ANSWER) {
        latest = Some(found);
        if since.elapsed() > LISTEN + ANSWER {
            break;
        }
    }
    linger(shared);
    latest.unwrap_or_else(|| vec![shared.no_store()])
}

/// Reports what is known, again and again, until every rank is accounted for or the time is over.
fn look_around(shared: &Shared, to: &mpsc::Sender<Vec<Cause>>) {
    let since = Instant::now();
    if shared.enter(Says::Noticed).is_err() {
        return;
    }
    while let Ok(Found { words, silent, .. }) = shared.causes() {
        let all = silent.is_empty();
        // Where somebody said why, the silent ones are those who had no time to notice.
        let found = if words.is_empty() { silent } else { words };
        if to.send(found).is_err() || all || since.elapsed() >= LISTEN {
            break;
        }
        std::thread::sleep(LOOK);
    }
    // The store may be gone by now, and nobody needs it then.
    let _ = shared.enter(Says::Read);
}

/// Rank 0 takes its store along when it goes: it stays until all others have noticed and read, for a second at most.
pub(super) fn linger(shared: &Shared) {
    if shared.rank != 0 || shared.agent {
        return;
    }
    let since = Instant::now();
    while let Ok(found) = shared.causes() {
        let everybody = found.silent.is_empty() && found.readers == 0;
        // Who has not noticed by now is dead, or will be told nothing.
        let noticed = since.elapsed() >= LISTEN && found.readers == 0;
        if everybody || noticed || since.elapsed() >= HOST {
            return;
        }
        std::thread::sleep(LOOK);
    }
}
