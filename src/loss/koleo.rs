//! Keeping descriptors apart.

use tch::{Kind, Tensor};
use torch_ext::Autocast;

use super::unit_rows;

/// Keeps the logarithm of a distance of 0 finite.
const NEAREST: f64 = 1e-8;

/// KoLeo (arXiv 1806.03198 §3, as arXiv 2304.07193 §4 uses it): minus the mean logarithm of the distance from each of B×D descriptors, taken to length
/// 1, to its nearest other one. f32 scalar, nats. A descriptor that equals another one costs 18.4 and has no gradient.
pub fn koleo(x: &Tensor) -> Tensor {
    // Autocast would take the products back to bf16, and neighbours differ by less than that tells apart.
    let _f32 = Autocast::off(x.device()).expect("switching autocast off needs no device");
    let x = unit_rows(x);
    let nearest = tch::no_grad(|| {
        let itself = Tensor::eye(x.size()[0], (Kind::Bool, x.device()));
        x.matmul(&x.tr()).masked_fill(&itself, f64::NEG_INFINITY).argmax(-1, false)
    });
    let distance = (&x - x.index_select(0, &nearest)).norm_scalaropt_dim(2.0, [-1], false);
    -(distance + NEAREST).log().mean(Kind::Float)
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;

    #[test]
    fn it_is_the_log_distance_to_the_nearest_neighbour() {
        let _turn = crate::tensor::alone();
        // Four directions of the plane at 0°, 60°, 90°, 180°: the nearest are 60°, 30°, 30° and 90° away; lengths do not matter.
        let angles = [0f64, 60.0, 90.0, 180.0].map(f64::to_radians);
        let points: Vec<f64> = angles
            .iter()
            .zip([1.0, 2.0, 0.5, 3.0])
            .flat_map(|(a, r)| [r * a.cos(), r * a.sin()])
            .collect();
        let x = Tensor::from_slice(&points)
            .view([4, 2])
            .to_kind(Kind::Float)
            .set_requires_grad(true);
        let chord = |degrees: f64| 2.0 * (degrees.to_radians() / 2.0).sin();
        let want = -[60.0, 30.0, 30.0, 90.0].map(|d| chord(d).ln()).iter().sum::<f64>() / 4.0;
        let loss = koleo(&x);
        assert!((loss.double_value(&[]) - want).abs() < 1e-6, "{loss} {want}");
        loss.backward();
        assert!(x.grad().abs().max().double_value(&[]) > 0.1);
    }

    #[test]
    fn equal_descriptors_cost_a_finite_sum_and_break_nothing() {
        let _turn = crate::tensor::alone();
        let x = Tensor::ones([4, 8], (Kind::Float, Device::Cpu)).set_requires_grad(true);
        let loss = koleo(&x);
        assert!((loss.double_value(&[]) + 1e-8f64.ln()).abs() < 1e-3, "{loss}");
        loss.backward();
        assert_eq!(x.grad().abs().max().double_value(&[]), 0.0);
    }

    #[test]
    fn stays_f32_under_autocast() {
        let _turn = crate::tensor::alone();
        tch::manual_seed(5);
        let x = Tensor::randn([16, 32], (Kind::Float, Device::Cpu));
        let plain = koleo(&x).double_value(&[]);
        let _bf16 = Autocast::bf16(Device::Cpu).unwrap();
        assert_eq!(koleo(&x).double_value(&[]), plain);
    }
}
