//! One optimizer step, on one screen.

use tch::Tensor;

use super::assemble::Trainer;
use super::error::TrainError;
use super::feed::Staged;
use super::pass::{Passed, scalar, step_context};
use crate::optim::{learning_rate, weight_decay};
use crate::telemetry::metrics::{Phase, unix_seconds};

impl Trainer {
    /// Learning rate and weight decay of a step.
    pub(super) fn schedule(&self, step: u64) -> (f64, f64) {
        (learning_rate(&self.spec.optim, step), weight_decay(&self.spec.optim, step))
    }

    /// Forward, backward, clip, update. A step whose loss or gradients are not finite leaves weights and moments as they were; the host learns of it
    /// at the next look (`stability.check_every_steps`).
    pub(super) fn take_step(&mut self, staged: &Staged) -> Result<(), TrainError> {
        let began = std::time::Instant::now();
        let total = self.gradients(staged)?;
        let batch = &staged.batch;
        self.clock.switch(Phase::Optimizer);
        let (lr, wd) = self.schedule(self.step);
        let stepped = self.optimizer.step_unless_nonfinite(lr, wd, self.spec.optim.clip, &total)?;
        let ctx = step_context(&self.spec, self.step, 0, batch.len, 1);
        self.objective.after_step(&ctx, &stepped.skipped)?;
        if let Some(ema) = &self.ema {
            ema.update(self.spec.ema.decay, &stepped.skipped)?;
        }
        self.meter.add("grad_norm", &stepped.norm.nan_to_num(0.0, 0.0, 0.0));
        self.ladder.observe(&total, &stepped.norm);
        self.optimizer.zero_grad()?;
        self.clock.switch(Phase::Other);
        if !batch.words.is_empty() {
            self.usage.observe(&batch.words);
        }
        let epochs = u64::from(batch.cursor.epoch.saturating_sub(self.cursor.epoch));
        if self.trail.len() > self.spec.stability.check_every_steps as usize {
            self.trail.pop_front();
        }
        self.trail.push_back(self.cursor);
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
        Ok(())
    }

    /// Leaves the gradients of a batch with the parameters and answers its total loss, a scalar on the device.
    fn gradients(&mut self, staged: &Staged) -> Result<Tensor, TrainError> {
        let Passed { scalars, made, .. } = self.gradients_that_fit(staged)?;
        made.iter().for_each(|words| self.usage.observe_on_device(words));
        self.meter.step();
        for (name, value) in &scalars {
            self.meter.add(name, value);
        }
        let total = scalar(&scalars, "total").expect("a pass answers its total");
        Ok(total.shallow_clone())
    }
}
