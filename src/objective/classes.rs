//! What objectives that learn classes share: how images are made harder and mixed, the network's head, their numbers and how they fail.

mod draws;
mod erasing;
mod mixing;
mod network;

use splitmask_pipeline::request::{IMAGE, RandAugment, SampleRequest, ViewRequest};

pub(super) use network::{Classifier, Parts};

use super::masked::drop_path;
use super::{Baseline, Better, CollapseRule, Number, Role, Scope, Unit};
use crate::model::{encoder_flops, linear_flops};
use crate::setting::Findings;

/// How classes are learnt from images; the keys are those of the objective that asks.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Recipe {
    /// `objective.classes`: outputs of the head; 0 = those of the manifest.
    pub(super) classes: u32,
    /// `objective.smoothing`: share of a target that is spread over all classes.
    pub(super) smoothing: f64,
    /// `objective.mixup`: parameter of the Beta distribution of blending; 0 = never.
    pub(super) mixup: f64,
    /// `objective.cutmix`: parameter of the Beta distribution of the part that is covered; 0 = never.
    pub(super) cutmix: f64,
    /// `objective.cutmix_share`: share of the steps that take CutMix where mixup is on too.
    pub(super) cutmix_share: f64,
    /// `objective.repeats`: views of an image in a batch, drawn each anew.
    pub(super) repeats: u32,
    /// `objective.rand_augment`: magnitude, 0 to 10; 0 = off.
    pub(super) rand_augment: f64,
    /// `objective.rand_augment_deviation`.
    pub(super) rand_augment_deviation: f64,
    /// `objective.erasing`: probability that a rectangle of an image becomes noise.
    pub(super) erasing: f64,
    /// `objective.drop_path`.
    pub(super) drop_path: f64,
}

/// Most views of an image in a batch: beyond it a batch holds hardly anything but copies.
const MOST_REPEATS: u32 = 16;

/// Largest parameter of a Beta distribution that is taken: beyond it all pairs are mixed half and half.
const LARGEST_ALPHA: f64 = 100.0;

impl Recipe {
    /// RandAugment as it is set.
    fn strong(&self) -> RandAugment {
        RandAugment {
            magnitude: self.rand_augment as f32,
            deviation: self.rand_augment_deviation as f32,
        }
    }

    /// Classes K; 0 where they are not known, as when a config is checked.
    pub(super) fn known_classes(&self, at: &Scope<'_>) -> usize {
        match self.classes {
            0 => at.label_counts.len(),
            classes => classes as usize,
        }
    }

    /// Checks ranges.
    pub(super) fn check(&self, found: &mut Findings) {
        let classes = self.classes;
        found.need(
            classes != 1 && classes <= 1_000_000,
            "objective.classes",
            classes,
            "0 (those of the manifest), or 2 to 1000000",
        );
        found.need(
            (0.0..1.0).contains(&self.smoothing),
            "objective.smoothing",
            self.smoothing,
            "0 (off) to below 1",
        );
        for (key, alpha) in [("objective.mixup", self.mixup), ("objective.cutmix", self.cutmix)] {
            let allowed = "0 (off), or 0.01 to 100";
            found.need(alpha == 0.0 || (0.01..=LARGEST_ALPHA).contains(&alpha), key, alpha, allowed);
        }
        found.share("objective.cutmix_share", self.cutmix_share);
        found.need(
            (1..=MOST_REPEATS).contains(&self.repeats),
            "objective.repeats",
            self.repeats,
            format!("1 (each image once) to {MOST_REPEATS}"),
        );
        found.share("objective.erasing", self.erasing);
        drop_path("objective.drop_path", self.drop_path, found);
        self.strong().check("objective.rand_augment", found);
    }

