//! Why an evaluation could not be made, and the fence around work that must not end training.

use std::panic::{AssertUnwindSafe, catch_unwind};

use splitmask_pipeline::error::PipelineError;

use crate::exit::{CliError, ExitCode, panic_text};
use crate::objective::ObjectiveError;
use crate::optim::OptimError;
use crate::tensor::TensorError;

/// Why an evaluation could not be made.
#[derive(Debug, thiserror::Error)]
pub enum EvalError {
    /// The shards hold no `.cls` member.
    #[error("{place}: no sample has a label: evaluations need shards with .cls members (`splitmask pack` writes them from folder names)")]
    NoLabels {
        /// The set.
        place: String,
    },
    /// No sample has a label map that belongs to it.
    #[error("{place}: no sample has a label map that fits; the first: {example}")]
    NoMaps {
        /// The set.
        place: String,
        /// What is wrong with the first one.
        example: String,
    },
    /// No sample has objects that belong to it.
    #[error("{place}: no sample has objects that fit; the first: {example}")]
    NoObjects {
        /// The set.
        place: String,
        /// What is wrong with the first one.
        example: String,
    },
    /// The run learns no classes.
    #[error("this run learns no classes: there is nothing to tell apart")]
    NoClasses,
    /// No image is of a class that was learnt.
    #[error("{place}: none of its {images} labelled images is of a class that the run learnt; it has {theirs}, the run learnt {learnt}")]
    NoneLearnt {
        /// The set.
        place: String,
        /// Its images with a label.
        images: usize,
        /// Its classes.
        theirs: String,
        /// Those of the run.
        learnt: String,
    },
    /// The two sets have no class in common.
    #[error("no class is both in {train} ({train_classes}) and in {val} ({val_classes}): there is nothing to compare")]
    NoCommonClass {
        /// Training set.
        train: String,
        /// Its classes.
        train_classes: String,
        /// Validation set.
        val: String,
        /// Its classes.
        val_classes: String,
    },
    /// No class is frequent enough.
    #[error(
        "eval.min_class = {least}: no class of {val} has so many labelled images in {train}; the most frequent one, {class}, has {images}"
    )]
    TooFew {
        /// The setting.
        least: u32,
        /// Training set.
        train: String,
        /// Validation set.
        val: String,
        /// Most frequent class among those in both.
        class: String,
        /// Its images.
        images: usize,
    },
    /// One class alone is left, so that every answer would be right.
    #[error(
        "only the class {class} counts both in {train} and in {val}: every answer would be right, and an accuracy of 1 would say nothing"
    )]
    OneClass {
        /// Its name.
        class: String,
        /// Training set.
        train: String,
        /// Validation set.
        val: String,
    },
    /// The validation set is empty.
    #[error("{place}: no image to evaluate on")]
    Empty {
        /// The set.
        place: String,
    },
    /// One image has no spread.
    #[error("{place}: {images} image to evaluate on; the spread of features takes at least 2")]
    TooFewImages {
        /// The set.
        place: String,
        /// Its images.
        images: i64,
    },
    /// The encoder's answer is NaN or infinite.
    #[error(
        "the features of {images} of {of} images of {place} are not finite: the encoder's weights are broken, and there is nothing to measure"
    )]
    NotFinite {
        /// The set.
        place: String,
        /// Images with such features.
        images: i64,
        /// All that were looked at.
        of: i64,
    },
    /// The network's answers are NaN or infinite.
    #[error("the network's answers are not finite: its weights are broken")]
    BrokenWeights,
    /// The time for it was over.
    #[error("the time for the evaluation was over before it was done")]
    OutOfTime,
    /// As [`EvalError::OutOfTime`], of an evaluation within a run.
    #[error("the linear probe took longer than eval.linear_budget_s = {seconds} and was given up")]
    OverBudget {
        /// The setting.
        seconds: f64,
    },
    /// Reading the shards failed.
    #[error(transparent)]
    Pipeline(#[from] PipelineError),
    /// The objective refuses a batch.
    #[error(transparent)]
    Objective(ObjectiveError),
    /// libtorch failed.
    #[error("libtorch: {0}")]
    Torch(String),
    /// A picture could not be drawn or written.
    #[error("{0}")]
    Picture(String),
    /// Another rank could not make its share of the features.
    #[error("{0}")]
    OtherRank(String),
    /// The ranks are no longer together.
    #[error("{0}")]
    Ranks(String),
    /// A bug: it panicked.
    #[error("it panicked, which is a bug: {0}")]
    Panicked(String),
}

