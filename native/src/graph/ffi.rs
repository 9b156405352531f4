//! The border to `graph.cpp`.
#![expect(unsafe_code, reason = "calls into graph.cpp; a graph is its own, made and dropped once")]

use std::ffi::{c_char, c_int, c_void};

use tch::Device;

use crate::TorchError;
use crate::ffi::{check, index};

unsafe extern "C" {
    fn te_graph_available() -> *mut c_char;
    fn te_graph_begin(cuda_index: c_int, out: *mut *mut c_void) -> *mut c_char;
    fn te_graph_end(graph: *mut c_void, clean: *mut c_int) -> *mut c_char;
    fn te_graph_replay(graph: *mut c_void) -> *mut c_char;
    fn te_graph_drop(graph: *mut c_void) -> *mut c_char;
}

pub(super) fn available() -> Result<(), TorchError> {
    // SAFETY: takes nothing.
    check("graph_available", unsafe { te_graph_available() })
}

pub(super) fn begin(device: Device) -> Result<*mut c_void, TorchError> {
    let mut graph = std::ptr::null_mut();
    // SAFETY: the place of the answer lives across the call.
    check("graph_begin", unsafe { te_graph_begin(index(device), &raw mut graph) })?;
    Ok(graph)
}

/// Also whether libtorch is clean of the recording.
pub(super) fn end(graph: *mut c_void) -> (Result<(), TorchError>, bool) {
    let mut clean = 0;
    // SAFETY: a graph of `graph_begin` that was not dropped; the place of the answer lives across the call.
    let ended = check("graph_end", unsafe { te_graph_end(graph, &raw mut clean) });
    (ended, clean != 0)
}

pub(super) fn replay(graph: *mut c_void) -> Result<(), TorchError> {
    // SAFETY: as above.
    check("graph_replay", unsafe { te_graph_replay(graph) })
}

pub(super) fn drop(graph: *mut c_void) -> Result<(), TorchError> {
    // SAFETY: as above, and it is not used again.
    check("graph_drop", unsafe { te_graph_drop(graph) })
}
