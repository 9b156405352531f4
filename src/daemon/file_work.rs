//! File work that may hang (a dead disk, an NFS server that is away), on a thread of its own: whoever hands it over waits a moment and no longer.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

/// Time for which a piece of work is waited for.
const PATIENCE: Duration = Duration::from_secs(1);

type Work = Box<dyn FnOnce() + Send>;

/// The thread. Work is done in the order in which it is handed over; dropping this ends the thread when it has done all.
#[derive(Debug)]
pub(super) struct FileWork {
    work: Sender<Work>,
    done: Receiver<()>,
    /// Pieces handed over and not known to be done.
    open: usize,
    hangs: bool,
}

impl FileWork {
    /// Starts the thread.
    ///
    /// # Errors
    /// There can be no thread.
    pub(super) fn start() -> std::io::Result<Self> {
        let (work, inbox) = channel::<Work>();
        let (tell, done) = channel();
        std::thread::Builder::new().name("files".into()).spawn(move || {
            for work in inbox {
                work();
                if tell.send(()).is_err() {
                    return;
                }
            }
        })?;
        Ok(Self {
            work,
            done,
            open: 0,
            hangs: false,
        })
    }

    /// Has `work` done, and waits for it unless earlier work hangs. Answers whether it is done; otherwise it is done as soon as the disk answers.
    pub(super) fn run(&mut self, work: impl FnOnce() + Send + 'static) -> bool {
        self.open += usize::from(self.work.send(Box::new(work)).is_ok());
        let patience = if self.hangs { Duration::ZERO } else { PATIENCE };
        self.finish(patience)
    }

    /// Waits until all is done, at most for `patience`; answers whether it is.
    pub(super) fn finish(&mut self, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        while self.open > 0 {
            if self.done.recv_timeout(deadline.saturating_duration_since(Instant::now())).is_err() {
                if !std::mem::replace(&mut self.hangs, true) {
                    tracing::warn!("the disk of the run folder does not answer; journal and last-good.toml wait for it");
                }
                return false;
            }
            self.open -= 1;
        }
        self.hangs = false;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    #[test]
    fn work_that_hangs_is_left_alone_and_all_is_done_in_order_once_it_goes_on() {
        let mut files = FileWork::start().unwrap();
        let order = Arc::new(Mutex::new(vec![]));
        let note = |n: u32| {
            let order = Arc::clone(&order);
            move || order.lock().unwrap().push(n)
        };
        assert!(files.run(note(1)));
        assert_eq!(*order.lock().unwrap(), [1], "it was waited for");
        let (go_on, hang) = channel::<()>();
        let began = Instant::now();
        assert!(!files.run(move || {
            let _ = hang.recv();
        }));
        assert!((PATIENCE..PATIENCE * 3).contains(&began.elapsed()), "{:?}", began.elapsed());
        let began = Instant::now();
        assert!(!files.run(note(2)) && !files.run(note(3)));
        assert!(began.elapsed() < PATIENCE / 2, "what hangs is waited for once");
        drop(go_on);
        assert!(files.finish(Duration::from_secs(10)));
        assert_eq!(*order.lock().unwrap(), [1, 2, 3]);
        assert!(files.run(note(4)), "it is waited for again");
    }
}
