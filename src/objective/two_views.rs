//! What objectives that compare two views of an image share: the views, what a head sees of them, the numbers of the contrast and how it fails.

use serde::{Deserialize, Serialize};
use splitmask_pipeline::request::{ColourConfig, Filter, SampleRequest, ViewRequest};
use tch::Tensor;
use tch::nn::Path;

use super::{Better, CollapseRule, Losses, Number, ObjectiveError, Role, Scope, Unit, square_view};
use crate::model::{Init, Positions, Vit, VitOptions};
use crate::setting::Class::Restart;
use crate::setting::{Findings, Key, key};
use crate::tensor::StepInput;

/// Names of the views.
pub(super) const FIRST: &str = "first";
pub(super) const SECOND: &str = "second";

/// The keys of `[objective.first]` and `[objective.second]`.
pub(super) const VIEW_KEYS: &[Key] = &[
    key(Restart, "first.jitter", "probability of colour jitter in the first view"),
    key(
        Restart,
        "first.jitter_strength",
        "strengths of brightness, contrast, saturation, hue",
    ),
    key(Restart, "first.greyscale", "probability of greyscale"),
    key(Restart, "first.blur", "probability of Gaussian blur"),
    key(Restart, "first.blur_sigma", "range of the blur's sigma, pixels"),
    key(Restart, "first.solarise", "probability of solarisation"),
    key(Restart, "second.jitter", "probability of colour jitter in the second view"),
    key(
        Restart,
        "second.jitter_strength",
        "strengths of brightness, contrast, saturation, hue",
    ),
    key(Restart, "second.greyscale", "probability of greyscale"),
    key(Restart, "second.blur", "probability of Gaussian blur"),
    key(Restart, "second.blur_sigma", "range of the blur's sigma, pixels"),
    key(Restart, "second.solarise", "probability of solarisation"),
];

/// The loss between views, a [`Number`].
pub(super) const CONTRAST: Number = Number {
    name: "contrast",
    help: "Contrastive loss between the two views of an image, in nats.",
    role: Role::Term,
    unit: Unit::Nats,
    better: Better::Lower,
    baseline: None,
};

/// How often it finds the partner.
pub(super) const CONTRAST_ACCURACY: Number = Number {
    name: "contrast_accuracy",
    help: "Share of views whose partner was recognised among the batch, 0 to 1.",
    role: Role::Measure,
    unit: Unit::Share,
    better: Better::Higher,
    baseline: None,
};

/// How many dimensions projections use.
pub(super) const PROJECTION_RANK: Number = Number {
    name: "projection_rank",
    help: "Dimensions that the projections of a batch use, effectively (participation ratio of their covariance); 1 = all lie on a line.",
    role: Role::Measure,
    unit: Unit::Count,
    better: Better::Higher,
    baseline: None,
};

/// Dimensions, effectively, under which projections have collapsed.
const FEW_DIMENSIONS: f64 = 2.0;

/// The match is no better than guessing.
pub(super) const CONTRAST_AT_CHANCE: CollapseRule = CollapseRule {
    name: "contrast_at_chance",
    help: "the accuracy of the match is under twice that of guessing: all images have the same projection",
    remedy: "lower `optim.lr`, raise `train.batch` or `objective.temperature`; identical or blank images do it too",
    holds: |at| {
        let chance = (at.chance)("contrast_accuracy").unwrap_or(0.0);
        at.mean("contrast_accuracy").is_some_and(|accuracy| accuracy < 2.0 * chance)
    },
};

/// The projections use next to no dimensions.
pub(super) const PROJECTIONS_ON_A_LINE: CollapseRule = CollapseRule {
    name: "projections_on_a_line",
    help: "the projections use fewer than 2 dimensions, effectively: images are told apart by one property alone",
    remedy: "raise `objective.first.jitter_strength` and `objective.second.jitter_strength`, lower `optim.lr`, raise `objective.temperature`",
    holds: |at| at.mean("projection_rank").is_some_and(|rank| rank < FEW_DIMENSIONS),
};

/// What the projection head sees of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pool {
    /// Mean of the patch tokens.
    Mean,
    /// Class token.
    Class,
}

impl Pool {
    /// A list of nothing else.
    #[must_use]
    pub fn alone(self) -> &'static [Self] {
        match self {
            Self::Mean => &[Self::Mean],
            Self::Class => &[Self::Class],
        }
    }

    /// As a config has it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Mean => "mean",
            Self::Class => "class",
        }
    }

    /// Tokens B×(1+N)×D to B×D.
    pub(super) fn of(self, tokens: &Tensor) -> Tensor {
        match self {
            Self::Class => tokens.select(1, 0),
            Self::Mean => {
                let patches = tokens.narrow(1, 1, tokens.size()[1] - 1);
                patches.mean_dim([1i64].as_slice(), false, tch::Kind::Float)
            }
        }
    }
}

/// Colours of MoCo v3's views: they differ in blur and solarisation (arXiv 2104.02057 §5, from BYOL).
pub(super) const fn colours(blur: f32, solarise: f32) -> ColourConfig {
    ColourConfig {
        jitter: 0.8,
        jitter_strength: [0.4, 0.4, 0.2, 0.1],
        greyscale: 0.2,
        blur,
        blur_sigma: [0.1, 2.0],
        solarise,
    }
}

