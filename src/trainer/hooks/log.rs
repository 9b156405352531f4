//! A log line: to `metrics.jsonl`, the log, the gauges and the status board, all from the same numbers.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value, json};
use tch::Device;

use super::{Boundary, Flow, Hook, collapse};
use crate::objective::Panel;
use crate::telemetry::metrics::{MemoryKind, Phase, TrainMetrics};
use crate::trainer::error::TrainError;
use crate::trainer::outlets::{Outlets, Telemetry};
use crate::trainer::ranks::pace::stragglers;
use crate::trainer::ranks::peers::Peers;
use crate::trainer::setup::Setup;
use crate::trainer::speed::{self, Products};
use crate::trainer::state::RunState;

/// Sums up the log interval that ends at a boundary.
pub(super) struct Log {
    interval: Interval,
    /// Peak of the device, operations per second, if it is known.
    peak: Option<f64>,
    /// Ranks that held the others up in the interval before.
    slow: Vec<usize>,
}

/// What has to be known of a log interval from its beginning.
struct Interval {
    began: Instant,
    /// Seconds that the data wait counter showed.
    waited: f64,
    /// Images that the counter of images showed.
    images: u64,
}

impl Interval {
    fn begin(m: &TrainMetrics) -> Self {
        Self {
            began: Instant::now(),
            waited: m.phase(Phase::DataWait).get(),
            images: m.images.get(),
        }
    }
}

impl Log {
    pub(super) fn new(setup: &Setup, telemetry: &Telemetry) -> Self {
        let config = &setup.spec.train;
        Self {
            interval: Interval::begin(&telemetry.train),
            peak: speed::peak(setup.device, Products::of(config, setup.device), config.peak_tflops),
            slow: Vec::new(),
        }
    }
}

impl Log {
    /// Shows how long this rank's own part of a step took, and names the ranks that are slow; answers that time of all ranks, seconds.
    fn look_for_stragglers(&mut self, peers: &Peers, step: u64, m: &TrainMetrics) -> Result<Vec<f64>, TrainError> {
        let pace = peers.take_pace();
        m.ranks.own_step.set(pace.own_step());
        m.ranks.exchange.inc_by(pace.exchange.as_secs_f64());
        m.ranks.tick.inc_by(pace.tick.as_secs_f64());
        m.ranks.tick_message.inc_by(pace.tick_message.as_secs_f64());
        m.ranks.ticks.inc_by(pace.ticks.into());
        let paces = peers.paces(pace.own_step())?;
        let (slow, median) = stragglers(&paces);
        m.ranks.straggling.set(f64::from(u8::from(slow.contains(&peers.rank()))));
        // Once for each time that a rank becomes slow: the gauge tells how long it stays so.
        for &rank in slow.iter().filter(|rank| peers.first() && !self.slow.contains(rank)) {
            tracing::warn!(
                step,
                "{} is slow: its own part of a step takes {:.1} ms, the median of the ranks is {:.1} ms; all wait for it",
                peers.named(rank),
                1e3 * paces[rank],
                1e3 * median
            );
        }
        self.slow = slow;
        Ok(paces)
    }

    /// The interval began so much later, as far as its speed goes.
    pub(super) fn leave_out(&mut self, pause: Duration) {
        self.interval.began += pause;
    }
}

/// Shows how much of a GPU's memory is taken; on a CPU nothing.
fn show_memory(device: Device, m: &TrainMetrics) {
    let Device::Cuda(index) = device else { return };
    let shown = |kind, bytes: i64| m.device_memory.of(kind).set(bytes as f64);
    match torch_ext::cuda_memory(index) {
        Ok(memory) => {
            shown(MemoryKind::Allocated, memory.allocated);
            shown(MemoryKind::Reserved, memory.reserved);
        }
        Err(e) => tracing::debug!(error = %e, "the memory that libtorch holds on the device is unknown"),
    }
    if let Some(device) = torch_ext::cuda_device(index) {
        m.device_memory.of(MemoryKind::Total).set(device.memory as f64);
    }
}

impl Hook for Log {
    fn due(&self, at: &Boundary<'_>) -> bool {
        at.is_multiple_of(at.setup.spec.log.every_steps) || at.last
    }

