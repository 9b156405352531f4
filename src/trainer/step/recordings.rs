//! What a run has recorded of its steps (`train.cuda_graph`), one recording for each shape of input.

use std::rc::Rc;

use tch::Tensor;

use crate::objective::ObjectiveConfig;
use crate::tensor::StepInput;
use crate::trainer::error::TrainError;

/// Launches what was recorded.
pub(super) type Launch = Box<dyn Fn() -> Result<(), TrainError>>;

/// The recordings of a run. No checkpoint holds them, for they change no number.
#[derive(Default)]
pub(in crate::trainer) struct Recordings {
    /// The settings that were recorded.
    pub(super) objective: Option<ObjectiveConfig>,
    /// Passes by these settings so far, as far as they matter.
    pub(super) seen: u32,
    pub(super) all: Vec<Recording>,
    /// Whether a recording failed; no other is tried.
    pub(super) given_up: bool,
    /// Why nothing is recorded, as it was told.
    pub(super) told: Option<&'static str>,
}

/// One shape of input. All tensors of it belong to the recording, and each launch writes them anew.
pub(super) struct Recording {
    pub(super) launch: Launch,
    pub(super) input: Rc<StepInput>,
    pub(super) params: Vec<Tensor>,
    pub(super) grads: Vec<Tensor>,
    /// Numbers by name.
    pub(super) scalars: Vec<(&'static str, Tensor)>,
    /// Largest word that a pass has checked against the vocabulary.
    pub(super) largest_word: u32,
}

impl Recordings {
    /// Gives the memory of the recordings back for good, where a step lacks it. Answers whether there were any.
    pub(in crate::trainer) fn make_room(&mut self) -> bool {
        let any = !self.all.is_empty();
        if any {
            self.all.clear();
            self.given_up = true;
            tracing::warn!("train.cuda_graph: a step does not fit into memory beside the recorded ones, which are given up");
        }
        any
    }
}

impl Recording {
    /// Whether an input has the shapes of the one that was recorded.
    pub(super) fn fits(&self, input: &StepInput) -> bool {
        let (own, new) = (self.input.tensors(), input.tensors());
        own.len() == new.len() && own.iter().zip(new).all(|(own, new)| own.size() == new.size())
    }

    /// Launches on another input.
    ///
    /// # Errors
    /// What libtorch said.
    pub(super) fn replay(&self, input: &StepInput) -> Result<Vec<(&'static str, Tensor)>, TrainError> {
        for (own, new) in self.input.tensors().into_iter().zip(input.tensors()) {
            own.shallow_clone().f_copy_(new)?;
        }
        self.launched()
    }

    /// Leaves the gradients with the parameters and answers copies of the numbers, which the next launch leaves alone.
    ///
    /// # Errors
    /// What libtorch said.
    pub(super) fn launched(&self) -> Result<Vec<(&'static str, Tensor)>, TrainError> {
        (self.launch)()?;
        torch_ext::set_grads(&self.params, &self.grads)?;
        let values: Vec<&Tensor> = self.scalars.iter().map(|(_, value)| value).collect();
        let values = Tensor::f_stack(&values, 0)?.f_unbind(0)?;
        Ok(self.scalars.iter().map(|(name, _)| *name).zip(values).collect())
    }
}
