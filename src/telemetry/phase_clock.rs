//! Where the trainer's wall time goes.

use std::time::Instant;

use crate::telemetry::metrics::{Phase, TrainMetrics};

/// Attributes every moment of a thread's wall time to exactly one [`Phase`].
pub struct PhaseClock {
    metrics: TrainMetrics,
    phase: Phase,
    since: Instant,
}

impl PhaseClock {
    /// Starts in `phase`.
    #[must_use]
    pub fn start(metrics: TrainMetrics, phase: Phase) -> Self {
        Self {
            metrics,
            phase,
            since: Instant::now(),
        }
    }

    /// Books the time since the last switch and goes on in `phase`; answers the phase that ended and its seconds.
    pub fn switch(&mut self, phase: Phase) -> (Phase, f64) {
        self.switch_at(phase, Instant::now())
    }

    /// The phase under way turns out to be another one: the time since the last switch is booked on it.
    pub fn rename(&mut self, phase: Phase) {
        self.phase = phase;
    }

    /// As [`PhaseClock::switch`], for a moment that has passed; not before the last one.
    pub fn switch_at(&mut self, phase: Phase, now: Instant) -> (Phase, f64) {
        let seconds = now.duration_since(self.since).as_secs_f64();
        self.metrics.phase(self.phase).inc_by(seconds);
        self.since = now;
        (std::mem::replace(&mut self.phase, phase), seconds)
    }
}
