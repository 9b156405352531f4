//! Recognising the other half of an image, or another view of it, among the batch.

use tch::{Kind, Reduction, Tensor};
use torch_ext::Autocast;

/// What the losses here answer: scalars.
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
    both_directions(&[logits(&a, similarity.shallow_clone()), logits(&b, similarity.tr())])
}

/// InfoNCE between the queries and the keys of two views (arXiv 2104.02057 algorithm 1, without its weight): query i of a view is to find key i among
/// the keys of the other view. Both are 2B×D, the second view behind the first, and are taken to length 1; no gradient reaches the keys. Mean of the two
/// directions.
#[must_use]
pub fn info_nce_of_keys(queries: &Tensor, keys: &Tensor, temperature: f64) -> Contrast {
    let _f32 = Autocast::off(queries.device()).expect("switching autocast off needs no device");
    let views = |x: &Tensor| {
        let x = unit_rows(x);
        let images = x.size()[0] / 2;
        [x.narrow(0, 0, images), x.narrow(0, images, images)]
    };
    let ([q1, q2], [k1, k2]) = (views(queries), views(&keys.detach()));
    both_directions(&[q1.matmul(&k2.tr()) / temperature, q2.matmul(&k1.tr()) / temperature])
}

/// Of the logits B×C of two directions: column i is the right one in row i.
fn both_directions(directions: &[Tensor; 2]) -> Contrast {
    let partner = Tensor::arange(directions[0].size()[0], (Kind::Int64, directions[0].device()));
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
    fn queries_look_among_the_keys_of_the_other_view_and_move_no_key() {
        let _turn = crate::tensor::alone();
        let eye = Tensor::eye(6, (Kind::Float, Device::Cpu));
        // The keys of a view lie where the queries of the other one do.
        let queries = Tensor::cat(&[&eye, &eye.roll([1i64], [1i64])], 0).set_requires_grad(true);
        let keys = (Tensor::cat(&[&eye.roll([1i64], [1i64]), &eye], 0) * 2.0).set_requires_grad(true);
        let found = info_nce_of_keys(&queries, &keys, 0.2);
        let want = (1.0 + 5.0 * (-5f64).exp()).ln();
        assert!((found.loss.double_value(&[]) - want).abs() < 1e-6);
        assert_eq!(found.accuracy.double_value(&[]), 1.0);
        found.loss.backward();
        assert!(torch_ext::has_grad(&queries) && !torch_ext::has_grad(&keys));
        let alike = Tensor::ones([12, 6], (Kind::Float, Device::Cpu));
        assert!((info_nce_of_keys(&alike, &alike, 0.2).loss.double_value(&[]) - 6f64.ln()).abs() < 1e-6);
    }

    #[test]
    fn stays_f32_under_autocast() {
        let _turn = crate::tensor::alone();
        tch::manual_seed(5);
        let a = Tensor::randn([16, 32], (Kind::Float, Device::Cpu));
        let b = Tensor::randn([16, 32], (Kind::Float, Device::Cpu));
        let of_keys = || info_nce_of_keys(&a, &b, 0.2).loss.double_value(&[]);
        let plain = (loss(&a, &b, true), of_keys());
        let _bf16 = Autocast::bf16(Device::Cpu).unwrap();
        assert_eq!((loss(&a, &b, true), of_keys()), plain);
    }
}
