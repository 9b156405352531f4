//! What is learnt from a step. Adding one: a file here, a variant in `config`, an entry in [`OBJECTIVES`], an arm in [`build`].

mod beit;
pub mod config;
mod splitmask;
mod validate;

use splitmask_pipeline::types::{ColourConfig, CropConfig, ViewPlan};
use tch::Tensor;
use tch::nn::Path;

pub use beit::Beit;
pub use splitmask::SplitMask;

use crate::model::Vit;
use crate::model::config::VitConfig;
use crate::objective::config::ObjectiveConfig;
use crate::optim::ParamRule;
use crate::tensor::{Parts, StepInput};

/// What a forward pass answers; scalars on the device, none of them read by the host yet.
#[derive(Debug)]
pub struct Losses {
    /// Weighted sum, to be differentiated.
    pub total: Tensor,
    /// Unweighted terms by name, detached.
    pub terms: Vec<(&'static str, Tensor)>,
    /// Other numbers by name, without gradient.
    pub stats: Vec<(&'static str, Tensor)>,
    /// i64 V: how often each word was predicted where it was not seen; none where no words are predicted. Counts, because those of a batch's parts
    /// have a sum.
    pub predicted: Option<Tensor>,
}

/// What one branch makes of an image: for the inpainting picture.
#[derive(Debug)]
pub struct Branch {
    /// `A`, `B`, or `masked`.
    pub name: &'static str,
    /// i64 B×K: patches that it saw.
    pub seen: Tensor,
    /// i64 B×N: its most likely word of each patch; of interest where the patch was not seen.
    pub words: Tensor,
}

/// Predictions of all branches.
#[derive(Debug)]
pub struct Prediction {
    /// One per branch.
    pub branches: Vec<Branch>,
}

/// Why a batch was refused or settings could not be applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ObjectiveError {
    /// The batch lacks something the objective asked for in its view plan.
    #[error("objective {objective}: the batch has no {what}; it must be built from the objective's view plan")]
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
}

/// A loss between the images of a batch that needs no more of each than a descriptor. Its gradient is taken in two passes (gradient cache, arXiv
/// 2101.06983): all descriptors without graph, the loss's gradient for them, then each part again, with its share of that gradient.
pub trait Coupling {
    /// Losses of a part without the coupling term, and its descriptors: f32, branches × images × width, with their graph.
    ///
    /// # Errors
    /// As [`Objective::forward_t`].
    fn separable(&self, input: &StepInput, train: bool) -> Result<(Losses, Tensor), ObjectiveError>;

    /// The coupling term of a whole batch's descriptors.
    fn couple(&self, descriptors: &Tensor) -> Losses;
}

/// One way to learn from unlabelled images. Owns its modules; sees no queue, clock or file.
pub trait Objective: Send + std::fmt::Debug {
    /// Name in settings and checkpoints.
    fn name(&self) -> &'static str;

    /// What the pipeline must build for each sample.
    fn views(&self, crop: CropConfig, colour: ColourConfig) -> ViewPlan;

    /// Losses of a batch. Training draws drop path from libtorch's generator of the device.
    ///
    /// # Errors
    /// The batch lacks something, or does not fit the model.
    fn forward_t(&self, input: &StepInput, train: bool) -> Result<Losses, ObjectiveError>;

    /// Takes over loss weights, temperature, negatives and drop path; everything else in `config` is left as it was built.
    ///
    /// # Errors
    /// Settings of another kind.
    fn apply_live(&mut self, config: &ObjectiveConfig) -> Result<(), ObjectiveError>;

    /// The term that couples the images of a batch, if there is one: with it a batch can be processed in parts and every image still sees all others.
    fn coupling(&self) -> Option<&dyn Coupling> {
        None
    }

    /// Floating point operations of a forward pass over one image, losses left out; see [`crate::model::block_flops`].
    fn forward_flops(&self) -> f64;

    /// The encoder that is evaluated and exported.
    fn backbone(&self) -> &Vit;

