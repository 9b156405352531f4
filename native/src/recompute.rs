//! Activations that are made again in backward instead of being kept (arXiv 1604.06174).

mod ffi;

use std::cell::Cell;

use tch::{Device, Tensor};

use crate::{Autocast, TorchError, rng_state, set_rng_state};

/// `body(x, extra)` with gradients for both and for every parameter in it, keeping no activation of the body: backward runs it once more, under the
/// autocast and with the random numbers of the first time. So gradients are those without recomputing, bit for bit.
///
/// Without gradients wanted (`tch::no_grad`) it only runs the body. Parameters in the body get their gradient in backward as leaves;
/// any other tensor that needs a gradient must come in as `x` or `extra`.
///
/// # Errors
/// What libtorch said.
pub fn recomputed(
    x: &Tensor,
    extra: Option<&Tensor>,
    body: impl Fn(&Tensor, Option<&Tensor>) -> Tensor + Send + 'static,
) -> Result<Tensor, TorchError> {
    let device = x.device();
    let (bf16, before) = (Autocast::is_on(device), rng_state(device)?);
    let again = Cell::new(false);
    let run = move |x: &Tensor, extra: Option<&Tensor>| {
        if !again.replace(true) {
            return body(x, extra);
        }
        let _autocast = bf16.then(|| Autocast::bf16(device).expect("it was on before"));
        let _random = Rewound::to(&before, device);
        body(x, extra)
    };
    ffi::recompute(x, extra, Box::new(run))
}

/// While it lives, the generator goes on from an older state.
struct Rewound {
    now: Tensor,
    device: Device,
}

impl Rewound {
    fn to(state: &Tensor, device: Device) -> Self {
        let now = rng_state(device).expect("the generator was read before");
        set_rng_state(device, state).expect("the state is of this generator");
        Self { now, device }
    }
}

impl Drop for Rewound {
    fn drop(&mut self) {
        // A failure to restore what was just read has no remedy.
        let _ = set_rng_state(self.device, &self.now);
    }
}