impl EvalError {
    /// Exit code of a verb that fails with it.
    #[must_use]
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::NoLabels { .. }
            | Self::NoMaps { .. }
            | Self::NoObjects { .. }
            | Self::NoClasses
            | Self::NoneLearnt { .. }
            | Self::NoCommonClass { .. }
            | Self::TooFew { .. }
            | Self::OneClass { .. }
            | Self::Empty { .. }
            | Self::TooFewImages { .. }
            | Self::NotFinite { .. }
            | Self::BrokenWeights => ExitCode::Usage,
            Self::Pipeline(e) => crate::exit::code_of_pipeline(e),
            Self::Picture(_) => ExitCode::Io,
            Self::Ranks(_) | Self::OtherRank(_) => ExitCode::Stopped,
            Self::OutOfTime | Self::OverBudget { .. } | Self::Objective(_) | Self::Torch(_) | Self::Panicked(_) => ExitCode::Internal,
        }
    }

    /// What to do next.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::TooFew { images, .. } => Some(format!("set eval.min_class to at most {images}")),
            Self::NotFinite { .. } | Self::BrokenWeights => Some("take an older checkpoint: RUN/checkpoints/step-…".into()),
            Self::OverBudget { .. } => Some("raise it, lower eval.max_reference, or set eval.probe_layers = \"last\"".into()),
            Self::OneClass { .. } => Some(
                "classes are folders of the packed images: a tree with one folder has one class; lower eval.min_class if small classes were left out"
                    .into(),
            ),
            Self::NoMaps { .. } => Some("`splitmask pack --maps` packs label maps beside the images (docs/segment.md); data.map names their extension".into()),
            Self::NoObjects { .. } => Some("`splitmask pack --coco` packs marked objects beside the images (docs/detect.md); data.objects names their extension".into()),
            Self::NoClasses => Some(
                "fine-tune it on labelled images first (docs/finetune.md), or measure its features: `splitmask eval knn` or `eval linear`".into(),
            ),
            Self::NoCommonClass { .. } | Self::NoneLearnt { .. } => {
                Some("class names come from the manifest.json of each set; pack both sets with the same folder names (images), --map-classes (label maps) or categories (objects)".into())
            }
            Self::Pipeline(e) => e.hint(),
            _ => None,
        }
    }
}

impl From<EvalError> for CliError {
    fn from(e: EvalError) -> Self {
        Self {
            code: e.exit_code(),
            hint: e.hint(),
            message: e.to_string(),
        }
    }
}

impl From<torch_ext::TorchError> for EvalError {
    fn from(e: torch_ext::TorchError) -> Self {
        Self::Torch(e.to_string())
    }
}

impl From<tch::TchError> for EvalError {
    fn from(e: tch::TchError) -> Self {
        Self::Torch(e.to_string())
    }
}

impl From<OptimError> for EvalError {
    fn from(e: OptimError) -> Self {
        Self::Torch(e.to_string())
    }
}

impl From<ObjectiveError> for EvalError {
    fn from(e: ObjectiveError) -> Self {
        Self::Objective(e)
    }
}

impl From<TensorError> for EvalError {
    fn from(e: TensorError) -> Self {
        Self::Torch(e.to_string())
    }
}

/// Runs work whose failure must end nothing else: a panic in it (tch panics where libtorch fails) is an error like any other.
///
/// # Errors
/// Its own, or [`EvalError::Panicked`].
pub fn fenced<T>(work: impl FnOnce() -> Result<T, EvalError>) -> Result<T, EvalError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| Err(EvalError::Panicked(panic_text(&*panic))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_behind_the_fence_is_an_error_in_words() {
        let index = 7;
        let error = fenced(|| -> Result<i32, EvalError> { Ok([1, 2, 3][std::hint::black_box(index)]) }).unwrap_err();
        assert!(
            error.to_string().contains("index out of bounds") && error.exit_code() == ExitCode::Internal,
            "{error}"
        );
        assert_eq!(fenced(|| Ok(3)).unwrap(), 3);
        assert!(matches!(
            fenced(|| -> Result<(), _> { Err(EvalError::OutOfTime) }),
            Err(EvalError::OutOfTime)
        ));
    }
}