/// The encoder, its parameters under `vs`: begun by Xavier's rule, its patch embedding left as it was drawn if `freeze_patches` says so.
pub(super) fn encoder(vs: &Path<'_>, positions: Positions, freeze_patches: bool, at: &Scope<'_>) -> Vit {
    let options = VitOptions {
        weights: Init::XavierOfThree,
        positions,
        ..VitOptions::plain(0.0)
    };
    let vit = Vit::with(vs, at.model, &options);
    if freeze_patches {
        vit.freeze_patch_embedding();
    }
    vit
}

/// Two crops of an image, each with its colours, resized with `filter`.
pub(super) fn request([first, second]: [ColourConfig; 2], filter: Filter, at: &Scope<'_>) -> SampleRequest {
    let view = |name, colour| ViewRequest {
        crop: at.crop,
        filter,
        colour,
        ..ViewRequest::new(name, at.model.image)
    };
    SampleRequest::of_views(vec![view(FIRST, first), view(SECOND, second)])
}

/// Both views of B images as one tensor of 2B rows, the second views behind the first.
///
/// # Errors
/// As [`square_view`].
pub(super) fn both(objective: &'static str, x: &StepInput, vit: &Vit) -> Result<Tensor, ObjectiveError> {
    let view = |name| square_view(objective, x, name, vit);
    Ok(Tensor::cat(&[view(FIRST)?, view(SECOND)?], 0))
}

/// Losses of an image by itself, of which there are none: all there is lies between images. `like` says on which device.
pub(super) fn no_losses(like: &Tensor) -> Losses {
    Losses {
        total: Tensor::zeros([], (tch::Kind::Float, like.device())),
        terms: vec![],
        stats: vec![],
        counts: vec![],
        shares: vec![],
        counted: None,
    }
}

/// Checks what all of them need: colours that exist, a temperature, and other images to tell an image from.
pub(super) fn check(kind: &str, colours: [&ColourConfig; 2], temperature: f64, at: &Scope<'_>, found: &mut Findings) {
    found.temperature("objective.temperature", temperature, "0.2 for ViTs");
    found.need(
        at.batch >= FEWEST,
        "train.batch",
        at.batch,
        format!("at least {FEWEST} images with objective.kind = \"{kind}\": it tells each from the others, and its BatchNorm takes mean and deviation over them"),
    );
    colours[0].check("objective.first", found);
    colours[1].check("objective.second", found);
}

/// Of two images BatchNorm makes 1 and -1 in each dimension, whatever they are; of three it leaves one degree of freedom.
const FEWEST: u32 = 4;
/// Batches below this have few images to tell one from, and BatchNorm few rows; MoCo v3 was published with 1024 at the least (arXiv 2104.02057 §4.1).
const SMALL_BATCH: u32 = 128;

/// A batch and colours that are probably not meant.
pub(super) fn oddities(kind: &str, colours: [&ColourConfig; 2], at: &Scope<'_>) -> Vec<String> {
    let mut odd = Vec::new();
    if at.batch < SMALL_BATCH {
        odd.push(format!(
            "train.batch = {} is small for objective.kind = \"{kind}\": each image is told from the others of the batch, and BatchNorm is over it",
            at.batch
        ));
    }
    if at.colour != ColourConfig::default() {
        odd.push("augment.colour is not used: the colours of the two views are objective.first and objective.second".to_owned());
    }
    if colours.iter().all(|colour| colour.is_off()) {
        odd.push(
            "objective.first and objective.second change no colour: two crops of an image are then recognised by their colours alone"
                .to_owned(),
        );
    }
    odd
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objective::Judged;

    #[test]
    fn a_small_batch_is_told_of_with_the_kind() {
        let (model, plain) = (crate::model::config::VitConfig::default(), ColourConfig::default());
        let told = |batch| oddities("simclr", [&plain, &plain], &Scope::new(&model, batch, 0));
        assert!(told(127)[0].starts_with("train.batch = 127 is small for objective.kind = \"simclr\""));
        assert_eq!(told(128).len() + 1, told(127).len());
    }

    #[test]
    fn collapse_is_told_by_accuracy_and_by_dimensions() {
        let holds = |rule: &CollapseRule, name: &str, value: f64| {
            let means = [(name.to_owned(), value)];
            let chance = |name: &str| (name == "contrast_accuracy").then_some(1.0 / 255.0);
            let judged = Judged {
                means: &means.into(),
                chance: &chance,
            };
            (rule.holds)(&judged)
        };
        let accuracy = |value| holds(&CONTRAST_AT_CHANCE, "contrast_accuracy", value);
        assert!(accuracy(1.9 / 255.0) && !accuracy(2.1 / 255.0) && !accuracy(f64::NAN));
        let rank = |value| holds(&PROJECTIONS_ON_A_LINE, "projection_rank", value);
        assert!(rank(1.1) && !rank(2.0) && !rank(f64::NAN));
    }
}
