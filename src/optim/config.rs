//! `[optim]`: AdamW, its schedules and gradient clipping.

use crate::optim::clip::ClipBy;
use crate::setting::{Findings, Fitting, settings};

settings! {
    /// `[optim]`: BEiT's recipe (arXiv 2106.08254 appendix G), which SplitMask takes over (arXiv 2112.10740 §5.5).
    pub struct OptimConfig in "optim" {
        /// Peak learning rate.
        Live lr: f64 = 1.5e-3,
        /// Learning rate at the end of the cosine.
        Live min_lr: f64 = 1e-5,
        /// Steps of linear warm-up.
        Live warmup_steps: u64 = 6250,
        /// Steps of the schedule; training ends there.
        Live total_steps: u64 = 187_500,
        /// Passes over the data at most, counted as if every step had the batch of now: cuts total_steps and warmup_steps to it in proportion; of several data.sources, passes over the one that is through first; 0 = no bound.
        Live max_epochs: u32 = 0,
        /// Decoupled weight decay of matrices.
        Live weight_decay: f64 = 0.05,
        /// Weight decay at the end of its cosine; where it is left out, that of weight_decay.
        Live final_weight_decay: f64 = 0.05,
        /// Decay rate of the first moment.
        Live beta1: f64 = 0.9,
        /// Decay rate of the second moment; takes about 1/(1−beta2) steps to settle.
        Live beta2: f64 = 0.999,
        /// Added to the root of the second moment.
        Live eps: f64 = 1e-8,
        /// Largest gradient norm; 0 = no clipping.
        Live clip: f64 = 3.0,
        /// Whose norm optim.clip bounds: that of `all` gradients together, or of each `tensor` by itself, as in DINO's code.
        Live clip_by: ClipBy = ClipBy::All,
        /// Learning-rate factor per layer from the top; 1 = none.
        Restart layer_decay: f64 = 1.0,
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

    /// Makes room for what was set: a default warm-up longer than the schedule becomes the same share of it as in the paper, a default last
    /// learning rate above the peak the same share of that, and a default last weight decay follows the first.
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
        // Who sets one weight decay means it for the whole run.
        let why = format!("optim.weight_decay = {} stays to the end", self.weight_decay);
        fitting.fit("optim.final_weight_decay", &mut self.final_weight_decay, self.weight_decay, why);
    }

    /// Checks ranges.
    pub fn check(&self, found: &mut Findings) {
        found.need(self.lr > 0.0 && self.lr <= 1.0, "optim.lr", self.lr, "above 0, at most 1");
        found.need(
            self.min_lr >= 0.0 && self.min_lr <= self.lr,
            "optim.min_lr",
            self.min_lr,
            "0 to optim.lr",
        );
        found.share("optim.weight_decay", self.weight_decay);
        found.share("optim.final_weight_decay", self.final_weight_decay);
        for (key, rate) in [("optim.beta1", self.beta1), ("optim.beta2", self.beta2)] {
            found.need((0.0..1.0).contains(&rate), key, rate, "0 to below 1");
        }
        found.need(self.eps > 0.0 && self.eps < 1.0, "optim.eps", self.eps, "above 0, below 1");
        found.need(
            self.clip >= 0.0 && self.clip.is_finite(),
            "optim.clip",
            self.clip,
            "0 (off) or above",
        );
        found.need(
            self.layer_decay > 0.0 && self.layer_decay <= 1.0,
            "optim.layer_decay",
            self.layer_decay,
            "above 0, at most 1",
        );
        found.need(self.total_steps >= 1, "optim.total_steps", self.total_steps, "at least 1");
        found.need(
            self.warmup_steps <= self.total_steps,
            "optim.warmup_steps",
            self.warmup_steps,
            format!("at most optim.total_steps = {}", self.total_steps),
        );
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
        let mut found = Findings::default();
        cars.optim.check(&mut found);
        assert_eq!(found.found(), []);
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
