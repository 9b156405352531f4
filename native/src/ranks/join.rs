//! Coming together: the store, the greeting, the connections.

use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs as _};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tch::Device;

use crate::TorchError;
use crate::ranks::ffi::{self, Cuda, Links, Store, Wiring};
use crate::ranks::greeting::{self, Greeted, Greeting, Member, Patience, Refusal};
use crate::ranks::last_words::{self, LastWords, Shared};
use crate::ranks::launch::Meeting;
use crate::ranks::{Late, Launch, Loss, RanksError, nccl};

/// Who moves tensors between ranks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Backend {
    /// NCCL for CUDA devices, gloo for the CPU.
    #[default]
    Auto,
    /// NCCL.
    Nccl,
    /// gloo: everywhere, and slowly on GPUs (through the host's memory).
    Gloo,
}

/// How ranks come together.
#[derive(Debug, Clone)]
pub struct Options {
    /// This process's place.
    pub launch: Launch,
    /// Where this rank's tensors are.
    pub device: Device,
    /// Who moves them.
    pub backend: Backend,
    /// What this rank says of itself.
    pub greeting: Greeting,
    /// How long the ranks wait for each other at the start.
    pub join_timeout: Duration,
    /// How long a collective of tensors may take.
    pub step_timeout: Duration,
    /// How long a tick may take: whatever one rank does while the others wait for it.
    pub control_timeout: Duration,
    /// Compares what the ranks are about to do before each collective of tensors, so that ranks in different ones are named at once. For tests: slow.
    pub checked: bool,
    /// Interfaces of gloo, as GLOO_SOCKET_IFNAME names them (separated by commas). `None`: the address from which this host reaches rank 0's.
    pub interfaces: Option<String>,
}

impl Options {
    /// For `launch`, on the CPU, with the time-outs of `docs/distributed.md`: 30 minutes to join and for a tick, 5 for a step.
    #[must_use]
    pub fn new(launch: Launch) -> Self {
        Self {
            launch,
            device: Device::Cpu,
            backend: Backend::Auto,
            greeting: Greeting::default(),
            join_timeout: Duration::from_secs(30 * 60),
            step_timeout: Duration::from_secs(5 * 60),
            control_timeout: Duration::from_secs(30 * 60),
            checked: false,
            interfaces: std::env::var("GLOO_SOCKET_IFNAME").ok().filter(|v| !v.trim().is_empty()),
        }
    }
}

/// What joining gives. Fields are dropped in this order: connections, then the store (with the prefix of this attempt).
#[derive(Debug)]
pub(super) struct Joined {
    pub(super) links: Links,
    pub(super) words: Arc<Shared>,
}

/// How often an address is tried.
const RETRY: Duration = Duration::from_millis(100);
const CONNECT: Duration = Duration::from_secs(5);
/// Operations of the store that do not wait for a key answer at once; this bounds them where the network is gone.
const STORE_ANSWERS: Duration = Duration::from_secs(60);

pub(super) fn join(options: &Options, meeting: &Meeting, go_on: &dyn Fn() -> bool) -> Result<Joined, RanksError> {
    let Launch { rank, world, .. } = options.launch;
    // Before anybody waits: what this rank cannot do, it says at once.
    let cuda = cuda(options)?;
    let patience = Patience {
        since: Instant::now(),
        whole: options.join_timeout,
        go_on,
    };
    let serves = rank == 0 && !meeting.agent;
    // Rank 0's own store outlives its attempts to greet.
    let mut store = None;
    let (store, greeted, own) = loop {
        let (open, own) = match store.take() {
            Some(kept) => kept,
            None if serves => serve(meeting, &options.launch)?,
            None => reach(meeting, world, &patience)?,
        };
        let me = Member {
            host: ffi::host_name(),
            local_rank: options.launch.local_rank,
            pid: std::process::id(),
            address: options.interfaces.is_none().then_some(own),
            greeting: options.greeting.clone(),
        };
        match greeting::greet(&open, rank, world, &me, &patience) {
            Ok(greeted) => break (open, greeted, own),
            Err(Refusal::Again) => store = Some((open, own)),
            Err(Refusal::Store(e)) if serves || patience.spent() => return Err(e.into()),
            Err(Refusal::Store(_)) => {}
            Err(Refusal::Late(late)) => return Err(RanksError::Late(late)),
            Err(Refusal::Taken(other)) => return Err(RanksError::Taken { rank, other }),
            Err(Refusal::Misfit(list)) => return Err(RanksError::Misfit(list)),
            Err(Refusal::Cancelled) => return Err(RanksError::Cancelled),
        }
        if !go_on() {
            return Err(RanksError::Cancelled);
        }
        std::thread::sleep(RETRY);
    };
    let Greeted { attempt, members } = greeted;
    let words = Shared::new(store.prefixed(&attempt)?, rank, members, meeting.agent);
    let interfaces: Vec<String> = options
        .interfaces
        .iter()
        .flat_map(|list| list.split(','))
        .map(|name| name.trim().to_owned())
        .filter(|name| !name.is_empty())
        .collect();
    let wiring = Wiring {
        rank,
        world,
        interfaces: &interfaces,
        address: &own.to_string(),
        step_s: options.step_timeout.as_secs_f64(),
        control_s: options.control_timeout.as_secs_f64(),
        checked: options.checked,
        cuda,
    };
    let since = Instant::now();
    match Links::open(&words.store, &wiring) {
        Ok(links) => Ok(Joined { links, words }),
        Err(failure) => Err(not_connected(failure, since, options, &words)),
    }
}

