//! The border to `ranks.cpp`: handles that free themselves, errors as values.
#![expect(
    unsafe_code,
    reason = "calls into ranks.cpp; pointers come from live handles and tensors, and C++ keeps none of them beyond the call but its own"
)]

use std::ffi::{CString, c_char, c_int, c_void};
use std::net::TcpListener;
use std::os::fd::IntoRawFd;
use std::ptr::{NonNull, null_mut};

use tch::Tensor;

use crate::TorchError;
use crate::ffi::{At, at, check, owned, pointers, tensor};

type Handle = *mut c_void;
/// Makes a `ProcessGroupNCCL`: the one function of the library that `nccl.cpp` becomes.
pub(super) type MakeNccl = unsafe extern "C" fn(Handle, c_int, c_int, f64, *mut Handle) -> *mut c_char;

#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Traffic {
    pub(super) buckets: u64,
    pub(super) bytes: u64,
    pub(super) first: f64,
    pub(super) last: f64,
    pub(super) whole: f64,
}

unsafe extern "C" {
    fn tr_exit(code: c_int) -> !;
    fn tr_host_name() -> *mut c_char;
    fn tr_store_open(host: *const c_char, port: u16, listener: c_int, timeout_s: f64, out: *mut Handle) -> *mut c_char;
    fn tr_store_prefixed(store: Handle, prefix: *const c_char, out: *mut Handle) -> *mut c_char;
    fn tr_store_free(store: Handle);
    fn tr_store_set(store: Handle, key: *const c_char, value: *const c_char, n: usize) -> *mut c_char;
    fn tr_store_append(store: Handle, key: *const c_char, value: *const c_char, n: usize) -> *mut c_char;
    fn tr_store_get(store: Handle, key: *const c_char, value: *mut *mut c_char, n: *mut usize) -> *mut c_char;
    fn tr_store_add(store: Handle, key: *const c_char, by: i64, sum: *mut i64) -> *mut c_char;
    fn tr_links_open(
        store: Handle,
        rank: c_int,
        size: c_int,
        interfaces: *const *const c_char,
        n: usize,
        address: *const c_char,
        step_s: f64,
        control_s: f64,
        checked: c_int,
        cuda: c_int,
        nccl: Option<MakeNccl>,
        out: *mut Handle,
    ) -> *mut c_char;
    fn tr_links_cut(links: Handle);
    fn tr_links_free(links: Handle);
    fn tr_tick_begin(links: Handle, word: *const i64, n: usize, out: *mut Handle) -> *mut c_char;
    fn tr_tick_ready(tick: Handle) -> c_int;
    fn tr_tick_finish(tick: Handle, word: *mut i64, n: usize, peer: *mut c_int) -> *mut c_char;
    fn tr_tick_free(tick: Handle);
    fn tr_all_reduce(links: Handle, tensors: *const At, how: *const c_int, n: usize, peer: *mut c_int) -> *mut c_char;
    fn tr_all_gather(links: Handle, x: At, control: c_int, out: *mut At, peer: *mut c_int) -> *mut c_char;
    fn tr_broadcast(links: Handle, tensors: *const At, n: usize, peer: *mut c_int) -> *mut c_char;
    fn tr_checksums(tensors: *const At, n: usize, out: *mut At) -> *mut c_char;
    fn tr_reducer_new(links: Handle, params: *const At, names: *const *const c_char, n: usize, cap: i64, out: *mut Handle) -> *mut c_char;
    fn tr_reducer_free(reducer: Handle);
    fn tr_reducer_begin(reducer: Handle, peer: *mut c_int) -> *mut c_char;
    fn tr_reducer_expect(reducer: Handle) -> *mut c_char;
    fn tr_reducer_done(reducer: Handle, peer: *mut c_int, missing: *mut usize, n: usize, count: *mut usize, out: *mut Traffic);
}

/// What a call that waits for other ranks said, and whether it failed while it waited for one.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) error: TorchError,
    pub(super) peer: bool,
}

fn waited(peer: c_int) -> impl FnOnce(TorchError) -> Failure {
    move |error| Failure { error, peer: peer != 0 }
}

