//! What the daemon tells about itself: the inventory of its metrics, and files of lines. Knows no tensors or network.

mod exposition;
mod labels;
pub mod line_file;
pub mod metrics;
mod phase_clock;
mod register;
