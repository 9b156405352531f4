//! How good detected objects are, by COCO's rules (arXiv 1405.0312 section 5, and what its authors' program does where the paper is silent): average
//! precision and recall over overlaps, classes, sizes and numbers of detections. Plain numbers, no tensors.

mod annotations;
mod area;
mod average;
mod matching;
mod overlap;
mod results;

#[cfg(test)]
mod tests;

pub use annotations::{Annotated, Category, Object, Truth, read_truth};
pub use average::{Averages, ClassAverage, evaluate};
pub use overlap::{Shape, ShapeKind};
pub use results::{Detection, Detections, read_detections};
