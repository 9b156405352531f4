//! How well the device is used: floating point operations of the model against the device's peak.

use std::time::Instant;

use tch::{Device, Kind, Tensor};

use super::config::TrainConfig;
use super::gpu::gpu;

/// Backward costs two forward passes: the gradients for inputs and for weights.
pub(super) const STEP_OVER_FORWARD: f64 = 3.0;

/// What large matrix products are computed in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Products {
    /// bf16.
    Bf16,
    /// f32 by TF32's tensor cores (`train.tf32`).
    Tf32,
    /// Whole f32.
    F32,
}

impl Products {
    /// Those of a training on `device`.
    pub(super) fn of(config: &TrainConfig, device: Device) -> Self {
        match (config.precision.is_bf16(device), config.tf32) {
            (true, _) => Self::Bf16,
            (false, true) => Self::Tf32,
            (false, false) => Self::F32,
        }
    }
}

/// Peak dense bf16, TF32 and f32 operations per second of known devices, by a part of their name (makers' data sheets, without sparsity).
const KNOWN: [(&str, [f64; 3]); 9] = [
    ("H200", [989e12, 494e12, 67e12]),
    ("H100 PCIe", [756e12, 378e12, 51e12]),
    ("H100", [989e12, 494e12, 67e12]),
    ("A100", [312e12, 156e12, 19.5e12]),
    ("A10G", [70e12, 35e12, 35e12]),
    ("L40S", [362e12, 183e12, 91.6e12]),
    ("L4", [121e12, 60e12, 30.3e12]),
    ("RTX 4090", [165e12, 82.6e12, 82.6e12]),
    ("RTX 3090", [71e12, 35.6e12, 35.6e12]),
];

/// Peak of a device by its name, operations per second.
#[must_use]
fn known_peak(name: &str, products: Products) -> Option<f64> {
    let (_, [bf16, tf32, f32]) = KNOWN.iter().find(|(part, _)| name.contains(part))?;
    Some(match products {
        Products::Bf16 => *bf16,
        Products::Tf32 => *tf32,
        Products::F32 => *f32,
    })
}

/// Operations per second of large matrix products on the CPU: the best of three.
fn measured_peak(bf16: bool) -> f64 {
    const SIDE: i64 = 640;
    let kind = if bf16 { Kind::BFloat16 } else { Kind::Float };
    tch::no_grad(|| {
        let x = Tensor::ones([SIDE, SIDE], (kind, Device::Cpu));
        let mut best = 0f64;
        for _ in 0..3 {
            let began = Instant::now();
            let _ = x.matmul(&x);
            best = best.max(2.0 * (SIDE as f64).powi(3) / began.elapsed().as_secs_f64());
        }
        best
    })
}

/// Peak of the training device, operations per second: as set (in 10¹²), by its name, or on a CPU measured. `None` = unknown.
#[must_use]
pub(super) fn peak(device: Device, products: Products, set_tflops: f64) -> Option<f64> {
    if set_tflops > 0.0 {
        return Some(set_tflops * 1e12);
    }
    match device {
        Device::Cpu => Some(measured_peak(products == Products::Bf16)),
        Device::Cuda(index) => known_peak(&gpu(index)?.model, products),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_names_have_a_peak() {
        assert_eq!(known_peak("NVIDIA H100 80GB HBM3", Products::Bf16), Some(989e12));
        assert_eq!(known_peak("NVIDIA H100 80GB HBM3", Products::Tf32), Some(494e12));
        assert_eq!(known_peak("NVIDIA H100 PCIe", Products::Bf16), Some(756e12));
        assert_eq!(known_peak("NVIDIA A100-SXM4-40GB", Products::F32), Some(19.5e12));
        assert_eq!(known_peak("NVIDIA L4", Products::Bf16), Some(121e12));
        assert_eq!(known_peak("Voodoo 2", Products::Bf16), None);
    }

    #[test]
    fn a_setting_wins_and_a_cpu_is_measured() {
        assert_eq!(peak(Device::Cpu, Products::F32, 2.5), Some(2.5e12));
        let measured = peak(Device::Cpu, Products::F32, 0.0).unwrap();
        // A product of another size takes its share of that time, within what other work on the machine leaves.
        let x = Tensor::ones([320, 320], (Kind::Float, Device::Cpu));
        let seconds = |_| {
            let began = Instant::now();
            let _ = x.matmul(&x);
            began.elapsed().as_secs_f64()
        };
        let fastest = (0..5).map(seconds).fold(f64::INFINITY, f64::min);
        let here = 2.0 * 320f64.powi(3) / fastest;
        assert!((here / 20.0..here * 20.0).contains(&measured), "{measured:e}, and {here:e} at 320");
    }
}
