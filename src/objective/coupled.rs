//! Losses that couple the images of a batch, so that it can be processed in parts, and by several ranks, as one.

use tch::Tensor;

use super::{Losses, ObjectiveError, StepContext};
use crate::tensor::StepInput;

/// A loss between the images of a batch that needs no more of each than a descriptor. Its gradient is taken in two passes (gradient cache, arXiv
/// 2101.06983): all descriptors without graph, the loss's gradient for them, then each part of the batch again, with its share of that gradient.
pub trait BetweenImages {
    /// Descriptors of a part as [`BetweenImages::describe`] has them, without graph: the first pass, over all parts of a batch. What the losses of a part
    /// need to know of the others is noted here.
    ///
    /// # Errors
    /// As [`Objective::forward`](super::Objective::forward).
    fn descriptors(&self, x: &StepInput, ctx: &StepContext) -> Result<Tensor, ObjectiveError> {
        Ok(tch::no_grad(|| self.describe(x, ctx))?.1)
    }

    /// Losses of a part without the term between images, and its descriptors: f32, branches × images × width, with their graph.
    ///
    /// # Errors
    /// As [`Objective::forward`](super::Objective::forward).
    fn describe(&self, x: &StepInput, ctx: &StepContext) -> Result<(Losses, Tensor), ObjectiveError>;

    /// The term between all images of a batch, of their descriptors; called once, between the passes. Its total must depend on them. On several ranks
    /// each calls it with the descriptors of all, once.
    ///
    /// # Errors
    /// Ranks that are no longer together.
    fn compare(&self, descriptors: &Tensor, ctx: &StepContext) -> Result<Losses, ObjectiveError>;
}

/// A loss of images that are mixed in pairs: image i of a batch of B with image B−1−i. With it a batch can be processed in parts, and by several ranks,
/// and every image still meets its partner.
pub trait MixedImages {
    /// Whether it mixes any: if not, partners are not looked at, and any images may stand for them.
    fn mixes(&self) -> bool;

    /// Losses of a part of a batch, such that the mean over equal parts is the loss of the batch. `partners` are the images that the part's are mixed
    /// with, in the order of the batch: the last one belongs to the part's first. `labels` are those of the whole batch (i64 B).
    ///
    /// # Errors
    /// As [`Objective::forward`](super::Objective::forward).
    fn forward_part(&self, x: &StepInput, partners: &StepInput, labels: &Tensor, ctx: &StepContext) -> Result<Losses, ObjectiveError>;
}
