//! What DINO reports, and the ways in which it learns nothing.

use super::GLOBAL_CROPS;
use crate::objective::teacher::TEACHER_MOMENTUM;
use crate::objective::{Baseline, Better, CollapseRule, Judged, Number, Role, Unit};

/// The numbers.
pub(super) const NUMBERS: &[Number] = &[
    Number {
        name: "distillation",
        help: "Cross-entropy of the student's outputs for a crop with the teacher's for another crop of the image, in nats.",
        role: Role::Term,
        unit: Unit::Nats,
        better: Better::Lower,
        baseline: None,
    },
    Number {
        name: "teacher_entropy",
        help: "Entropy of the teacher's outputs, in nats; ln K = it says nothing of an image.",
        role: Role::Measure,
        unit: Unit::Nats,
        better: Better::Neither,
        baseline: None,
    },
    Number {
        name: "teacher_divergence",
        help: "Divergence of the student's outputs from the teacher's, KL(teacher‖student), in nats.",
        role: Role::Measure,
        unit: Unit::Nats,
        better: Better::Neither,
        baseline: None,
    },
    Number {
        name: "descriptor_spread",
        help: "How far the teacher's class tokens point in different directions: their standard deviation among the images that are processed \
               together, times the root of the width; 0 = all alike, 1 = as random directions.",
        role: Role::Measure,
        unit: Unit::Plain,
        better: Better::Higher,
        baseline: None,
    },
    Number {
        name: "ibot",
        help: "Cross-entropy of the student's outputs for hidden patches with the teacher's, who sees them: the mean over the hidden patches of a global crop, \
               then over all global crops, where one without hidden patches counts 0; in nats.",
        role: Role::Term,
        unit: Unit::Nats,
        better: Better::Lower,
        baseline: Some(Baseline {
            number: "ibot_guess",
            who: "guessing",
        }),
    },
    Number {
        name: "koleo",
        help: "Minus the mean log distance of an image's class token to the nearest other one of the batch, at length 1, summed over both global crops; \
               0 = distances of 1, 18.4 for each crop = equal pictures.",
        role: Role::Term,
        unit: Unit::Nats,
        better: Better::Lower,
        baseline: None,
    },
    Number {
        name: "patch_teacher_entropy",
        help: "Entropy of the teacher's outputs for hidden patches, in nats; a mean as that of ibot.",
        role: Role::Measure,
        unit: Unit::Nats,
        better: Better::Neither,
        baseline: None,
    },
    Number {
        name: "ibot_guess",
        help: "What ibot is where all outputs are equally likely: ln K times the share of crops with hidden patches.",
        role: Role::Measure,
        unit: Unit::Nats,
        better: Better::Neither,
        baseline: None,
    },
    Number {
        name: "masked_crops",
        help: "Share of global crops with hidden patches, 0 to 1.",
        role: Role::Measure,
        unit: Unit::Share,
        better: Better::Neither,
        baseline: None,
    },
    Number {
        name: "teacher_temperature",
        help: "Temperature of the teacher's outputs, as its warm-up has come to.",
        role: Role::Measure,
        unit: Unit::Plain,
        better: Better::Neither,
        baseline: None,
    },
    TEACHER_MOMENTUM,
];

/// The ways to collapse.
pub(super) const COLLAPSE: &[CollapseRule] = &[
    DISTILLATION_AT_CHANCE,
    TEACHER_UNIFORM,
    TEACHER_CONSTANT,
    PATCHES_AT_CHANCE,
    PATCH_TEACHER_UNIFORM,
    PATCH_TEACHER_CONSTANT,
    CLASS_TOKENS_ALIKE,
];

/// Share of ln K that a number may be off and still count as it, or as 0.
const NEAR: f64 = 0.01;

/// A number of the interval as a share of ln K.
fn share_of_ln_k(at: &Judged<'_>, number: &str) -> Option<f64> {
    Some(at.mean(number)? / (at.chance)("distillation")?)
}

