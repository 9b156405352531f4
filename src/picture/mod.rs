//! Pictures of a run: what the model saw and predicted, and its curves.

mod curves;
mod inpaint;

pub use curves::{Point, curves};
pub use inpaint::{Row, inpaint};
