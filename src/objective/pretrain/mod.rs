//! Objectives that learn from images alone.

pub mod beit;
pub mod splitmask;
