//! Files of the run folder for the handlers, read by a thread of their own: a disk that hangs keeps this thread, and nobody else.

use std::panic::AssertUnwindSafe;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::http::StatusCode;
use axum::response::Response;
use tokio::sync::oneshot;

use super::refusal::refusal;
use crate::daemon::daemon_status::lock;

/// A piece of work that has lasted so long hangs, and whoever comes next is told instead of kept. Each piece reads a bounded part of a file.
const HANGS: Duration = Duration::from_secs(3);

type Work = Box<dyn FnOnce() + Send>;

/// The thread. Dropping it ends the thread when what was handed over is done.
pub(super) struct FileReads {
    work: Sender<Work>,
    /// When the piece under way began.
    began: Arc<Mutex<Option<Instant>>>,
}

impl FileReads {
    /// Starts the thread.
    ///
    /// # Errors
    /// There can be no thread.
    pub(super) fn start() -> std::io::Result<Self> {
        let (work, inbox) = channel::<Work>();
        let began = Arc::new(Mutex::new(None));
        let clock = Arc::clone(&began);
        std::thread::Builder::new().name("file-reads".into()).spawn(move || {
            for work in inbox {
                *lock(&clock) = Some(Instant::now());
                // Whoever waits for a piece that panicked is told; the thread serves the next one.
                let _ = std::panic::catch_unwind(AssertUnwindSafe(work));
                *lock(&clock) = None;
            }
        })?;
        Ok(Self { work, began })
    }

    /// What `read` answers, in turn.
    ///
    /// # Errors
    /// 503 if an earlier piece hangs, 500 if this one panicked.
    pub(super) async fn run<T: Send + 'static>(&self, read: impl FnOnce() -> T + Send + 'static) -> Result<T, Response> {
        let lasts = lock(&self.began).map(|began| began.elapsed());
        if let Some(lasts) = lasts.filter(|lasts| *lasts > HANGS) {
            let error = format!(
                "the disk of the run folder has not answered for {} s; training goes on as long as it needs none",
                lasts.as_secs()
            );
            return Err(refusal(StatusCode::SERVICE_UNAVAILABLE, &error));
        }
        let (reply, answer) = oneshot::channel();
        let began = Arc::clone(&self.began);
        let piece = move || {
            // Whoever asked may have gone away while this waited for its turn.
            if !reply.is_closed() {
                let found = read();
                // Before the answer goes: whoever asks upon it must not find this piece still under way.
                *lock(&began) = None;
                let _ = reply.send(found);
            }
        };
        let _ = self.work.send(Box::new(piece));
        answer
            .await
            .map_err(|_| refusal(StatusCode::INTERNAL_SERVER_ERROR, "reading it failed: the log says how"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_hangs_keeps_nobody_and_what_panics_ends_nothing() {
        let reads = Arc::new(FileReads::start().unwrap());
        assert_eq!(reads.run(|| 1).await.unwrap(), 1);
        let panicked: Result<(), _> = reads.run(|| panic!("planted")).await;
        assert_eq!(panicked.unwrap_err().status(), StatusCode::INTERNAL_SERVER_ERROR);
        let (go_on, hang) = channel::<()>();
        let hanging = tokio::spawn({
            let reads = Arc::clone(&reads);
            async move { reads.run(move || hang.recv().is_err()).await.unwrap() }
        });
        tokio::time::sleep(HANGS + Duration::from_millis(200)).await;
        let began = Instant::now();
        let refused = reads.run(|| 2).await.unwrap_err();
        assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
        drop(go_on);
        assert!(hanging.await.unwrap());
        assert_eq!(reads.run(|| 3).await.unwrap(), 3);
    }
}
