//! Several processes that train one run, as metrics of one of them.

use prometheus::{Counter, Gauge, Opts, Registry};

use crate::telemetry::register::{gauge, register};

/// Metrics of a rank. One process that trains alone shows a world of 1 and zeros.
#[derive(Clone)]
pub struct RankMetrics {
    /// `splitmask_ranks_world`.
    pub world: Gauge,
    /// `splitmask_ranks_own_step_seconds`.
    pub own_step: Gauge,
    /// `splitmask_ranks_exchange_seconds_total`.
    pub exchange: Counter,
    /// `splitmask_ranks_tick_seconds_total`.
    pub tick: Counter,
    /// `splitmask_ranks_tick_message_seconds_total`.
    pub tick_message: Counter,
    /// `splitmask_ranks_ticks_total`.
    pub ticks: Counter,
    /// `splitmask_ranks_straggling`.
    pub straggling: Gauge,
    /// `splitmask_ranks_restarts`.
    pub restarts: Gauge,
}

impl RankMetrics {
    pub(super) fn new(r: &Registry) -> prometheus::Result<Self> {
        let counter = |name: &str, help: &str| register(r, Counter::with_opts(Opts::new(name, help))?);
        let metrics = Self {
            world: gauge(
                r,
                "splitmask_ranks_world",
                "Processes (ranks) that train the run together; 1 = alone.",
            )?,
            own_step: gauge(
                r,
                "splitmask_ranks_own_step_seconds",
                "This rank's own work in a step, from the first forward pass until its last gradients are on their way, in seconds: the mean over the last log interval. 0 = alone.",
            )?,
            exchange: counter(
                "splitmask_ranks_exchange_seconds_total",
                "Time in steps that this rank only waited for the other ranks or the network, in seconds.",
            )?,
            tick: counter(
                "splitmask_ranks_tick_seconds_total",
                "Time between steps that this rank waited for the word of the others, for a rank without a batch too, in seconds.",
            )?,
            tick_message: counter(
                "splitmask_ranks_tick_message_seconds_total",
                "What the words between steps took by themselves, in seconds: for each, the time of the rank that came last, which waited for nobody; of one that was sent before a step, handing it over and picking it up.",
            )?,
            ticks: counter(
                "splitmask_ranks_ticks_total",
                "Words that the ranks exchanged between steps; the two times above are of these.",
            )?,
            straggling: gauge(
                r,
                "splitmask_ranks_straggling",
                "1 while this rank's own work in a step takes over 1.2 times the median of all ranks, else 0.",
            )?,
            restarts: gauge(
                r,
                "splitmask_ranks_restarts",
                "Starts of all ranks after a failure, as torchrun or SLURM counts them; 0 where the launcher does not say.",
            )?,
        };
        metrics.world.set(1.0);
        Ok(metrics)
    }
}
