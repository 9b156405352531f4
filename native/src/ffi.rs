//! The border to `ext.cpp`: the unsafe code of its calls. Graphs and recomputing have borders of their own (`graph/ffi.rs`, `recompute/ffi.rs`).
#![expect(
    unsafe_code,
    reason = "calls into ext.cpp; pointers come from live tch tensors and are not kept by C++"
)]

use std::ffi::{CStr, c_char, c_int, c_void};

use tch::{Device, Tensor};

use crate::{AdamW, AdamWLists, TorchError};

pub(crate) type At = *mut c_void;

#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct AutocastState {
    enabled: c_int,
    dtype: c_int,
}

unsafe extern "C" {
    fn te_free(text: *mut c_char);
    fn te_version() -> *const c_char;
    fn te_library_path() -> *mut c_char;
    fn te_autocast_enter(cuda: c_int, enable: c_int, before: *mut AutocastState) -> *mut c_char;
    fn te_autocast_leave(cuda: c_int, before: *const AutocastState) -> *mut c_char;
    fn te_autocast_enabled(cuda: c_int) -> c_int;
    fn te_has_grad(t: At, out: *mut c_int) -> *mut c_char;
    fn te_clear_grads(tensors: *const At, n: usize) -> *mut c_char;
    fn te_norms(tensors: *const At, n: usize, each: *mut At, all: *mut At) -> *mut c_char;
    fn te_scale(tensors: *const At, n: usize, factor: At) -> *mut c_char;
    fn te_scale_each(tensors: *const At, n: usize, factors: At) -> *mut c_char;
    fn te_fused_adamw(
        params: *const At,
        grads: *const At,
        exp_avgs: *const At,
        exp_avg_sqs: *const At,
        steps: *const At,
        n: usize,
        lr: f64,
        beta1: f64,
        beta2: f64,
        weight_decay: f64,
        eps: f64,
        scale: At,
        skip: At,
    ) -> *mut c_char;
    fn te_linear(x: At, w: At, b: At, y: *mut At) -> *mut c_char;
    fn te_linear_cross_entropy(x: At, w: At, b: At, targets: At, loss: *mut At, largest: *mut At) -> *mut c_char;
    fn te_lerp(averages: *const At, values: *const At, n: usize, weight: At) -> *mut c_char;
    fn te_send(data: *const c_void, kind: c_int, shape: *const i64, dims: usize, cuda_index: c_int, out: *mut At) -> *mut c_char;
    fn te_aside_enter(cuda_index: c_int, out: *mut *mut c_void) -> *mut c_char;
    fn te_aside_leave(aside: *mut c_void, tensors: *const At, n: usize) -> *mut c_char;
    fn te_count_begin(handle: *mut u64) -> *mut c_char;
    fn te_count_end(handle: u64, out: *mut i64) -> *mut c_char;
    fn te_launches_begin(operators: c_int) -> *mut c_char;
    fn te_launches_end(out: *mut i64) -> *mut c_char;
    fn te_set_arithmetic(tf32: c_int, deterministic: c_int) -> *mut c_char;
    fn te_allow_tf32(allow: c_int, before: *mut c_int) -> *mut c_char;
    fn te_cuda_empty_cache() -> *mut c_char;
    fn te_rng_state(cuda_index: c_int, out: *mut At) -> *mut c_char;
    fn te_set_rng_state(cuda_index: c_int, state: At) -> *mut c_char;
    fn te_cuda_memory(index: c_int, out: *mut i64) -> *mut c_char;
    fn te_set_grads(params: *const At, grads: *const At, n: usize) -> *mut c_char;
}

pub(crate) fn at(t: &Tensor) -> At {
    t.as_ptr().cast_mut().cast()
}

pub(crate) fn pointers(tensors: &[Tensor]) -> Vec<At> {
    tensors.iter().map(at).collect()
}