/// Tells the others if it is this rank that cannot be connected, and finds out who it is if not.
fn not_connected(failure: ffi::Failure, since: Instant, options: &Options, words: &Arc<Shared>) -> RanksError {
    let error = if failure.peer {
        let causes = last_words::inquire(words);
        let loss = Loss::new(failure.error.call, since.elapsed(), &failure.error.message, causes);
        RanksError::Lost(Box::new(loss))
    } else {
        let error = unreachable_interface(failure.error, options);
        // Without the store the others know it by the time-out.
        let _ = LastWords(Some(Arc::clone(words))).say(&error.to_string());
        error
    };
    last_words::host(words);
    error
}

fn unreachable_interface(e: TorchError, options: &Options) -> RanksError {
    match &options.interfaces {
        Some(names) if e.message.contains("Unable to find address for") => RanksError::Address {
            what: format!("GLOO_SOCKET_IFNAME={names}"),
            reason: "no such interface with an address on this host (`ip addr` lists them)".into(),
        },
        _ => e.into(),
    }
}

/// Who reduces CUDA tensors.
fn cuda(options: &Options) -> Result<Cuda, RanksError> {
    match (options.backend, options.device) {
        (Backend::Nccl, Device::Cuda(_)) | (Backend::Auto, Device::Cuda(_)) => Ok(Cuda::Nccl(nccl::load()?)),
        (Backend::Gloo, Device::Cuda(_)) => Ok(Cuda::Gloo),
        (Backend::Nccl, _) => Err(nccl::NcclUnavailable::NoCudaDevice.into()),
        _ => Ok(Cuda::Absent),
    }
}

fn resolve(meeting: &Meeting) -> Result<Vec<SocketAddr>, String> {
    let found = (meeting.host.as_str(), meeting.port).to_socket_addrs().map_err(|e| e.to_string())?;
    Ok(found.collect())
}

fn at(meeting: &Meeting) -> String {
    format!("MASTER_ADDR={}, MASTER_PORT={}", meeting.host, meeting.port)
}

/// Rank 0's store, at MASTER_ADDR only: it has no password, so no other interface may offer it.
fn serve(meeting: &Meeting, launch: &Launch) -> Result<(Store, IpAddr), RanksError> {
    let wrong = |reason: String| RanksError::Address { what: at(meeting), reason };
    let addresses = resolve(meeting).map_err(|e| wrong(format!("rank 0 cannot resolve that name ({e})")))?;
    let mut said = String::from("the name has no address");
    for address in addresses {
        let listener = match TcpListener::bind(address) {
            Ok(listener) => listener,
            Err(e) => {
                said = format!("rank 0 cannot listen at {address}: {e}");
                if e.kind() == std::io::ErrorKind::AddrNotAvailable {
                    said += " (MASTER_ADDR must be an address of the host of rank 0)";
                }
                continue;
            }
        };
        if address.ip().is_loopback() && launch.local_world.is_some_and(|n| n < launch.world) {
            return Err(wrong(format!(
                "on the host of rank 0 that is {}, which other hosts cannot reach; write an address of the network between the hosts",
                address.ip()
            )));
        }
        let store = Store::open(
            &address.ip().to_string(),
            address.port(),
            Some(listener),
            STORE_ANSWERS.as_secs_f64(),
        )?;
        return Ok((store, address.ip()));
    }
    Err(wrong(said))
}

/// A client of the store, as soon as it is there, and the address from which this host reaches it.
fn reach(meeting: &Meeting, world: usize, patience: &Patience<'_>) -> Result<(Store, IpAddr), RanksError> {
    let mut said;
    loop {
        match resolve(meeting) {
            Ok(addresses) => {
                said = format!("the name {} has no address", meeting.host);
                for address in addresses {
                    let limit = CONNECT.min(patience.left()).max(RETRY);
                    match TcpStream::connect_timeout(&address, limit) {
                        // Where nobody listens yet at a port of the kernel's own choice, a connection may meet itself, and would keep rank 0 from the port.
                        Ok(stream) if stream.local_addr().is_ok_and(|a| a == address) => said = format!("{address}: nobody listens"),
                        Ok(stream) => {
                            let own = stream.local_addr().map_or(address.ip(), |a| a.ip());
                            drop(stream);
                            match Store::open(&address.ip().to_string(), address.port(), None, STORE_ANSWERS.as_secs_f64()) {
                                Ok(store) => return Ok((store, own)),
                                Err(e) => said = e.to_string(),
                            }
                        }
                        Err(e) => said = format!("{address}: {e}"),
                    }
                }
            }
            Err(e) => said = format!("cannot resolve {}: {e}", meeting.host),
        }
        if !(patience.go_on)() {
            return Err(RanksError::Cancelled);
        }
        if patience.spent() {
            return Err(RanksError::Late(Late {
                waited: patience.whole,
                here: 0,
                world,
                missing: vec![0],
                note: format!("no store at {} ({said})", at(meeting)),
            }));
        }
        std::thread::sleep(RETRY);
    }
}