    /// What each branch would paint, without gradient; `None` if the objective predicts no words.
    ///
    /// # Errors
    /// As [`Objective::forward_t`].
    fn predict(&self, input: &StepInput) -> Result<Option<Prediction>, ObjectiveError>;

    /// How the optimizer treats a parameter.
    fn param_rule(&self, name: &str, dims: &[i64]) -> ParamRule {
        ParamRule::by_name(name, dims, self.backbone().layers_below_top(name))
    }
}

/// An entry of the registry.
#[derive(Debug, Clone, Copy)]
pub struct ObjectiveEntry {
    /// `objective.kind`.
    pub name: &'static str,
    /// One line.
    pub doc: &'static str,
    /// Where it is described.
    pub reference: &'static str,
    /// Its default settings.
    pub default: fn() -> ObjectiveConfig,
}

/// All objectives.
pub static OBJECTIVES: &[ObjectiveEntry] = &[
    ObjectiveEntry {
        name: splitmask::NAME,
        doc: "split the patches in two, inpaint each half from the other, match the halves of an image",
        reference: "arXiv 2112.10740 §4",
        default: || ObjectiveConfig::Splitmask(config::SplitMaskConfig::default()),
    },
    ObjectiveEntry {
        name: beit::NAME,
        doc: "predict the visual words of masked patches from all positions",
        reference: "arXiv 2106.08254 §2",
        default: || ObjectiveConfig::Beit(config::BeitConfig::default()),
    },
];

/// Builds the objective of `config` with its parameters under `vs` (the backbone at the root, so that its names are timm's). Draws from
/// libtorch's CPU generator in a fixed order: seed it first. The settings must have passed [`ObjectiveConfig::validate`].
#[must_use]
pub fn build(config: &ObjectiveConfig, model: &VitConfig, vocabulary: i64, vs: &Path<'_>) -> Box<dyn Objective> {
    match config {
        ObjectiveConfig::Splitmask(c) => Box::new(SplitMask::new(vs, c, model, vocabulary)),
        ObjectiveConfig::Beit(c) => Box::new(Beit::new(vs, c, model, vocabulary)),
    }
}

/// The checked parts of a batch that masked image modelling needs.
pub(crate) struct MaskedInput<'a> {
    pub(crate) image: &'a Tensor,
    pub(crate) words: Option<&'a Tensor>,
    pub(crate) parts: &'a Parts,
}

/// Checks view 0, words (if a vocabulary is given) and parts against the model.
pub(crate) fn masked_input<'a>(
    objective: &'static str,
    input: &'a StepInput,
    vit: &Vit,
    vocabulary: Option<i64>,
) -> Result<MaskedInput<'a>, ObjectiveError> {
    let image = input.views.first().ok_or(ObjectiveError::Lacks { objective, what: "view" })?;
    let parts = input.parts.as_ref().ok_or(ObjectiveError::Lacks { objective, what: "mask" })?;
    let shape = |what, got: Vec<i64>, want: Vec<i64>| {
        if got == want {
            Ok(())
        } else {
            Err(ObjectiveError::Shape {
                objective,
                what,
                got,
                want: format!("{want:?}"),
            })
        }
    };
    let n = (vit.image() / vit.patch()).pow(2);
    shape("view 0", image.size(), vec![input.len, 3, vit.image(), vit.image()])?;
    shape("the mask", vec![input.len, parts.patches], vec![input.len, n])?;
    if parts.seen_a.size()[1] == 0 {
        return Err(ObjectiveError::Lacks {
            objective,
            what: "patch in set A of the mask",
        });
    }
    let words = match vocabulary {
        None => None,
        Some(vocabulary) => {
            let words = input.words.as_ref().ok_or(ObjectiveError::Lacks {
                objective,
                what: "visual words",
            })?;
            shape("visual words", words.size(), vec![input.len, n])?;
            if i64::from(input.largest_word) >= vocabulary {
                return Err(ObjectiveError::Word {
                    objective,
                    word: input.largest_word,
                    vocabulary,
                });
            }
            Some(words)
        }
    };
    Ok(MaskedInput { image, words, parts })
}
