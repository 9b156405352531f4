//! What the ranks of a step have exchanged before its passes.

use tch::Tensor;

use crate::tensor::SentBatch;

/// What the images of one of several ranks are mixed with.
pub(super) struct Partners {
    /// Those that another rank has, in the order of the batch; `None` where no image is mixed.
    pub(super) images: Option<SentBatch>,
    /// Labels of the whole batch.
    pub(super) labels: Tensor,
    /// Images of a micro-batch.
    pub(super) size: usize,
    /// Who has them.
    pub(super) rank: usize,
}
