//! What is learnt from a step. An objective is one file under `pretrain`, with its settings, and one row in [`OBJECTIVES`]; docs/extending.md
//! shows how.
//!
//! Three things carry it: a [`Kind`] is the row, known before any settings are read; a [`Plan`] is the kind with settings, checked by their owner;
//! an [`Objective`] is the network that a plan builds.

mod classes;
mod collapse;
mod coupled;
mod error;
mod frequencies;
mod input;
mod kind;
mod losses;
mod masked;
mod predicted_words;
pub mod pretrain;
mod registry;
mod sheet;
mod teacher;
pub mod transfer;
mod two_views;

use std::any::Any;
use std::fmt::Debug;

use splitmask_pipeline::request::{ColourConfig, CropConfig, SampleRequest};
use tch::Tensor;
use tch::nn::Path;
use toml::Table;
use torch_ext::ranks::Ranks;

pub use crate::telemetry::number::{Baseline, Better, Number, Panel, Role, Unit};
pub use collapse::{CollapseRule, Judged};
pub use coupled::{BetweenImages, MixedImages};
pub use error::ObjectiveError;
pub use input::{image, square_view};
pub use kind::{Kind, read, table};
pub use losses::Losses;
pub use pretrain::OBJECTIVES;
pub use registry::{ObjectiveConfig, kind};
pub use sheet::{Column, Sheet};
pub use two_views::Pool;

use crate::head::UperNetShape;
use crate::head::mask_rcnn::Found;
use crate::model::config::VitConfig;
use crate::model::{BatchRows, Vit};
use crate::optim::ParamRule;
use crate::setting::{Fitting, Violation};
use crate::tensor::StepInput;

/// What a plan meets: everything outside its own table that it may depend on.
#[derive(Debug, Clone, Copy)]
pub struct Scope<'a> {
    /// `[model]`.
    pub model: &'a VitConfig,
    /// `[augment.crop]`.
    pub crop: CropConfig,
    /// `[augment.colour]`.
    pub colour: ColourConfig,
    /// Images of an optimizer step, `train.batch`: in however many parts they are processed, a loss between images sees all of them.
    pub batch: u32,
    /// Steps of the schedule, `optim.total_steps`.
    pub steps: u64,
    /// Visual words V; 0 where none are loaded, as when a config is checked.
    pub words: i64,
    /// Images of each class of `data.train` (or pixels, where the classes are theirs), as its manifest counts them; empty where there are none or nobody knows.
    pub label_counts: &'a [u64],
}

impl<'a> Scope<'a> {
    /// A scope with the default crop and colours, and a schedule without an end.
    #[must_use]
    pub fn new(model: &'a VitConfig, batch: u32, words: i64) -> Self {
        Self {
            model,
            crop: CropConfig::default(),
            colour: ColourConfig::default(),
            batch,
            steps: u64::MAX,
            words,
            label_counts: &[],
        }
    }
}

/// Where in a training a forward pass stands. Equal contexts, weights and inputs give equal losses.
#[derive(Debug, Clone)]
pub struct StepContext {
    /// Optimizer steps done before.
    pub step: u64,
    /// Steps of the schedule, `optim.total_steps`: for what changes over a training, such as a teacher's momentum.
    pub total: u64,
    /// Training draws drop path from libtorch's generator of the device; an evaluation draws nothing.
    pub train: bool,
    /// For draws on the host: a function of the run's seed and the step alone.
    pub seed: u64,
    /// Which images of the step's batch this pass sees.
    pub rows: BatchRows,
    /// Who has the others of that batch: what looks at several images at once asks them. All ranks make the same calls in the same order.
    pub ranks: Ranks,
}

impl StepContext {
    /// A pass over `images` images that is no training: after `step` of `total` steps.
    #[must_use]
    pub fn evaluation(step: u64, total: u64, images: i64) -> Self {
        Self {
            step,
            total,
            train: false,
            seed: 0,
            rows: BatchRows {
                start: 0,
                len: images,
                total: images,
                stride: 1,
            },
            ranks: Ranks::alone(),
        }
    }

    /// Who shares the batch of a training pass; `None` for an evaluation.
    #[must_use]
    pub fn training(&self) -> Option<&Ranks> {
        self.train.then_some(&self.ranks)
    }
}

/// Which weights a new run may start from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// Drawn ones, or those of `run.init_from`.
    Any,
    /// Those of `run.init_from`; drawn ones are a baseline, and told.
    BetterPretrained,
    /// Only those of `run.init_from`, because of what is named.
    Pretrained(&'static str),
}

