//! The border to `ranks.cpp` and `reducer.cpp`: handles that free themselves, errors as values.
#![expect(
    unsafe_code,
    reason = "calls into ranks.cpp and reducer.cpp; pointers come from live handles and tensors, and C++ keeps none of them beyond the call but its own"
)]

mod links;
mod reducer;
mod store;

use std::ffi::{CString, c_char, c_int, c_void};
use std::ptr::{NonNull, null_mut};

pub(super) use self::links::{Cuda, Links, Tick, Wiring, checksums};
pub(super) use self::reducer::Reducer;
pub(super) use self::store::Store;
use crate::TorchError;
use crate::ffi::{At, check, owned};

type Handle = *mut c_void;
/// Makes a `ProcessGroupNCCL`: the one function of the library that `nccl.cpp` becomes.
pub(super) type MakeNccl = unsafe extern "C" fn(Handle, c_int, c_int, f64, *mut Handle) -> *mut c_char;

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
        peer: *mut c_int,
    ) -> *mut c_char;
    fn tr_links_cut(links: Handle);
    fn tr_waited(links: Handle) -> i64;
    fn tr_links_free(links: Handle);
    fn tr_tick_begin(links: Handle, word: *const i64, n: usize, out: *mut Handle, peer: *mut c_int) -> *mut c_char;
    fn tr_tick_ready(tick: Handle) -> c_int;
    fn tr_tick_finish(tick: Handle, word: *mut i64, n: usize, peer: *mut c_int) -> *mut c_char;
    fn tr_tick_free(tick: Handle);
    fn tr_all_reduce(links: Handle, tensors: *const At, how: *const c_int, n: usize, peer: *mut c_int) -> *mut c_char;
    fn tr_all_gather(links: Handle, x: At, control: c_int, out: *mut At, peer: *mut c_int) -> *mut c_char;
    fn tr_bring(links: Handle, x: At, out: *mut At, peer: *mut c_int) -> *mut c_char;
    fn tr_exchange(links: Handle, x: At, with: c_int, out: *mut At, peer: *mut c_int) -> *mut c_char;
    fn tr_normalised(links: Handle, x: At, groups: i64, eps: f64, rows: *mut At, statistics: *mut At, peer: *mut c_int) -> *mut c_char;
    fn tr_broadcast(links: Handle, tensors: *const At, n: usize, peer: *mut c_int) -> *mut c_char;
    fn tr_checksums(tensors: *const At, n: usize, out: *mut At) -> *mut c_char;
    fn tr_reducer_new(links: Handle, params: *const At, names: *const *const c_char, n: usize, cap: i64, out: *mut Handle) -> *mut c_char;
    fn tr_reducer_free(reducer: Handle);
    fn tr_reducer_begin(reducer: Handle, peer: *mut c_int) -> *mut c_char;
    fn tr_reducer_expect(reducer: Handle) -> *mut c_char;
    fn tr_reducer_done(reducer: Handle, peer: *mut c_int, missing: *mut usize, n: usize, count: *mut usize, out: *mut reducer::Traffic);
}

/// What a call that waits for other ranks said, and whether it failed because of one.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) error: TorchError,
    pub(super) peer: bool,
}

impl Failure {
    /// In something that concerns no other rank.
    pub(super) const fn own(error: TorchError) -> Self {
        Self { error, peer: false }
    }
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
