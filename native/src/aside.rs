//! Work on a CUDA device beside what it is doing.

use std::ffi::c_void;

use tch::{Device, Tensor};

use crate::graph::one_stream_only;
use crate::{TorchError, ffi, is_cuda};

/// While it lives, what this thread launches on a CUDA device goes to a second stream; leaves it when dropped.
struct Aside(*mut c_void);

impl Drop for Aside {
    fn drop(&mut self) {
        // The launches failed or panicked, so nothing of them is used, and what libtorch says of leaving is said again by the next call.
        let _ = ffi::aside_leave(self.0, &[]);
    }
}

/// Launches work on `device` that need not wait for what it is doing: on CUDA `launch` runs with a second stream as the current one, and what is
/// launched afterwards begins when that work has ended. `made` names the tensors of its result: their memory stays until both streams have done with
/// it. A host that waits inside `launch`, for a shape or a number, waits for the second stream alone. `launch` may use tensors of the first stream only
/// if they were finished before. On other devices, and where a CUDA graph could not be recorded, it is `launch` and nothing else.
///
/// # Errors
/// What libtorch said, or the error of `launch`.
pub fn aside<T, E: From<TorchError>>(
    device: Device,
    launch: impl FnOnce() -> Result<T, E>,
    made: impl FnOnce(&T) -> Vec<&Tensor>,
) -> Result<T, E> {
    if !is_cuda(device) || one_stream_only() {
        return launch();
    }
    let beside = Aside(ffi::aside_enter(device)?);
    let result = launch()?;
    let tensors: Vec<ffi::At> = made(&result).into_iter().map(ffi::at).collect();
    let stream = std::mem::ManuallyDrop::new(beside).0;
    ffi::aside_leave(stream, &tensors)?;
    Ok(result)
}
