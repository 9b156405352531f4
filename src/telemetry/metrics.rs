//! Every metric of the trainer and the daemon, in one place: names, help texts with units, closed labels, histogram buckets.
//!
//! The pipeline has its own, `splitmask_pipeline::metrics`; one [`Registry`] holds both. All series exist from the start, at 0, for `rate()`.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus::{Counter, Gauge, GaugeVec, Histogram, IntCounter, Opts, Registry};

pub use self::evaluation::EvalMetrics;
pub use self::mirror::MirrorMetrics;
pub use self::ranks::RankMetrics;
pub use super::exposition::{render, series_names};
pub use super::labels::{
    CheckpointFailure, ClosedLabel, EvalTask, MemoryKind, MirrorFailure, PauseReason, PerLabel, Phase, ReloadOutcome, RunFile, SideTask,
};
pub use super::objective::ObjectiveMetrics;
pub use super::phase_clock::PhaseClock;
use super::register::{count_per, counter, gauge, gauge_per, histogram, register, seconds_per};

mod evaluation;
mod lasting;
mod mirror;
mod ranks;

/// Upper bounds of the step histogram, seconds: 5 ms to 164 s, doubling.
const STEP_BUCKETS: (f64, f64, usize) = (0.005, 2.0, 16);
/// Upper bounds of the checkpoint histogram, seconds: 50 ms to 410 s, doubling.
const CHECKPOINT_BUCKETS: (f64, f64, usize) = (0.05, 2.0, 14);

/// The trainer's and the daemon's metrics; each field is the metric of its name. A clone shares the values.
#[derive(Clone)]
pub struct TrainMetrics {
    build_info: GaugeVec,
    /// `splitmask_train_steps_total`.
    pub steps: IntCounter,
    /// `splitmask_train_images_total`.
    pub images: IntCounter,
    /// `splitmask_train_epochs_total`.
    pub epochs: IntCounter,
    /// `splitmask_train_step_duration_seconds`.
    pub step_duration: Histogram,
    /// `splitmask_train_phase_seconds_total`.
    pub phases: PerLabel<Phase, Counter>,
    /// `splitmask_train_last_step_timestamp_seconds`.
    pub last_step_timestamp: Gauge,
    /// `splitmask_train_last_rollback_timestamp_seconds`.
    pub last_rollback_timestamp: Gauge,
    /// `splitmask_train_paused`.
    pub paused: PerLabel<PauseReason, Gauge>,
    /// `splitmask_train_bucket_away`.
    pub bucket_away: Gauge,
    /// `splitmask_train_stuck`.
    pub stuck: Gauge,
    /// `splitmask_train_finished`.
    pub finished: Gauge,
    /// What the objective declares: its losses and other numbers, and its ways to collapse.
    pub objective: ObjectiveMetrics,
    /// `splitmask_train_token_entropy_nats`.
    pub token_entropy: Gauge,
    /// `splitmask_train_codebook_perplexity`.
    pub codebook_perplexity: Gauge,
    /// `splitmask_train_grad_norm`.
    pub grad_norm: Gauge,
    /// `splitmask_train_learning_rate`.
    pub learning_rate: Gauge,
    /// `splitmask_train_weight_decay`.
    pub weight_decay: Gauge,
    /// `splitmask_train_ema_momentum`.
    pub ema_momentum: Gauge,
    /// `splitmask_train_nonfinite_steps_total`.
    pub nonfinite_steps: IntCounter,
    /// `splitmask_train_rollbacks_total`.
    pub rollbacks: IntCounter,
    /// `splitmask_train_loss_spikes_total`.
    pub loss_spikes: IntCounter,
    /// `splitmask_train_memory_splits_total`.
    pub memory_splits: IntCounter,
    /// `splitmask_train_model_flops_utilization_ratio`.
    pub model_flops_utilization: Gauge,
    /// `splitmask_train_tokens_per_second`.
    pub tokens_per_second: Gauge,
    /// `splitmask_checkpoint_duration_seconds`.
    pub checkpoint_duration: Histogram,
    /// `splitmask_checkpoint_last_success_timestamp_seconds`.
    pub checkpoint_last_success_timestamp: Gauge,
    /// `splitmask_checkpoint_last_step`.
    pub checkpoint_last_step: Gauge,
    /// `splitmask_checkpoint_bytes`.
    pub checkpoint_bytes: Gauge,
    /// `splitmask_checkpoint_failures_total`.
    pub checkpoint_failures: PerLabel<CheckpointFailure, IntCounter>,
    /// `splitmask_checkpoint_damaged_total`.
    pub checkpoint_damaged: IntCounter,
    /// `splitmask_run_write_failures_total`.
    pub write_failures: PerLabel<RunFile, IntCounter>,
    /// `splitmask_checkpoint_disk_free_bytes`.
    pub checkpoint_disk_free: Gauge,
    /// `splitmask_checkpoint_disk_size_bytes`.
    pub checkpoint_disk_size: Gauge,
    /// `splitmask_config_last_reload_successful`.
    pub config_last_reload_successful: Gauge,
    /// `splitmask_config_last_reload_success_timestamp_seconds`.
    pub config_last_reload_success_timestamp: Gauge,
    /// `splitmask_config_generation`.
    pub config_generation: Gauge,
    /// `splitmask_config_reloads_total`.
    pub config_reloads: PerLabel<ReloadOutcome, IntCounter>,
    /// `splitmask_admin_tls_last_load_successful`.
    pub tls_last_load_successful: Gauge,
    /// The copy of the run in an object store.
    pub mirror: MirrorMetrics,
    /// The ranks that train the run together.
    pub ranks: RankMetrics,
    /// What evaluations measured.
    pub eval: EvalMetrics,
    /// `splitmask_device_memory_bytes`.
    pub device_memory: PerLabel<MemoryKind, Gauge>,
}

