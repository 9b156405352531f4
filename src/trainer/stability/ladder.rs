//! The ladder: a non-finite step is skipped; many of them, or a loss spike if so configured, lead back to an older checkpoint and past that
//! data; many such returns end the run. The devices' numbers are read at fixed steps only, so that no step waits for the device and the
//! same run decides the same on every device.

use tch::{Device, Kind, Tensor};

use super::config::{SpikeAction, StabilityConfig};
use crate::checkpoint::Stability;
use crate::trainer::error::TrainError;

/// Why a rollback is due, and from which consumed batch (counted from 1) on the run went wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::trainer) struct Instability {
    pub(in crate::trainer) first_bad: u64,
    pub(in crate::trainer) reason: String,
}

/// A loss spike.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::trainer) struct Spike {
    pub(in crate::trainer) consumed: u64,
    pub(in crate::trainer) loss: f64,
    pub(in crate::trainer) mean: f64,
    pub(in crate::trainer) sigma: f64,
    pub(in crate::trainer) norm: f64,
    pub(in crate::trainer) median_norm: f64,
}

/// What a check of the latest steps found.
#[derive(Debug, Default)]
pub(in crate::trainer) struct Finding {
    pub(in crate::trainer) spikes: Vec<Spike>,
    pub(in crate::trainer) instability: Option<Instability>,
}

/// Watches losses and gradient norms.
#[derive(Debug, Default)]
pub(in crate::trainer) struct Ladder {
    state: Stability,
    /// [total loss, gradient norm] in f64 of the steps that the host has not read, on the device.
    unread: Vec<Tensor>,
}

impl Ladder {
    /// Goes on from a checkpoint.
    #[must_use]
    pub(in crate::trainer) fn restore(state: Stability) -> Self {
        Self { state, unread: Vec::new() }
    }

    /// Batches consumed since the start of the run; never goes back.
    #[must_use]
    pub(in crate::trainer) fn consumed(&self) -> u64 {
        self.state.consumed
    }

    /// Notes a step. The host reads nothing.
    pub(in crate::trainer) fn observe(&mut self, loss: &Tensor, norm: &Tensor) {
        self.state.consumed += 1;
        let both = [loss, norm].map(|t| t.detach().to_kind(Kind::Double));
        self.unread.push(Tensor::stack(&both, 0));
    }

    /// Reads what is on the device. Answers which of those steps were not finite, as consumed batches counted from 1.
    ///
    /// # Errors
    /// What libtorch said.
    pub(in crate::trainer) fn read(&mut self, window: u32) -> Result<Vec<u64>, TrainError> {
        if self.unread.is_empty() {
            return Ok(Vec::new());
        }
        let unread = std::mem::take(&mut self.unread);
        let all = Tensor::f_stack(&unread, 0)?.to_device(Device::Cpu).contiguous().view([-1]);
        let values = Vec::<f64>::try_from(all)?;
        let first = self.state.consumed - unread.len() as u64 + 1;
        let mut bad = Vec::new();
        for (consumed, pair) in (first..).zip(values.chunks_exact(2)) {
            let finite = pair[0].is_finite() && pair[1].is_finite();
            self.state.recent.push_back(finite.then(|| (pair[0], pair[1])));
            if !finite {
                bad.push(consumed);
            }
        }
        // What is not judged yet stays, and a window before it.
        let keep = window as usize + (self.state.consumed - self.state.judged) as usize;
        let surplus = self.state.recent.len().saturating_sub(keep);
        self.state.recent.drain(..surplus);
        Ok(bad)
    }

