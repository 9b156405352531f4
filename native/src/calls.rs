//! How often libtorch is called, how often a GPU is, and how often the host waits for an answer.

use std::marker::PhantomData;

use crate::{TorchError, ffi};

/// Calls of libtorch's operators in a span of time, in all threads; those inside of others count too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Calls {
    /// All of them.
    pub all: u64,
    /// Those for whose result the host waits on CUDA: a number, or a shape that depends on values. Plain copies to the host are not among them.
    pub waits: u64,
}

/// Counts calls while it lives. One at a time; it costs some time at every call.
#[derive(Debug)]
pub struct CallCount(Option<u64>);

impl CallCount {
    /// Begins.
    ///
    /// # Errors
    /// What libtorch said.
    pub fn begin() -> Result<Self, TorchError> {
        Ok(Self(Some(ffi::count_begin()?)))
    }

    /// Ends, and answers what was counted.
    ///
    /// # Errors
    /// What libtorch said.
    pub fn end(mut self) -> Result<Calls, TorchError> {
        let [all, waits] = self.0.take().map_or(Ok([0; 2]), ffi::count_end)?;
        Ok(Calls {
            all: all.unsigned_abs(),
            waits: waits.unsigned_abs(),
        })
    }
}

impl Drop for CallCount {
    fn drop(&mut self) {
        if let Some(handle) = self.0.take() {
            // Nobody asked for the number.
            let _ = ffi::count_end(handle);
        }
    }
}

/// What a process asked of CUDA in a span of time, all threads together, as NVIDIA's profiling interface (CUPTI, by libtorch's profiler) saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Launches {
    /// Kernels that ran.
    pub kernels: u64,
    /// Calls that launch a kernel or a graph of them.
    pub launches: u64,
    /// Calls that wait for a device, a stream or an event, or copy without returning before the end.
    pub waits: u64,
    /// Operators that this thread called, where they are recorded too.
    pub operators: u64,
}

/// Records while it lives; begun and ended on one thread, one at a time. Takes memory for every event: some steps, not an epoch.
#[derive(Debug)]
pub struct LaunchCount {
    running: bool,
    /// The profiler belongs to the thread.
    here: PhantomData<*const ()>,
}

impl LaunchCount {
    /// Begins. With `operators` this thread's calls of libtorch are recorded too, which shows on any machine that something is.
    ///
    /// # Errors
    /// What libtorch said.
    pub fn begin(operators: bool) -> Result<Self, TorchError> {
        ffi::launches_begin(operators)?;
        Ok(Self {
            running: true,
            here: PhantomData,
        })
    }

    /// Ends, and answers what was seen; without CUDA no kernel, launch or wait.
    ///
    /// # Errors
    /// What libtorch said.
    pub fn end(mut self) -> Result<Launches, TorchError> {
        self.running = false;
        let [kernels, launches, waits, operators] = ffi::launches_end()?.map(i64::unsigned_abs);
        Ok(Launches {
            kernels,
            launches,
            waits,
            operators,
        })
    }
}

impl Drop for LaunchCount {
    fn drop(&mut self) {
        if self.running {
            // Nobody asked for the numbers.
            let _ = ffi::launches_end();
        }
    }
}
