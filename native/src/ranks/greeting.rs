//! What ranks tell each other when they meet, and who does not fit.
//!
//! The store may hold keys of an earlier attempt (torchrun's agent keeps its store over restarts; its restart counter misses a changed membership), so
//! names of keys that anybody could know mean nothing. Each rank draws a nonce and writes it where rank 0 looks; rank 0 answers every nonce it sees
//! with its own, which no earlier attempt can know and which prefixes all further keys. A dead rank's nonce gets an answer too, and nobody reads it.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::TorchError;
use crate::ranks::ffi::Store;
use crate::ranks::{Late, Misfit, fit};

/// How often a rank looks for what it waits for.
const LOOK: Duration = Duration::from_millis(10);
/// How long rank 0 keeps its store open for those who still have to read that they do not fit.
const FAREWELL: Duration = Duration::from_secs(2);

/// What a rank says of itself when it joins.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Greeting {
    /// What all ranks must have alike, by name: version, kind of device, digests of the codebook, of the shard list, of whatever the caller wants.
    pub alike: BTreeMap<String, String>,
    /// What identifies the device (a GPU's UUID); no two ranks of one host may have the same. `None`: not checked.
    pub device_id: Option<String>,
    /// Why this rank cannot take part: then none does, and all are told instead of waiting for it.
    pub refusal: Option<String>,
}

impl Greeting {
    /// Adds something that all ranks must have alike.
    #[must_use]
    pub fn with(mut self, what: &str, value: &str) -> Self {
        self.alike.insert(what.to_owned(), value.to_owned());
        self
    }
}

/// A rank as the others know it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Name of its host.
    pub host: String,
    /// Its number among the ranks of its host.
    pub local_rank: usize,
    /// Its process.
    pub pid: u32,
    /// Where the others reach it, unless interfaces were named.
    pub(super) address: Option<IpAddr>,
    /// What it said of itself.
    pub greeting: Greeting,
}

/// What a rank writes where rank 0 looks.
#[derive(Debug, Serialize, Deserialize)]
struct Hello {
    nonce: String,
    world: usize,
    host: String,
    pid: u32,
}

impl Hello {
    fn key(rank: usize) -> String {
        format!("hello/{rank}")
    }

    fn find(store: &Store, rank: usize) -> Result<Option<Self>, TorchError> {
        Ok(store.get(&Self::key(rank))?.and_then(|text| read(&text)))
    }

    fn process(&self) -> String {
        format!("host {}, process {}", self.host, self.pid)
    }
}

/// Rank 0's answer to a nonce.
#[derive(Debug, Serialize, Deserialize)]
enum Answer {
    /// The prefix of this attempt's keys.
    Welcome(String),
    /// Rank 0 was told that there are so many ranks, which is another number.
    OtherWorld(usize),
}

/// What rank 0 tells those that it welcomed.
#[derive(Debug, Serialize, Deserialize)]
enum Verdict {
    /// All came and fit together; `nonces[r]` is that of the process that is rank r.
    Together { nonces: Vec<String>, members: Vec<Member> },
    /// All came, and some do not fit.
    Apart(Vec<Misfit>),
    /// Not all came.
    Late(Late),
    /// A rank was started again while the others were still awaited: all greet once more.
    Again,
}

/// Why greeting ended without a group.
#[derive(Debug)]
pub(super) enum Refusal {
    /// The store went away: rank 0 or the agent was restarted. Worth another try.
    Store(TorchError),
    Late(Late),
    /// Another process, described here, is this rank already.
    Taken(String),
    Misfit(Vec<Misfit>),
    /// Greet once more.
    Again,
    Cancelled,
}

impl From<TorchError> for Refusal {
    fn from(e: TorchError) -> Self {
        Self::Store(e)
    }
}

/// All ranks, and the prefix of this attempt's keys.
#[derive(Debug)]
pub(super) struct Greeted {
    pub(super) attempt: String,
    pub(super) members: Vec<Member>,
}

/// The rules of waiting, shared by all steps of joining.
pub(super) struct Patience<'a> {
    pub(super) since: Instant,
    pub(super) whole: Duration,
    pub(super) go_on: &'a dyn Fn() -> bool,
}

impl Patience<'_> {
    pub(super) fn spent(&self) -> bool {
        self.since.elapsed() >= self.whole
    }

    pub(super) fn left(&self) -> Duration {
        self.whole.saturating_sub(self.since.elapsed())
    }

    /// Asks again and again until there is an answer, the time is over (`None`), or the caller gives up.
    fn wait<T>(&self, mut look: impl FnMut() -> Result<Option<T>, Refusal>) -> Result<Option<T>, Refusal> {
        loop {
            if let Some(found) = look()? {
                return Ok(Some(found));
            }
            if !(self.go_on)() {
                return Err(Refusal::Cancelled);
            }
            if self.spent() {
                return Ok(None);
            }
            std::thread::sleep(LOOK);
        }
    }
}

