//! What a forward pass answers.

use tch::Tensor;

/// What a forward pass answers; tensors on the device, none of them read by the host yet.
#[derive(Debug)]
pub struct Losses {
    /// Weighted sum, to be differentiated.
    pub total: Tensor,
    /// Unweighted terms by the name of their [`super::Number`], detached scalars.
    pub terms: Vec<(&'static str, Tensor)>,
    /// Other scalars by the name of their [`super::Number`], without gradient.
    pub stats: Vec<(&'static str, Tensor)>,
    /// Histograms (i64, of one length for each name): the perplexity of their sum over the parts of a batch is the [`super::Number`] of that name.
    /// Counts, because those of parts have a sum and perplexities have none.
    pub counts: Vec<(&'static str, Tensor)>,
    /// Scalars over all of the images or pixels, whether terms and stats count them or not: the share that has no label, for one.
    pub shares: Vec<(&'static str, Tensor)>,
    /// Share of the batch's images or pixels that terms and stats are means over, 0 to 1; none where each counts. Means over several steps weigh each step
    /// by it, and a step of which nothing counts is not among them.
    pub counted: Option<Tensor>,
}

impl Losses {
    /// One term of weight 1 and nothing beside it.
    #[must_use]
    pub fn of_term(name: &'static str, loss: Tensor) -> Self {
        Self {
            terms: vec![(name, loss.detach())],
            stats: vec![],
            counts: vec![],
            shares: vec![],
            counted: None,
            total: loss,
        }
    }
}
