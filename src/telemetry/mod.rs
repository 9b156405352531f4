//! What the daemon tells about itself: the inventory of its metrics, files of lines, event files for TensorBoard, and what its pipeline's times say. Knows no tensors and no network.

pub mod event_file;
mod exposition;
mod labels;
pub mod limiting_stage;
pub mod line_file;
pub mod log_config;
pub mod metrics;
pub mod number;
pub mod objective;
mod phase_clock;
mod register;
pub mod wall_time;
