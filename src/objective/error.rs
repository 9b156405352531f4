//! Why an objective cannot do what it is asked.

use torch_ext::ranks::RanksError;

/// Why a batch was refused or settings could not be applied.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ObjectiveError {
    /// The batch lacks something the objective asked for in its request.
    #[error("objective {objective}: the batch has no {what}; it must be made as the objective requests")]
    Lacks {
        /// Who refuses.
        objective: &'static str,
        /// What is missing.
        what: &'static str,
    },
    /// A tensor has another shape than the model asks for.
    #[error("objective {objective}: {what} is {got:?}, the model asks for {want}")]
    Shape {
        /// Who refuses.
        objective: &'static str,
        /// Which tensor.
        what: &'static str,
        /// Its shape.
        got: Vec<i64>,
        /// What was expected.
        want: String,
    },
    /// A visual word beyond the vocabulary: a codebook of another size.
    #[error("objective {objective}: visual word {word} in the batch, the head knows {vocabulary} (0 to {}); the codebook is another one", vocabulary - 1)]
    Word {
        /// Who refuses.
        objective: &'static str,
        /// The largest word.
        word: u32,
        /// Size of the head.
        vocabulary: i64,
    },
    /// Live settings of another kind of objective.
    #[error("objective.kind = \"{got}\": the running objective is {objective}; the kind cannot change during a run")]
    Kind {
        /// Who refuses.
        objective: &'static str,
        /// The kind in the settings.
        got: &'static str,
    },
    /// libtorch said no.
    #[error("libtorch: {0}")]
    Torch(String),
    /// The ranks that share the batch are no longer together.
    #[error("{0}")]
    Ranks(Box<RanksError>),
}

impl From<RanksError> for ObjectiveError {
    fn from(e: RanksError) -> Self {
        Self::Ranks(Box::new(e))
    }
}

impl From<torch_ext::TorchError> for ObjectiveError {
    fn from(e: torch_ext::TorchError) -> Self {
        Self::Torch(e.to_string())
    }
}
