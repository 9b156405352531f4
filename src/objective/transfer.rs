//! Objectives that go on from pre-trained weights, with labels.

pub mod classify;
mod freeze;
pub mod segment;