/// What the classes are of that a plan learns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClassesOf {
    /// Images: `.cls` members.
    Images,
    /// Pixels: label maps.
    Pixels,
    /// Objects: boxes and masks.
    Objects,
}

/// A kind with its settings.
pub trait Plan: Any + Debug + Send + Sync {
    /// The row that it was read through.
    fn kind(&self) -> &'static Kind;

    /// All its settings without `kind`, in such a form that the kind's `read` gives an equal plan: [`table`] for a struct of serde's.
    fn table(&self) -> Table;

    /// Makes room for what was set: defaults that do not fit `at` are replaced, as far as a value that fits is known.
    fn fit(&mut self, at: &Scope<'_>, fitting: &mut Fitting<'_>) {
        let _ = (at, fitting);
    }

    /// Everything that is wrong with the settings by themselves or beside `at`; none = [`Plan::build`] and [`Plan::request`] are safe to call.
    fn check(&self, at: &Scope<'_>) -> Vec<Violation>;

    /// What is allowed and probably not meant, in words.
    fn oddities(&self, at: &Scope<'_>) -> Vec<String> {
        let _ = at;
        vec![]
    }

    /// What the pipeline must make of each sample.
    fn request(&self, at: &Scope<'_>) -> SampleRequest;

    /// The network, its parameters under `vs`. Draws from libtorch's CPU generator in a fixed order: seed it first.
    fn build(&self, vs: &Path<'_>, at: &Scope<'_>) -> Box<dyn Objective>;

    /// Which weights a new run may start from.
    fn start(&self) -> Start {
        Start::Any
    }

    /// Classes of the labels of `data.train`, for a plan that learns them: 0 = as many as its manifest names. With it the trainer refuses a set without
    /// labels, hands the counts of classes over in [`Scope::label_counts`], and keeps the names of the classes in checkpoints.
    fn classes(&self) -> Option<u32> {
        None
    }

    /// What those classes are of.
    fn classes_of(&self) -> ClassesOf {
        ClassesOf::Images
    }

    /// What its head of classes sees of an image, for a plan that learns them.
    fn class_pool(&self) -> Option<Pool> {
        None
    }

    /// What of the tokens its loss sees; a feature should be the first of them.
    fn learns_by(&self) -> &'static [Pool] {
        self.class_pool().unwrap_or(Pool::Mean).alone()
    }

    /// Those of its settings that its loss on the validation set depends on.
    fn judged_by(&self) -> Table {
        self.table()
    }

    /// Why its loss on the validation set at one step says nothing beside that at another one, to be read behind "because"; none: they compare.
    fn incomparable(&self) -> Option<&'static str> {
        None
    }

    /// What is allowed and probably not meant of its settings beside a training set of `samples` images, as sentences.
    fn odd_with(&self, samples: u64) -> Vec<String> {
        let _ = samples;
        vec![]
    }

    /// The UperNet that its classes of pixels are told apart by, for a plan that has one: what an export must know of it.
    fn pyramid(&self, model: &VitConfig) -> Option<UperNetShape> {
        let _ = model;
        None
    }

    /// What guessing would score in the number of that name, where it is known.
    fn chance(&self, number: &str, at: &Scope<'_>) -> Option<f64> {
        let _ = (number, at);
        None
    }

    /// What a new network scores in the number of that name, before its first step: that of guessing, unless its initialisation makes it dearer.
    fn at_start(&self, number: &str, at: &Scope<'_>) -> Option<f64> {
        self.chance(number, at)
    }

    /// Floating point operations of a forward pass over one image, losses left out: sums of [`crate::model::linear_flops`] and
    /// [`crate::model::block_flops`].
    fn forward_flops(&self, at: &Scope<'_>) -> f64;

    /// Whether a training on several ranks gives what one on a single rank gives, up to the rounding of sums. A pass averages gradients over the ranks,
    /// takes means of equal shares of a batch, sums counts, and brings the images of all ranks to [`BetweenImages`] and [`MixedImages`]. Whatever else
    /// looks at several images of a batch (batch normalisation, a centre) must ask [`StepContext::ranks`], or it is another training.
    ///
    /// # Errors
    /// Why not, to be read behind "because"; several ranks are then refused. So is a plan that does not say.
    fn over_ranks(&self) -> Result<(), &'static str> {
        Err("nobody has shown that its losses are those of the whole batch there")
    }

    /// What of its steps libtorch has no algorithm for on a GPU that gives the same bits each time; `train.deterministic` is then refused there.
    fn undetermined(&self) -> Option<&'static str> {
        None
    }

    /// Whether a batch must go through in one piece, as BatchNorm asks; then `train.accumulate` is 1 and a lack of memory ends the run.
    fn whole_batch(&self) -> bool {
        false
    }
}

