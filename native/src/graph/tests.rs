use tch::{Device, Kind, Tensor};

use super::*;
use crate::{CudaUnavailable, load_cuda};

const CPU: (Kind, Device) = (Kind::Float, Device::Cpu);

#[test]
fn graphs_come_with_the_cuda_half_and_what_is_missing_is_told() {
    match (load_cuda(), graphs_available()) {
        // Loaded: each function must be found under its name, with or without a device.
        (Ok(_) | Err(CudaUnavailable::NoDevice), available) => available.unwrap(),
        (Err(_), available) => {
            let said = available.unwrap_err().to_string();
            assert!(said.contains("CUDA half is not loaded") && said.contains("CUDAGraph"), "{said}");
            let recorded = Graph::record(Device::Cuda(0), || Ok::<_, TorchError>(()));
            recorded.unwrap_err();
        }
    }
}

#[test]
fn gradients_are_put_in_place() {
    let w = Tensor::ones([2], CPU).set_requires_grad(true);
    let grad = Tensor::from_slice(&[3f32, 4.0]);
    set_grads(&[w.shallow_clone()], &[grad.shallow_clone()]).unwrap();
    assert_eq!(w.grad(), grad);
    assert!(
        set_grads(&[w.shallow_clone()], &[])
            .unwrap_err()
            .message
            .contains("0 gradients of 1")
    );
    let other = set_grads(&[w.shallow_clone()], &[Tensor::ones([3], CPU)]).unwrap_err();
    assert!(other.message.contains("shape"), "{other}");
    assert_eq!(w.grad(), grad, "a refusal changes nothing");
}
