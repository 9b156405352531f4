//! One optimizer step, on one screen.

use splitmask_pipeline::seed::{Purpose, derive};
use splitmask_pipeline::types::Batch;
use tch::Kind;
use torch_ext::Autocast;

use super::assemble::Trainer;
use super::error::TrainError;
use super::spec::Precision;
use crate::optim::{learning_rate, weight_decay};
use crate::telemetry::metrics::{Phase, unix_seconds};

impl Trainer {
    /// Learning rate and weight decay of a step.
    pub(super) fn schedule(&self, step: u64) -> (f64, f64) {
        (learning_rate(&self.spec.optim, step), weight_decay(&self.spec.optim, step))
    }

    /// Forward, backward, clip, update. A step whose gradients are not finite leaves weights and moments as they were.
    pub(super) fn take_step(&mut self, batch: &Batch) -> Result<(), TrainError> {
        // Drop path draws from libtorch's generator; seeding it by step makes a step a function of (seed, step, batch, weights) alone.
        tch::manual_seed(derive(self.spec.seed, Purpose::Step, self.step, 0, 0) as i64);
        let began = std::time::Instant::now();
        let parts = self.spec.train.accumulate.max(1) as usize;
        let micro = batch.len / parts;
        let normalise = self.spec.train.normalise();
        self.meter.step();
        for part in 0..parts {
            self.clock.switch(Phase::Copy);
            let range = part * micro..(part + 1) * micro;
            let (mut share, target) = self.words.input(batch, range, &self.plan, self.device, &normalise)?;
            self.clock.switch(Phase::Forward);
            self.words.fill(&mut share, target.as_ref());
            if let (Some(words), true) = (&share.words, target.is_some()) {
                self.usage.observe_on_device(words);
            }
            let losses = {
                let _autocast = (self.spec.train.precision == Precision::Bf16)
                    .then(|| Autocast::bf16(self.device))
                    .transpose()?;
                self.objective.forward_t(&share, true)?
            };
            self.clock.switch(Phase::Backward);
            (&losses.total / parts as f64).f_backward()?;
            let terms = losses.terms.iter().chain(&losses.stats).map(|(name, value)| (*name, value));
            for (name, value) in terms.chain([("total", &losses.total)]) {
                self.meter.add(name, &(value.detach().to_kind(Kind::Double) / parts as f64));
            }
        }
        self.clock.switch(Phase::Optimizer);
        let (lr, wd) = self.schedule(self.step);
        let norm = self.optimizer.clipped_step(lr, wd, self.spec.optim.clip)?;
        if norm.isfinite().int64_value(&[]) == 1 {
            self.meter.add("grad_norm", &norm);
            self.nonfinite_run = 0;
        } else {
            self.nonfinite_run += 1;
            self.telemetry.train.nonfinite_steps.inc();
            tracing::warn!(step = self.step + 1, "loss or gradient is not finite: the step is skipped");
        }
        self.optimizer.zero_grad()?;
        self.clock.switch(Phase::Other);
        self.usage.observe(&batch.words);
        let epochs = u64::from(batch.cursor.epoch.saturating_sub(self.cursor.epoch));
        self.cursor = batch.cursor;
        self.step += 1;
        self.interval.images += batch.len as u64;
        let m = &self.telemetry.train;
        m.steps.inc();
        m.images.inc_by(batch.len as u64);
        m.epochs.inc_by(epochs);
        m.step_duration.observe(began.elapsed().as_secs_f64());
        m.last_step_timestamp.set(unix_seconds());
        self.status.lock().unwrap_or_else(std::sync::PoisonError::into_inner).ready = true;
        if self.nonfinite_run > 0 && self.nonfinite_run >= self.spec.train.nonfinite_limit {
            self.checkpoint_in_background()?;
            self.keeper.wait()?;
            return Err(TrainError::NonFinite {
                step: self.step,
                run: self.nonfinite_run,
            });
        }
        Ok(())
    }
}
