//! What the supervisor sees when it looks around, and what becomes of it: readiness, rollbacks, a trainer that is stuck.

use std::sync::Arc;
use std::time::{Duration, Instant};

use torch_ext::ranks::Launcher;

use super::Supervisor;
use crate::daemon::changes::listed;
use crate::daemon::daemon_status::lock as held;
use crate::daemon::train::Train;
use crate::daemon::{journal, progress, threads, transaction};
use crate::exit::{CliError, ExitCode};
use crate::telemetry::metrics::{ReloadOutcome, unix_seconds};
use crate::trainer::control::Status;

impl<T: Train> Supervisor<T> {
    /// Looks at everything that tells nothing by itself.
    pub(super) fn look(&mut self) {
        self.look_ready();
        self.time_reading();
        let status = self.status();
        self.tell_rollback(&status);
        self.tell_pause(&status);
        self.tell_failures(&status);
        let stuck = self.look_stuck(&status);
        self.manager.tick(!stuck, || {
            format!("step {}/{} · {}", status.step, status.total_steps, progress::line(&status))
        });
        if let Some(progress) = &self.parts.progress {
            progress.show(&status);
        }
        self.look_for_bucket();
        self.look_for_launcher();
        if self.transaction.may_begin()
            && let Some(trigger) = self.again.take()
        {
            self.reload_unasked(trigger);
        }
    }

    /// A rank whose torchrun is gone would go on for nobody: the next start could not meet it.
    fn look_for_launcher(&mut self) {
        let left = self.parts.launch.by == Launcher::Torchrun && std::os::unix::process::parent_id() != self.parent;
        if left && !self.is_draining() {
            tracing::error!("torchrun, which started this rank, is gone: the run ends");
            self.drain("launcher");
        }
    }

    /// Has the trainer taken its first batch?
    pub(super) fn look_ready(&mut self) {
        if self.ready || !self.status().ready || self.transaction.waits() {
            return;
        }
        self.ready = true;
        self.bucket_is_back();
        self.happens(transaction::Event::Ready);
        self.accept();
    }

    fn look_stuck(&mut self, status: &Status) -> bool {
        let floor = Duration::from_secs_f64(self.parts.settings.config.admin.watchdog_s);
        self.watchdog.set_floor(floor);
        let stuck = self.watchdog.look(status, Instant::now());
        self.parts.metrics.stuck.set(f64::from(u8::from(stuck.is_some())));
        let before = std::mem::replace(&mut held(&self.parts.shown).stuck, stuck.clone());
        if let Some(reason) = stuck.as_ref().filter(|_| before.is_none()) {
            let (run_dir, why, status) = (self.parts.settings.config.run_dir(), reason.clone(), status.clone());
            if self.parts.lock.is_none() {
                tracing::error!(reason = why, "watchdog: the trainer is stuck; {}", threads::report());
            } else {
                self.parts.files.run(move || match threads::write(&run_dir, &why, &status) {
                    Ok(file) => tracing::error!(reason = why, threads = %file.display(), "watchdog: the trainer is stuck"),
                    Err(error) => tracing::error!(reason = why, %error, "watchdog: the trainer is stuck; {}", threads::report()),
                });
            }
            self.note("stuck", "watchdog", "failed", &[], Some(reason));
            // The other ranks wait for this one, and only its end lets their launcher start all again.
            if self.parts.settings.config.admin.watchdog_exit || self.parts.launch.world > 1 {
                self.end = Some(Err(CliError {
                    code: ExitCode::Hung,
                    message: format!(
                        "the trainer is stuck: {reason}; it cannot be asked for a checkpoint (admin.watchdog_exit = true, or several ranks)"
                    ),
                    hint: Some(
                        "the same command goes on from the newest checkpoint; hang-step-….txt in the run folder tells what each thread did"
                            .into(),
                    ),
                }));
            }
        }
        stuck.is_some()
    }

    fn tell_rollback(&mut self, status: &Status) {
        if let Some(rollback) = &status.last_rollback
            && self.rollback_told.replace(rollback.consumed) != Some(rollback.consumed)
        {
            let what = format!(
                "{}: from step {} to the checkpoint at step {}, images {} to {} are left out",
                rollback.reason,
                rollback.from_step,
                rollback.to_step,
                rollback.skipped_from.samples(),
                rollback.skipped_to.samples()
            );
            self.note("rollback", "trainer", "applied", &[], Some(&what));
        }
    }

    /// Evaluations, pictures and the like that failed, while training went on.
    fn tell_failures(&mut self, status: &Status) {
        let last = status.side_failures.last().map_or(0, |failure| failure.number);
        // A trainer that was rebuilt counts anew.
        if last < self.failure_told {
            self.failure_told = 0;
        }
        let told = std::mem::replace(&mut self.failure_told, last);
        for failure in status.side_failures.iter().filter(|failure| failure.number > told) {
            self.note("side failure", failure.task, "failed", &[], Some(&failure.error));
        }
    }

    /// The config of the start is in force.
    pub(super) fn accept(&mut self) {
        if std::mem::replace(&mut self.accepted, true) {
            return;
        }
        if self.generation == 0 {
            self.in_force();
        }
        // The start is no reload: `_reloads_total` counts what came after it.
        self.parts.metrics.config_generation.set(self.generation as f64);
        self.parts.metrics.config_last_reload_success_timestamp.set(unix_seconds());
        self.tell_mirror();
        let changes = self.parts.from.as_ref().map(|(_, changes)| changes.clone()).unwrap_or_default();
        self.note("start", "start", ReloadOutcome::Applied.label(), &changes, None);
        tracing::info!(
            outcome = "applied", trigger = "start", step = self.status().step, sha256 = %self.parts.settings.config.sha256(),
            changes = %listed(&changes), "config loaded"
        );
        self.manager.ready();
    }

    /// Makes the current config known as accepted.
    pub(super) fn in_force(&mut self) {
        self.generation += 1;
        let config = Arc::clone(&self.parts.settings.config);
        {
            let mut shown = held(&self.parts.shown);
            shown.generation = self.generation;
            shown.config_sha256 = config.sha256();
            shown.config = Arc::clone(&config);
        }
        self.configure_mirror();
        let Some(lock) = self.parts.lock.as_ref().map(|lock| lock.held().clone()) else {
            return;
        };
        self.parts
            .files
            .run(move || journal::keep_last_good(&config.run_dir(), &lock, &config.to_toml()));
    }
}
