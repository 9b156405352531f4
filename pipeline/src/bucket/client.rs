//! A store's client that can be made anew, because credentials that were refused may have been renewed where they are kept.

use std::sync::{Arc, Mutex, PoisonError};

use object_store::ObjectStore;

use crate::error::PipelineError;

type Make = Box<dyn Fn() -> Result<Arc<dyn ObjectStore>, PipelineError> + Send + Sync>;

/// The client in use, and how to make another. A new one reads credentials afresh: environment, files, the provider's service.
pub struct Client {
    make: Make,
    current: Mutex<(u64, Arc<dyn ObjectStore>)>,
}

impl Client {
    /// Makes the first client.
    ///
    /// # Errors
    /// Those of `make`.
    pub fn new(make: impl Fn() -> Result<Arc<dyn ObjectStore>, PipelineError> + Send + Sync + 'static) -> Result<Self, PipelineError> {
        let first = make()?;
        Ok(Self {
            make: Box::new(make),
            current: Mutex::new((0, first)),
        })
    }

    /// The client in use and its number.
    #[must_use]
    pub fn current(&self) -> (u64, Arc<dyn ObjectStore>) {
        let current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        (current.0, Arc::clone(&current.1))
    }

    /// Replaces the client of this number; does nothing if another reader has done so already.
    pub fn renew(&self, seen: u64) {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.0 != seen {
            return;
        }
        match (self.make)() {
            Ok(client) => *current = (seen + 1, client),
            // The old one goes on; its next refusal is the reader's to report.
            Err(error) => tracing::warn!("credentials could not be read again: {error}"),
        }
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("number", &self.current().0).finish_non_exhaustive()
    }
}
