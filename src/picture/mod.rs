//! Pictures of a run: what the model saw and predicted, and its curves.

mod config;
mod curves;
mod sheet;

pub use config::PictureConfig;
pub use curves::{Point, curves, plot};
pub use sheet::{Cell, WordPixels, sheet};