    /// Judges the steps read since the last time. Call it at fixed steps only.
    pub(in crate::trainer) fn judge(&mut self, config: &StabilityConfig) -> Finding {
        let mut finding = Finding::default();
        let recent: Vec<Option<(f64, f64)>> = self.state.recent.iter().copied().collect();
        let oldest = self.state.consumed - recent.len() as u64 + 1;
        for consumed in self.state.judged + 1..=self.state.consumed {
            let Some(at) = consumed.checked_sub(oldest).map(|a| a as usize) else {
                continue;
            };
            let before = &recent[at.saturating_sub(config.window as usize)..at];
            match recent[at] {
                None => finding.instability = nonfinite(&recent[..=at], oldest, config),
                Some((loss, norm)) => {
                    if let Some(spike) = spike(before, consumed, loss, norm, config) {
                        if config.spike_action == SpikeAction::Rollback {
                            finding.instability = Some(Instability {
                                first_bad: consumed,
                                reason: format!("the loss rose to {loss:.4} from {:.4} ± {:.4}", spike.mean, spike.sigma),
                            });
                        }
                        finding.spikes.push(spike);
                    }
                }
            }
            if finding.instability.is_some() {
                break;
            }
        }
        self.state.judged = self.state.consumed;
        let surplus = self.state.recent.len().saturating_sub(config.window as usize);
        self.state.recent.drain(..surplus);
        finding
    }

    /// Whether another rollback now would be the one that ends the run.
    #[must_use]
    pub(in crate::trainer) fn at_the_limit(&self, config: &StabilityConfig) -> bool {
        let since = self.state.consumed.saturating_sub(config.rollback_window);
        let counted = self.state.rollbacks.iter().filter(|r| r.consumed > since).count();
        counted + 1 >= config.rollback_limit as usize
    }

    /// Whether the steps up to the last one are bad without a good one after them, i.e. the weights are those that the last bad step saw.
    #[must_use]
    pub(in crate::trainer) fn ends_badly(&self) -> bool {
        self.state.recent.back().is_some_and(Option::is_none)
    }

    /// The latest bad step, as a consumed batch counted from 1.
    #[must_use]
    pub(in crate::trainer) fn last_bad(&self) -> Option<u64> {
        let back = self.state.recent.iter().rev().position(Option::is_none)?;
        Some(self.state.consumed - back as u64)
    }

    /// For the checkpoint; read before.
    #[must_use]
    pub(in crate::trainer) fn save(&self) -> Stability {
        self.state.clone()
    }
}

/// Whether the bad steps up to the last of `steps`, which is one, are too many.
fn nonfinite(steps: &[Option<(f64, f64)>], oldest: u64, config: &StabilityConfig) -> Option<Instability> {
    let at = steps.len() - 1;
    let run = steps.iter().rev().take_while(|s| s.is_none()).count();
    if run >= config.nonfinite_run as usize {
        return Some(Instability {
            first_bad: oldest + (at + 1 - run) as u64,
            reason: format!("{run} steps in a row with a non-finite loss or gradient"),
        });
    }
    let from = steps.len().saturating_sub(config.window as usize);
    let bad: Vec<usize> = (from..steps.len()).filter(|&i| steps[i].is_none()).collect();
    (bad.len() >= config.nonfinite_count as usize).then(|| Instability {
        first_bad: oldest + bad[0] as u64,
        reason: format!(
            "{} of the last {} steps with a non-finite loss or gradient",
            bad.len(),
            steps.len() - from
        ),
    })
}

/// A spike needs half a window of finite steps before it to be told from the noise.
fn spike(before: &[Option<(f64, f64)>], consumed: u64, loss: f64, norm: f64, config: &StabilityConfig) -> Option<Spike> {
    let known: Vec<(f64, f64)> = before.iter().copied().flatten().collect();
    if config.spike_sigma == 0.0 || known.len() * 2 < config.window as usize {
        return None;
    }
    let n = known.len() as f64;
    let mean = known.iter().map(|k| k.0).sum::<f64>() / n;
    let sigma = (known.iter().map(|k| (k.0 - mean).powi(2)).sum::<f64>() / n).sqrt();
    let mut norms: Vec<f64> = known.iter().map(|k| k.1).collect();
    norms.sort_by(f64::total_cmp);
    let median_norm = norms[norms.len() / 2];
    (loss > mean + config.spike_sigma * sigma && norm > config.spike_norm * median_norm).then_some(Spike {
        consumed,
        loss,
        mean,
        sigma,
        norm,
        median_norm,
    })
}

#[cfg(test)]
mod tests;
