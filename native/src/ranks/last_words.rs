//! What a rank says before it goes, and how the others find out who went and why.
//!
//! A rank that fails leaves words in the store and then closes its connections; all others fail in whatever collective they are in, look up what was
//! said, and leave too. Whoever was killed said nothing, and is known by that: all others left a note that they noticed.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak, mpsc};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::TorchError;
use crate::ranks::ffi::{self, Store};
use crate::ranks::greeting::Member;
use crate::ranks::{Cause, Ranks};

/// How long a rank listens for words at least, before it takes the only rank that left no line for the one that went.
const LISTEN: Duration = Duration::from_millis(300);
/// How long it listens while more than one rank has left no line: some of them may be in the middle of something and notice later.
const MUSTER: Duration = Duration::from_secs(3);
/// How long rank 0 keeps its store for those who still have to read what was said, counted from when it noticed.
const HOST: Duration = Duration::from_secs(5);
/// How long the store may be silent before it is taken for dead.
const ANSWER: Duration = Duration::from_secs(1);
const LOOK: Duration = Duration::from_millis(10);
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

/// What the book says of the other ranks.
#[derive(Debug, Default, PartialEq, Eq)]
struct Found {
    /// The latest words of each that left some.
    words: BTreeMap<usize, String>,
    /// Who left no line.
    silent: Vec<usize>,
    /// How many noticed and have not read yet.
    readers: usize,
}

impl Found {
    /// As rank `own` of `world` reads it.
    fn read(book: &str, own: usize, world: usize) -> Self {
        let mut words = BTreeMap::new();
        let mut known = vec![false; world];
        let mut reading = known.clone();
        known[own] = true;
        for Entry { rank, says } in book.lines().filter_map(|line| serde_json::from_str::<Entry>(line).ok()) {
            if rank == own || rank >= world {
                continue;
            }
            known[rank] = true;
            match says {
                Says::Words(text) => drop(words.insert(rank, text)),
                Says::Noticed => reading[rank] = true,
                Says::Read => reading[rank] = false,
            }
        }
        Self {
            words,
            silent: (0..world).filter(|&r| !known[r]).collect(),
            readers: reading.iter().filter(|r| **r).count(),
        }
    }

    /// Whether nothing is gained by listening longer than `so_far`. Words end it at once: they are written before the connections break.
    fn settled(&self, so_far: Duration) -> bool {
        !self.words.is_empty() || self.silent.is_empty() || (self.silent.len() == 1 && so_far >= LISTEN) || so_far >= MUSTER
    }

    /// Whether all that may still come to read have read. Where nobody said a word, a single silent rank is the one that went.
    fn all_have_read(&self, spoke: bool) -> bool {
        let gone = usize::from(self.words.is_empty() && !spoke);
        self.readers == 0 && self.silent.len() <= gone
    }
}

/// What the handles of a group share: the store, and who the ranks are.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) store: Store,
    pub(super) rank: usize,
    pub(super) members: Vec<Member>,
    /// The launcher's agent holds the store; else rank 0 does.
    agent: bool,
    /// When this rank failed or noticed that another one did.
    trouble: OnceLock<Instant>,
    /// This rank has left words.
    spoke: AtomicBool,
}

/// The group whose store this process serves, for [`crate::ranks::leave_at_once`], which may be called far from any handle.
static SERVED: Mutex<Weak<Shared>> = Mutex::new(Weak::new());

/// Leaves words for the other ranks; any thread may hold one (a watchdog, a panic hook). Alone it does nothing. The store lives as long as one is held.
#[derive(Debug, Clone)]
pub struct LastWords(pub(super) Option<Arc<Shared>>);

impl LastWords {
    /// Leaves `text` as this rank's last words; the latest count. Waits at most a second for the store. Only for a rank that goes: what it says is
    /// taken for the reason if anything fails later.
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
        shared.spoke.store(true, Ordering::SeqCst);
        shared.troubled();
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
        let asked = Arc::clone(shared);
        let found = within(ANSWER, move || asked.look()).and_then(Result::ok).unwrap_or_default();
        shared.words(found)
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
/// waits for it is left behind, until the store's own time-out (a minute).
pub(super) fn within<T: Send + 'static>(limit: Duration, f: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let (send, receive) = mpsc::channel();
    std::thread::spawn(move || {
        // Nobody listens any more if it took too long.
        let _ = send.send(f());
    });
    receive.recv_timeout(limit).ok()
}

impl Shared {
    pub(super) fn new(store: Store, rank: usize, members: Vec<Member>, agent: bool) -> Arc<Self> {
        let shared = Arc::new(Self {
            store,
            rank,
            members,
            agent,
            trouble: OnceLock::new(),
            spoke: AtomicBool::new(false),
        });
        if shared.serves() {
            *SERVED.lock().unwrap_or_else(PoisonError::into_inner) = Arc::downgrade(&shared);
        }
        shared
    }

    /// Whether the store goes with this process.
    pub(super) const fn serves(&self) -> bool {
        self.rank == 0 && !self.agent
    }

    /// Whether this rank has left last words.
    pub(super) fn spoke(&self) -> bool {
        self.spoke.load(Ordering::SeqCst)
    }

    /// The time of the first trouble is kept.
    pub(super) fn troubled(&self) {
        let _ = self.trouble.set(Instant::now());
    }

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

