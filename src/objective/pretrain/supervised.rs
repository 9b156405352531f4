//! Supervised: tell the class of an image, as DeiT learns it (arXiv 2012.12877). What the other objectives are compared with where there are labels.

mod draws;
mod erasing;
mod mixing;
mod network;

use splitmask_pipeline::request::{IMAGE, RandAugment, SampleRequest, ViewRequest};
use tch::nn::Path;
use toml::Table;

use crate::model::{encoder_flops, linear_flops};
use crate::objective::masked::drop_path;
use crate::objective::two_views::Pool;
use crate::objective::{Baseline, Better, CollapseRule, Kind, Number, Objective, Plan, Role, Scope, Unit, read, table};
use crate::setting::{Findings, Violation, settings};

/// The row of the registry.
pub static KIND: Kind = Kind {
    name: "supervised",
    doc: "tell the class of an image, with labels: what learning without them is compared with",
    reference: "arXiv 2012.12877",
    keys: &[SupervisedConfig::KEYS],
    numbers: &[
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
    ],
    collapse: &[
        CollapseRule {
            name: "classification_by_frequency",
            help: "the classification loss is above 98 % of that of a guess by how frequent each class is: nothing is seen in the images",
            remedy: "lower `optim.lr`, lengthen `optim.warmup_steps`; labels that do not belong to their images do it too",
            holds: |at| {
                let guess = at.mean("frequency_guess").filter(|guess| *guess > 0.0);
                guess.is_some_and(|guess| at.mean("classification").is_some_and(|loss| loss > LEARNT_NOTHING * guess))
            },
        },
        CollapseRule {
            name: "images_without_label",
            help: "more than half of the images have no usable label: few are learnt from",
            remedy: "pack again with folders as classes, or take an objective that needs no labels; `splitmask inspect` counts them",
            holds: |at| at.mean("unlabelled").is_some_and(|share| share > 0.5),
        },
    ],
    sheets: &[],
    variants: || vec![Box::new(SupervisedConfig::default())],
    read: read::<SupervisedConfig>,
};

/// Share of the loss of a guess by frequency above which nothing was learnt.
const LEARNT_NOTHING: f64 = 0.98;
/// Largest parameter of a Beta distribution that is taken: beyond it all pairs are mixed half and half.
const LARGEST_ALPHA: f64 = 100.0;

settings! {
    /// DeiT's settings (arXiv 2012.12877 table 9 and the authors' code; docs/method.md §10 says which are sure).
    pub struct SupervisedConfig in "objective" {
        /// Classes of the labels, the outputs of the head; 0 = those that the manifest of `data.train` names.
        Frozen classes: u32 = 0,
        /// What the head sees of an image: the `class` token, or the `mean` of the patches.
        Frozen pool: Pool = Pool::Class,
        /// Share of a target that is spread over all classes.
        Live smoothing: f64 = 0.1,
        /// Parameter of the Beta distribution that images are blended by (mixup, arXiv 1710.09412); 0 = never.
        Live mixup: f64 = 0.8,
        /// Parameter of the Beta distribution of the part that another image covers (CutMix, arXiv 1905.04899); 0 = never.
        Live cutmix: f64 = 1.0,
        /// Share of the steps that take CutMix where mixup is on too.
        Live cutmix_share: f64 = 0.5,
        /// Magnitude of RandAugment, 0 to 10 (arXiv 1909.13719; timm's operations, increasing); 0 = off, 9 in DeiT.
        Restart rand_augment: f64 = 0.0,
        /// Standard deviation of an operation's own magnitude.
        Restart rand_augment_deviation: f64 = 0.5,
        /// Probability that a rectangle of an image becomes noise (arXiv 1708.04896).
        Live erasing: f64 = 0.25,
        /// Drop path of the encoder, linear over depth.
        Restart drop_path: f64 = 0.1,
    }
}

impl SupervisedConfig {
    /// RandAugment as it is set.
    fn strong(&self) -> RandAugment {
        RandAugment {
            magnitude: self.rand_augment as f32,
            deviation: self.rand_augment_deviation as f32,
        }
    }

    /// Classes K; 0 where they are not known, as when a config is checked.
    fn known_classes(&self, at: &Scope<'_>) -> usize {
        match self.classes {
            0 => at.label_counts.len(),
            classes => classes as usize,
        }
    }
}

impl Plan for SupervisedConfig {
    fn kind(&self) -> &'static Kind {
        &KIND
    }

    fn table(&self) -> Table {
        table(self)
    }

    fn check(&self, _: &Scope<'_>) -> Vec<Violation> {
        let mut found = Findings::default();
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
        found.share("objective.erasing", self.erasing);
        drop_path("objective.drop_path", self.drop_path, &mut found);
        self.strong().check("objective.rand_augment", &mut found);
        found.found()
    }

    fn oddities(&self, at: &Scope<'_>) -> Vec<String> {
        let (magnitude, jitter) = (self.rand_augment, at.colour.jitter);
        let both = magnitude > 0.0 && jitter > 0.0;
        let told =
            format!("augment.colour.jitter = {jitter} beside objective.rand_augment = {magnitude}: DeiT's code jitters no colours then");
        both.then_some(told).into_iter().collect()
    }

    fn request(&self, at: &Scope<'_>) -> SampleRequest {
        SampleRequest::of_views(vec![ViewRequest {
            crop: at.crop,
            rand_augment: (self.rand_augment > 0.0).then(|| self.strong()),
            colour: at.colour,
            ..ViewRequest::new(IMAGE, at.model.image)
        }])
    }

    fn build(&self, vs: &Path<'_>, at: &Scope<'_>) -> Box<dyn Objective> {
        Box::new(network::Supervised::new(vs, self, at))
    }

    fn classes(&self) -> Option<u32> {
        Some(self.classes)
    }

    fn chance(&self, number: &str, at: &Scope<'_>) -> Option<f64> {
        let classes = Some(self.known_classes(at) as f64).filter(|classes| *classes > 0.0)?;
        match number {
            "classification" => Some(classes.ln()),
            "class_accuracy" => Some(1.0 / classes),
            _ => None,
        }
    }

    fn over_ranks(&self) -> Result<(), &'static str> {
        Err("the images of a batch are mixed in pairs and its loss is the mean over those with a label, which may lie on other ranks")
    }

    fn forward_flops(&self, at: &Scope<'_>) -> f64 {
        let m = at.model;
        let (n, d) = (m.patches(), m.dim());
        encoder_flops(m, n, n) + linear_flops(1, d, self.known_classes(at) as i64)
    }
}

#[cfg(test)]
mod tests;
