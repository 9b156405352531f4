//! What is learnt from a step.

pub mod config;
