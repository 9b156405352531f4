//! What a service manager is told (`Type=notify-reload`). Without NOTIFY_SOCKET every call is silent.

use std::time::{Duration, Instant};

use sd_notify::NotifyState;

/// The conversation with the service manager.
#[derive(Debug)]
pub struct ServiceManager {
    watchdog: Option<Duration>,
    pinged: Instant,
    told: Instant,
    ready: bool,
}

impl ServiceManager {
    /// Looks at the environment.
    #[must_use]
    pub fn from_environment() -> Self {
        let long_ago = Instant::now();
        Self {
            watchdog: sd_notify::watchdog_enabled(),
            pinged: long_ago,
            told: long_ago,
            ready: false,
        }
    }

    fn send(states: &[NotifyState<'_>]) {
        if let Err(e) = sd_notify::notify(states) {
            tracing::debug!(error = %e, "the service manager was not reached");
        }
    }

    /// The first batch was consumed, or a reload is over.
    pub fn ready(&mut self) {
        self.ready = true;
        Self::send(&[NotifyState::Ready]);
    }

    /// A reload begins. systemd from 253 on wants the monotonic time in the same message, else it fails the reload.
    pub fn reloading(&self) {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => Self::send(&[NotifyState::Reloading, now]),
            Err(e) => tracing::debug!(error = %e, "no monotonic clock for the service manager"),
        }
    }

    /// The daemon drains; `within` is how long it may take.
    pub fn stopping(&self, within: Duration) {
        Self::send(&[
            NotifyState::Stopping,
            NotifyState::ExtendTimeoutUsec(u32::try_from(within.as_micros()).unwrap_or(u32::MAX)),
        ]);
    }

    /// Called often: keeps the watchdog quiet while there is `progress`, tells the status every few seconds, and asks for patience during
    /// a long start.
    pub fn tick(&mut self, progress: bool, status: impl FnOnce() -> String) {
        let now = Instant::now();
        if let Some(limit) = self.watchdog
            && progress
            && now - self.pinged >= limit / 3
        {
            self.pinged = now;
            Self::send(&[NotifyState::Watchdog]);
        }
        if now - self.told >= Duration::from_secs(5) {
            self.told = now;
            let text = status();
            Self::send(&[NotifyState::Status(&text)]);
            if !self.ready && progress {
                Self::send(&[NotifyState::ExtendTimeoutUsec(30_000_000)]);
            }
        }
    }
}
