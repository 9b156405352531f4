//! Objectives that go on from pre-trained weights, with labels.

pub mod classify;
pub mod detect;
mod freeze;
pub mod segment;