const DISTILLATION_AT_CHANCE: CollapseRule = CollapseRule {
    name: "distillation_at_chance",
    help: "the loss is ln K, as if all outputs were equally likely: the student tells nothing apart",
    remedy: "lower `objective.teacher_temperature` (0.02 to 0.04), fewer `objective.prototypes`, a larger `train.batch`, a longer \
             `objective.freeze_last_layer_steps`",
    holds: |at| share_of_ln_k(at, "distillation").is_some_and(|share| (share - 1.0).abs() < NEAR),
};

const TEACHER_UNIFORM: CollapseRule = CollapseRule {
    name: "teacher_uniform",
    help: "the entropy of the teacher is ln K: it says the same of all outputs, and there is nothing to learn from it",
    remedy: "lower `objective.teacher_temperature`, fewer `objective.prototypes`, a larger `train.batch`",
    holds: |at| share_of_ln_k(at, "teacher_entropy").is_some_and(|share| share > 1.0 - NEAR),
};

const TEACHER_CONSTANT: CollapseRule = CollapseRule {
    name: "teacher_constant",
    help: "the teacher is sure of its outputs and the student agrees: they are the same for every image",
    remedy: "raise `objective.teacher_temperature` a little, lower `objective.centre_momentum` or `optim.lr`",
    holds: |at| {
        ["teacher_entropy", "teacher_divergence"]
            .iter()
            .all(|n| share_of_ln_k(at, n).is_some_and(|share| share.abs() < NEAR))
    },
};

/// A number of the hidden patches as a share of ln K: it grows with the share of crops that hide some, of which an interval has by chance more or fewer.
fn share_of_patches_ln_k(at: &Judged<'_>, number: &str) -> Option<f64> {
    Some(at.mean(number)? / at.mean("ibot_guess")?)
}

const PATCHES_AT_CHANCE: CollapseRule = CollapseRule {
    name: "patches_at_chance",
    help: "the loss of hidden patches is ln K for each, as if all outputs were equally likely: the student tells no patches apart",
    remedy: "lower `objective.teacher_temperature`, a longer `objective.freeze_last_layer_steps`, `objective.separate_heads = true` with fewer \
             `objective.ibot_prototypes`",
    holds: |at| share_of_patches_ln_k(at, "ibot").is_some_and(|share| (share - 1.0).abs() < NEAR),
};

const PATCH_TEACHER_UNIFORM: CollapseRule = CollapseRule {
    name: "patch_teacher_uniform",
    help: "the teacher's entropy of hidden patches is ln K: it says the same of all outputs, and patches teach nothing",
    remedy: "lower `objective.teacher_temperature`, `objective.separate_heads = true` with fewer `objective.ibot_prototypes`",
    holds: |at| share_of_patches_ln_k(at, "patch_teacher_entropy").is_some_and(|share| share > 1.0 - NEAR),
};

const PATCH_TEACHER_CONSTANT: CollapseRule = CollapseRule {
    name: "patch_teacher_constant",
    help: "the teacher is sure of hidden patches and the student agrees: the outputs are the same for every patch",
    remedy: "`objective.centring = \"sinkhorn\"` in a new run, a lower `objective.centre_momentum` or `optim.lr`, a higher `objective.teacher_temperature`",
    holds: |at| {
        ["ibot", "patch_teacher_entropy"]
            .iter()
            .all(|n| share_of_patches_ln_k(at, n).is_some_and(|share| share.abs() < NEAR))
    },
};

/// Distance to the nearest neighbour, of vectors of length 1, under which class tokens are alike.
const ALIKE: f64 = 1e-3;

const CLASS_TOKENS_ALIKE: CollapseRule = CollapseRule {
    name: "class_tokens_alike",
    help: "the nearest class token of another image is closer than a thousandth of their length: all images look the same, or the set holds the same \
           picture many times",
    remedy: "`splitmask pack --drop-duplicates`, a higher `objective.koleo_weight`, a lower `optim.lr`",
    holds: |at| at.mean("koleo").is_some_and(|koleo| koleo / f64::from(GLOBAL_CROPS) > -ALIKE.ln()),
};
