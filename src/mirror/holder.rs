//! Who holds the lease of a mirror, as it stands in the object.

use std::path::Path;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use crate::telemetry::wall_time::rfc3339;

/// Who holds a mirror.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Holder {
    /// Name of its machine.
    pub host: String,
    /// Random, of this boot of the machine; empty where the kernel does not tell.
    pub boot: String,
    /// Of its process.
    pub pid: u32,
    /// `run.name`.
    pub run: String,
    /// Its run folder, absolute.
    pub run_dir: String,
    /// Random, of this process's lease.
    pub nonce: String,
    /// Counts renewals.
    pub renewal: u64,
    /// When it was last renewed, RFC 3339, by the holder's clock.
    pub time: String,
    /// When it ends if it is not renewed, by the holder's clock.
    pub until: String,
    /// Seconds without a renewal after which it has ended.
    pub timeout_s: f64,
}

/// 32 hexadecimal digits that no other process draws.
#[expect(
    clippy::disallowed_methods,
    reason = "two processes with one config must not draw the same; nothing that is trained depends on it"
)]
pub(super) fn drawn_name() -> String {
    format!("{:032x}", rand::random::<u128>())
}

impl Holder {
    /// This process, for the run in `run_dir`.
    #[must_use]
    pub fn of_process(run: &str, run_dir: &Path, timeout: Duration) -> Self {
        let kernel = |file: &str| std::fs::read_to_string(file).unwrap_or_default().trim().to_owned();
        let mut holder = Self {
            host: kernel("/proc/sys/kernel/hostname"),
            boot: kernel("/proc/sys/kernel/random/boot_id"),
            pid: std::process::id(),
            run: run.to_owned(),
            run_dir: std::fs::canonicalize(run_dir)
                .unwrap_or_else(|_| run_dir.to_owned())
                .display()
                .to_string(),
            nonce: drawn_name(),
            renewal: 0,
            time: String::new(),
            until: String::new(),
            timeout_s: timeout.as_secs_f64(),
        };
        holder.stamp();
        holder
    }

    /// Counts a renewal, as of now.
    pub(super) fn stamp(&mut self) {
        let now = SystemTime::now();
        self.renewal += 1;
        self.time = rfc3339(now);
        self.until = rfc3339(now + self.timeout());
    }

    /// Time without a renewal after which it has ended, within reason whatever the object says.
    pub(super) fn timeout(&self) -> Duration {
        Duration::try_from_secs_f64(self.timeout_s)
            .unwrap_or(Duration::from_secs(60))
            .clamp(Duration::from_secs(1), Duration::from_secs(3600))
    }

    /// An earlier process in the same run folder of the same machine: it is dead, since the folder is locked by this one.
    pub(super) fn is_forerunner_of(&self, me: &Self) -> bool {
        (&self.host, &self.boot, &self.run_dir) == (&me.host, &me.boot, &me.run_dir)
    }

    /// As it stands in the object.
    pub(super) fn text(&self) -> String {
        serde_json::to_string_pretty(self).expect("plain data serialises")
    }
}

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "host {:?} (pid {}, run {:?} in {}), renewed at {}, until {}",
            self.host, self.pid, self.run, self.run_dir, self.time, self.until
        )
    }
}
