//! Brings in libtorch's CUDA half, which nothing links against, so that one binary runs with and without it.

use std::path::PathBuf;

use crate::ffi;

/// Why there is no CUDA device, with what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CudaUnavailable {
    /// This libtorch came without its CUDA libraries.
    #[error("{0} does not exist: this libtorch is the CPU part (the whole one: `make setup CUDA=1`, or pip's torch)")]
    NotInstalled(PathBuf),
    /// The library is there and does not load.
    #[error("{path} does not load: {reason}")]
    DoesNotLoad {
        /// Which library.
        path: PathBuf,
        /// What the dynamic linker said.
        reason: String,
    },
    /// Loaded, but no device answers.
    #[error(
        "libtorch's CUDA half is loaded but sees no device (is the NVIDIA driver there? try nvidia-smi; is CUDA_VISIBLE_DEVICES empty?)"
    )]
    NoDevice,
    /// libtorch itself could not be located.
    #[error("the folder of libtorch_cpu.so could not be found")]
    NoLibtorch,
}

/// Path of the `libtorch_cpu.so` in this process.
#[must_use]
pub fn library_path() -> Option<PathBuf> {
    let path = PathBuf::from(ffi::library_path()?);
    Some(path.canonicalize().unwrap_or(path))
}

/// Loads `libtorch_cuda.so` from beside `libtorch_cpu.so` if that has not happened yet; answers the number of CUDA devices, at
/// least 1. Call it before the first use of tensors by other threads.
///
/// # Errors
/// Why there is no CUDA.
pub fn load_cuda() -> Result<usize, CudaUnavailable> {
    if !tch::utils::has_cuda() {
        let path = library_path()
            .and_then(|p| Some(p.parent()?.join("libtorch_cuda.so")))
            .ok_or(CudaUnavailable::NoLibtorch)?;
        if !path.exists() {
            return Err(CudaUnavailable::NotInstalled(path));
        }
        open_globally(&path).map_err(|reason| CudaUnavailable::DoesNotLoad { path, reason })?;
    }
    if !tch::Cuda::is_available() {
        return Err(CudaUnavailable::NoDevice);
    }
    usize::try_from(tch::Cuda::device_count())
        .ok()
        .filter(|&n| n > 0)
        .ok_or(CudaUnavailable::NoDevice)
}

#[expect(
    unsafe_code,
    reason = "loading a library runs its initialisers; this one is libtorch's own and registers kernels"
)]
fn open_globally(path: &std::path::Path) -> Result<(), String> {
    use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};
    // SAFETY: the library is part of the libtorch that this process already runs.
    let library = unsafe { Library::open(Some(path), RTLD_NOW | RTLD_GLOBAL) }.map_err(|e| e.to_string())?;
    // Kernels stay registered for the life of the process, so the library must stay too.
    let _ = std::mem::ManuallyDrop::new(library);
    Ok(())
}
