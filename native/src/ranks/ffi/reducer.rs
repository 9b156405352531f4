//! Gradients averaged while backward runs.
#![expect(unsafe_code, reason = "calls into reducer.cpp with handles and tensors that live across each call")]

use std::ffi::{CString, c_char, c_void};
use std::ptr::NonNull;

use tch::Tensor;

use super::{Failure, Links, c_text, made, tr_reducer_begin, tr_reducer_done, tr_reducer_expect, tr_reducer_free, tr_reducer_new, waited};
use crate::TorchError;
use crate::ffi::{check, pointers};

/// What the last synchronising backward sent; times in seconds since it began.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::ranks) struct Traffic {
    pub(in crate::ranks) buckets: u64,
    pub(in crate::ranks) bytes: u64,
    pub(in crate::ranks) first: f64,
    pub(in crate::ranks) last: f64,
    pub(in crate::ranks) whole: f64,
}

/// c10d's reducer.
#[derive(Debug)]
pub(in crate::ranks) struct Reducer(NonNull<c_void>);

// SAFETY: libtorch calls it from its own backward threads, under its lock.
unsafe impl Send for Reducer {}

/// What [`Reducer::done`] found.
#[derive(Debug)]
pub(in crate::ranks) struct Done {
    pub(in crate::ranks) peer: bool,
    pub(in crate::ranks) missing: Vec<usize>,
    pub(in crate::ranks) traffic: Traffic,
}

impl Reducer {
    pub(in crate::ranks) fn new(links: &Links, params: &[Tensor], names: &[String], cap: i64) -> Result<Self, TorchError> {
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

    pub(in crate::ranks) fn begin(&self) -> Result<(), Failure> {
        let mut peer = 0;
        // SAFETY: handle and place live across the call.
        let answer = unsafe { tr_reducer_begin(self.0.as_ptr(), &raw mut peer) };
        check("the reducer's buckets", answer).map_err(waited(peer))
    }

    pub(in crate::ranks) fn expect(&self) -> Result<(), TorchError> {
        // SAFETY: a live handle.
        check("the reducer", unsafe { tr_reducer_expect(self.0.as_ptr()) })
    }

    pub(in crate::ranks) fn done(&self, params: usize) -> Done {
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
