//! CUDA graphs: what a device is asked is recorded once, and asked again with a single launch.

mod ffi;

use std::ffi::c_void;
use std::sync::atomic::{AtomicBool, Ordering};

use tch::{Device, Tensor};

use crate::TorchError;

/// Whether a recording could not be ended: libtorch's allocator then holds back memory that several streams have used until an end that never comes.
static BROKEN_OFF: AtomicBool = AtomicBool::new(false);

/// Whether memory must not be shared by streams any more.
pub(crate) fn one_stream_only() -> bool {
    BROKEN_OFF.load(Ordering::Acquire)
}

/// Recorded work of a CUDA device. Each replay reads and writes the very memory that the recording did: inputs are copied into the tensors that were read,
/// results are found in those that were made, which live as long as this.
#[derive(Debug)]
pub struct Graph(*mut c_void);

impl Graph {
    /// Records what `work` launches on `device` from this thread and from its backward passes. Nothing of it runs: the tensors of the result hold numbers
    /// after the first [`Graph::replay`]. Random numbers go on from wherever the device's generator is then. Other threads may use the device meanwhile.
    ///
    /// `work` must not wait for the device or bring values of the host there ([`crate::send`] refuses), and must have run before as it is, because libraries
    /// set themselves up at their first call. Numbers of the host are recorded as they are now.
    ///
    /// # Errors
    /// What libtorch said, such as that some call cannot be recorded, or the error of `work`. What was recorded is gone then, and the device goes on as
    /// before. Where libtorch cannot be cleaned of a recording, [`crate::aside`] works on the first stream from then on, nothing is recorded any more, and
    /// other graphs must not be replayed.
    pub fn record<T, E: From<TorchError>>(device: Device, work: impl FnOnce() -> Result<T, E>) -> Result<(Self, T), E> {
        if one_stream_only() {
            return Err(TorchError {
                call: "graph_begin",
                message: "an earlier recording could not be ended".into(),
            }
            .into());
        }
        // A recording that CUDA refuses may have begun for libtorch's allocator.
        let begun = ffi::begin(device).inspect_err(|_| BROKEN_OFF.store(graphs_available().is_ok(), Ordering::Release));
        let recording = Recording { graph: Some(Self(begun?)) };
        let made = work()?;
        Ok((recording.end()?, made))
    }

    /// Runs what was recorded, behind what the current stream is doing; the host does not wait.
    ///
    /// # Errors
    /// What libtorch said.
    pub fn replay(&self) -> Result<(), TorchError> {
        ffi::replay(self.0)
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        // Without a use for the graph there is none for what libtorch says of its end.
        let _ = ffi::drop(self.0);
    }
}

/// Ends the recording in any case.
struct Recording {
    graph: Option<Graph>,
}

impl Recording {
    fn end(mut self) -> Result<Graph, TorchError> {
        let graph = self.graph.take().expect("it is there until the end");
        end(&graph).map(|()| graph)
    }
}

fn end(graph: &Graph) -> Result<(), TorchError> {
    let (ended, clean) = ffi::end(graph.0);
    if !clean {
        BROKEN_OFF.store(true, Ordering::Release);
    }
    ended
}

impl Drop for Recording {
    fn drop(&mut self) {
        if let Some(graph) = &self.graph {
            // The work failed, and that error is told.
            let _ = end(graph);
        }
    }
}

/// Whether graphs can be recorded: libtorch's CUDA half is loaded and has the functions.
///
/// # Errors
/// What is missing.
pub fn graphs_available() -> Result<(), TorchError> {
    ffi::available()
}

/// Makes `grads` the gradients of `params`, in pairs.
///
/// # Errors
/// Lists of different length, or a gradient of another shape; nothing changes then.
pub fn set_grads(params: &[Tensor], grads: &[Tensor]) -> Result<(), TorchError> {
    crate::ffi::set_grads(params, grads)
}

#[cfg(test)]
mod tests;
