//! The journal of the run, which rank 0 writes.

use super::Supervisor;
use crate::config::Change;
use crate::daemon::daemon_status::lock as held;
use crate::daemon::journal::{self, Entry};
use crate::daemon::train::Train;

impl<T: Train> Supervisor<T> {
    /// Writes a line of the journal.
    pub(super) fn note(&mut self, event: &str, trigger: &str, outcome: &str, changes: &[Change], error: Option<&str>) {
        let Some(journal) = self.journal.clone().filter(|_| !self.folder_lost) else {
            return;
        };
        let line = Entry {
            time: journal::now(),
            event,
            trigger,
            step: self.status().step,
            sha256: &self.parts.settings.config.sha256(),
            outcome,
            changes,
            error,
        }
        .line();
        self.parts.files.run(move || held(&journal).append(&line));
    }
}
