//! Vision transformers.

pub mod config;
