//! Terms of the evidence lower bound (arXiv 2102.12092 §2.1 and appendix A.3).

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

/// Temperature of the distributions that [`imbalance`] means over. At 1 a batch can be in balance while the most likely words are few, for the
/// distributions of early training are flat; nearer to 0 only the most likely word of a place counts, and the gradient vanishes.
const BALANCE_TEMPERATURE: f64 = 0.25;
/// Keeps mapped pixels away from 0 and 1, where the logit has no value.
const EPS: f64 = 0.1;

/// Bytes → 0.8·x ÷ 255 + 0.1 in f32: what the encoder sees.
pub fn map_pixels(bytes: &Tensor) -> Tensor {
    bytes.to_kind(Kind::Float) * ((1.0 - 2.0 * EPS) / 255.0) + EPS
}

/// The inverse, cut to 0…255, as bytes.
pub fn unmap_pixels(mapped: &Tensor) -> Tensor {
    ((mapped - EPS) * (255.0 / (1.0 - 2.0 * EPS)))
        .clamp(0.0, 255.0)
        .round()
        .to_kind(Kind::Uint8)
}

/// How a reconstruction is judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum, Default)]
#[serde(rename_all = "kebab-case")]
pub enum Reconstruction {
    /// Likelihood of mapped pixels under the logit-Laplace distribution whose location and scale the decoder gives (DALL-E).
    #[default]
    LogitLaplace,
    /// Mean squared difference of mapped pixels.
    L2,
}

impl Reconstruction {
    /// Mean over all values of `mapped` B×3×S×S, of the decoder's `statistics` B×6×S×S.
    pub fn loss(self, statistics: &Tensor, mapped: &Tensor) -> Tensor {
        let (location, log_scale) = (statistics.narrow(1, 0, 3), statistics.narrow(1, 3, 3));
        match self {
            Self::L2 => (location.sigmoid() - mapped).square().mean(Kind::Float),
            Self::LogitLaplace => {
                let logit = mapped.logit(None);
                // −ln of 1 ÷ (2b·x(1−x)) · exp(−|logit x − µ| ÷ b).
                let normaliser = ((mapped - mapped.square()) * 2.0).log() + &log_scale;
                (normaliser + (logit - location).abs() * (-log_scale).exp()).mean(Kind::Float)
            }
        }
    }
}

/// Mean divergence, in nats a place, of the words' distribution from the uniform one; `logits` B×V×g×g.
pub(super) fn divergence(logits: &Tensor) -> Tensor {
    let words = logits.size()[1] as f64;
    let log_q = logits.log_softmax(1, Kind::Float);
    (log_q.exp() * (&log_q + words.ln()))
        .sum_dim_intlist([1i64].as_slice(), false, Kind::Float)
        .mean(Kind::Float)
}

/// Divergence, in nats, of the mean sharpened distribution of the words over all places of a batch from the uniform one: 0 if all words are the
/// most likely one equally often.
pub(super) fn imbalance(logits: &Tensor) -> Tensor {
    let words = logits.size()[1] as f64;
    let mean = (logits / BALANCE_TEMPERATURE)
        .softmax(1, Kind::Float)
        .mean_dim([0i64, 2, 3].as_slice(), false, Kind::Float);
    (&mean * (mean.clamp_min(1e-12).log() + words.ln())).sum(Kind::Float)
}

/// A draw of the Gumbel-softmax relaxation (arXiv 1611.01144) over dimension 1, from libtorch's generator of the device.
pub(super) fn relaxed(logits: &Tensor, temperature: f64) -> Tensor {
    let noise = tch::no_grad(|| -logits.zeros_like().exponential_(1.0).log());
    ((logits + noise) / temperature).softmax(1, Kind::Float)
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;

    #[test]
    fn bytes_survive_the_map() {
        let _turn = crate::tensor::alone();
        let bytes = Tensor::arange(256, (Kind::Uint8, Device::Cpu));
        assert_eq!(unmap_pixels(&map_pixels(&bytes)), bytes);
        let mapped = map_pixels(&bytes);
        assert!((mapped.double_value(&[0]) - 0.1).abs() < 1e-7 && (mapped.double_value(&[255]) - 0.9).abs() < 1e-6);
    }

    #[test]
    fn logit_laplace_is_a_density() {
        let _turn = crate::tensor::alone();
        // Its exponential must integrate to 1 over (0, 1).
        let n = 200_000;
        let x = (Tensor::arange(n, (Kind::Double, Device::Cpu)) + 0.5) / n as f64;
        let (mu, log_b) = (0.7, -0.4);
        let logit = x.logit(None);
        let statistics = Tensor::cat(
            &[
                Tensor::full([1, 3, 1, 1], mu, (Kind::Double, Device::Cpu)),
                Tensor::full([1, 3, 1, 1], log_b, (Kind::Double, Device::Cpu)),
            ],
            1,
        );
        let by_hand = -(((&x - x.square()) * 2.0).log() + log_b + (&logit - mu).abs() * (-log_b).exp());
        let mass = by_hand.exp().mean(Kind::Double).double_value(&[]);
        assert!((mass - 1.0).abs() < 1e-3, "{mass}");
        for at in [0i64, 77_777, 150_000] {
            let one = x.narrow(0, at, 1).view([1, 1, 1, 1]).expand([1, 3, 1, 1], false);
            let loss = Reconstruction::LogitLaplace.loss(&statistics, &one).double_value(&[]);
            assert!((loss + by_hand.double_value(&[at])).abs() < 1e-4);
        }
    }

    #[test]
    fn divergence_of_known_distributions() {
        let _turn = crate::tensor::alone();
        let flat = Tensor::zeros([1, 8, 2, 2], (Kind::Float, Device::Cpu));
        assert!(divergence(&flat).double_value(&[]).abs() < 1e-6);
        let sure = Tensor::from_slice(&[1000f32, 0.0, 0.0, 0.0]).view([1, 4, 1, 1]);
        assert!((divergence(&sure).double_value(&[]) - 4f64.ln()).abs() < 1e-6);
        // Sure at each place, but of another word: no imbalance, all divergence.
        let each = Tensor::eye(4, (Kind::Float, Device::Cpu)).view([1, 4, 2, 2]) * 1000.0;
        assert!(imbalance(&each).double_value(&[]).abs() < 1e-6);
        assert!((divergence(&each).double_value(&[]) - 4f64.ln()).abs() < 1e-6);
        assert!((imbalance(&sure).double_value(&[]) - 4f64.ln()).abs() < 1e-6);
        // Flat everywhere, but the most likely word is the same: what a tokenizer says is out of balance, whatever the distributions are.
        let lean = Tensor::from_slice(&[1f32, 0.0, 0.0, 0.0]).view([1, 4, 1, 1]);
        assert!(divergence(&lean).double_value(&[]) < 0.15 && imbalance(&lean).double_value(&[]) > 1.0);
    }

    #[test]
    fn a_cold_draw_is_one_hot_and_follows_the_logits() {
        let _turn = crate::tensor::alone();
        tch::manual_seed(1);
        let logits = Tensor::from_slice(&[3f32.ln(), 0.0])
            .view([1, 2, 1, 1])
            .expand([1, 2, 100, 100], false);
        let draw = relaxed(&logits, 1e-3);
        let share = draw.narrow(1, 0, 1).mean(Kind::Float).double_value(&[]);
        assert!((share - 0.75).abs() < 0.02, "{share}");
        assert!(draw.max().double_value(&[]) > 0.999);
    }
}
