//! The border to `ext.cpp` over which C++ calls back.
#![expect(unsafe_code, reason = "calls into ext.cpp, which runs a body that it was given and drops it once")]

use std::ffi::{c_char, c_void};
use std::mem::ManuallyDrop;
use std::panic::{AssertUnwindSafe, catch_unwind};

use tch::Tensor;

use crate::TorchError;
use crate::ffi::{At, at, tensor};

/// What is run again in backward; the second tensor is optional.
pub(super) type Body = Box<dyn Fn(&Tensor, Option<&Tensor>) -> Tensor + Send>;

unsafe extern "C" {
    fn te_recompute(
        x: At,
        extra: At,
        data: *mut c_void,
        body: extern "C" fn(*mut c_void, At, At, *mut At) -> *mut c_char,
        drop: extern "C" fn(*mut c_void),
        out: *mut At,
    ) -> *mut c_char;
    fn te_text(text: *const c_char, n: usize) -> *mut c_char;
}

/// A tensor that C++ keeps: looked at, not dropped.
fn borrowed(t: At) -> Option<ManuallyDrop<Tensor>> {
    // SAFETY: ext.cpp hands in null or a tensor that outlives the call.
    (!t.is_null()).then(|| ManuallyDrop::new(unsafe { Tensor::from_ptr(t.cast()) }))
}

extern "C" fn run_body(data: *mut c_void, x: At, extra: At, out: *mut At) -> *mut c_char {
    let run = AssertUnwindSafe(|| {
        // SAFETY: `data` is the box that `recompute` gave away, alive until `drop_body`.
        let body = unsafe { &*data.cast::<Body>() };
        let x = borrowed(x).expect("x is never null");
        let extra = borrowed(extra);
        body(&x, extra.as_deref())
    });
    // No panic may cross the border.
    match catch_unwind(run) {
        Ok(y) => {
            let y = ManuallyDrop::new(y);
            // SAFETY: `out` has room for one pointer; C++ takes the tensor over.
            unsafe { *out = at(&y) };
            std::ptr::null_mut()
        }
        Err(panic) => {
            let text = panic
                .downcast_ref::<String>()
                .map(String::as_str)
                .or_else(|| panic.downcast_ref::<&str>().copied())
                .unwrap_or("a panic without a message");
            // SAFETY: a live text and its length.
            unsafe { te_text(text.as_ptr().cast(), text.len()) }
        }
    }
}

extern "C" fn drop_body(data: *mut c_void) {
    // SAFETY: `data` came from `Box::into_raw` in `recompute`, and C++ drops it once.
    drop(unsafe { Box::from_raw(data.cast::<Body>()) });
}

pub(super) fn recompute(x: &Tensor, extra: Option<&Tensor>, body: Body) -> Result<Tensor, TorchError> {
    let data = Box::into_raw(Box::new(body)).cast::<c_void>();
    let extra = extra.map_or(std::ptr::null_mut(), at);
    // SAFETY: the tensors live across the call; `data` is given away.
    tensor("recompute", |out| unsafe {
        te_recompute(at(x), extra, data, run_body, drop_body, out)
    })
}
