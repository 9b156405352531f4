//! Several processes that make the features of a set together.

use serde::{Deserialize, Serialize};
use splitmask_pipeline::types::SampleId;
use tch::Tensor;

use super::classes::Labels;
use super::data::SetName;
use super::error::EvalError;

/// Which images of a set count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Which {
    /// Those with a label.
    Labelled,
    /// All.
    All,
}

/// Features that are to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wanted {
    /// Of which set.
    pub set: SetName,
    /// Of which of its images.
    pub which: Which,
    /// Of its first so many images; 0 = all of them.
    pub most: u32,
    /// Of the layers that the evaluation names, instead of what `eval.pool` takes of the last one.
    pub layers: bool,
}

/// Features of some images of a set.
#[derive(Debug)]
pub struct Made {
    /// One N×D tensor (f32) for each place; none where there is no image.
    pub vectors: Vec<Tensor>,
    /// N: which images.
    pub ids: Vec<SampleId>,
    /// N.
    pub labels: Labels,
}

/// The processes that share the work, seen from one of them. The first one evaluates; the others make features when it asks ([`super::extract::share`]).
pub trait Helpers {
    /// This process's number and how many there are.
    fn share(&self) -> (u32, u32);

    /// The first one: has all others make their share of it.
    ///
    /// # Errors
    /// Processes that are no longer together.
    fn ask(&self, wanted: &Wanted) -> Result<(), EvalError>;

    /// Brings the shares of all to the first one, in the order of the set; `None` elsewhere. All call it behind each [`Helpers::ask`], with their share or
    /// why there is none.
    ///
    /// # Errors
    /// One that has no share fails it for all; processes that are no longer together.
    fn bring(&self, own: Result<Made, EvalError>) -> Result<Option<Made>, EvalError>;
}