impl TrainMetrics {
    /// Makes and registers all of them, and the process collector (`process_*`).
    ///
    /// # Errors
    /// If a metric of one of these names is registered already.
    pub fn new(registry: &Registry) -> prometheus::Result<Self> {
        let r = registry;
        #[cfg(target_os = "linux")]
        r.register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))?;
        let metrics = Self {
            build_info: register(
                r,
                GaugeVec::new(
                    Opts::new("splitmask_build_info", "Always 1; the labels say what runs."),
                    &["version", "revision", "libtorch", "device"],
                )?,
            )?,
            steps: counter(r, "splitmask_train_steps_total", "Optimizer steps, over all resumes of the run.")?,
            images: counter(r, "splitmask_train_images_total", "Images trained on, over all resumes of the run.")?,
            epochs: counter(r, "splitmask_train_epochs_total", "Passes over the data that were finished.")?,
            step_duration: histogram(
                r,
                "splitmask_train_step_duration_seconds",
                "Wall time of a step, waiting for its batch included, in seconds.",
                STEP_BUCKETS,
            )?,
            phases: seconds_per(
                r,
                "splitmask_train_phase_seconds_total",
                "Wall time of the trainer by phase, in seconds; the phases sum to it.",
            )?,
            last_step_timestamp: gauge(
                r,
                "splitmask_train_last_step_timestamp_seconds",
                "When the last step ended, in seconds since 1970.",
            )?,
            last_rollback_timestamp: gauge(
                r,
                "splitmask_train_last_rollback_timestamp_seconds",
                "When training last went back to a checkpoint, in seconds since 1970; 0 = never.",
            )?,
            paused: gauge_per(r, "splitmask_train_paused", "1 while the run is paused for this reason, else 0.")?,
            bucket_away: gauge(
                r,
                "splitmask_train_bucket_away",
                "1 while no trainer runs because the bucket does not answer its start, else 0.",
            )?,
            stuck: gauge(
                r,
                "splitmask_train_stuck",
                "1 while the watchdog sees no progress of the trainer (admin.watchdog_s), else 0.",
            )?,
            finished: gauge(
                r,
                "splitmask_train_finished",
                "1 once the schedule is done and the process is about to end, else 0.",
            )?,
            objective: ObjectiveMetrics::new(r)?,
            token_entropy: gauge(
                r,
                "splitmask_train_token_entropy_nats",
                "Entropy of the marginal distribution of the target visual words, in nats: the inpaint loss of a model that ignores the image.",
            )?,
            codebook_perplexity: gauge(
                r,
                "splitmask_train_codebook_perplexity",
                "exp(entropy) of the target visual words over a fixed window: how many words are in use, effectively.",
            )?,
            grad_norm: gauge(r, "splitmask_train_grad_norm", "L2 norm of all gradients before clipping.")?,
            learning_rate: gauge(r, "splitmask_train_learning_rate", "Learning rate of the last step.")?,
            weight_decay: gauge(r, "splitmask_train_weight_decay", "Weight decay of the last step.")?,
            ema_momentum: gauge(
                r,
                "splitmask_train_ema_momentum",
                "Momentum of the averaged weights; 0 = no averaging.",
            )?,
            nonfinite_steps: counter(
                r,
                "splitmask_train_nonfinite_steps_total",
                "Steps that were skipped because the loss or a gradient was not finite.",
            )?,
            rollbacks: counter(
                r,
                "splitmask_train_rollbacks_total",
                "Returns to an older checkpoint after a failure of training.",
            )?,
            loss_spikes: counter(
                r,
                "splitmask_train_loss_spikes_total",
                "Steps whose loss and gradient norm stood far above those of the steps before.",
            )?,
            memory_splits: counter(
                r,
                "splitmask_train_memory_splits_total",
                "Times that a step did not fit into memory and the batch was divided into more parts.",
            )?,
            model_flops_utilization: gauge(
                r,
                "splitmask_train_model_flops_utilization_ratio",
                "Floating point operations of the model per second over the device's peak, 0 to 1; 0 where the peak is unknown.",
            )?,
            tokens_per_second: gauge(
                r,
                "splitmask_train_tokens_per_second",
                "Patches through the encoder per second, over the last log interval.",
            )?,
            checkpoint_duration: histogram(
                r,
                "splitmask_checkpoint_duration_seconds",
                "Time to write a checkpoint, in seconds.",
                CHECKPOINT_BUCKETS,
            )?,
            checkpoint_last_success_timestamp: gauge(
                r,
                "splitmask_checkpoint_last_success_timestamp_seconds",
                "When the last checkpoint was complete, in seconds since 1970; 0 = none by this process.",
            )?,
            checkpoint_last_step: gauge(r, "splitmask_checkpoint_last_step", "Step of the newest complete checkpoint.")?,
            checkpoint_bytes: gauge(r, "splitmask_checkpoint_bytes", "Size of the newest checkpoint, in bytes.")?,
            checkpoint_failures: count_per(
                r,
                "splitmask_checkpoint_failures_total",
                "Checkpoints that could not be written; training went on.",
            )?,
            checkpoint_damaged: counter(
                r,
                "splitmask_checkpoint_damaged_total",
                "Checkpoints that could not be read and were set aside; an older one was taken.",
            )?,
            write_failures: count_per(
                r,
                "splitmask_run_write_failures_total",
                "Lines of a file of the run folder that could not be written at once; they wait in memory, and training goes on. Of event files: events that are lost.",
            )?,
            checkpoint_disk_free: gauge(
                r,
                "splitmask_checkpoint_disk_free_bytes",
                "Free space, for this user, on the file system of the run folder, in bytes; as of the last log step.",
            )?,
            checkpoint_disk_size: gauge(
                r,
                "splitmask_checkpoint_disk_size_bytes",
                "Size of that file system, in bytes; 0 = not measured.",
            )?,
            config_last_reload_successful: gauge(
                r,
                "splitmask_config_last_reload_successful",
                "1 if the last attempt to load the config succeeded, the start included; 0 if the old config goes on.",
            )?,
            tls_last_load_successful: gauge(
                r,
                "splitmask_admin_tls_last_load_successful",
                "1 if the certificate that is served is the one of the files, or there is none; 0 if the files cannot be served, and an older one is.",
            )?,
            config_last_reload_success_timestamp: gauge(
                r,
                "splitmask_config_last_reload_success_timestamp_seconds",
                "When the config in force was loaded, in seconds since 1970.",
            )?,
            config_generation: gauge(
                r,
                "splitmask_config_generation",
                "Configs that were in force so far; 1 after the start.",
            )?,
            config_reloads: count_per(r, "splitmask_config_reloads_total", "Attempts to reload the config, by outcome.")?,
            mirror: MirrorMetrics::new(r)?,
            ranks: RankMetrics::new(r)?,
            eval: EvalMetrics::new(r)?,
            device_memory: gauge_per(
                r,
                "splitmask_device_memory_bytes",
                "Memory of the accelerator, in bytes; 0 on a CPU.",
            )?,
        };
        // The start is the first load: a process whose config is broken never gets here, and an alert on 0 must not see one.
        metrics.config_last_reload_successful.set(1.0);
        Ok(metrics)
    }

    /// Counter of the seconds spent in a phase.
    #[must_use]
    pub fn phase(&self, phase: Phase) -> &Counter {
        self.phases.of(phase)
    }

    /// Shows why the run is paused; nothing = it is not.
    pub fn set_paused(&self, reasons: &[PauseReason]) {
        for &each in PauseReason::ALL {
            self.paused.of(each).set(f64::from(u8::from(reasons.contains(&each))));
        }
    }

    /// Sets `splitmask_build_info`: the libtorch version and the device in use, such as `cpu` or `cuda:0`.
    pub fn set_build_info(&self, libtorch: &str, device: &str) {
        self.build_info.reset();
        self.build_info
            .with_label_values(&[env!("CARGO_PKG_VERSION"), env!("SPLITMASK_REVISION"), libtorch, device])
            .set(1.0);
    }

    /// Counts a reload and sets the gauges that tell whether the config file and the config in force agree.
    ///
    /// A refused attempt because another one runs ([`ReloadOutcome::Busy`]) says nothing about the file, so it only counts.
    pub fn record_reload(&self, outcome: ReloadOutcome, generation: u64) {
        self.config_reloads.of(outcome).inc();
        self.config_generation.set(generation as f64);
        match outcome {
            ReloadOutcome::Applied | ReloadOutcome::Unchanged => {
                self.config_last_reload_successful.set(1.0);
                self.config_last_reload_success_timestamp.set(unix_seconds());
            }
            ReloadOutcome::Invalid | ReloadOutcome::Frozen | ReloadOutcome::Failed => self.config_last_reload_successful.set(0.0),
            ReloadOutcome::Busy => {}
        }
    }

    /// Measures the file system that holds `dir`, the run folder. Not done by the scrape: a network file system may hang.
    ///
    /// # Errors
    /// If the file system cannot be asked; the gauges keep their values.
    pub fn measure_disk(&self, dir: &Path) -> std::io::Result<()> {
        let disk = rustix::fs::statvfs(dir)?;
        self.checkpoint_disk_free.set((disk.f_bavail * disk.f_frsize) as f64);
        self.checkpoint_disk_size.set((disk.f_blocks * disk.f_frsize) as f64);
        Ok(())
    }

    /// Names of all series of this inventory as PromQL writes them; see [`series_names`].
    ///
    /// # Errors
    /// If the inventory contradicts itself.
    pub fn names() -> prometheus::Result<BTreeSet<String>> {
        let registry = Registry::new();
        let metrics = Self::new(&registry)?;
        metrics.set_build_info("", "");
        metrics.eval.set_layers(1);
        Ok(series_names(&registry))
    }
}

/// Seconds since 1970, for the `_timestamp_seconds` gauges only; intervals are measured with [`std::time::Instant`].
#[must_use]
pub fn unix_seconds() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64())
}

#[cfg(test)]
mod tests;
