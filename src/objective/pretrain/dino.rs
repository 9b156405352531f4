//! DINO: a student learns to say of each crop of an image what its own running average says of another one (arXiv 2104.14294).

mod head;
mod loss;
mod network;

use splitmask_pipeline::request::{ColourConfig, CropConfig, SampleRequest, ViewRequest};
use tch::nn::Path;
use toml::Table;

use crate::model::{encoder_flops, linear_flops};
use crate::objective::masked::drop_path;
use crate::objective::{Better, CollapseRule, Judged, Kind, Number, Objective, Plan, Role, Scope, Unit, read, table};
use crate::optim::cosine;
use crate::setting::{Findings, Fitting, Violation, settings};

/// The views that teacher and student see.
const GLOBAL: &str = "global";
/// Their number.
const GLOBAL_CROPS: u32 = 2;
/// The views that only the student sees.
const LOCAL: &str = "local";

/// The row of the registry.
pub static KIND: Kind = Kind {
    name: "dino",
    doc: "say of each crop of an image what a momentum teacher says of another one",
    reference: "arXiv 2104.14294 §3",
    keys: &[DinoConfig::KEYS],
    numbers: &[
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
    ],
    collapse: &[DISTILLATION_AT_CHANCE, TEACHER_UNIFORM, TEACHER_CONSTANT],
    sheets: &[],
    variants: || vec![Box::new(DinoConfig::default())],
    read: read::<DinoConfig>,
};

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

settings! {
    /// DINO's settings (arXiv 2104.14294 §3 and appendix; docs/method.md says which are sure). Aspect and flip of crops are those of `[augment.crop]`,
    /// jitter and greyscale those of `[augment.colour]`; area, blur and solarisation differ between the crops and stand here.
    pub struct DinoConfig in "objective" {
        /// Local crops of an image, beside the two global ones.
        Restart local_crops: u32 = 8,
        /// Side of a local crop, pixels; a multiple of model.patch.
        Restart local_size: u32 = 96,
        /// Range of a global crop's share of the image area.
        Restart global_area: [f64; 2] = [0.4, 1.0],
        /// Range of a local crop's share of the image area.
        Restart local_area: [f64; 2] = [0.05, 0.4],
        /// Probabilities of Gaussian blur: of the first global crop, of the second, of local ones.
        Restart blur: [f64; 3] = [1.0, 0.1, 0.5],
        /// Probabilities of solarisation: of the first global crop, of the second, of local ones.
        Restart solarise: [f64; 3] = [0.0, 0.2, 0.0],
        /// Outputs K of the head, in which teacher and student are compared.
        Frozen prototypes: u32 = 65_536,
        /// Width of the head's hidden layers.
        Frozen hidden: u32 = 2048,
        /// Width of the head before its last layer.
        Frozen bottleneck: u32 = 256,
        /// Keep the gains of the last layer at 1; false trains one for each output.
        Frozen fixed_gain: bool = true,
        /// Steps before the last layer is trained.
        Restart freeze_last_layer_steps: u64 = 1250,
        /// Temperature of the student.
        Restart student_temperature: f64 = 0.1,
        /// Temperature of the teacher at the start.
        Restart teacher_temperature_start: f64 = 0.04,
        /// Temperature of the teacher after its warm-up.
        Live teacher_temperature: f64 = 0.04,
        /// Steps over which the temperature of the teacher goes there linearly.
        Restart teacher_warmup_steps: u64 = 0,
        /// Share of the teacher that a step keeps, at the start.
        Restart momentum: f64 = 0.996,
        /// The same at the end of a cosine over all steps.
        Live momentum_end: f64 = 1.0,
        /// Share of the centre of the teacher's outputs that a step keeps.
        Live centre_momentum: f64 = 0.9,
        /// Drop path of the student, linear over depth.
        Restart drop_path: f64 = 0.1,
    }
}

/// Outputs for each image of a batch in the published recipe: 65,536 for 512. With more, many outputs are no image's.
const PROTOTYPES_PER_IMAGE: u32 = 128;
/// The highest temperature of a teacher that is known to work (arXiv 2104.14294 appendix, and dino#61 for 0.3).
const WARMEST_TEACHER: f64 = 0.07;
/// Batches below this have been seen to fail (dinov2#298).
const SMALL_BATCH: u32 = 64;

