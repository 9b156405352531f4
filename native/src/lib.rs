//! The few libtorch calls that tch lacks: bf16 autocast on any device, fused AdamW, gradient norms without a host sync,
//! random-generator state, copies to a device that nobody waits for and work beside its own, CUDA graphs, loading libtorch's CUDA half at run time, and training in
//! several processes ([`ranks`]).
//!
//! Tensors cross into C++ as the `at::Tensor*` behind [`tch::Tensor::as_ptr`]; each C++ exception comes back as [`TorchError`].

mod arithmetic;
mod aside;
mod calls;
mod cuda;
mod ffi;
mod graph;
mod memory;
pub mod ranks;
mod recompute;
mod send;

use std::marker::PhantomData;

use tch::{Device, Tensor};

pub use arithmetic::{Arithmetic, in_whole_f32, set_arithmetic};
pub use aside::aside;
pub use calls::{CallCount, Calls, LaunchCount, Launches};
pub use cuda::{CudaDevice, CudaUnavailable, cuda_device, library_path, load_cuda};
pub use graph::{Graph, graphs_available, set_grads};
pub use memory::{CudaMemory, cuda_empty_cache, cuda_memory, give_back_freed_memory, keep_freed_memory};
pub use recompute::recomputed;
pub use send::{Plain, send};

/// What libtorch said.
#[derive(Debug, Clone, thiserror::Error)]
#[error("libtorch, {call}: {message}")]
pub struct TorchError {
    /// Which call failed.
    pub call: &'static str,
    /// libtorch's message.
    pub message: String,
}

/// Version of libtorch that this was compiled against, such as `2.11.0`.
#[must_use]
pub fn version() -> &'static str {
    ffi::version()
}

fn is_cuda(device: Device) -> bool {
    matches!(device, Device::Cuda(_))
}

/// While it lives, matrix products of this thread run in bf16 (or, disabled, in the inputs' own type). Weights are cast once per
/// outermost guard. Guards nest; they are dropped in reverse order. Forward passes only: run backward and optimizer outside.
#[derive(Debug)]
pub struct Autocast {
    cuda: bool,
    before: ffi::AutocastState,
    // The switch is the thread's own: not Send.
    thread: PhantomData<*const ()>,
}

impl Autocast {
    /// Switches bf16 autocast on for the kind of `device`.
    ///
    /// # Errors
    /// What libtorch said.
    pub fn bf16(device: Device) -> Result<Self, TorchError> {
        Self::enter(device, true)
    }

    /// Switches autocast off for the kind of `device`: for parts that stay in f32.
    ///
    /// # Errors
    /// What libtorch said.
    pub fn off(device: Device) -> Result<Self, TorchError> {
        Self::enter(device, false)
    }

    fn enter(device: Device, enable: bool) -> Result<Self, TorchError> {
        let cuda = is_cuda(device);
        let before = ffi::autocast_enter(cuda, enable)?;
        Ok(Self {
            cuda,
            before,
            thread: PhantomData,
        })
    }

    /// Whether autocast is on in this thread for the kind of `device`.
    #[must_use]
    pub fn is_on(device: Device) -> bool {
        ffi::autocast_enabled(is_cuda(device))
    }
}

impl Drop for Autocast {
    fn drop(&mut self) {
        // Restoring a thread-local flag cannot fail; a message here would have no reader.
        let _ = ffi::autocast_leave(self.cuda, &self.before);
    }
}

/// Whether backward has written a gradient.
#[must_use]
pub fn has_grad(t: &Tensor) -> bool {
    ffi::has_grad(t).unwrap_or(false)
}

/// Drops the gradients; cheaper than zeroing them.
///
/// # Errors
/// What libtorch said.
pub fn clear_grads(params: &[Tensor]) -> Result<(), TorchError> {
    ffi::clear_grads(params)
}

/// 2-norms of the n `tensors` (at least one, all on one device): of each, f32 n, and of all together, an f32 scalar. Both are on that device and not
/// yet read by the host.
///
/// # Errors
/// What libtorch said.
pub fn norms(tensors: &[Tensor]) -> Result<(Tensor, Tensor), TorchError> {
    ffi::norms(tensors)
}

/// The second of [`norms`].
///
/// # Errors
/// What libtorch said.
pub fn global_norm(tensors: &[Tensor]) -> Result<Tensor, TorchError> {
    norms(tensors).map(|(_, all)| all)
}

