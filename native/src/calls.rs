//! How often libtorch is called, and how often the host waits for an answer.

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
