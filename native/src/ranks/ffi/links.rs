//! The connections between ranks, and what travels on them.
#![expect(
    unsafe_code,
    reason = "calls into ranks.cpp with handles, tensors and texts that live across each call"
)]

use std::ffi::{CString, c_char, c_int, c_void};
use std::ptr::NonNull;
use std::time::Duration;

use tch::Tensor;

use super::{
    Failure, MakeNccl, Store, c_text, made, tr_all_gather, tr_all_reduce, tr_bring, tr_broadcast, tr_checksums, tr_exchange, tr_links_cut,
    tr_links_free, tr_links_open, tr_normalised, tr_tick_begin, tr_tick_finish, tr_tick_free, tr_tick_ready, tr_waited, waited,
};
use crate::TorchError;
use crate::ffi::{At, at, check, pointers, tensor};

/// How [`Links::open`] connects.
#[derive(Debug)]
pub(in crate::ranks) struct Wiring<'a> {
    pub(in crate::ranks) rank: usize,
    pub(in crate::ranks) world: usize,
    pub(in crate::ranks) interfaces: &'a [String],
    pub(in crate::ranks) address: &'a str,
    pub(in crate::ranks) step_s: f64,
    pub(in crate::ranks) control_s: f64,
    pub(in crate::ranks) checked: bool,
    pub(in crate::ranks) cuda: Cuda,
}

/// How CUDA tensors are reduced.
#[derive(Debug, Clone, Copy)]
pub(in crate::ranks) enum Cuda {
    Absent,
    Gloo,
    Nccl(MakeNccl),
}

/// The connections to all ranks: one set for words between the hosts, one for tensors.
#[derive(Debug)]
pub(in crate::ranks) struct Links(pub(super) NonNull<c_void>);

// SAFETY: process groups may be used from any thread; `Ranks` is not Sync, so collectives are called by one thread at a time, and `cut` is made for
// being called beside them.
unsafe impl Send for Links {}
// SAFETY: as above.
unsafe impl Sync for Links {}

fn number(n: usize) -> c_int {
    c_int::try_from(n).unwrap_or(c_int::MAX)
}

impl Links {
    pub(in crate::ranks) fn open(store: &Store, w: &Wiring<'_>) -> Result<Self, Failure> {
        let mut peer = 0;
        let interfaces: Vec<CString> = w.interfaces.iter().map(|i| c_text(i)).collect();
        let names: Vec<*const c_char> = interfaces.iter().map(|i| i.as_ptr()).collect();
        let address = c_text(w.address);
        let (cuda, maker) = match w.cuda {
            Cuda::Absent => (0, None),
            Cuda::Gloo => (1, None),
            Cuda::Nccl(make) => (2, Some(make)),
        };
        // SAFETY: store and texts live across the call; C++ counts its own reference to the store.
        let answer = made("connecting the ranks", |out| unsafe {
            tr_links_open(
                store.handle(),
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
                &raw mut peer,
            )
        });
        answer.map(Self).map_err(waited(peer))
    }

    /// Closes all connections, so that nobody waits for this rank any more.
    pub(in crate::ranks) fn cut(&self) {
        // SAFETY: a live handle; made to be called beside other calls.
        unsafe { tr_links_cut(self.0.as_ptr()) }
    }

    pub(in crate::ranks) fn waited(&self) -> Duration {
        // SAFETY: a live handle; the number is atomic.
        Duration::from_nanos(unsafe { tr_waited(self.0.as_ptr()) }.unsigned_abs())
    }

    pub(in crate::ranks) fn begin_tick(&self, word: &[i64]) -> Result<Tick, Failure> {
        let mut peer = 0;
        // SAFETY: handle, word and places live across the call; C++ copies the word.
        let answer = made("the tick", |out| unsafe {
            tr_tick_begin(self.0.as_ptr(), word.as_ptr(), word.len(), out, &raw mut peer)
        });
        answer.map(Tick).map_err(waited(peer))
    }

