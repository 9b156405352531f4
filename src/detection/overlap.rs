//! How much two objects overlap.

use splitmask_pipeline::coco::RunLength;

/// What of objects is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ShapeKind {
    /// Their boxes.
    Box,
    /// Their masks.
    Mask,
}

/// The box or mask of an object.
#[derive(Debug, Clone, PartialEq)]
pub enum Shape {
    /// Left, top, width, height in pixels.
    Box([f64; 4]),
    /// A mask.
    Mask(RunLength),
}

impl Shape {
    /// In pixels.
    #[must_use]
    pub fn area(&self) -> f64 {
        match self {
            Self::Box([.., width, height]) => width * height,
            Self::Mask(mask) => mask.area() as f64,
        }
    }

    /// Intersection over union; over a crowd, intersection over this one's area (arXiv 1405.0312 section 5). 0 for a box beside a mask.
    #[must_use]
    pub fn overlap(&self, truth: &Self, crowd: bool) -> f64 {
        let common = match (self, truth) {
            (Self::Box(a), Self::Box(b)) => common_of_boxes(a, b),
            (Self::Mask(a), Self::Mask(b)) => a.common(b) as f64,
            _ => 0.0,
        };
        if common <= 0.0 {
            return 0.0;
        }
        let whole = if crowd { self.area() } else { self.area() + truth.area() - common };
        common / whole
    }
}

fn common_of_boxes(a: &[f64; 4], b: &[f64; 4]) -> f64 {
    let side = |k: usize| (a[k] + a[k + 2]).min(b[k] + b[k + 2]) - a[k].max(b[k]);
    side(0).max(0.0) * side(1).max(0.0)
}
