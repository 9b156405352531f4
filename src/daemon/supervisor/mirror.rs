//! The copy of the run in a store: what it is told by the supervisor.

use std::time::{Duration, Instant};

use super::{Supervisor, TICK};
use crate::checkpoint;
use crate::daemon::daemon_status::lock as held;
use crate::daemon::events::Event;
use crate::daemon::train::Train;
use crate::mirror::MirrorState;
use crate::signals::{Signal, Stop};

impl<T: Train> Supervisor<T> {
    /// The config in force may name another mirror, or another way to keep it.
    pub(super) fn configure_mirror(&mut self) {
        let wanted = self.parts.settings.config.mirror();
        self.parts.mirror.iter_mut().for_each(|mirror| mirror.configure(wanted.clone()));
    }

    /// Tells the journal which of run folder and mirror the run goes on from.
    pub(super) fn tell_mirror(&mut self) {
        if let Some(told) = self.parts.told.take() {
            self.note("mirror", "start", "applied", &[], Some(&told));
        }
    }

    /// Lets the mirror have what it lacks, within what is left of `admin.grace_s`; tells what it does not get.
    pub(super) fn finish_mirror(&mut self) {
        let Some(mirror) = self.parts.mirror.as_ref().filter(|mirror| mirror.is_on() && !self.folder_lost) else {
            return;
        };
        let grace = Duration::from_secs_f64(self.parts.settings.config.admin.grace_s);
        let deadline = match &self.draining {
            Some(draining) => draining.deadline,
            None => {
                self.manager.stopping(grace);
                Instant::now() + grace
            }
        };
        mirror.finish();
        while !mirror.is_done() && Instant::now() < deadline && !self.impatient {
            if let Ok(Event::Signal(Signal::Terminate | Signal::Interrupt, at)) = self.parts.inbox.recv_timeout(TICK) {
                self.impatient = self.stops.judge(at) == Stop::AtOnce;
            }
            self.manager.tick(true, || "the last checkpoint goes to the mirror".to_owned());
        }
        let status = held(&mirror.status()).clone();
        if mirror.is_done() && status.state == MirrorState::Current {
            tracing::info!(step = status.step, mirror = status.address, "the mirror has everything");
            return;
        }
        let shown = |step: Option<u64>| step.map_or_else(|| "no checkpoint".to_owned(), |step| format!("step {step}"));
        let there = match status.step {
            None if status.lease_until.is_none() && status.state != MirrorState::Barred => {
                "it never answered, so what it has is not known".to_owned()
            }
            step => format!("it has {}", shown(step)),
        };
        // The thread may hang in a request since before the last one was written.
        let run_dir = self.parts.settings.config.run_dir();
        let here = checkpoint::list(&checkpoint::folder_of(&run_dir))
            .ok()
            .and_then(|all| Some(all.last()?.0));
        let why = match (&status.last_error, self.impatient) {
            (_, true) => "a second request to stop came".to_owned(),
            (Some(error), _) => error.clone(),
            (None, _) => format!("admin.grace_s = {} ran out", grace.as_secs_f64()),
        };
        let next = match status.state {
            MirrorState::Barred => "Once that is mended, the same command there uploads it",
            _ => "The same command there uploads it",
        };
        tracing::error!(
            mirror = status.address,
            "the mirror does not have the end of this run: {there}, and {} is in {} on this machine; {why}. {next}",
            shown(here),
            run_dir.display()
        );
    }
}