    /// `how[i]`: 0 sum, 1 mean, 2 max of `tensors[i]`.
    pub(in crate::ranks) fn all_reduce(&self, tensors: &[&Tensor], how: &[c_int]) -> Result<(), Failure> {
        debug_assert_eq!(tensors.len(), how.len());
        let p: Vec<At> = tensors.iter().map(|t| at(t)).collect();
        let mut peer = 0;
        // SAFETY: handle, tensors and both lists (of one length) live across the call.
        let answer = unsafe { tr_all_reduce(self.0.as_ptr(), p.as_ptr(), how.as_ptr(), p.len(), &raw mut peer) };
        check("all-reduce", answer).map_err(waited(peer))
    }

    pub(in crate::ranks) fn all_gather(&self, x: &Tensor, control: bool) -> Result<Tensor, Failure> {
        let mut peer = 0;
        // SAFETY: handle, tensor and places live across the call.
        let answer = tensor("all-gather", |out| unsafe {
            tr_all_gather(self.0.as_ptr(), at(x), control.into(), out, &raw mut peer)
        });
        answer.map_err(waited(peer))
    }

    /// `None` on ranks beyond 0.
    pub(in crate::ranks) fn bring(&self, x: &Tensor) -> Result<Option<Tensor>, Failure> {
        let (mut peer, mut all): (c_int, At) = (0, std::ptr::null_mut());
        // SAFETY: handle, tensor and places live across the call.
        let answer = unsafe { tr_bring(self.0.as_ptr(), at(x), &raw mut all, &raw mut peer) };
        check("bringing tensors to rank 0", answer).map_err(waited(peer))?;
        // SAFETY: what is not null is a `new at::Tensor` that the caller owns.
        Ok((!all.is_null()).then(|| unsafe { Tensor::from_ptr(all.cast()) }))
    }

    pub(in crate::ranks) fn exchange(&self, x: &Tensor, with: usize) -> Result<Tensor, Failure> {
        let mut peer = 0;
        // SAFETY: handle, tensor and places live across the call.
        let answer = tensor("exchanging tensors", |out| unsafe {
            tr_exchange(self.0.as_ptr(), at(x), number(with), out, &raw mut peer)
        });
        answer.map_err(waited(peer))
    }

    /// Normalised rows like `x`, and 2×G×D: mean and variance of each group.
    pub(in crate::ranks) fn normalised(&self, x: &Tensor, groups: i64, eps: f64) -> Result<(Tensor, Tensor), Failure> {
        let (mut peer, mut statistics): (c_int, At) = (0, std::ptr::null_mut());
        // SAFETY: handle, tensor and places live across the call.
        let rows = tensor("the statistics of a batch normalisation", |out| unsafe {
            tr_normalised(self.0.as_ptr(), at(x), groups, eps, out, &raw mut statistics, &raw mut peer)
        });
        let rows = rows.map_err(waited(peer))?;
        // SAFETY: on success C++ stored a `new at::Tensor` that the caller owns here too.
        Ok((rows, unsafe { Tensor::from_ptr(statistics.cast()) }))
    }

    pub(in crate::ranks) fn broadcast(&self, tensors: &[Tensor]) -> Result<(), Failure> {
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
pub(in crate::ranks) fn checksums(tensors: &[Tensor]) -> Result<Tensor, TorchError> {
    let p = pointers(tensors);
    // SAFETY: the tensors live across the call.
    tensor("checksums", |out| unsafe { tr_checksums(p.as_ptr(), p.len(), out) })
}

/// A word on its way.
#[derive(Debug)]
pub(in crate::ranks) struct Tick(NonNull<c_void>);

// SAFETY: a reference to work that libtorch shares between threads itself.
unsafe impl Send for Tick {}

impl Tick {
    pub(in crate::ranks) fn ready(&self) -> bool {
        // SAFETY: a live handle.
        unsafe { tr_tick_ready(self.0.as_ptr()) != 0 }
    }

    pub(in crate::ranks) fn finish(&self, word: &mut [i64]) -> Result<(), Failure> {
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
