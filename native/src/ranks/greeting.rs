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
use crate::ranks::{Late, Misfit};

/// How often a rank looks for what it waits for.
const LOOK: Duration = Duration::from_millis(10);
/// How long rank 0 keeps its store open for those who still have to read that they do not fit.
const FAREWELL: Duration = Duration::from_secs(2);

/// What a rank says of itself when it joins.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Greeting {
    /// What all ranks must have alike, by name: version, kind of device, digests of the codebook, of the shard list, of whatever the caller wants.
    pub alike: BTreeMap<String, String>,
    /// What identifies the device among those of all hosts (a GPU's UUID); no two ranks may have the same. `None`: not checked.
    pub device_id: Option<String>,
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

#[derive(Debug, Serialize, Deserialize)]
struct Hello {
    nonce: String,
    world: usize,
    host: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct Verdict {
    /// A rank was started again while the others were still awaited: all greet once more.
    again: bool,
    misfits: Vec<Misfit>,
    members: Vec<Member>,
}

impl Verdict {
    const fn again() -> Self {
        Self {
            again: true,
            misfits: Vec::new(),
            members: Vec::new(),
        }
    }
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

/// Rank 0's part.
fn receive(store: &Store, world: usize, attempt: String, me: &Member, patience: &Patience<'_>) -> Result<Greeted, Refusal> {
    let mut answered = vec![String::new(); world];
    let mut strange: BTreeMap<usize, Hello> = BTreeMap::new();
    let mut members: Vec<Option<Member>> = vec![None; world];
    members[0] = Some(me.clone());
    let all = patience.wait(|| {
        for r in 1..world {
            if let Some(hello) = store.get(&format!("hello/{r}"))?.and_then(|t| read::<Hello>(&t)) {
                if hello.world != world {
                    strange.insert(r, hello);
                } else if answered[r] != hello.nonce {
                    if members[r].is_some() {
                        store.set(&format!("{attempt}/verdict"), &written(&Verdict::again())?)?;
                        return Err(Refusal::Again);
                    }
                    store.set(&format!("welcome/{}", hello.nonce), &attempt)?;
                    answered[r] = hello.nonce;
                }
            }
            if members[r].is_none() {
                members[r] = store.get(&format!("{attempt}/member/{r}"))?.and_then(|t| read(&t));
            }
        }
        Ok(members.iter().all(Option::is_some).then_some(()))
    })?;
    if all.is_none() {
        let missing: Vec<usize> = (0..world).filter(|&r| members[r].is_none()).collect();
        let note = strange
            .iter()
            .find(|(r, _)| missing.contains(r))
            .map_or_else(String::new, |(r, h)| {
                format!(
                    "a rank {r} on host {} was told that there are {} ranks (WORLD_SIZE must be the same everywhere)",
                    h.host, h.world
                )
            });
        return Err(Refusal::Late(Late {
            waited: patience.whole,
            here: world - missing.len(),
            world,
            missing,
            note,
        }));
    }
    let members: Vec<Member> = members.into_iter().flatten().collect();
    let misfits = misfits(&members);
    let verdict = Verdict {
        again: false,
        misfits,
        members,
    };
    store.set(&format!("{attempt}/verdict"), &written(&verdict)?)?;
    if verdict.misfits.is_empty() {
        let members = verdict.members;
        return Ok(Greeted { attempt, members });
    }
    let since = Instant::now();
    let all_read = || (1..world).all(|r| matches!(store.get(&format!("{attempt}/read/{r}")), Ok(Some(_))));
    while since.elapsed() < FAREWELL && !all_read() {
        std::thread::sleep(LOOK);
    }
    Err(Refusal::Misfit(verdict.misfits))
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
    let hello = Hello {
        nonce: own.to_owned(),
        world,
        host: me.host.clone(),
    };
    store.set(&format!("hello/{rank}"), &written(&hello)?)?;
    let welcome = format!("welcome/{own}");
    let Some(attempt) = patience.wait(|| Ok(store.get(&welcome)?))? else {
        // Whoever wrote last was the one that rank 0 answered.
        let last = store.get(&format!("hello/{rank}"))?.and_then(|t| read::<Hello>(&t));
        return Err(match last {
            Some(other) if other.nonce != own => Refusal::Taken(format!("host {}", other.host)),
            _ => late("the store is there, but rank 0 did not answer (is it running, with the same WORLD_SIZE?)"),
        });
    };
    // A second process of this rank would take the first one's connections.
    if store.count(&format!("{attempt}/came/{rank}"))? > 1 {
        let other = store.get(&format!("{attempt}/member/{rank}"))?.and_then(|t| read::<Member>(&t));
        return Err(Refusal::Taken(
            other.map_or_else(|| "somewhere".into(), |m| format!("host {}, process {}", m.host, m.pid)),
        ));
    }
    store.set(&format!("{attempt}/member/{rank}"), &written(me)?)?;
    let verdict = patience
        .wait(|| Ok(store.get(&format!("{attempt}/verdict"))?.and_then(|t| read::<Verdict>(&t))))?
        .ok_or_else(|| late("rank 0 answered, but not all other ranks came"))?;
    if verdict.again {
        return Err(Refusal::Again);
    }
    if verdict.misfits.is_empty() {
        let members = verdict.members;
        return Ok(Greeted { attempt, members });
    }
    store.set(&format!("{attempt}/read/{rank}"), "1")?;
    Err(Refusal::Misfit(verdict.misfits))
}

/// Who does not fit, in the order of ranks.
fn misfits(members: &[Member]) -> Vec<Misfit> {
    let zero = &members[0].greeting;
    let absent = || "none".to_owned();
    let mut out = Vec::new();
    for (rank, m) in members.iter().enumerate() {
        let host = || m.host.clone();
        let names: std::collections::BTreeSet<&String> = zero.alike.keys().chain(m.greeting.alike.keys()).collect();
        for what in names {
            let (theirs, ours) = (m.greeting.alike.get(what), zero.alike.get(what));
            if theirs != ours {
                out.push(Misfit::Differs {
                    rank,
                    host: host(),
                    what: what.clone(),
                    theirs: theirs.cloned().unwrap_or_else(absent),
                    ours: ours.cloned().unwrap_or_else(absent),
                });
            }
        }
        if let Some(device) = &m.greeting.device_id
            && let Some(with) = members[..rank].iter().position(|o| o.greeting.device_id.as_ref() == Some(device))
        {
            out.push(Misfit::Shares {
                rank,
                host: host(),
                with,
                device: device.clone(),
            });
        }
    }
    // All at loopback addresses are on one host. One of several there would never be reached.
    let loopback = |m: &Member| m.address.filter(IpAddr::is_loopback);
    if !members.iter().all(|m| loopback(m).is_some()) {
        for (rank, m) in members.iter().enumerate() {
            if let Some(address) = loopback(m) {
                out.push(Misfit::Loopback {
                    rank,
                    host: m.host.clone(),
                    address: address.to_string(),
                });
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(host: &str, version: &str, device: Option<&str>, address: Option<&str>) -> Member {
        Member {
            host: host.into(),
            local_rank: 0,
            pid: 1,
            address: address.map(|a| a.parse().unwrap()),
            greeting: Greeting {
                device_id: device.map(Into::into),
                ..Greeting::default().with("version", version).with("device", "H100")
            },
        }
    }

    #[test]
    fn equal_ranks_fit_and_the_others_are_named() {
        let a = member("a", "1", Some("GPU-1"), Some("10.0.0.1"));
        let b = member("b", "1", Some("GPU-2"), Some("10.0.0.2"));
        assert_eq!(misfits(&[a.clone(), b.clone()]), []);
        let old = Member {
            greeting: b.greeting.clone().with("version", "0").with("codebook", "f00"),
            ..b
        };
        let text: Vec<String> = misfits(&[a, old]).iter().map(ToString::to_string).collect();
        assert_eq!(
            text,
            [
                "rank 1 on host b has codebook f00, rank 0 has none",
                "rank 1 on host b has version 0, rank 0 has 1"
            ]
        );
    }

    #[test]
    fn a_device_given_twice_is_named() {
        let a = member("a", "1", Some("GPU-1"), None);
        assert_eq!(
            misfits(&[a.clone(), a]),
            [Misfit::Shares {
                rank: 1,
                host: "a".into(),
                with: 0,
                device: "GPU-1".into()
            }]
        );
        let cpu = member("a", "1", None, None);
        assert_eq!(misfits(&[cpu.clone(), cpu]), []);
    }

    #[test]
    fn a_rank_that_only_its_own_host_reaches_is_named() {
        let own = member("a", "1", None, Some("127.0.1.1"));
        let far = member("b", "1", None, Some("10.0.0.2"));
        assert_eq!(misfits(&[own.clone(), own.clone()]), []);
        let found = misfits(&[own, far]);
        assert!(matches!(&found[..], [Misfit::Loopback { rank: 0, .. }]), "{found:?}");
        assert!(found[0].to_string().contains("GLOO_SOCKET_IFNAME"));
    }

    #[test]
    fn nonces_differ() {
        assert_ne!(nonce(), nonce());
        assert_eq!(nonce().len(), 32);
    }
}