/// Takes a malloc'ed C string over; `None` for null.
pub(crate) fn owned(text: *mut c_char) -> Option<String> {
    if text.is_null() {
        return None;
    }
    // SAFETY: ext.cpp answers null or a NUL-terminated malloc'ed string that it gives away.
    unsafe {
        let s = CStr::from_ptr(text).to_string_lossy().into_owned();
        te_free(text);
        Some(s)
    }
}

/// Frees what C++ malloc'ed.
///
/// # Safety
/// `text` is null or was malloc'ed and given away by C++, and is not used again.
pub(crate) unsafe fn free(text: *mut c_char) {
    // SAFETY: as above.
    unsafe { te_free(text) }
}

pub(crate) fn check(call: &'static str, answer: *mut c_char) -> Result<(), TorchError> {
    owned(answer).map_or(Ok(()), |message| Err(TorchError { call, message }))
}

pub(crate) fn tensor(call: &'static str, f: impl FnOnce(*mut At) -> *mut c_char) -> Result<Tensor, TorchError> {
    let mut out: At = std::ptr::null_mut();
    check(call, f(&raw mut out))?;
    // SAFETY: on success ext.cpp stored a `new at::Tensor` that the caller owns.
    Ok(unsafe { Tensor::from_ptr(out.cast()) })
}

pub(crate) fn version() -> &'static str {
    // SAFETY: a string literal of ext.cpp.
    unsafe { CStr::from_ptr(te_version()) }.to_str().unwrap_or("unknown")
}

pub(crate) fn library_path() -> Option<String> {
    // SAFETY: takes nothing.
    owned(unsafe { te_library_path() })
}

pub(crate) fn autocast_enter(cuda: bool, enable: bool) -> Result<AutocastState, TorchError> {
    let mut before = AutocastState::default();
    // SAFETY: `before` lives across the call.
    check("autocast", unsafe {
        te_autocast_enter(cuda.into(), enable.into(), &raw mut before)
    })?;
    Ok(before)
}

pub(crate) fn autocast_leave(cuda: bool, before: &AutocastState) -> Result<(), TorchError> {
    // SAFETY: `before` lives across the call.
    check("autocast", unsafe { te_autocast_leave(cuda.into(), before) })
}

pub(crate) fn autocast_enabled(cuda: bool) -> bool {
    // SAFETY: reads a thread-local flag.
    unsafe { te_autocast_enabled(cuda.into()) != 0 }
}

pub(crate) fn has_grad(t: &Tensor) -> Result<bool, TorchError> {
    let mut out: c_int = 0;
    // SAFETY: `t` and `out` live across the call.
    check("grad", unsafe { te_has_grad(at(t), &raw mut out) })?;
    Ok(out != 0)
}

pub(crate) fn clear_grads(params: &[Tensor]) -> Result<(), TorchError> {
    let p = pointers(params);
    // SAFETY: the tensors live across the call.
    check("clear_grads", unsafe { te_clear_grads(p.as_ptr(), p.len()) })
}

pub(crate) fn norms(tensors: &[Tensor]) -> Result<(Tensor, Tensor), TorchError> {
    let p = pointers(tensors);
    let mut all: At = std::ptr::null_mut();
    // SAFETY: the tensors and both places live across the call.
    let each = tensor("norms", |out| unsafe { te_norms(p.as_ptr(), p.len(), out, &raw mut all) })?;
    // SAFETY: on success ext.cpp stored a `new at::Tensor` that the caller owns here too.
    Ok((each, unsafe { Tensor::from_ptr(all.cast()) }))
}

pub(crate) fn linear(x: &Tensor, w: &Tensor, b: Option<&Tensor>) -> Result<Tensor, TorchError> {
    let b = b.map_or(std::ptr::null_mut(), at);
    // SAFETY: the tensors and `out` live across the call; null stands for no bias.
    tensor("linear", |out| unsafe { te_linear(at(x), at(w), b, out) })
}

