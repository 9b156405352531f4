//! Plain values on their way to a device.

use tch::{Device, Tensor};

use crate::{TorchError, ffi};

mod sealed {
    pub trait Sealed {
        /// Number of the type in libtorch's `c10::ScalarType`.
        const KIND: std::ffi::c_int;
    }
    impl Sealed for u8 {
        const KIND: std::ffi::c_int = 0;
    }
    impl Sealed for i16 {
        const KIND: std::ffi::c_int = 2;
    }
    impl Sealed for i64 {
        const KIND: std::ffi::c_int = 4;
    }
    impl Sealed for f32 {
        const KIND: std::ffi::c_int = 6;
    }
}

/// Types that [`send`] takes: `u8`, `i16`, `i64`, `f32`.
pub trait Plain: sealed::Sealed + Copy {}
impl Plain for u8 {}
impl Plain for i16 {}
impl Plain for i64 {}
impl Plain for f32 {}

/// A copy of `values` as a tensor of `shape` on `device`; `values` may be changed at once. On CUDA the host does not wait: the values go through
/// page-locked memory, and what is launched on the device's stream from now on sees them whole.
///
/// # Errors
/// A shape of another size, or what libtorch said, such as that there is no memory.
pub fn send<T: Plain>(values: &[T], shape: &[i64], device: Device) -> Result<Tensor, TorchError> {
    let wanted = shape
        .iter()
        .try_fold(1usize, |product, side| product.checked_mul(usize::try_from(*side).ok()?));
    if wanted != Some(values.len()) {
        return Err(TorchError {
            call: "send",
            message: format!("{} values do not make a tensor of {shape:?}", values.len()),
        });
    }
    ffi::send(values, T::KIND, shape, device)
}
