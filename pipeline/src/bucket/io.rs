//! The threads on which requests wait for their answers.

use tokio::runtime::{Handle, Runtime};

use crate::error::PipelineError;

/// A runtime for requests. Dropped without waiting, which is allowed anywhere.
pub(super) struct Io(Option<Runtime>);

impl Io {
    /// A runtime with so many threads of this name.
    ///
    /// # Errors
    /// [`PipelineError::Io`] if there can be no thread.
    pub(super) fn start(name: &str, threads: usize) -> Result<Self, PipelineError> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(threads)
            .thread_name(name)
            .enable_all()
            .build()
            .map_err(|source| PipelineError::Io {
                path: "tokio runtime".into(),
                source,
            })?;
        Ok(Self(Some(runtime)))
    }

    /// Where tasks are spawned and futures waited for.
    pub(super) fn handle(&self) -> &Handle {
        self.0.as_ref().expect("taken by drop alone").handle()
    }
}

impl Drop for Io {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}
