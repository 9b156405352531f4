//! Learning rate and weight decay as pure functions of the step, so that a resumed or reconfigured run needs no state for them.

use crate::optim::config::OptimConfig;

/// From `start` to `end` over half a cosine; `done` in 0..1, beyond it `end`.
#[must_use]
pub fn cosine(start: f64, end: f64, done: f64) -> f64 {
    end + 0.5 * (start - end) * (1.0 + (std::f64::consts::PI * done.clamp(0.0, 1.0)).cos())
}

/// Learning rate of step `step` (from 0): linear warm-up that reaches the peak in its last step, then a cosine that would reach
/// `min_lr` at `total_steps` (arXiv 2106.08254 appendix G). Deviation from BEiT's code: its first warm-up step has rate 0 and does nothing.
#[must_use]
pub fn learning_rate(config: &OptimConfig, step: u64) -> f64 {
    if step < config.warmup_steps {
        return config.lr * (step + 1) as f64 / config.warmup_steps as f64;
    }
    let rest = config.total_steps.saturating_sub(config.warmup_steps).max(1);
    cosine(config.lr, config.min_lr, (step - config.warmup_steps) as f64 / rest as f64)
}

/// Weight decay of step `step`: a cosine from `weight_decay` to `final_weight_decay` over all steps.
#[must_use]
pub fn weight_decay(config: &OptimConfig, step: u64) -> f64 {
    cosine(
        config.weight_decay,
        config.final_weight_decay,
        step as f64 / config.total_steps.max(1) as f64,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> OptimConfig {
        OptimConfig {
            lr: 1.0,
            min_lr: 0.1,
            warmup_steps: 4,
            total_steps: 14,
            weight_decay: 0.04,
            final_weight_decay: 0.4,
            ..Default::default()
        }
    }

    #[test]
    fn warms_up_peaks_and_falls() {
        let lr = |s| learning_rate(&config(), s);
        assert_eq!([lr(0), lr(1), lr(3), lr(4)], [0.25, 0.5, 1.0, 1.0]);
        assert!((lr(9) - 0.55).abs() < 1e-12);
        assert!((5..14).all(|s| lr(s) < lr(s - 1)));
        assert!((lr(14) - 0.1).abs() < 1e-12);
        assert_eq!(lr(1_000_000), lr(14));
    }

    #[test]
    fn without_warm_up_it_starts_at_the_peak() {
        assert_eq!(
            learning_rate(
                &OptimConfig {
                    warmup_steps: 0,
                    ..config()
                },
                0
            ),
            1.0
        );
        assert_eq!(
            learning_rate(
                &OptimConfig {
                    warmup_steps: 14,
                    ..config()
                },
                13
            ),
            1.0
        );
    }

    #[test]
    fn decay_goes_from_start_to_end() {
        assert!((weight_decay(&config(), 0) - 0.04).abs() < 1e-12);
        assert!((weight_decay(&config(), 7) - 0.22).abs() < 1e-12);
        assert!((weight_decay(&config(), 14) - 0.4).abs() < 1e-12);
    }
}