    /// Colours that are probably not meant.
    pub(super) fn oddities(&self, at: &Scope<'_>) -> Vec<String> {
        let (magnitude, jitter) = (self.rand_augment, at.colour.jitter);
        let both = magnitude > 0.0 && jitter > 0.0;
        let told =
            format!("augment.colour.jitter = {jitter} beside objective.rand_augment = {magnitude}: DeiT's code jitters no colours then");
        both.then_some(told).into_iter().collect()
    }

    /// As many views of each image as are learnt from, all alike but for what is drawn.
    pub(super) fn request(&self, at: &Scope<'_>) -> SampleRequest {
        let view = ViewRequest {
            crop: at.crop,
            rand_augment: (self.rand_augment > 0.0).then(|| self.strong()),
            colour: at.colour,
            ..ViewRequest::new(IMAGE, at.model.image)
        };
        SampleRequest::of_views(vec![view; self.repeats as usize])
    }

    /// What guessing all classes alike would score.
    pub(super) fn chance(&self, number: &str, at: &Scope<'_>) -> Option<f64> {
        let classes = Some(self.known_classes(at) as f64).filter(|classes| *classes > 0.0)?;
        match number {
            "classification" => Some(classes.ln()),
            "class_accuracy" => Some(1.0 / classes),
            _ => None,
        }
    }

    /// Floating point operations of one image's views; the encoder's count for the share `encoder`.
    pub(super) fn forward_flops(&self, at: &Scope<'_>, encoder: f64) -> f64 {
        let patches = at.model.patches();
        let head = linear_flops(1, at.model.dim(), self.known_classes(at) as i64);
        f64::from(self.repeats) * (encoder * encoder_flops(at.model, patches, patches) + head)
    }
}

/// The numbers that learning classes reports.
pub(super) const NUMBERS: &[Number] = &[
    Number {
        name: "classification",
        help: "Cross-entropy of the classes in nats, their targets smoothed and mixed as in training.",
        role: Role::Term,
        unit: Unit::Nats,
        better: Better::Lower,
        baseline: Some(Baseline {
            number: "frequency_guess",
            who: "a model that knows only how frequent each class is",
        }),
    },
    Number {
        name: "class_accuracy",
        help: "Share of the labelled images whose class is the likeliest one, 0 to 1; of a mixed image, the class that has the larger part.",
        role: Role::Measure,
        unit: Unit::Share,
        better: Better::Higher,
        baseline: Some(Baseline {
            number: "commonest_class",
            who: "a model that always says the commonest class of the set",
        }),
    },
    Number {
        name: "frequency_guess",
        help: "Cross-entropy of a guess by how frequent each class is in the manifest (without one: all alike), in nats.",
        role: Role::Measure,
        unit: Unit::Nats,
        better: Better::Neither,
        baseline: None,
    },
    Number {
        name: "commonest_class",
        help: "Share of the labelled images that are of the set's commonest class, 0 to 1; missing without a manifest.",
        role: Role::Measure,
        unit: Unit::Share,
        better: Better::Neither,
        baseline: None,
    },
    Number {
        name: "unlabelled",
        help: "Share of images without a usable label, 0 to 1: they are left out of the loss.",
        role: Role::Measure,
        unit: Unit::Share,
        better: Better::Lower,
        baseline: None,
    },
];

/// The ways in which learning classes may learn nothing.
pub(super) const COLLAPSE: &[CollapseRule] = &[
    CollapseRule {
        name: "classification_by_frequency",
        help: "the classification loss is above 98 % of that of a guess by how frequent each class is: nothing is seen in the images",
        remedy: "lower `optim.lr`, lengthen `optim.warmup_steps`; labels that do not belong to their images do it too",
        holds: |at| at.is_a_guess("classification", "frequency_guess"),
    },
    CollapseRule {
        name: "images_without_label",
        help: "more than half of the images have no usable label: few are learnt from",
        remedy: "pack again with folders as classes, or take an objective that needs no labels; `splitmask inspect` counts them",
        holds: |at| at.mean("unlabelled").is_some_and(|share| share > 0.5),
    },
];