impl DinoConfig {
    /// Temperature of the teacher after `step` steps.
    fn teacher_temperature_at(&self, step: u64) -> f64 {
        if step >= self.teacher_warmup_steps {
            return self.teacher_temperature;
        }
        let done = step as f64 / self.teacher_warmup_steps as f64;
        self.teacher_temperature_start + (self.teacher_temperature - self.teacher_temperature_start) * done
    }

    /// Share of the teacher that step `step` of `total` keeps.
    fn momentum_at(&self, step: u64, total: u64) -> f64 {
        cosine(self.momentum, self.momentum_end, step as f64 / total.max(1) as f64)
    }

    /// A view; `place` is that of its recipe in the lists of probabilities.
    fn view(&self, at: &Scope<'_>, name: &'static str, place: usize) -> ViewRequest {
        let (size, area) = if name == GLOBAL {
            (at.model.image, self.global_area)
        } else {
            (self.local_size, self.local_area)
        };
        ViewRequest {
            name,
            size,
            crop: CropConfig {
                area: area.map(|share| share as f32),
                ..at.crop
            },
            colour: ColourConfig {
                blur: self.blur[place] as f32,
                solarise: self.solarise[place] as f32,
                ..at.colour
            },
        }
    }

    fn check_views(&self, at: &Scope<'_>, found: &mut Findings) {
        let patch = at.model.patch;
        found.need(
            self.local_crops <= 64,
            "objective.local_crops",
            self.local_crops,
            "0 to 64 (8 in the paper)",
        );
        let fits = self.local_size >= patch && self.local_size.is_multiple_of(patch) && self.local_size <= at.model.image;
        found.need(
            fits || self.local_crops == 0,
            "objective.local_size",
            self.local_size,
            format!(
                "a multiple of model.patch = {patch}, from one patch to model.image = {}",
                at.model.image
            ),
        );
        found.need(
            !at.model.relative_bias || self.local_crops == 0 || self.local_size == at.model.image,
            "model.relative_bias",
            true,
            "false: local crops have another grid, and a relative bias is of one grid (or objective.local_crops = 0)",
        );
        for (key, [low, high]) in [
            ("objective.global_area", self.global_area),
            ("objective.local_area", self.local_area),
        ] {
            found.need(
                low > 0.0 && low <= high && high <= 1.0,
                key,
                format!("{:?}", [low, high]),
                "[low, high] with 0 < low ≤ high ≤ 1",
            );
        }
        for (key, shares) in [("objective.blur", self.blur), ("objective.solarise", self.solarise)] {
            let ok = shares.iter().all(|share| (0.0..=1.0).contains(share));
            found.need(ok, key, format!("{shares:?}"), "three probabilities of 0 to 1");
        }
    }

    fn check_teacher(&self, found: &mut Findings) {
        let warmest = self.student_temperature;
        found.need(
            warmest > 0.0 && warmest.is_finite(),
            "objective.student_temperature",
            warmest,
            "above 0 (0.1 in the paper)",
        );
        for (key, temperature) in [
            ("objective.teacher_temperature", self.teacher_temperature),
            ("objective.teacher_temperature_start", self.teacher_temperature_start),
        ] {
            found.need(
                temperature > 0.0 && temperature <= warmest,
                key,
                temperature,
                format!("above 0, at most objective.student_temperature = {warmest}: the teacher must be the surer one"),
            );
        }
        for (key, momentum) in [
            ("objective.momentum", self.momentum),
            ("objective.momentum_end", self.momentum_end),
            ("objective.centre_momentum", self.centre_momentum),
        ] {
            found.share(key, momentum);
        }
    }
}

