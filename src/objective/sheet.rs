//! A picture of what an objective makes of a few images, as tensors: the trainer draws it.

use splitmask_pipeline::types::Object;
use tch::Tensor;

/// One row for each image, columns from left to right.
#[derive(Debug)]
pub struct Sheet {
    /// Its name among the kind's `sheets`, and that of its file in the run folder, without `.png`.
    pub name: &'static str,
    /// As many as the kind's caption names.
    pub columns: Vec<Column>,
}

/// One column.
#[derive(Debug)]
pub enum Column {
    /// The first view of that name as it came.
    View(&'static str),
    /// The first view of that name where its patches were seen, grey elsewhere: ascending patch indices, i64 B×K.
    Seen(&'static str, Tensor),
    /// A picture painted with visual words: i64 B×N.
    Words(Tensor),
    /// Classes of pixels, in colours of their own; grey where there is none: i64 B×S×S.
    Classes(Tensor),
    /// The first view of that name with objects on it, those of each image.
    Objects(&'static str, Vec<Vec<Object>>),
    /// Pixels, normalised as views are: f32 B×3×S×S.
    Pixels(Tensor),
}
