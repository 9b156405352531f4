//! `[optim]`: AdamW, its schedules and gradient clipping.

use serde::{Deserialize, Serialize};

use crate::setting::Fitting;

/// BEiT's recipe (arXiv 2106.08254 appendix G), which SplitMask takes over (arXiv 2112.10740 §5.5).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OptimConfig {
    /// Peak learning rate (1.5e-3 at batch 2048 in the paper; square-root rule below).
    pub lr: f64,
    /// Learning rate at the end of the cosine.
    pub min_lr: f64,
    /// Steps of linear warm-up from 0.
    pub warmup_steps: u64,
    /// Steps of the whole schedule; training ends there.
    pub total_steps: u64,
    /// Passes over the data at most; 0 = no bound. The paper keeps the number of updates and stops small sets at 5000 epochs (§5.1).
    pub max_epochs: u32,
    /// Decoupled weight decay of matrices.
    pub weight_decay: f64,
    /// Weight decay at the end of a cosine; equal to `weight_decay` = constant.
    pub final_weight_decay: f64,
    /// Decay rate of the first moment.
    pub beta1: f64,
    /// Decay rate of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Largest global gradient norm; 0 = no clipping.
    pub clip: f64,
    /// Learning-rate factor per layer from the top (1 = none).
    pub layer_decay: f64,
}

impl Default for OptimConfig {
    fn default() -> Self {
        Self {
            lr: 1.5e-3,
            min_lr: 1e-5,
            warmup_steps: 6250,
            total_steps: 187_500,
            max_epochs: 0,
            weight_decay: 0.05,
            final_weight_decay: 0.05,
            beta1: 0.9,
            beta2: 0.999,
            eps: 1e-8,
            clip: 3.0,
            layer_decay: 1.0,
        }
    }
}

/// A schedule and the passes over the data that it takes.
#[derive(Debug, Clone, PartialEq)]
pub struct Fitted {
    /// The schedule, cut to `max_epochs` if that is less.
    pub optim: OptimConfig,
    /// Passes over the data; none where the number of samples is unknown.
    pub epochs: Option<f64>,
}

impl OptimConfig {
    /// The schedule for a set of `samples` images (none = unknown) in batches of `batch`: `total_steps`, or as many as make `max_epochs`
    /// passes, and then the same share of warm-up.
    #[must_use]
    pub fn fitted(&self, batch: u32, samples: Option<u64>) -> Fitted {
        let mut optim = self.clone();
        let samples = samples.filter(|n| *n > 0);
        if let (Some(samples), true) = (samples, self.max_epochs > 0) {
            let most = (u128::from(self.max_epochs) * u128::from(samples) / u128::from(batch.max(1))).max(1);
            if most < u128::from(self.total_steps) {
                optim.warmup_steps = (u128::from(self.warmup_steps) * most / u128::from(self.total_steps)) as u64;
                optim.total_steps = most as u64;
            }
        }
        let epochs = samples.map(|n| optim.total_steps as f64 * f64::from(batch) / n as f64);
        Fitted { optim, epochs }
    }

    /// Makes room for what was set: a default warm-up longer than the schedule becomes the same share of it as in the paper, and a default last
    /// learning rate above the peak the same share of that.
    pub fn fit(&mut self, fitting: &mut Fitting<'_>) {
        let paper = Self::default();
        if self.warmup_steps > self.total_steps {
            let share = (u128::from(paper.warmup_steps) * u128::from(self.total_steps) / u128::from(paper.total_steps)) as u64;
            let why = format!("optim.total_steps = {}", self.total_steps);
            fitting.fit("optim.warmup_steps", &mut self.warmup_steps, share, why);
        }
        if self.min_lr > self.lr && self.lr > 0.0 {
            let why = format!("optim.lr = {}", self.lr);
            fitting.fit("optim.min_lr", &mut self.min_lr, self.lr * (paper.min_lr / paper.lr), why);
        }
    }

    /// Checks ranges; answers (key, value, what is allowed) of the first violation.
    ///
    /// # Errors
    /// The offending key.
    pub fn validate(&self) -> Result<(), (&'static str, String, String)> {
        let checks: [(&'static str, f64, bool, &str); 9] = [
            ("optim.lr", self.lr, self.lr > 0.0 && self.lr <= 1.0, "above 0, at most 1"),
            (
                "optim.min_lr",
                self.min_lr,
                self.min_lr >= 0.0 && self.min_lr <= self.lr,
                "0 to optim.lr",
            ),
            (
                "optim.weight_decay",
                self.weight_decay,
                (0.0..=1.0).contains(&self.weight_decay),
                "0 to 1",
            ),
            (
                "optim.final_weight_decay",
                self.final_weight_decay,
                (0.0..=1.0).contains(&self.final_weight_decay),
                "0 to 1",
            ),
            ("optim.beta1", self.beta1, (0.0..1.0).contains(&self.beta1), "0 to below 1"),
            ("optim.beta2", self.beta2, (0.0..1.0).contains(&self.beta2), "0 to below 1"),
            ("optim.eps", self.eps, self.eps > 0.0 && self.eps < 1.0, "above 0, below 1"),
            (
                "optim.clip",
                self.clip,
                self.clip >= 0.0 && self.clip.is_finite(),
                "0 (off) or above",
            ),
            (
                "optim.layer_decay",
                self.layer_decay,
                self.layer_decay > 0.0 && self.layer_decay <= 1.0,
                "above 0, at most 1",
            ),
        ];
        for (key, value, ok, allowed) in checks {
            if !ok {
                return Err((key, value.to_string(), allowed.to_owned()));
            }
        }
        if self.total_steps == 0 {
            return Err(("optim.total_steps", "0".into(), "at least 1".into()));
        }
        if self.warmup_steps > self.total_steps {
            return Err((
                "optim.warmup_steps",
                self.warmup_steps.to_string(),
                format!("at most optim.total_steps = {}", self.total_steps),
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_sets_stop_at_max_epochs_with_the_same_share_of_warm_up() {
        let config = OptimConfig {
            max_epochs: 5000,
            ..OptimConfig::default()
        };
        // Stanford Cars (arXiv 2112.10740 Table 3): 8144 images, 5000 epochs are 19,882 updates of 2048.
        let cars = config.fitted(2048, Some(8144));
        assert_eq!((cars.optim.total_steps, cars.optim.warmup_steps), (19_882, 662));
        assert!((cars.epochs.unwrap() - 5000.0).abs() < 0.5);
        cars.optim.validate().unwrap();
        // Food-101: 75,750 images; 187,500 updates are 5069 epochs, cut to 5000.
        assert_eq!(config.fitted(2048, Some(75_750)).optim.total_steps, 184_936);
        // ImageNet: 300 epochs, nothing to cut.
        let imagenet = config.fitted(2048, Some(1_281_167));
        assert_eq!(imagenet.optim, config);
        assert!((imagenet.epochs.unwrap() - 299.7).abs() < 0.1);
        let unbounded = OptimConfig::default().fitted(256, Some(10));
        assert_eq!((unbounded.optim.total_steps, unbounded.epochs), (187_500, Some(4_800_000.0)));
        let unknown = config.fitted(256, None);
        assert_eq!((unknown.optim, unknown.epochs), (config.clone(), None));
        assert_eq!(config.fitted(65_536, Some(1)).optim.total_steps, 1);
    }
}