pub(crate) fn linear_cross_entropy(x: &Tensor, w: &Tensor, b: &Tensor, targets: &Tensor) -> Result<(Tensor, Tensor), TorchError> {
    let mut largest: At = std::ptr::null_mut();
    // SAFETY: the tensors and both places live across the call.
    let loss = tensor("linear_cross_entropy", |out| unsafe {
        te_linear_cross_entropy(at(x), at(w), at(b), at(targets), out, &raw mut largest)
    })?;
    // SAFETY: on success ext.cpp stored a `new at::Tensor` that the caller owns here too.
    Ok((loss, unsafe { Tensor::from_ptr(largest.cast()) }))
}

pub(crate) fn scale(tensors: &[Tensor], factor: &Tensor) -> Result<(), TorchError> {
    let p = pointers(tensors);
    // SAFETY: the tensors live across the call.
    check("scale", unsafe { te_scale(p.as_ptr(), p.len(), at(factor)) })
}

pub(crate) fn scale_each(tensors: &[Tensor], factors: &Tensor) -> Result<(), TorchError> {
    let p = pointers(tensors);
    // SAFETY: the tensors live across the call.
    check("scale_each", unsafe { te_scale_each(p.as_ptr(), p.len(), at(factors)) })
}

pub(crate) fn fused_adamw(l: AdamWLists<'_>, h: AdamW, scale: Option<&Tensor>, skip: Option<&Tensor>) -> Result<(), TorchError> {
    let call = "fused_adamw";
    let n = l.params.len();
    let lengths = [l.grads.len(), l.exp_avgs.len(), l.exp_avg_sqs.len(), l.steps.len()];
    if lengths.iter().any(|&len| len != n) {
        return Err(TorchError {
            call,
            message: format!("{n} parameters with lists of {lengths:?} gradients, moments and steps"),
        });
    }
    if n == 0 {
        return Ok(());
    }
    let (p, g, m, v, s) = (
        pointers(l.params),
        pointers(l.grads),
        pointers(l.exp_avgs),
        pointers(l.exp_avg_sqs),
        pointers(l.steps),
    );
    let optional = |t: Option<&Tensor>| t.map_or(std::ptr::null_mut(), at);
    // SAFETY: five lists of n live tensors; null stands for absent.
    check(call, unsafe {
        te_fused_adamw(
            p.as_ptr(),
            g.as_ptr(),
            m.as_ptr(),
            v.as_ptr(),
            s.as_ptr(),
            n,
            h.lr,
            h.beta1,
            h.beta2,
            h.weight_decay,
            h.eps,
            optional(scale),
            optional(skip),
        )
    })
}

/// −1 stands for the CPU.
pub(crate) fn index(device: Device) -> c_int {
    match device {
        Device::Cuda(i) => c_int::try_from(i).unwrap_or(c_int::MAX),
        _ => -1,
    }
}

/// `data` holds as many values of libtorch's scalar type `kind` as `shape` asks for.
pub(crate) fn send<T>(data: &[T], kind: c_int, shape: &[i64], device: Device) -> Result<Tensor, TorchError> {
    // SAFETY: `data` and `shape` live across the call; C++ copies what it reads.
    tensor("send", |out| unsafe {
        te_send(data.as_ptr().cast(), kind, shape.as_ptr(), shape.len(), index(device), out)
    })
}

pub(crate) fn aside_enter(device: Device) -> Result<*mut c_void, TorchError> {
    let mut out = std::ptr::null_mut();
    // SAFETY: `out` lives across the call.
    check("aside_enter", unsafe { te_aside_enter(index(device), &raw mut out) })?;
    Ok(out)
}

/// `aside` is one that [`aside_enter`] answered, left once.
pub(crate) fn aside_leave(aside: *mut c_void, tensors: &[At]) -> Result<(), TorchError> {
    // SAFETY: C++ takes `aside` over; `tensors` point to live tensors.
    check("aside_leave", unsafe { te_aside_leave(aside, tensors.as_ptr(), tensors.len()) })
}

