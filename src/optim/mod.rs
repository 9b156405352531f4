//! AdamW, its schedules, gradient clipping.

pub mod config;
