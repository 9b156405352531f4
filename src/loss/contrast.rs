//! Recognising the other half of an image among the batch.

use tch::{Kind, Reduction, Tensor};
use torch_ext::Autocast;

/// What [`info_nce`] answers: scalars.
#[derive(Debug)]
pub struct Contrast {
    /// Mean of both directions, nats.
    pub loss: Tensor,
    /// Share of rows, over both directions, whose partner is the most similar; no gradient.
    pub accuracy: Tensor,
}

/// Rows of …×D at length 1, f32; a row of zeros stays one.
pub fn unit_rows(x: &Tensor) -> Tensor {
    let x = x.to_kind(Kind::Float);
    let norm = x.norm_scalaropt_dim(2.0, [-1], true).clamp_min(1e-12);
    x / norm
}

/// Symmetric InfoNCE (arXiv 2112.10740 Eq. 2, with the minus log it lacks; arXiv 1807.03748) of two B×D descriptors in f32, after L2
/// normalisation: the partner of row i is row i of the other. With `both_branches` the negatives are the other images of both
/// branches (2B−2) instead of those of the other branch (B−1). Deviation: the mean of the two directions, not their sum.
#[must_use]
pub fn info_nce(a: &Tensor, b: &Tensor, temperature: f64, both_branches: bool) -> Contrast {
    // Autocast would take the products back to bf16.
    let _f32 = Autocast::off(a.device()).expect("switching autocast off needs no device");
    let (a, b) = (unit_rows(a), unit_rows(b));
    let rows = a.size()[0];
    let partner = Tensor::arange(rows, (Kind::Int64, a.device()));
    let similarity = a.matmul(&b.tr()) / temperature;
    let logits = |own: &Tensor, other: Tensor| {
        if both_branches {
            let itself = Tensor::eye(rows, (Kind::Bool, a.device()));
            let own = (own.matmul(&own.tr()) / temperature).masked_fill(&itself, f64::NEG_INFINITY);
            Tensor::cat(&[other, own], 1)
        } else {
            other
        }
    };
    let directions = [logits(&a, similarity.shallow_clone()), logits(&b, similarity.tr())];
    let losses = directions
        .each_ref()
        .map(|l| l.cross_entropy_loss::<Tensor>(&partner, None, Reduction::Mean, -100, 0.0));
    let hits = tch::no_grad(|| {
        directions
            .each_ref()
            .map(|l| l.argmax(-1, false).eq_tensor(&partner).to_kind(Kind::Float).mean(Kind::Float))
    });
    let [la, lb] = losses;
    let [ha, hb] = hits;
    Contrast {
        loss: (la + lb) * 0.5,
        accuracy: (ha + hb) * 0.5,
    }
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;

    fn loss(a: &Tensor, b: &Tensor, both: bool) -> f64 {
        info_nce(a, b, 0.2, both).loss.double_value(&[])
    }

    #[test]
    fn alike_descriptors_cost_the_log_of_the_candidates() {
        let x = Tensor::ones([8, 4], (Kind::Float, Device::Cpu));
        assert!((loss(&x, &x, false) - 8f64.ln()).abs() < 1e-5);
        assert!((loss(&x, &x, true) - 15f64.ln()).abs() < 1e-5);
    }

    #[test]
    fn length_does_not_matter_and_orthogonal_partners_are_found() {
        let eye = Tensor::eye(6, (Kind::Float, Device::Cpu));
        let c = info_nce(&eye, &(&eye * 3.0), 0.2, false);
        let want = (1.0 + 5.0 * (-5f64).exp()).ln();
        assert!((c.loss.double_value(&[]) - want).abs() < 1e-6);
        assert_eq!(c.accuracy.double_value(&[]), 1.0);
    }

    #[test]
    fn stays_f32_under_autocast() {
        let _turn = crate::tensor::alone();
        tch::manual_seed(5);
        let a = Tensor::randn([16, 32], (Kind::Float, Device::Cpu));
        let b = Tensor::randn([16, 32], (Kind::Float, Device::Cpu));
        let plain = loss(&a, &b, true);
        let _bf16 = Autocast::bf16(Device::Cpu).unwrap();
        assert_eq!(loss(&a, &b, true), plain);
    }
}