pub(crate) fn set_arithmetic(tf32: bool, deterministic: bool) -> Result<(), TorchError> {
    // SAFETY: plain numbers.
    check("set_arithmetic", unsafe {
        te_set_arithmetic(c_int::from(tf32), c_int::from(deterministic))
    })
}

pub(crate) fn allow_tf32(allow: bool) -> Result<bool, TorchError> {
    let mut before = 0;
    // SAFETY: `before` lives across the call.
    check("allow_tf32", unsafe { te_allow_tf32(c_int::from(allow), &raw mut before) })?;
    Ok(before != 0)
}

pub(crate) fn count_begin() -> Result<u64, TorchError> {
    let mut handle = 0;
    // SAFETY: `handle` lives across the call.
    check("count_begin", unsafe { te_count_begin(&raw mut handle) })?;
    Ok(handle)
}

pub(crate) fn count_end(handle: u64) -> Result<[i64; 2], TorchError> {
    let mut out = [0; 2];
    // SAFETY: room for the two numbers that are written.
    check("count_end", unsafe { te_count_end(handle, out.as_mut_ptr()) })?;
    Ok(out)
}

pub(crate) fn launches_begin(operators: bool) -> Result<(), TorchError> {
    // SAFETY: takes no pointer.
    check("launches_begin", unsafe { te_launches_begin(c_int::from(operators)) })
}

pub(crate) fn launches_end() -> Result<[i64; 4], TorchError> {
    let mut out = [0; 4];
    // SAFETY: room for the four numbers that are written.
    check("launches_end", unsafe { te_launches_end(out.as_mut_ptr()) })?;
    Ok(out)
}

pub(crate) fn rng_state(device: Device) -> Result<Tensor, TorchError> {
    // SAFETY: `out` lives across the call.
    tensor("rng_state", |out| unsafe { te_rng_state(index(device), out) })
}

pub(crate) fn set_rng_state(device: Device, state: &Tensor) -> Result<(), TorchError> {
    // SAFETY: `state` lives across the call.
    check("set_rng_state", unsafe { te_set_rng_state(index(device), at(state)) })
}

pub(crate) fn cuda_memory(device: usize) -> Result<[i64; 3], TorchError> {
    let mut out = [0i64; 3];
    // SAFETY: room for the three numbers that are written.
    check("cuda_memory", unsafe {
        te_cuda_memory(index(Device::Cuda(device)), out.as_mut_ptr())
    })?;
    Ok(out)
}

pub(crate) fn lerp(averages: &[Tensor], values: &[Tensor], weight: &Tensor) -> Result<(), TorchError> {
    let call = "lerp";
    if averages.len() != values.len() {
        return Err(TorchError {
            call,
            message: format!("{} averages of {} values", averages.len(), values.len()),
        });
    }
    let (a, v) = (pointers(averages), pointers(values));
    // SAFETY: two lists of live tensors of one length, and a live scalar.
    check(call, unsafe { te_lerp(a.as_ptr(), v.as_ptr(), a.len(), at(weight)) })
}

pub(crate) fn cuda_empty_cache() -> Result<(), TorchError> {
    // SAFETY: takes nothing.
    check("cuda_empty_cache", unsafe { te_cuda_empty_cache() })
}

pub(crate) fn set_grads(params: &[Tensor], grads: &[Tensor]) -> Result<(), TorchError> {
    let call = "set_grads";
    if params.len() != grads.len() {
        return Err(TorchError {
            call,
            message: format!("{} gradients of {} parameters", grads.len(), params.len()),
        });
    }
    let (p, g) = (pointers(params), pointers(grads));
    // SAFETY: two lists of live tensors of one length.
    check(call, unsafe { te_set_grads(p.as_ptr(), g.as_ptr(), p.len()) })
}