impl Plan for DinoConfig {
    fn kind(&self) -> &'static Kind {
        &KIND
    }

    fn table(&self) -> Table {
        table(self)
    }

    /// A local crop that does not fit becomes the same share of the image's side as in the paper, in whole patches.
    fn fit(&mut self, at: &Scope<'_>, fitting: &mut Fitting<'_>) {
        let (image, patch) = (at.model.image, at.model.patch.max(1));
        if self.local_size >= image || !self.local_size.is_multiple_of(patch) {
            let patches = (f64::from(image) * 96.0 / 224.0 / f64::from(patch)).round().max(1.0) as u32;
            let why = format!("model.image = {image}, model.patch = {patch}");
            fitting.fit("objective.local_size", &mut self.local_size, patches * patch, why);
        }
    }

    fn check(&self, at: &Scope<'_>) -> Vec<Violation> {
        let mut found = Findings::default();
        self.check_views(at, &mut found);
        self.check_teacher(&mut found);
        for (key, size, least, most) in [
            ("objective.prototypes", self.prototypes, 2, 1 << 20),
            ("objective.hidden", self.hidden, 1, 1 << 16),
            ("objective.bottleneck", self.bottleneck, 1, 1 << 16),
        ] {
            found.need((least..=most).contains(&size), key, size, format!("{least} to {most}"));
        }
        drop_path("objective.drop_path", self.drop_path, &mut found);
        found.found()
    }

    fn oddities(&self, at: &Scope<'_>) -> Vec<String> {
        let mut odd = vec![];
        let (batch, prototypes) = (at.batch, self.prototypes);
        if prototypes > batch.saturating_mul(PROTOTYPES_PER_IMAGE) {
            odd.push(format!(
                "objective.prototypes = {prototypes} is more than {PROTOTYPES_PER_IMAGE} for each of the {batch} images of a batch, the share of the \
                 published recipe: outputs that no image uses hold the loss at ln K; 1024 to 8192 suit small batches and sets"
            ));
        }
        if batch < SMALL_BATCH {
            odd.push(format!(
                "train.batch = {batch} is small for objective.kind = \"dino\": the centre of the outputs is a mean over it"
            ));
        }
        let warmest = self.teacher_temperature.max(self.teacher_temperature_start);
        if warmest > WARMEST_TEACHER {
            odd.push(format!(
                "a temperature of the teacher of {warmest} is above {WARMEST_TEACHER}: runs have collapsed there"
            ));
        }
        if at.colour.jitter == 0.0 {
            odd.push("augment.colour.jitter = 0: crops of an image can then be told by their colours; the published recipe has jitter 0.8, greyscale 0.2".into());
        }
        let unused = [
            (
                "augment.crop.area",
                at.crop.area != CropConfig::default().area,
                "objective.global_area and objective.local_area",
            ),
            ("augment.colour.blur", at.colour.blur != 0.0, "objective.blur"),
            ("augment.colour.solarise", at.colour.solarise != 0.0, "objective.solarise"),
        ];
        for (key, _, instead) in unused.into_iter().filter(|(_, set, _)| *set) {
            odd.push(format!(
                "{key} has no effect with objective.kind = \"dino\"; {instead} stand for it"
            ));
        }
        odd
    }

    fn request(&self, at: &Scope<'_>) -> SampleRequest {
        let mut views = vec![self.view(at, GLOBAL, 0), self.view(at, GLOBAL, 1)];
        views.extend((0..self.local_crops).map(|_| self.view(at, LOCAL, 2)));
        SampleRequest::of_views(views)
    }

    fn build(&self, vs: &Path<'_>, at: &Scope<'_>) -> Box<dyn Objective> {
        Box::new(network::Dino::new(vs, self, at))
    }

    fn chance(&self, number: &str, _: &Scope<'_>) -> Option<f64> {
        (number == "distillation").then(|| f64::from(self.prototypes).ln())
    }

    fn forward_flops(&self, at: &Scope<'_>) -> f64 {
        let m = at.model;
        let (d, patch) = (m.dim(), i64::from(m.patch));
        let encoder = |side: u32| {
            let n = (i64::from(side) / patch).pow(2);
            encoder_flops(m, n, n)
        };
        let [hidden, bottleneck, prototypes] = [self.hidden, self.bottleneck, self.prototypes].map(i64::from);
        let widths = [(d, hidden), (hidden, hidden), (hidden, bottleneck), (bottleneck, prototypes)];
        let head: f64 = widths.into_iter().map(|(inputs, outputs)| linear_flops(1, inputs, outputs)).sum();
        let global = f64::from(GLOBAL_CROPS) * (encoder(m.image) + head);
        let local = f64::from(self.local_crops) * (encoder(self.local_size) + head);
        // A backward pass is counted as two forward ones beside this, and the teacher has none.
        global + local + global / 3.0
    }
}

#[cfg(test)]
mod tests;
