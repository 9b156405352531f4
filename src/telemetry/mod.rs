//! What the daemon tells about itself: the inventory of its metrics, files of lines, and event files for TensorBoard. Knows no tensors and no network.

pub mod event_file;
mod exposition;
mod labels;
pub mod line_file;
pub mod log_config;
pub mod metrics;
pub mod number;
pub mod objective;
mod phase_clock;
mod register;
