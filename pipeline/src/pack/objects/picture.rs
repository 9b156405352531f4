//! A picture of a file in COCO's form.

use crate::coco::Annotation;

/// A picture with its annotations.
#[derive(Debug, Default)]
pub(in crate::pack) struct Annotated {
    pub(in crate::pack) id: u64,
    pub(in crate::pack) width: u32,
    pub(in crate::pack) height: u32,
    /// Annotations of it that were left out before, for their classes are not known.
    pub(in crate::pack) lost: u64,
    /// With the index of its class.
    pub(in crate::pack) annotations: Vec<(u32, Annotation)>,
}