/// 128 bits that nobody else draws.
fn nonce() -> String {
    let mut bytes = [0u8; 16];
    let drawn = std::fs::File::open("/dev/urandom").and_then(|mut f| f.read_exact(&mut bytes));
    if drawn.is_err() {
        // Without that device: the process and the moment are as unlikely to come twice in one job.
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap_or_default();
        bytes = (now.as_nanos() ^ (u128::from(std::process::id()) << 96)).to_le_bytes();
    }
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn read<T: for<'a> Deserialize<'a>>(text: &str) -> Option<T> {
    serde_json::from_str(text).ok()
}

fn written<T: Serialize>(value: &T) -> Result<String, Refusal> {
    serde_json::to_string(value).map_err(|e| {
        Refusal::Store(TorchError {
            call: "the greeting",
            message: e.to_string(),
        })
    })
}

/// Meets all ranks at `store`. Every rank calls it; answers the same members to all of them.
pub(super) fn greet(store: &Store, rank: usize, world: usize, me: &Member, patience: &Patience<'_>) -> Result<Greeted, Refusal> {
    let own = nonce();
    if rank == 0 {
        receive(store, world, own, me, patience)
    } else {
        arrive(store, rank, world, &own, me, patience)
    }
}

fn place(attempt: &str, nonce: &str) -> String {
    format!("{attempt}/member/{nonce}")
}

/// Where rank 0 asks, when a process for every rank has come, who is still there.
fn roll_call(attempt: &str) -> String {
    format!("{attempt}/call")
}

/// Where a process answers that.
fn presence(attempt: &str, nonce: &str) -> String {
    format!("{attempt}/present/{nonce}")
}

/// Rank 0's part.
fn receive(store: &Store, world: usize, attempt: String, me: &Member, patience: &Patience<'_>) -> Result<Greeted, Refusal> {
    let announce = |verdict: &Verdict| -> Result<(), Refusal> { Ok(store.set(&format!("{attempt}/verdict"), &written(verdict)?)?) };
    let welcome = |nonce: &str, answer: &Answer| -> Result<(), Refusal> { Ok(store.set(&format!("welcome/{nonce}"), &written(answer)?)?) };
    // The latest process that came as rank r: an earlier one is dead, or will see that it was replaced.
    let mut nonces = vec![String::new(); world];
    nonces[0].clone_from(&attempt);
    let mut strange: BTreeMap<usize, Hello> = BTreeMap::new();
    let mut members: Vec<Option<Member>> = vec![None; world];
    members[0] = Some(me.clone());
    let mut called = false;
    let mut present = vec![false; world];
    present[0] = true;
    let all = patience.wait(|| {
        for r in 1..world {
            match Hello::find(store, r)? {
                Some(hello) if hello.world != world => {
                    let nonce = hello.nonce.clone();
                    let before = strange.insert(r, hello);
                    if before.is_none_or(|known| known.nonce != nonce) {
                        welcome(&nonce, &Answer::OtherWorld(world))?;
                    }
                }
                Some(hello) if hello.nonce != nonces[r] => {
                    if members[r].is_some() {
                        announce(&Verdict::Again)?;
                        return Err(Refusal::Again);
                    }
                    welcome(&hello.nonce, &Answer::Welcome(attempt.clone()))?;
                    nonces[r] = hello.nonce;
                }
                _ => {}
            }
            if members[r].is_none() {
                members[r] = store.get(&place(&attempt, &nonces[r]))?.and_then(|t| read(&t));
            }
        }
        if members.iter().any(Option::is_none) {
            return Ok(None);
        }
        // One that came earlier may have died since. Its place stays empty until it is started again, which begins the greeting anew.
        if !called {
            store.set(&roll_call(&attempt), "1")?;
            called = true;
        }
        for r in 1..world {
            present[r] = present[r] || store.get(&presence(&attempt, &nonces[r]))?.is_some();
        }
        Ok(present.iter().all(|p| *p).then_some(()))
    })?;
    let here: Vec<usize> = (0..world).filter(|&r| members[r].is_some() && (present[r] || !called)).collect();
    let (verdict, refusal) = if all.is_none() {
        let late = late(&here, &strange, world, patience);
        (Verdict::Late(late.clone()), Refusal::Late(late))
    } else {
        let members: Vec<Member> = members.into_iter().flatten().collect();
        let misfits = fit::misfits(&members);
        if misfits.is_empty() {
            announce(&Verdict::Together {
                nonces,
                members: members.clone(),
            })?;
            return Ok(Greeted { attempt, members });
        }
        (Verdict::Apart(misfits.clone()), Refusal::Misfit(misfits))
    };
    announce(&verdict)?;
    let since = Instant::now();
    let has_read = |r: &usize| matches!(store.get(&format!("{attempt}/read/{r}")), Ok(Some(_)));
    while since.elapsed() < FAREWELL && !here.iter().skip(1).all(has_read) {
        std::thread::sleep(LOOK);
    }
    Err(refusal)
}

fn late(here: &[usize], strange: &BTreeMap<usize, Hello>, world: usize, patience: &Patience<'_>) -> Late {
    let missing: Vec<usize> = (0..world).filter(|r| !here.contains(r)).collect();
    let odd = strange.iter().find(|(r, _)| missing.contains(r));
    let note = odd.map_or_else(String::new, |(r, h)| {
        format!(
            "a rank {r} on host {} was told that there are {} ranks (WORLD_SIZE must be the same everywhere)",
            h.host, h.world
        )
    });
    Late {
        waited: patience.whole,
        here: here.len(),
        world,
        missing,
        note,
    }
}

/// The part of all others.
fn arrive(store: &Store, rank: usize, world: usize, own: &str, me: &Member, patience: &Patience<'_>) -> Result<Greeted, Refusal> {
    let late = |note: &str| {
        Refusal::Late(Late {
            waited: patience.whole,
            here: 0,
            world,
            missing: Vec::new(),
            note: note.into(),
        })
    };
    let hello = written(&Hello {
        nonce: own.into(),
        world,
        host: me.host.clone(),
        pid: me.pid,
    })?;
    store.set(&Hello::key(rank), &hello)?;
    // Of two processes that are this rank the one that came later counts, for an earlier one may be dead.
    let still_this_rank = || match Hello::find(store, rank)? {
        Some(last) if last.nonce == own => Ok(()),
        Some(last) if last.world == world => Err(Refusal::Taken(last.process())),
        // One that was told another number of ranks, and is refused for it.
        _ => Ok(store.set(&Hello::key(rank), &hello)?),
    };
    let welcome = format!("welcome/{own}");
    let answer = patience.wait(|| {
        let answer = store.get(&welcome)?.and_then(|t| read::<Answer>(&t));
        if answer.is_none() {
            still_this_rank()?;
        }
        Ok(answer)
    })?;
    let attempt = match answer {
        Some(Answer::Welcome(attempt)) => attempt,
        Some(Answer::OtherWorld(ours)) => {
            return Err(Refusal::Misfit(vec![Misfit::Differs {
                rank,
                host: me.host.clone(),
                what: "WORLD_SIZE".into(),
                theirs: world.to_string(),
                ours: ours.to_string(),
            }]));
        }
        None => {
            return Err(late(
                "the store is there, but rank 0 did not answer (is it running, with the same WORLD_SIZE?)",
            ));
        }
    };
    store.set(&place(&attempt, own), &written(me)?)?;
    let mut answered = false;
    let verdict = patience.wait(|| {
        if !answered && store.get(&roll_call(&attempt))?.is_some() {
            store.set(&presence(&attempt, own), "1")?;
            answered = true;
        }
        let verdict = store.get(&format!("{attempt}/verdict"))?.and_then(|t| read::<Verdict>(&t));
        if matches!(verdict, None | Some(Verdict::Again)) {
            still_this_rank()?;
        }
        Ok(verdict)
    })?;
    let refusal = match verdict {
        Some(Verdict::Together { nonces, members }) => {
            if nonces[rank] != own {
                let other = &members[rank];
                return Err(Refusal::Taken(format!("host {}, process {}", other.host, other.pid)));
            }
            return Ok(Greeted { attempt, members });
        }
        Some(Verdict::Again) => return Err(Refusal::Again),
        None => return Err(late("rank 0 answered, but not all other ranks came")),
        Some(Verdict::Apart(misfits)) => Refusal::Misfit(misfits),
        Some(Verdict::Late(late)) => Refusal::Late(late),
    };
    store.set(&format!("{attempt}/read/{rank}"), "1")?;
    Err(refusal)
}

#[cfg(test)]
mod tests {
    use super::nonce;

    #[test]
    fn nonces_differ() {
        assert_ne!(nonce(), nonce());
        assert_eq!(nonce().len(), 32);
    }
}