/// Text for C++, without the NULs that would end it there.
fn c_text(text: &str) -> CString {
    CString::new(text.replace('\0', "")).unwrap_or_default()
}

fn made(call: &'static str, f: impl FnOnce(*mut Handle) -> *mut c_char) -> Result<NonNull<c_void>, TorchError> {
    let mut out: Handle = null_mut();
    check(call, f(&raw mut out))?;
    NonNull::new(out).ok_or(TorchError {
        call,
        message: "no error and no result".into(),
    })
}

/// Ends the process at once: no destructor, no exit handler.
pub(super) fn exit(code: i32) -> ! {
    // SAFETY: takes a number and does not return.
    unsafe { tr_exit(code) }
}

pub(super) fn host_name() -> String {
    // SAFETY: takes nothing.
    owned(unsafe { tr_host_name() }).unwrap_or_else(|| "an unnamed host".into())
}

/// A client of a key-value store; c10d's stores lock themselves.
#[derive(Debug)]
pub(super) struct Store(NonNull<c_void>);

// SAFETY: c10d's TCPStore and PrefixStore guard each operation by a lock of their own and know no thread.
unsafe impl Send for Store {}
// SAFETY: as above.
unsafe impl Sync for Store {}

impl Store {
    /// Connects to the store at `host`:`port`; with a listening socket, serves it there too.
    pub(super) fn open(host: &str, port: u16, listener: Option<TcpListener>, timeout_s: f64) -> Result<Self, TorchError> {
        let host = c_text(host);
        let listener = listener.map_or(-1, IntoRawFd::into_raw_fd);
        // SAFETY: the text lives across the call; the socket is given away.
        made("the store", |out| unsafe {
            tr_store_open(host.as_ptr(), port, listener, timeout_s, out)
        })
        .map(Self)
    }

    /// The same store, with `prefix` and a slash before every key.
    pub(super) fn prefixed(&self, prefix: &str) -> Result<Self, TorchError> {
        let prefix = c_text(prefix);
        // SAFETY: the handle and the text live across the call; C++ counts its own reference to the store.
        made("the store", |out| unsafe {
            tr_store_prefixed(self.0.as_ptr(), prefix.as_ptr(), out)
        })
        .map(Self)
    }

    pub(super) fn set(&self, key: &str, value: &str) -> Result<(), TorchError> {
        let key = c_text(key);
        // SAFETY: handle and both texts live across the call; C++ copies them.
        check("the store", unsafe {
            tr_store_set(self.0.as_ptr(), key.as_ptr(), value.as_ptr().cast(), value.len())
        })
    }

    /// Adds to what is under `key`, in one piece.
    pub(super) fn append(&self, key: &str, value: &str) -> Result<(), TorchError> {
        let key = c_text(key);
        // SAFETY: handle and both texts live across the call; C++ copies them.
        check("the store", unsafe {
            tr_store_append(self.0.as_ptr(), key.as_ptr(), value.as_ptr().cast(), value.len())
        })
    }

    /// What is under `key` now, if anything.
    pub(super) fn get(&self, key: &str) -> Result<Option<String>, TorchError> {
        let key = c_text(key);
        let (mut value, mut n) = (null_mut::<c_char>(), 0usize);
        // SAFETY: the handle, the key and both places live across the call.
        check("the store", unsafe {
            tr_store_get(self.0.as_ptr(), key.as_ptr(), &raw mut value, &raw mut n)
        })?;
        if value.is_null() {
            return Ok(None);
        }
        // SAFETY: on success C++ stored n malloc'ed bytes, which are ours to free.
        unsafe {
            let text = String::from_utf8_lossy(std::slice::from_raw_parts(value.cast::<u8>(), n)).into_owned();
            crate::ffi::free(value);
            Ok(Some(text))
        }
    }

    /// Adds one to the counter `key`, which begins at 0; answers the sum.
    pub(super) fn count(&self, key: &str) -> Result<i64, TorchError> {
        let key = c_text(key);
        let mut sum = 0;
        // SAFETY: handle, key and place live across the call.
        check("the store", unsafe { tr_store_add(self.0.as_ptr(), key.as_ptr(), 1, &raw mut sum) })?;
        Ok(sum)
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        // SAFETY: the handle is ours and is freed once.
        unsafe { tr_store_free(self.0.as_ptr()) }
    }
}