    fn look(&self) -> Result<Found, TorchError> {
        let book = self.store.get(BOOK)?.unwrap_or_default();
        Ok(Found::read(&book, self.rank, self.members.len()))
    }

    fn host(&self, rank: usize) -> String {
        self.members[rank].host.clone()
    }

    fn words(&self, found: Found) -> Vec<Cause> {
        let cause = |(rank, text)| Cause::Words {
            rank,
            host: self.host(rank),
            text,
        };
        found.words.into_iter().map(cause).collect()
    }

    /// Where somebody said why, the silent ones are those who had no time to notice.
    fn causes(&self, found: Found) -> Vec<Cause> {
        if !found.words.is_empty() {
            return self.words(found);
        }
        let cause = |rank| Cause::Silent {
            rank,
            host: self.host(rank),
        };
        found.silent.into_iter().map(cause).collect()
    }

    fn no_store(&self) -> Cause {
        let host = self.host(0);
        Cause::NoStore {
            whose: if self.agent {
                format!("the launcher's agent for rank 0's host {host}")
            } else {
                format!("rank 0 on host {host}")
            },
        }
    }
}

/// Says that this rank noticed the loss of another one, and finds out which and why, within [`MUSTER`] and the time that the store takes to answer.
/// Call it with the connections cut: then all others notice too.
pub(super) fn inquire(shared: &Arc<Shared>) -> Vec<Cause> {
    shared.troubled();
    let (send, receive) = mpsc::channel();
    let asked = Arc::clone(shared);
    std::thread::spawn(move || look_around(&asked, &send));
    let mut latest = None;
    // Each answer of the store renews the patience with it; the thread ends by itself.
    while let Ok(found) = receive.recv_timeout(ANSWER) {
        latest = Some(found);
    }
    latest.map_or_else(|| vec![shared.no_store()], |found| shared.causes(found))
}

/// Reports what the book says, again and again, until that settles the matter.
fn look_around(shared: &Shared, to: &mpsc::Sender<Found>) {
    let since = Instant::now();
    if shared.enter(Says::Noticed).is_err() {
        return;
    }
    while let Ok(found) = shared.look() {
        let settled = found.settled(since.elapsed());
        if to.send(found).is_err() || settled {
            break;
        }
        std::thread::sleep(LOOK);
    }
    // The store may be gone by now, and nobody needs it then.
    let _ = shared.enter(Says::Read);
}

/// If this process serves the store and a rank failed: stays until all others have noticed and read what was said, within [`HOST`].
pub(super) fn host(shared: &Shared) {
    let Some(since) = shared.trouble.get().filter(|_| shared.serves()) else {
        return;
    };
    while since.elapsed() < HOST && shared.look().is_ok_and(|found| !found.all_have_read(shared.spoke())) {
        std::thread::sleep(LOOK);
    }
}

/// Ends the process with `code`, without destructors and exit handlers: those of a broken process group may wait for ranks that are gone. For after a
/// [`crate::ranks::RanksError::Lost`] or [`LastWords::say`]; say why first. Rank 0, with whose process the store goes, stays for up to five seconds
/// until the others have read what was said.
pub fn leave_at_once(code: i32) -> ! {
    let served = SERVED.lock().unwrap_or_else(PoisonError::into_inner).upgrade();
    if let Some(shared) = served {
        host(&shared);
    }
    ffi::exit(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn book(lines: &[(usize, Says)]) -> String {
        let line = |(rank, says): &(usize, Says)| match says {
            Says::Words(text) => format!("{{\"rank\":{rank},\"says\":{{\"Words\":\"{text}\"}}}}\n"),
            Says::Noticed => format!("{{\"rank\":{rank},\"says\":\"Noticed\"}}\n"),
            Says::Read => format!("{{\"rank\":{rank},\"says\":\"Read\"}}\n"),
        };
        lines.iter().map(line).collect()
    }

    #[test]
    fn the_silent_rank_is_the_one_that_went_once_all_others_have_noticed() {
        let early = Found::read(&book(&[(0, Says::Noticed), (9, Says::Noticed)]), 0, 4);
        assert_eq!(early.silent, [1, 2, 3]);
        assert!(!early.settled(LISTEN) && early.settled(MUSTER));
        let all = Found::read(&book(&[(2, Says::Noticed), (3, Says::Noticed), (3, Says::Read)]), 0, 4);
        assert_eq!((all.silent.as_slice(), all.readers), ([1].as_slice(), 1));
        assert!(!all.settled(Duration::ZERO) && all.settled(LISTEN));
        assert!(!all.all_have_read(false), "rank 2 still reads");
        let read = Found::read(
            &book(&[(2, Says::Noticed), (3, Says::Noticed), (3, Says::Read), (2, Says::Read)]),
            0,
            4,
        );
        assert!(read.all_have_read(false));
        assert!(!read.all_have_read(true), "it was this rank that failed, so rank 1 may still come");
    }

    #[test]
    fn words_settle_it_whoever_else_is_silent() {
        let found = Found::read(&format!("not a line\n{}", book(&[(2, Says::Words("disk full".into()))])), 0, 4);
        assert!(found.settled(Duration::ZERO));
        assert_eq!(found.words[&2], "disk full");
        assert!(!found.all_have_read(false), "ranks 1 and 3 have not read");
    }
}