    fn run(&mut self, state: &mut RunState, at: &Boundary<'_>, out: &mut Outlets) -> Result<Flow, TrainError> {
        let spec = &at.setup.spec;
        let mut means = state.meter.take();
        let metrics = out.telemetry.train.clone();
        let m = &metrics;
        let before = std::mem::replace(&mut self.interval, Interval::begin(m));
        let elapsed = before.began.elapsed().as_secs_f64().max(1e-9);
        let (mut images, mut epoch) = (m.images.get(), state.cursor.epoch);
        if let Some(peers) = &at.setup.peers {
            peers.compare(&state.trained().named)?;
            let places = peers.places(state.cursor, images)?;
            images = places.iter().map(|(_, images)| images).sum();
            // Some rank may have begun the next one.
            epoch = places.iter().map(|(cursor, _)| cursor.epoch).max().unwrap_or(epoch);
        }
        let paces = match at.setup.peers.as_deref() {
            Some(peers) => self.look_for_stragglers(peers, state.step, m)?,
            None => Vec::new(),
        };
        // All ranks train as many images as this one.
        let world = at.setup.peers.as_ref().map_or(1, |peers| peers.world());
        let images_per_second = world as f64 * (self.interval.images - before.images) as f64 / elapsed;
        let wait_ratio = ((self.interval.waited - before.waited) / elapsed).clamp(0.0, 1.0);

        let (lr, wd) = at.setup.schedule(state.step.saturating_sub(1));
        let (entropy, perplexity) = (state.usage.entropy(), state.usage.perplexity());
        // Numbers of the target words, where there are any.
        let has_words = !at.setup.words.is_empty();
        if has_words {
            means.insert("token_entropy".into(), entropy);
            means.insert("codebook_perplexity".into(), perplexity);
        }
        let mut line = Map::new();
        let mut put = |key: &str, value: Value| line.insert(key.to_owned(), value);
        put("step", json!(state.step));
        put("epoch", json!(epoch));
        for (name, value) in &means {
            put(name, json!(value));
        }
        put("learning_rate", json!(lr));
        put("images", json!(images));
        put("images_per_second", json!(images_per_second));
        put("data_wait_ratio", json!(wait_ratio));
        if !paces.is_empty() {
            put("rank_step_seconds", json!(paces));
        }
        put(
            "time",
            json!(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64())),
        );
        out.log(&Value::Object(line));

        let numbers = spec.objective.kind().numbers;
        m.objective.set(numbers, &means);
        m.token_entropy.set(mean_or_0(&means, "token_entropy"));
        m.codebook_perplexity.set(mean_or_0(&means, "codebook_perplexity"));
        let collapsed = collapse::watch(&means, &mut state.collapsed, at, m);
        m.grad_norm.set(mean_or_0(&means, "grad_norm"));
        m.learning_rate.set(lr);
        m.weight_decay.set(wd);
        m.ema_momentum.set(spec.ema.decay);
        let flops =
            images_per_second / world as f64 * spec.objective.forward_flops(&spec.scope(at.setup.words.len())) * speed::STEP_OVER_FORWARD;
        m.model_flops_utilization.set(self.peak.map_or(0.0, |peak| flops / peak));
        m.tokens_per_second.set(images_per_second * spec.model.patches() as f64);
        show_memory(at.setup.device, m);
        if at.setup.first()
            && let Err(e) = m.measure_disk(&spec.run_dir)
        {
            tracing::debug!(error = %e, "the run folder's disk cannot be measured");
        }

        let terms = numbers.iter().filter(|n| n.panel() == Some(Panel::Losses)).map(|n| n.name);
        let losses = terms.chain(["total"]).filter_map(|name| Some((name.to_owned(), *means.get(name)?)));
        let losses: Vec<(String, f64)> = losses.collect();
        let mut words: String = losses.iter().map(|(k, v)| format!("{k} {v:.3} ")).collect();
        if losses.is_empty() {
            words.push_str("no loss, for no image had a label ");
        }
        if has_words {
            // A mean over words of one kind alone is −0.
            words.push_str(&format!("(entropy {:.3}) ", entropy + 0.0));
        }
        if at.setup.first() {
            tracing::info!(
                step = state.step,
                epoch,
                "{words}· {images_per_second:.0} images/s · wait {:.1} % · lr {lr:.2e}",
                100.0 * wait_ratio
            );
        }
        let mut board = out.board();
        board.images_per_second = images_per_second;
        board.data_wait_ratio = wait_ratio;
        board.token_entropy = entropy;
        board.learning_rate = lr;
        board.grad_norm = mean_or_0(&means, "grad_norm");
        let scope = spec.scope(at.setup.words.len());
        let guessing = |name: &str| Some((name.to_owned(), spec.objective.chance(name, &scope)?));
        board.chance.retain(|(of, _)| !numbers.iter().any(|n| n.name == of));
        board.chance.extend(numbers.iter().filter_map(|n| guessing(n.name)));
        board.losses = losses;
        board.collapsed = collapsed;
        board.unwritten_lines = out.metrics_log.waiting();
        Ok(Flow::GoOn)
    }
}

fn mean_or_0(means: &BTreeMap<String, f64>, name: &str) -> f64 {
    means.get(name).copied().unwrap_or(0.0)
}