/// Multiplies each tensor in place by the scalar tensor `factor`.
///
/// # Errors
/// What libtorch said.
pub fn scale(tensors: &[Tensor], factor: &Tensor) -> Result<(), TorchError> {
    ffi::scale(tensors, factor)
}

/// Multiplies each of the n `tensors` in place by its own number of `factors` (n, on their device), which the host does not read.
///
/// # Errors
/// Other than n factors, or what libtorch said.
pub fn scale_each(tensors: &[Tensor], factors: &Tensor) -> Result<(), TorchError> {
    ffi::scale_each(tensors, factors)
}

/// Numbers of an AdamW step (arXiv 1711.05101): decoupled decay, multiplied by `lr` as in PyTorch.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamW {
    /// Learning rate.
    pub lr: f64,
    /// Decay rate of the first moment.
    pub beta1: f64,
    /// Decay rate of the second moment.
    pub beta2: f64,
    /// Weight decay.
    pub weight_decay: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
}

/// Parameters of one step with their gradients and moments; all lists of one length, f32, on one device.
#[derive(Debug, Clone, Copy)]
pub struct AdamWLists<'a> {
    /// Weights, changed in place.
    pub params: &'a [Tensor],
    /// Gradients; overwritten with the scaled ones where a scale is given.
    pub grads: &'a [Tensor],
    /// First moments, changed in place.
    pub exp_avgs: &'a [Tensor],
    /// Second moments, changed in place.
    pub exp_avg_sqs: &'a [Tensor],
    /// Counts of steps, scalar f32 tensors, changed in place.
    pub steps: &'a [Tensor],
}

/// One fused AdamW step of all `lists`, on the CPU and on CUDA.
///
/// Gradients are divided by the scalar `scale`; where the scalar `skip` is 1 nothing changes (both f32, on the device of the
/// parameters), so that clipping and the finite check need no host sync.
///
/// # Errors
/// Lists of different length, or what libtorch said.
pub fn fused_adamw(lists: AdamWLists<'_>, numbers: AdamW, scale: Option<&Tensor>, skip: Option<&Tensor>) -> Result<(), TorchError> {
    ffi::fused_adamw(lists, numbers, scale, skip)
}

/// `x·wᵀ + b` of x …×K, w N×K, b N: a linear layer. On the CPU in f32 it is oneDNN's, which is a tenth faster than the BLAS that libtorch
/// takes for it, except for the gradient of w; else libtorch's own. Both backward once.
///
/// # Errors
/// What libtorch said of shapes or kinds that do not fit.
pub fn linear(x: &Tensor, w: &Tensor, b: Option<&Tensor>) -> Result<Tensor, TorchError> {
    ffi::linear(x, w, b)
}

/// Mean cross-entropy in nats (f32 scalar) of the logits `x·wᵀ + b` against `targets` (i64 M, each below V), and the place of the largest logit
/// of each row (i64 M, no gradient): x M×K, w V×K, b V. Some rows after the other, so that M×V numbers are never held; gradients are made
/// along with the loss unless grad mode is off. Under autocast products are in its kind, the rest is f32.
///
/// # Errors
/// What libtorch said of shapes or kinds that do not fit.
pub fn linear_cross_entropy(x: &Tensor, w: &Tensor, b: &Tensor, targets: &Tensor) -> Result<(Tensor, Tensor), TorchError> {
    ffi::linear_cross_entropy(x, w, b, targets)
}

/// `averages += weight × (values − averages)`, tensor by tensor, in place. `weight` is a scalar f32 tensor on their device, so that a step that
/// was skipped there (weight 0) needs no host sync.
///
/// # Errors
/// Lists of different length, or what libtorch said.
pub fn lerp(averages: &[Tensor], values: &[Tensor], weight: &Tensor) -> Result<(), TorchError> {
    ffi::lerp(averages, values, weight)
}

/// State of the random generator of `device` as a u8 tensor on the CPU.
///
/// # Errors
/// What libtorch said, such as that there is no such device.
pub fn rng_state(device: Device) -> Result<Tensor, TorchError> {
    ffi::rng_state(device)
}

/// Restores what [`rng_state`] answered.
///
/// # Errors
/// What libtorch said, such as a state of another size.
pub fn set_rng_state(device: Device, state: &Tensor) -> Result<(), TorchError> {
    ffi::set_rng_state(device, state)
}

#[cfg(test)]
mod tests;
