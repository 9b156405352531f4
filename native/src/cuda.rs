//! Brings in libtorch's CUDA half, which nothing links against, so that one binary runs with and without it.

use std::ffi::{CStr, c_char, c_int, c_uint};
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
        // libtorch would take TF32 for convolutions unless it is told: only a training that asks for it gets it (`set_arithmetic`).
        open_globally(&path)
            .and_then(|()| ffi::set_arithmetic(false, false).map_err(|e| e.to_string()))
            .map_err(|reason| CudaUnavailable::DoesNotLoad { path, reason })?;
    }
    if !tch::Cuda::is_available() {
        return Err(CudaUnavailable::NoDevice);
    }
    usize::try_from(tch::Cuda::device_count())
        .ok()
        .filter(|&n| n > 0)
        .ok_or(CudaUnavailable::NoDevice)
}

/// What NVIDIA's driver tells of a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CudaDevice {
    /// Such as `NVIDIA H100 80GB HBM3`.
    pub name: String,
    /// PCI address, such as `0000:3b:00.0`.
    pub pci_address: String,
    /// Bytes of its memory.
    pub memory: u64,
}

/// The device that libtorch calls `cuda:index`: CUDA's numbers are an order of its own, of the devices that the process is shown, in which its driver
/// API counts too. `None` without such a device.
#[must_use]
#[expect(
    unsafe_code,
    reason = "the driver's library is opened, and five of its functions are called with the types that NVIDIA's documentation gives them"
)]
pub fn cuda_device(index: usize) -> Option<CudaDevice> {
    use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};
    type Init = unsafe extern "C" fn(c_uint) -> c_int;
    type Get = unsafe extern "C" fn(*mut c_int, c_int) -> c_int;
    type Text = unsafe extern "C" fn(*mut c_char, c_int, c_int) -> c_int;
    type Memory = unsafe extern "C" fn(*mut usize, c_int) -> c_int;
    let index = c_int::try_from(index).ok()?;
    let (mut device, mut memory, mut name, mut address) = (0, 0, [0u8; 128], [0u8; 32]);
    // SAFETY: where CUDA is used, its runtime has opened this library before.
    let driver = unsafe { Library::open(Some("libcuda.so.1"), RTLD_NOW | RTLD_LOCAL) }.ok()?;
    // A driver that has begun has threads of its own, so its library must stay.
    let driver = std::mem::ManuallyDrop::new(driver);
    // SAFETY: the functions have these types, the places live across the calls, and the texts have the room that is said.
    let answers = unsafe {
        [
            driver.get::<Init>(b"cuInit\0").ok()?(0),
            driver.get::<Get>(b"cuDeviceGet\0").ok()?(&raw mut device, index),
            driver.get::<Text>(b"cuDeviceGetName\0").ok()?(name.as_mut_ptr().cast(), 128, device),
            driver.get::<Text>(b"cuDeviceGetPCIBusId\0").ok()?(address.as_mut_ptr().cast(), 32, device),
            driver.get::<Memory>(b"cuDeviceTotalMem_v2\0").ok()?(&raw mut memory, device),
        ]
    };
    let text = |bytes: &[u8]| Some(CStr::from_bytes_until_nul(bytes).ok()?.to_str().ok()?.to_owned());
    (answers == [0; 5]).then_some(())?;
    Some(CudaDevice {
        name: text(&name)?,
        pci_address: text(&address)?.to_lowercase(),
        memory: memory as u64,
    })
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
