//! Pictures of a run: what the model saw and predicted, and its curves.

mod curves;
mod inpaint;

pub use curves::{Point, curves, plot};
pub use inpaint::{Row, inpaint};
