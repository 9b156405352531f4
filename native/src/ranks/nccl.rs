//! NCCL, from a small library (`nccl.cpp`) that exists only where this crate was built with NVIDIA's headers. It is part of the program's own file and
//! opened at run time behind [`crate::load_cuda`], because it needs symbols of libtorch's CUDA half, which nothing links against.

use std::fs::File;
use std::io::Write as _;
use std::mem::ManuallyDrop;
use std::os::fd::AsRawFd as _;
use std::sync::OnceLock;

use crate::CudaUnavailable;
use crate::ranks::ffi::MakeNccl;

/// Why there is no NCCL.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NcclUnavailable {
    /// Tensors on the CPU.
    #[error("NCCL without CUDA: this rank's tensors are on the CPU; gloo moves those")]
    NoCudaDevice,
    /// Built without NVIDIA's headers.
    #[error("NCCL without CUDA: this program was built without NCCL ({0}); gloo moves CUDA tensors too, slowly")]
    NotBuilt(&'static str),
    /// libtorch's CUDA half is missing.
    #[error("NCCL without CUDA: {0}")]
    NoCuda(#[from] CudaUnavailable),
    /// The library does not load.
    #[error("the NCCL library of this program does not load: {0}")]
    DoesNotLoad(String),
}

/// The library, or nothing and why.
const LIBRARY: Result<&[u8], &str> = include!(concat!(env!("OUT_DIR"), "/nccl.in"));

/// Opens the library once; answers its one function.
pub(super) fn load() -> Result<MakeNccl, NcclUnavailable> {
    static MAKER: OnceLock<Result<MakeNccl, NcclUnavailable>> = OnceLock::new();
    MAKER
        .get_or_init(|| {
            let bytes = LIBRARY.map_err(NcclUnavailable::NotBuilt)?;
            crate::load_cuda()?;
            open(bytes).map_err(NcclUnavailable::DoesNotLoad)
        })
        .clone()
}

#[expect(
    unsafe_code,
    reason = "loading a library runs its initialisers; this one is ours, and its one function has the type that it is used with"
)]
fn open(bytes: &[u8]) -> Result<MakeNccl, String> {
    use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};
    let file = rustix::fs::memfd_create("torch_ext_nccl", rustix::fs::MemfdFlags::CLOEXEC).map_err(|e| e.to_string())?;
    let mut file = File::from(file);
    file.write_all(bytes).map_err(|e| e.to_string())?;
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    // SAFETY: the bytes are what build.rs compiled from nccl.cpp; it has no initialisers of its own.
    let library = unsafe { Library::open(Some(path), RTLD_NOW | RTLD_LOCAL) }.map_err(|e| e.to_string())?;
    // SAFETY: nccl.cpp declares it so.
    let make = *unsafe { library.get::<MakeNccl>(b"tr_nccl_backend\0") }.map_err(|e| e.to_string())?;
    // What it made lives as long as the process may.
    let _ = ManuallyDrop::new(library);
    Ok(make)
}
