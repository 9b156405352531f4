//! An NVIDIA device, as its driver tells it.

use std::path::Path;

/// What the driver knows of a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Gpu {
    /// Such as `NVIDIA H100 80GB HBM3`.
    pub(super) model: String,
    /// Such as `GPU-7c9b…`, which no other device has; `None` where the driver has not asked for it, or shows no files.
    pub(super) uuid: Option<String>,
}

/// The device that libtorch calls `cuda:index`; `None` where nothing tells of it.
pub(super) fn gpu(index: usize) -> Option<Gpu> {
    let device = torch_ext::cuda_device(index)?;
    // Containers may hide the driver's files.
    let shown = read(Path::new("/proc/driver/nvidia/gpus"), &device.pci_address);
    Some(shown.unwrap_or(Gpu {
        model: device.name,
        uuid: None,
    }))
}

/// The device at a PCI address; `folder` has one folder for each.
fn read(folder: &Path, address: &str) -> Option<Gpu> {
    let text = std::fs::read_to_string(folder.join(address).join("information")).ok()?;
    let value = |name: &str| {
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        Some(value.trim().to_owned())
    };
    Some(Gpu {
        model: value("Model")?,
        // Question marks stand for an identity that nobody has asked for.
        uuid: value("GPU UUID").filter(|uuid| !uuid.contains('?')),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_told_by_its_own_address() {
        let folder = tempfile::tempdir().unwrap();
        for (address, model, uuid) in [
            ("0000:3b:00.0", "NVIDIA A100-SXM4-80GB", "GPU-7c9b2e1a-0000-0000-0000-000000000001"),
            ("0000:af:00.0", "NVIDIA H100 PCIe", "GPU-????????-????-????-????-????????????"),
        ] {
            let gpu = folder.path().join(address);
            std::fs::create_dir(&gpu).unwrap();
            let text = format!("Model: \t\t {model}\nIRQ:   \t\t 18\nGPU UUID: \t {uuid}\nBus Location: \t {address}\n");
            std::fs::write(gpu.join("information"), text).unwrap();
        }
        let first = read(folder.path(), "0000:3b:00.0").unwrap();
        assert_eq!(first.model, "NVIDIA A100-SXM4-80GB");
        assert_eq!(first.uuid.unwrap(), "GPU-7c9b2e1a-0000-0000-0000-000000000001");
        let second = read(folder.path(), "0000:af:00.0").unwrap();
        assert_eq!((second.model.as_str(), second.uuid), ("NVIDIA H100 PCIe", None));
        assert_eq!(read(folder.path(), "0000:01:00.0"), None);
    }
}
