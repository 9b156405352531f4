//! How many dimensions descriptors use.

use tch::{Kind, Tensor};
use torch_ext::Autocast;

/// Participation ratio (Σλ)² ÷ Σλ² of the eigenvalues λ of the covariance of rows M×D: D if they spread evenly, 1 if they lie on a line, 0 if they are
/// all alike. f32 scalar without gradient, by one matrix product and no decomposition; like the effective rank of arXiv 2210.02885 it falls as
/// dimensions collapse.
pub fn participation_ratio(rows: &Tensor) -> Tensor {
    tch::no_grad(|| {
        let _f32 = Autocast::off(rows.device()).expect("switching autocast off needs no device");
        let rows = rows.detach().to_kind(Kind::Float);
        let centred = &rows - rows.mean_dim([0i64].as_slice(), true, Kind::Float);
        // The eigenvalues are those of the smaller of the two products.
        let products = if rows.size()[1] <= rows.size()[0] {
            centred.tr().matmul(&centred)
        } else {
            centred.matmul(&centred.tr())
        };
        centred.square().sum(Kind::Float).square() / products.square().sum(Kind::Float).clamp_min(1e-24)
    })
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;

    #[test]
    fn it_counts_the_dimensions_in_even_use() {
        let _turn = crate::tensor::alone();
        tch::manual_seed(9);
        let ratio = |rows: &Tensor| participation_ratio(rows).double_value(&[]);
        let plane = |scales: &[f32]| {
            let used = Tensor::randn([4000, scales.len() as i64], (Kind::Float, Device::Cpu)) * Tensor::from_slice(scales);
            Tensor::cat(&[&used, &Tensor::zeros([4000, 3], (Kind::Float, Device::Cpu))], 1) + 7.0
        };
        assert!((ratio(&plane(&[1.0])) - 1.0).abs() < 1e-3);
        assert!((ratio(&plane(&[2.0, 2.0, 2.0, 2.0])) - 4.0).abs() < 0.05);
        // Variances 1 and 9: (1 + 9)² ÷ (1 + 81).
        assert!((ratio(&plane(&[1.0, 3.0])) - 100.0 / 82.0).abs() < 0.05);
        assert!(ratio(&Tensor::full([6, 4], 3.0, (Kind::Float, Device::Cpu))) < 1e-6);
        // Fewer rows than columns: m rows span m − 1 dimensions.
        assert!((ratio(&Tensor::eye(5, (Kind::Float, Device::Cpu)).narrow(0, 0, 3)) - 2.0).abs() < 1e-4);
    }
}
