//! The training loop: one thread that owns every tensor.

pub mod control;
mod error;
pub mod journal;
pub mod spec;

pub use error::TrainError;
