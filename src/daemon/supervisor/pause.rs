//! Pauses: those that somebody asks for are handed to the trainer, and to the one that a reload puts in its place; all of them are told in the journal.

use tokio::sync::oneshot;

use super::Supervisor;
use crate::daemon::events::NotPaused;
use crate::daemon::train::Train;
use crate::trainer::control::{Command, PausedAt, Reply, ResumedAt, Status};

impl<T: Train> Supervisor<T> {
    /// Why a trainer cannot be asked.
    fn not_pausable(&self) -> Option<NotPaused> {
        (!self.ready || self.is_draining()).then_some(NotPaused::NotReady)
    }

    /// `POST /-/pause`.
    pub(super) fn pause_asked(&mut self, reply: oneshot::Sender<Result<PausedAt, NotPaused>>) {
        if let Some(why) = self.not_pausable() {
            let _ = reply.send(Err(why));
            return;
        }
        self.pauses.asked = true;
        let answer = move |answer: Result<_, String>| drop(reply.send(answer.map_err(NotPaused::Refused)));
        let _ = self.commands.send(Command::Pause { reply: Reply::new(answer) });
    }

    /// `POST /-/resume`.
    pub(super) fn resume_asked(&mut self, reply: oneshot::Sender<Result<ResumedAt, NotPaused>>) {
        if let Some(why) = self.not_pausable() {
            let _ = reply.send(Err(why));
            return;
        }
        self.pauses.asked = false;
        let answer = move |answer: Result<_, String>| drop(reply.send(answer.map_err(NotPaused::Refused)));
        let _ = self.commands.send(Command::Resume { reply: Reply::new(answer) });
    }

    /// A trainer that takes the place of one that was asked to pause stands still from its first moment.
    pub(super) fn hold_new_trainer(&self) {
        if self.pauses.asked {
            let _ = self.commands.send(Command::Pause { reply: Reply::new(drop) });
        }
    }

    /// The trainer has paused, or goes on.
    pub(super) fn tell_pause(&mut self, status: &Status) {
        // One that is being rebuilt in a pause is still paused.
        let building = self.pauses.asked && !self.ready;
        match (self.pauses.told, &status.paused) {
            (None, Some(why)) => {
                let by = if status.pause_asked { "http" } else { "trainer" };
                self.pauses.told = Some(by);
                self.note("pause", by, "begun", &[], Some(why));
            }
            (Some(by), None) if !building => {
                self.pauses.told = None;
                self.note("pause", by, "over", &[], None);
            }
            _ => {}
        }
    }
}
