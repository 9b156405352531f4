//! `[optim]`: AdamW, its schedules and gradient clipping.

use serde::{Deserialize, Serialize};

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

impl OptimConfig {
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
