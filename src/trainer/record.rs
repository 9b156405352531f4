//! A log line: to `metrics.jsonl`, the log, the gauges and the status board, all from the same numbers.

use std::collections::BTreeMap;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value, json};

use super::assemble::Trainer;
use super::control::{State, uptime_s};
use super::speed;
use crate::objective::Panel;
use crate::telemetry::metrics::Phase;

/// Most points of one curve on the status page.
const HISTORY: usize = 500;

impl Trainer {
    /// Sums up the interval that ends at this step.
    pub(super) fn record(&mut self) {
        let mut means = self.meter.take();
        let elapsed = self.interval.began.elapsed().as_secs_f64().max(1e-9);
        let images_per_second = self.interval.images as f64 / elapsed;
        let waited = self.telemetry.train.phase(Phase::DataWait).get() - self.interval.waited_before;
        let wait_ratio = (waited / elapsed).clamp(0.0, 1.0);
        self.interval = Interval::begin(self.telemetry.train.phase(Phase::DataWait).get());

        let (lr, wd) = self.schedule(self.step.saturating_sub(1));
        let (entropy, perplexity) = (self.usage.entropy(), self.usage.perplexity());
        // Numbers of the target words, where there are any.
        if !self.words.is_empty() {
            means.insert("token_entropy".into(), entropy);
            means.insert("codebook_perplexity".into(), perplexity);
        }
        let mut line = Map::new();
        let mut put = |key: &str, value: Value| line.insert(key.to_owned(), value);
        put("step", json!(self.step));
        put("epoch", json!(self.cursor.epoch));
        for (name, value) in &means {
            put(name, json!(value));
        }
        put("learning_rate", json!(lr));
        put("images", json!(self.telemetry.train.images.get()));
        put("images_per_second", json!(images_per_second));
        put("data_wait_ratio", json!(wait_ratio));
        put(
            "time",
            json!(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64())),
        );
        self.metrics_log.write(line);

        let m = &self.telemetry.train;
        let numbers = self.spec.objective.kind().numbers;
        m.objective.set(numbers, &means);
        m.token_entropy.set(mean_or_0(&means, "token_entropy"));
        m.codebook_perplexity.set(mean_or_0(&means, "codebook_perplexity"));
        self.watch_collapse(&means);
        let m = &self.telemetry.train;
        m.grad_norm.set(mean_or_0(&means, "grad_norm"));
        m.learning_rate.set(lr);
        m.weight_decay.set(wd);
        m.ema_momentum.set(self.spec.ema.decay);
        let flops = images_per_second * self.spec.objective.forward_flops(&self.spec.scope(self.words.len())) * speed::STEP_OVER_FORWARD;
        m.model_flops_utilization.set(self.peak.map_or(0.0, |peak| flops / peak));
        m.tokens_per_second.set(images_per_second * self.spec.model.patches() as f64);
        if let Err(e) = m.measure_disk(&self.spec.run_dir) {
            tracing::debug!(error = %e, "the run folder's disk cannot be measured");
        }

        let of_panel = |panel: Panel| -> Vec<(String, f64)> {
            let shown = numbers.iter().filter(|n| n.panel() == Some(panel)).map(|n| n.name);
            let total = (panel == Panel::Losses).then_some("total");
            let value = |name: &str| Some((name.to_owned(), *means.get(name)?));
            shown.chain(total).filter_map(value).collect()
        };
        let losses = of_panel(Panel::Losses);
        let mut words: String = losses.iter().map(|(k, v)| format!("{k} {v:.3} ")).collect();
        if !self.words.is_empty() {
            words.push_str(&format!("(entropy {entropy:.3}) "));
        }
        tracing::info!(
            step = self.step,
            epoch = self.cursor.epoch,
            "{words}· {images_per_second:.0} images/s · wait {:.1} % · lr {lr:.2e}",
            100.0 * wait_ratio
        );
        let mut status = self.status.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        status.images_per_second = images_per_second;
        status.data_wait_ratio = wait_ratio;
        status.token_entropy = entropy;
        status.learning_rate = lr;
        status.grad_norm = mean_or_0(&means, "grad_norm");
        let curves = of_panel(Panel::Shares).into_iter().chain(losses.iter().cloned());
        status.history.extend(curves.map(|(name, value)| (self.step, name, value)));
        if !self.words.is_empty() {
            status.history.push((self.step, "token_entropy".into(), entropy));
        }
        status.losses = losses;
        status.unwritten_lines = self.metrics_log.waiting();
        thin(&mut status.history);
    }

    /// Shows what the trainer is doing.
    pub(super) fn set_state(&self, state: State) {
        let mut status = self.status.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        status.state = state;
        if state != State::WaitingForData {
            status.last_progress_s = uptime_s();
        }
        status.step = self.step;
        status.total_steps = self.spec.optim.total_steps;
        status.epoch = self.cursor.epoch;
        status.cursor = self.cursor;
        status.queue = (self.feed.level(), self.spec.pipeline.queue_batches);
        status.last_checkpoint_step = self.checkpoints.last_step();
    }
}

/// What has to be known of a log interval from its beginning.
pub(super) struct Interval {
    began: Instant,
    waited_before: f64,
    pub(super) images: u64,
}

impl Interval {
    /// Starts now; `waited` = seconds that the data wait counter shows.
    pub(super) fn begin(waited: f64) -> Self {
        Self {
            began: Instant::now(),
            waited_before: waited,
            images: 0,
        }
    }
}

fn mean_or_0(means: &BTreeMap<String, f64>, name: &str) -> f64 {
    means.get(name).copied().unwrap_or(0.0)
}

/// Drops every other point of all curves once one has too many; the newest stay.
fn thin(history: &mut Vec<(u64, String, f64)>) {
    let longest = history
        .iter()
        .rev()
        .take(1)
        .map(|(_, name, _)| history.iter().filter(|(_, n, _)| n == name).count())
        .max();
    if longest.is_some_and(|n| n > HISTORY) {
        let mut seen = std::collections::BTreeMap::<String, usize>::new();
        history.retain(|(_, name, _)| {
            let n = seen.entry(name.clone()).or_default();
            *n += 1;
            n.is_multiple_of(2)
        });
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn history_stays_bounded_and_keeps_the_newest() {
        let mut history = Vec::new();
        for step in 0..2000u64 {
            history.push((step, "total".to_owned(), 1.0));
            history.push((step, "match".to_owned(), 2.0));
            super::thin(&mut history);
        }
        let of = |name: &str| history.iter().filter(|(_, n, _)| n == name).count();
        assert!(of("total") <= 501 && of("match") <= 501);
        assert!(history.last().unwrap().0 == 1999);
    }
}
