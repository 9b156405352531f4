//! How exactly, and in which order, a GPU computes in f32.

use crate::{TorchError, ffi};

/// The arithmetic of the whole process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Arithmetic {
    /// Products of f32 with 10 bits of mantissa on tensor cores (TF32): several times as fast, errors of about 1e-3.
    pub tf32: bool,
    /// Only algorithms that give the same bits each time; an operation that has none is an error.
    pub deterministic: bool,
}

/// Sets it. Nothing of it changes what a CPU computes, except which algorithms it may take.
///
/// # Errors
/// What libtorch said.
pub fn set_arithmetic(arithmetic: Arithmetic) -> Result<(), TorchError> {
    ffi::set_arithmetic(arithmetic.tf32, arithmetic.deterministic)
}

/// Runs `compute` with products in whole f32, whatever [`Arithmetic::tf32`] says.
///
/// # Errors
/// What libtorch said, or the error of `compute`.
pub fn in_whole_f32<T, E: From<TorchError>>(compute: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
    struct Restore(bool);
    impl Drop for Restore {
        fn drop(&mut self) {
            // It was allowed a moment ago, so it is now.
            let _ = ffi::allow_tf32(self.0);
        }
    }
    let _restore = Restore(ffi::allow_tf32(false)?);
    compute()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_f32_ends_with_its_block_also_after_an_error() {
        set_arithmetic(Arithmetic {
            tf32: true,
            deterministic: false,
        })
        .unwrap();
        let inside = in_whole_f32(|| ffi::allow_tf32(false)).unwrap();
        assert!(!inside, "TF32 is off inside");
        let failed = in_whole_f32(|| {
            Err::<(), _>(TorchError {
                call: "none",
                message: String::new(),
            })
        });
        assert!(failed.is_err() && ffi::allow_tf32(true).unwrap(), "and on again behind it");
        set_arithmetic(Arithmetic::default()).unwrap();
        assert!(!ffi::allow_tf32(false).unwrap());
    }
}