/// The settings behind a plan, if they are a `T`.
///
/// # Errors
/// [`ObjectiveError::Kind`] for those of another kind than `objective`.
pub fn settings<'a, T: Plan>(plan: &'a dyn Plan, objective: &Kind) -> Result<&'a T, ObjectiveError> {
    let any: &dyn Any = plan;
    any.downcast_ref().ok_or(ObjectiveError::Kind {
        objective: objective.name,
        got: plan.kind().name,
    })
}

/// One way to learn, as a network. Owns its modules; sees no queue, clock or file.
pub trait Objective: Debug + Send {
    /// Losses of some images.
    ///
    /// # Errors
    /// The batch lacks something, or does not fit the model.
    fn forward(&self, x: &StepInput, ctx: &StepContext) -> Result<Losses, ObjectiveError>;

    /// The encoder that is evaluated and exported: the student, or a teacher. Its parameters stand at the root of the variable store under timm's
    /// names, where `export` and `run.init_from` look for them; those of another encoder beside it stand under a prefix.
    fn encoder(&self) -> &Vit;

    /// Takes over the settings whose class is live, and no others.
    ///
    /// # Errors
    /// [`ObjectiveError::Kind`].
    fn take_live(&mut self, plan: &dyn Plan) -> Result<(), ObjectiveError>;

    /// The term between the images of a batch, if there is one: with it a batch can be processed in parts and every image still sees all others.
    fn between_images(&self) -> Option<&dyn BetweenImages> {
        None
    }

    /// The loss of a part of a batch, where the images are mixed in pairs: what [`Objective::forward`] is for a whole batch.
    fn mixed_images(&self) -> Option<&dyn MixedImages> {
        None
    }

    /// Whether one training pass does the same as the next, but for images, weights and the draws of the device's generator: nothing of it depends on
    /// [`StepContext::step`] or its seed, comes from the host or goes there, or is kept for [`Objective::after_step`]. Then a recording of it
    /// (`train.cuda_graph`) can stand for it.
    fn repeats(&self) -> bool {
        false
    }

    /// What follows an optimizer step: averages of weights, a centre. Where the scalar `skipped` (f32, on the device) is 1, the step was held back and
    /// nothing may change; it must not be read by the host.
    ///
    /// # Errors
    /// What libtorch said.
    fn after_step(&mut self, ctx: &StepContext, skipped: &Tensor) -> Result<(), ObjectiveError> {
        let _ = (ctx, skipped);
        Ok(())
    }

    /// The first step (counted from 0) whose losses have a gradient for that parameter. Before it no gradient comes to it, and no rank waits for one.
    fn frozen_until(&self, name: &str) -> u64 {
        let _ = name;
        0
    }

    /// How the optimizer treats a parameter.
    fn rule(&self, name: &str, dims: &[i64]) -> ParamRule {
        ParamRule::by_name(name, dims, self.encoder().layers_below_top(name))
    }

    /// Logits of the classes that it learns, f32 B×K, of normalised images B×3×S×S, as an evaluation sees them; `None` where it learns none.
    fn class_logits(&self, images: &Tensor) -> Option<Tensor> {
        let _ = images;
        None
    }

    /// Logits of the classes of pixels that it learns, f32 B×K×h×w, of normalised images B×3×S×S, as an evaluation sees them: to be resized to the image,
    /// bilinearly. `None` where it learns none.
    fn pixel_logits(&self, images: &Tensor) -> Option<Tensor> {
        let _ = images;
        None
    }

    /// Objects that it finds in normalised canvases B×3×S×S, as an evaluation sees them; `sizes`: what of its canvas, from the left and the top, each
    /// picture fills, width and height in pixels. `None` where it finds none.
    fn objects(&self, images: &Tensor, sizes: &[[f32; 2]]) -> Option<Vec<Found>> {
        let _ = (images, sizes);
        None
    }

    /// Whether a parameter belongs to the head that tells classes apart. `run.init_from` hands such a one on to a run of the same classes only.
    fn is_class_head(&self, name: &str) -> bool {
        let _ = name;
        false
    }

    /// Whether a parameter belongs to that head or stands between it and the encoder. `run.init_from` hands these on to a run of the same classes all or none.
    fn is_head(&self, name: &str) -> bool {
        self.is_class_head(name)
    }

    /// Pictures of what it makes of some images, without gradient.
    ///
    /// # Errors
    /// As [`Objective::forward`].
    fn pictures(&self, x: &StepInput) -> Result<Vec<Sheet>, ObjectiveError> {
        let _ = x;
        Ok(vec![])
    }
}
