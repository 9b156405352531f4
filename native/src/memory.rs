//! What is done with memory that a step freed: what the CUDA allocator holds, and what glibc keeps.

#[cfg(all(target_os = "linux", target_env = "gnu"))]
use std::sync::atomic::Ordering;

#[cfg(all(target_os = "linux", target_env = "gnu"))]
use self::glibc::{HEAP, KEPT, LARGEST, keep, mallopt, set_by_user};
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

/// Has glibc keep the memory of tensors that a step freed for the next step, instead of giving it back to the system, which zeroes each page that is asked for
/// anew: up to a sixth of a step's time on a CPU. Tensors of more than 32 MiB are still asked of the system each time. The settings are the whole
/// process's: each thread keeps what it had at its peak, for itself, until it calls [`give_back_freed_memory`]. Nothing happens where the environment
/// has `GLIBC_TUNABLES=glibc.malloc.…`, `MALLOC_MMAP_THRESHOLD_`, `MALLOC_TRIM_THRESHOLD_` or `MALLOC_TOP_PAD_`, or with another C library. Answers
/// whether it was done.
pub fn keep_freed_memory() -> bool {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        let done = !set_by_user() && mallopt(libc::M_MMAP_THRESHOLD, LARGEST) && keep(libc::c_int::MAX, HEAP);
        KEPT.fetch_or(done, Ordering::Relaxed);
        done
    }
    #[cfg(not(all(target_os = "linux", target_env = "gnu")))]
    false
}

/// Gives memory that this thread freed back to the system: behind a training, and before memory is measured. With another C library nothing happens.
pub fn give_back_freed_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        let keeps = KEPT.load(Ordering::Relaxed) && keep(0, 0);
        // `malloc_trim` leaves the end of a thread's own memory as it is. Freeing a block of this size makes glibc look at it.
        drop(std::hint::black_box(Vec::<u8>::with_capacity(1 << 20)));
        #[expect(unsafe_code, reason = "a call of glibc's")]
        // SAFETY: glibc takes any number of bytes to spare, and holds its own locks meanwhile.
        unsafe {
            libc::malloc_trim(0);
        }
        if keeps {
            keep(libc::c_int::MAX, HEAP);
        }
    }
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod glibc {
    use std::sync::atomic::AtomicBool;

    use libc::c_int;

    /// Whether this program has glibc keep memory; nothing is changed back where it does not.
    pub(super) static KEPT: AtomicBool = AtomicBool::new(false);

    /// The largest block that glibc's documentation lets it take from memory that it keeps, bytes.
    pub(super) const LARGEST: c_int = 32 << 20;
    /// Size of the heaps that a thread's memory consists of, bytes (`HEAP_MAX_SIZE`). With as much to spare, glibc gives none of them back.
    pub(super) const HEAP: c_int = 64 << 20;

    /// Variables of the environment that say how glibc keeps memory, beside `GLIBC_TUNABLES`.
    const SET_BY_USER: [&str; 3] = ["MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "MALLOC_TOP_PAD_"];

    pub(super) fn mallopt(what: c_int, value: c_int) -> bool {
        #[expect(unsafe_code, reason = "a setting of glibc's")]
        // SAFETY: glibc takes any two numbers, and holds its own lock while it changes what they stand for.
        unsafe {
            libc::mallopt(what, value) == 1
        }
    }

    /// From how many free bytes on memory is given back, and how many of them stay.
    pub(super) fn keep(threshold: c_int, spare: c_int) -> bool {
        mallopt(libc::M_TRIM_THRESHOLD, threshold) && mallopt(libc::M_TOP_PAD, spare)
    }

    pub(super) fn set_by_user() -> bool {
        let tuned = std::env::var("GLIBC_TUNABLES").is_ok_and(|set| set.contains("glibc.malloc."));
        tuned || SET_BY_USER.into_iter().any(|name| std::env::var_os(name).is_some())
    }
}
