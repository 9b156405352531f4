//! The training loop: one thread that owns every tensor.

pub mod control;
pub mod spec;
