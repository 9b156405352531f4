//! `train.device`.

use tch::Device;

use crate::exit::{CliError, ExitCode};
use crate::tensor::TensorError;

impl TensorError {
    /// Exit code of a process that ends with it.
    #[must_use]
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::BadDevice(_) | Self::NoDevice { .. } => ExitCode::Usage,
            _ => ExitCode::Internal,
        }
    }

    /// What to do next.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        matches!(self, Self::BadDevice(_) | Self::NoDevice { .. })
            .then(|| "`splitmask doctor` says which devices there are; train.device = \"auto\" takes the best".into())
    }
}

impl From<TensorError> for CliError {
    fn from(e: TensorError) -> Self {
        Self {
            code: e.exit_code(),
            hint: e.hint(),
            message: e.to_string(),
        }
    }
}

/// What a setting asks for: `None` = the best there is.
///
/// # Errors
/// [`TensorError::BadDevice`] for anything but `auto`, `cpu`, `cuda`, `cuda:N`.
pub fn parse_device(setting: &str) -> Result<Option<Device>, TensorError> {
    match setting {
        "auto" => Ok(None),
        "cpu" => Ok(Some(Device::Cpu)),
        "cuda" => Ok(Some(Device::Cuda(0))),
        other => match other.strip_prefix("cuda:").map(str::parse) {
            Some(Ok(n)) => Ok(Some(Device::Cuda(n))),
            _ => Err(TensorError::BadDevice(setting.to_owned())),
        },
    }
}

/// Whether a device has instructions for products of bf16. Where it has none they are emulated, on CPUs some 20 times slower than f32.
#[must_use]
pub fn multiplies_bf16(device: Device) -> bool {
    match device {
        #[cfg(target_arch = "x86_64")]
        Device::Cpu => std::is_x86_feature_detected!("avx512bf16"),
        #[cfg(target_arch = "aarch64")]
        Device::Cpu => std::arch::is_aarch64_feature_detected!("bf16"),
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
        Device::Cpu => false,
        _ => true,
    }
}

/// The device of a setting; loads libtorch's CUDA half unless the setting is `cpu`. The second part says why `auto` fell back to
/// the CPU.
///
/// # Errors
/// A word that is not understood, or a CUDA device that is named and not there.
pub fn choose_device(setting: &str) -> Result<(Device, Option<String>), TensorError> {
    let wanted = parse_device(setting)?;
    if wanted == Some(Device::Cpu) {
        return Ok((Device::Cpu, None));
    }
    match (wanted, torch_ext::load_cuda()) {
        (None, Ok(_)) => Ok((Device::Cuda(0), None)),
        (None, Err(why)) => Ok((Device::Cpu, Some(why.to_string()))),
        (Some(Device::Cuda(i)), Ok(n)) if i >= n => Err(TensorError::NoDevice {
            wanted: setting.to_owned(),
            reason: format!("there are {n} CUDA devices, counted from 0"),
        }),
        (Some(device), Ok(_)) => Ok((device, None)),
        (Some(_), Err(why)) => Err(TensorError::NoDevice {
            wanted: setting.to_owned(),
            reason: why.to_string(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn understands_the_four_forms() {
        assert_eq!(parse_device("auto"), Ok(None));
        assert_eq!(parse_device("cpu"), Ok(Some(Device::Cpu)));
        assert_eq!(parse_device("cuda"), Ok(Some(Device::Cuda(0))));
        assert_eq!(parse_device("cuda:3"), Ok(Some(Device::Cuda(3))));
        for bad in ["", "gpu", "cuda:", "cuda:x", "cuda:-1"] {
            assert_eq!(parse_device(bad), Err(TensorError::BadDevice(bad.into())));
        }
    }

    #[test]
    fn auto_always_finds_one_and_says_why_not_cuda() {
        let (device, why) = choose_device("auto").unwrap();
        assert_eq!(device == Device::Cpu, why.is_some());
    }

    #[test]
    fn a_named_device_that_is_missing_is_an_error() {
        let e = choose_device("cuda:99").unwrap_err();
        assert!(matches!(e, TensorError::NoDevice { .. }), "{e}");
        assert!(e.to_string().contains("cuda:99"), "{e}");
    }

    #[test]
    fn bf16_is_multiplied_where_the_processor_says_so() {
        let flags = std::fs::read_to_string("/proc/cpuinfo").unwrap();
        let there = flags.split_whitespace().any(|flag| flag == "avx512_bf16" || flag == "bf16");
        assert_eq!(multiplies_bf16(Device::Cpu), there);
        assert!(multiplies_bf16(Device::Cuda(0)));
    }
}