/// How [`Links::open`] connects.
#[derive(Debug)]
pub(super) struct Wiring<'a> {
    pub(super) rank: usize,
    pub(super) world: usize,
    pub(super) interfaces: &'a [String],
    pub(super) address: &'a str,
    pub(super) step_s: f64,
    pub(super) control_s: f64,
    pub(super) checked: bool,
    pub(super) cuda: Cuda,
}

/// How CUDA tensors are reduced.
#[derive(Debug, Clone, Copy)]
pub(super) enum Cuda {
    Absent,
    Gloo,
    Nccl(MakeNccl),
}

/// The connections to all ranks: one set for words between the hosts, one for tensors.
#[derive(Debug)]
pub(super) struct Links(NonNull<c_void>);

// SAFETY: process groups may be used from any thread; `Ranks` is not Sync, so collectives are called by one thread at a time, and `cut` is made for
// being called beside them.
unsafe impl Send for Links {}
// SAFETY: as above.
unsafe impl Sync for Links {}

fn number(n: usize) -> c_int {
    c_int::try_from(n).unwrap_or(c_int::MAX)
}

impl Links {
    pub(super) fn open(store: &Store, w: &Wiring<'_>) -> Result<Self, TorchError> {
        let interfaces: Vec<CString> = w.interfaces.iter().map(|i| c_text(i)).collect();
        let names: Vec<*const c_char> = interfaces.iter().map(|i| i.as_ptr()).collect();
        let address = c_text(w.address);
        let (cuda, maker) = match w.cuda {
            Cuda::Absent => (0, None),
            Cuda::Gloo => (1, None),
            Cuda::Nccl(make) => (2, Some(make)),
        };
        // SAFETY: store and texts live across the call; C++ counts its own reference to the store.
        made("connecting the ranks", |out| unsafe {
            tr_links_open(
                store.0.as_ptr(),
                number(w.rank),
                number(w.world),
                names.as_ptr(),
                names.len(),
                address.as_ptr(),
                w.step_s,
                w.control_s,
                w.checked.into(),
                cuda,
                maker,
                out,
            )
        })
        .map(Self)
    }

    /// Closes all connections, so that nobody waits for this rank any more.
    pub(super) fn cut(&self) {
        // SAFETY: a live handle; made to be called beside other calls.
        unsafe { tr_links_cut(self.0.as_ptr()) }
    }

    pub(super) fn begin_tick(&self, word: &[i64]) -> Result<Tick, TorchError> {
        // SAFETY: handle and word live across the call; C++ copies the word.
        made("the tick", |out| unsafe {
            tr_tick_begin(self.0.as_ptr(), word.as_ptr(), word.len(), out)
        })
        .map(Tick)
    }

    /// `how[i]`: 0 sum, 1 mean, 2 max of `tensors[i]`.
    pub(super) fn all_reduce(&self, tensors: &[&Tensor], how: &[c_int]) -> Result<(), Failure> {
        debug_assert_eq!(tensors.len(), how.len());
        let p: Vec<At> = tensors.iter().map(|t| at(t)).collect();
        let mut peer = 0;
        // SAFETY: handle, tensors and both lists (of one length) live across the call.
        let answer = unsafe { tr_all_reduce(self.0.as_ptr(), p.as_ptr(), how.as_ptr(), p.len(), &raw mut peer) };
        check("all-reduce", answer).map_err(waited(peer))
    }

    pub(super) fn all_gather(&self, x: &Tensor, control: bool) -> Result<Tensor, Failure> {
        let mut peer = 0;
        // SAFETY: handle, tensor and places live across the call.
        let answer = tensor("all-gather", |out| unsafe {
            tr_all_gather(self.0.as_ptr(), at(x), control.into(), out, &raw mut peer)
        });
        answer.map_err(waited(peer))
    }

    pub(super) fn broadcast(&self, tensors: &[Tensor]) -> Result<(), Failure> {
        let p = pointers(tensors);
        let mut peer = 0;
        // SAFETY: handle and tensors live across the call.
        let answer = unsafe { tr_broadcast(self.0.as_ptr(), p.as_ptr(), p.len(), &raw mut peer) };
        check("broadcast", answer).map_err(waited(peer))
    }
}

