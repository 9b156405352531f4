//! What is done with memory that a step freed: what the CUDA allocator holds, and what glibc keeps.

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

/// Variables of the environment that set what [`keep_freed_memory`] would, beside `GLIBC_TUNABLES`.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const SET_BY_USER: [&str; 3] = ["MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "MALLOC_TOP_PAD_"];

/// Has glibc keep the memory of tensors that a step freed for the next step, instead of giving it back to the system, which zeroes each page that is asked for
/// anew: up to a sixth of a step's time on a CPU. The program keeps what it had at its peak, until [`give_back_freed_memory`]. Nothing happens where the environment has
/// settings of glibc's `malloc`, or with another C library. Answers whether it was done.
pub fn keep_freed_memory() -> bool {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        // The largest size that glibc takes from its own memory: greater ones are asked of the system each time.
        const LARGEST: libc::c_int = 32 << 20;
        // The size of what glibc gives a thread's memory out of: with as much to spare it gives none of it back.
        const HEAP: libc::c_int = 64 << 20;
        let tuned = std::env::var("GLIBC_TUNABLES").is_ok_and(|set| set.contains("glibc.malloc."));
        if tuned || SET_BY_USER.into_iter().any(|name| std::env::var_os(name).is_some()) {
            return false;
        }
        let settings = [
            (libc::M_MMAP_THRESHOLD, LARGEST),
            (libc::M_TRIM_THRESHOLD, libc::c_int::MAX),
            (libc::M_TOP_PAD, HEAP),
        ];
        #[expect(unsafe_code, reason = "a setting of glibc's")]
        // SAFETY: glibc takes any two numbers, and holds its own lock while it changes what they stand for.
        let set = |(what, value)| unsafe { libc::mallopt(what, value) == 1 };
        settings.into_iter().all(set)
    }
    #[cfg(not(all(target_os = "linux", target_env = "gnu")))]
    false
}

/// Has glibc give memory back to the system that nothing uses: behind a training, and before memory is measured. With another C library nothing happens.
pub fn give_back_freed_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        #[expect(unsafe_code, reason = "a call of glibc's")]
        // SAFETY: glibc takes any number of bytes to spare, and holds its own locks meanwhile.
        unsafe {
            libc::malloc_trim(0);
        }
    }
}

#[cfg(all(test, target_os = "linux", target_env = "gnu"))]
mod tests {
    use super::*;

    /// Memory of this process, bytes.
    fn resident() -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
        let (_, behind) = status.split_once("VmRSS:").expect("it is told");
        1024 * behind
            .split_whitespace()
            .next()
            .and_then(|n| n.parse::<u64>().ok())
            .expect("a number")
    }

    /// Pages that this thread was given so far.
    fn pages() -> u64 {
        let stat = std::fs::read_to_string("/proc/thread-self/stat").expect("Linux");
        let behind_name = stat.rsplit_once(')').expect("name in parentheses").1;
        behind_name
            .split_whitespace()
            .nth(7)
            .and_then(|n| n.parse().ok())
            .expect("a number")
    }

    #[test]
    fn what_a_step_freed_is_there_for_the_next_one() {
        assert!(keep_freed_memory());
        // On a thread of its own, as a training is.
        let body = || {
            let step = || drop(std::hint::black_box([(); 4].map(|()| vec![1_u8; 30 << 20])));
            step();
            let before = pages();
            (0..8).for_each(|_| step());
            pages() - before
        };
        let given = std::thread::spawn(body).join().expect("it does not panic");
        let of_one_step = 4 * (30 << 20);
        assert!(4096 * given < of_one_step, "{given} pages in 8 steps of {of_one_step} bytes");
        let kept = resident();
        give_back_freed_memory();
        let left = resident();
        assert!(left + of_one_step / 2 < kept, "{kept} bytes became {left}");
    }
}
