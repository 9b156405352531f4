//! A client of c10d's key-value store.
#![expect(unsafe_code, reason = "calls into ranks.cpp with handles and texts that live across each call")]

use std::ffi::{c_char, c_void};
use std::net::TcpListener;
use std::os::fd::IntoRawFd;
use std::ptr::{NonNull, null_mut};

use super::{
    Handle, c_text, made, tr_store_add, tr_store_append, tr_store_free, tr_store_get, tr_store_open, tr_store_prefixed, tr_store_set,
};
use crate::TorchError;
use crate::ffi::check;

/// A client of a key-value store; c10d's stores lock themselves.
#[derive(Debug)]
pub(in crate::ranks) struct Store(NonNull<c_void>);

// SAFETY: c10d's TCPStore and PrefixStore guard each operation by a lock of their own and know no thread.
unsafe impl Send for Store {}
// SAFETY: as above.
unsafe impl Sync for Store {}

impl Store {
    pub(super) const fn handle(&self) -> Handle {
        self.0.as_ptr()
    }

    /// Connects to the store at `host`:`port`; with a listening socket, serves it there too.
    pub(in crate::ranks) fn open(host: &str, port: u16, listener: Option<TcpListener>, timeout_s: f64) -> Result<Self, TorchError> {
        let host = c_text(host);
        let listener = listener.map_or(-1, IntoRawFd::into_raw_fd);
        // SAFETY: the text lives across the call; the socket is given away.
        made("the store", |out| unsafe {
            tr_store_open(host.as_ptr(), port, listener, timeout_s, out)
        })
        .map(Self)
    }

    /// The same store, with `prefix` and a slash before every key.
    pub(in crate::ranks) fn prefixed(&self, prefix: &str) -> Result<Self, TorchError> {
        let prefix = c_text(prefix);
        // SAFETY: the handle and the text live across the call; C++ counts its own reference to the store.
        made("the store", |out| unsafe {
            tr_store_prefixed(self.0.as_ptr(), prefix.as_ptr(), out)
        })
        .map(Self)
    }

    pub(in crate::ranks) fn set(&self, key: &str, value: &str) -> Result<(), TorchError> {
        let key = c_text(key);
        // SAFETY: handle and both texts live across the call; C++ copies them.
        check("the store", unsafe {
            tr_store_set(self.0.as_ptr(), key.as_ptr(), value.as_ptr().cast(), value.len())
        })
    }

    /// Adds to what is under `key`, in one piece.
    pub(in crate::ranks) fn append(&self, key: &str, value: &str) -> Result<(), TorchError> {
        let key = c_text(key);
        // SAFETY: handle and both texts live across the call; C++ copies them.
        check("the store", unsafe {
            tr_store_append(self.0.as_ptr(), key.as_ptr(), value.as_ptr().cast(), value.len())
        })
    }

    /// What is under `key` now, if anything.
    pub(in crate::ranks) fn get(&self, key: &str) -> Result<Option<String>, TorchError> {
        let key = c_text(key);
        let (mut value, mut n) = (null_mut::<c_char>(), 0usize);
        // SAFETY: the handle, the key and both places live across the call.
        check("the store", unsafe {
            tr_store_get(self.0.as_ptr(), key.as_ptr(), &raw mut value, &raw mut n)
        })?;
        if value.is_null() {
            return Ok(None);
        }
        // SAFETY: on success C++ stored n malloc'ed bytes, which are ours to free.
        unsafe {
            let text = String::from_utf8_lossy(std::slice::from_raw_parts(value.cast::<u8>(), n)).into_owned();
            crate::ffi::free(value);
            Ok(Some(text))
        }
    }

    /// Adds one to the counter `key`, which begins at 0; answers the sum.
    pub(in crate::ranks) fn count(&self, key: &str) -> Result<i64, TorchError> {
        let key = c_text(key);
        let mut sum = 0;
        // SAFETY: handle, key and place live across the call.
        check("the store", unsafe { tr_store_add(self.0.as_ptr(), key.as_ptr(), 1, &raw mut sum) })?;
        Ok(sum)
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        // SAFETY: the handle is ours and is freed once.
        unsafe { tr_store_free(self.0.as_ptr()) }
    }
}