impl Drop for Links {
    fn drop(&mut self) {
        // SAFETY: the handle is ours and is freed once.
        unsafe { tr_links_free(self.0.as_ptr()) }
    }
}

/// One i64 for each tensor: a checksum of its bits.
pub(super) fn checksums(tensors: &[Tensor]) -> Result<Tensor, TorchError> {
    let p = pointers(tensors);
    // SAFETY: the tensors live across the call.
    tensor("checksums", |out| unsafe { tr_checksums(p.as_ptr(), p.len(), out) })
}

/// A word on its way.
#[derive(Debug)]
pub(super) struct Tick(NonNull<c_void>);

// SAFETY: a reference to work that libtorch shares between threads itself.
unsafe impl Send for Tick {}

impl Tick {
    pub(super) fn ready(&self) -> bool {
        // SAFETY: a live handle.
        unsafe { tr_tick_ready(self.0.as_ptr()) != 0 }
    }

    pub(super) fn finish(&self, word: &mut [i64]) -> Result<(), Failure> {
        let mut peer = 0;
        // SAFETY: the handle and the word, as long as the one that was sent, live across the call.
        let answer = unsafe { tr_tick_finish(self.0.as_ptr(), word.as_mut_ptr(), word.len(), &raw mut peer) };
        check("the tick", answer).map_err(waited(peer))
    }
}

impl Drop for Tick {
    fn drop(&mut self) {
        // SAFETY: the handle is ours and is freed once; work in flight keeps its own references.
        unsafe { tr_tick_free(self.0.as_ptr()) }
    }
}

/// c10d's reducer.
#[derive(Debug)]
pub(super) struct Reducer(NonNull<c_void>);

// SAFETY: libtorch calls it from its own backward threads, under its lock.
unsafe impl Send for Reducer {}

/// What [`Reducer::done`] found.
#[derive(Debug)]
pub(super) struct Done {
    pub(super) peer: bool,
    pub(super) missing: Vec<usize>,
    pub(super) traffic: Traffic,
}

impl Reducer {
    pub(super) fn new(links: &Links, params: &[Tensor], names: &[String], cap: i64) -> Result<Self, TorchError> {
        debug_assert_eq!(params.len(), names.len());
        let p = pointers(params);
        let texts: Vec<CString> = names.iter().map(|n| c_text(n)).collect();
        let texts: Vec<*const c_char> = texts.iter().map(|n| n.as_ptr()).collect();
        // SAFETY: handle, tensors and names (of one length) live across the call; C++ counts its own references.
        made("the reducer", |out| unsafe {
            tr_reducer_new(links.0.as_ptr(), p.as_ptr(), texts.as_ptr(), p.len(), cap, out)
        })
        .map(Self)
    }

    pub(super) fn begin(&self) -> Result<(), Failure> {
        let mut peer = 0;
        // SAFETY: handle and place live across the call.
        let answer = unsafe { tr_reducer_begin(self.0.as_ptr(), &raw mut peer) };
        check("the reducer's buckets", answer).map_err(waited(peer))
    }

    pub(super) fn expect(&self) -> Result<(), TorchError> {
        // SAFETY: a live handle.
        check("the reducer", unsafe { tr_reducer_expect(self.0.as_ptr()) })
    }

    pub(super) fn done(&self, params: usize) -> Done {
        let mut missing = vec![0usize; params];
        let (mut peer, mut count, mut traffic) = (0, 0, Traffic::default());
        // SAFETY: the handle and all places live across the call; `missing` has room for as many as is said.
        unsafe {
            tr_reducer_done(
                self.0.as_ptr(),
                &raw mut peer,
                missing.as_mut_ptr(),
                params,
                &raw mut count,
                &raw mut traffic,
            );
        }
        missing.truncate(count);
        Done {
            peer: peer != 0,
            missing,
            traffic,
        }
    }
}

impl Drop for Reducer {
    fn drop(&mut self) {
        // SAFETY: the handle is ours and is freed once, before the links that it uses (`ranks::Reducer` holds both in this order).
        unsafe { tr_reducer_free(self.0.as_ptr()) }
    }
}
