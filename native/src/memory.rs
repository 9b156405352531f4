//! What the CUDA allocator holds.

use crate::{TorchError, ffi};

/// Bytes of device memory held by libtorch's caching allocator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CudaMemory {
    /// In tensors now.
    pub allocated: i64,
    /// In tensors at most since the start.
    pub peak: i64,
    /// Taken from the driver.
    pub reserved: i64,
}

/// Memory of CUDA device `index`.
///
/// # Errors
/// What libtorch said, such as that CUDA is not loaded.
pub fn cuda_memory(index: usize) -> Result<CudaMemory, TorchError> {
    if !tch::Cuda::is_available() {
        return Err(TorchError {
            call: "cuda_memory",
            message: "CUDA is not loaded, or there is no device".into(),
        });
    }
    ffi::cuda_memory(index).map(|[allocated, peak, reserved]| CudaMemory { allocated, peak, reserved })
}

/// Gives device memory that no tensor uses back to the driver; without CUDA nothing happens.
///
/// # Errors
/// What libtorch said.
pub fn cuda_empty_cache() -> Result<(), TorchError> {
    if !tch::Cuda::is_available() {
        return Ok(());
    }
    ffi::cuda_empty_cache()
}
