//! How good detected objects are, by COCO's rules (arXiv 1405.0312 section 5, and what its authors' program does where the paper is silent): average
//! precision and recall over overlaps, classes, sizes and numbers of detections. Plain numbers, no tensors.

mod annotations;
mod area;
mod average;
mod matching;
mod overlap;
mod polygon;
mod results;
mod run_length;

#[cfg(test)]
mod tests;

pub use annotations::{Annotated, Category, Object, Truth, read_truth};
pub use average::{Averages, ClassAverage, evaluate};
pub use overlap::{Shape, ShapeKind};
pub use polygon::rasterise;
pub use results::{Detection, Detections, read_detections};
pub use run_length::{RunLength, RunLengthError};

/// Why annotations or results cannot be used: file, place in it, what stands there, what is expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}: {place}: {detail}")]
pub struct DetectionError {
    /// The file.
    pub file: String,
    /// Where in it: `annotations[3] (id 17)`, or `top level`.
    pub place: String,
    /// What is wrong, with the value.
    pub detail: String,
}
