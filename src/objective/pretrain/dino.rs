//! DINO: a student learns to say of each crop of an image what its own running average says of another one (arXiv 2104.14294). With options of DINOv2
//! (arXiv 2304.07193 §4), each off by default: the same of patches that only the teacher sees (iBOT, arXiv 2111.07832), outputs that are equally frequent
//! in each batch (Sinkhorn-Knopp, arXiv 2006.09882), class tokens that keep away from each other (KoLeo, arXiv 1806.03198).

mod centre;
mod checks;
mod head;
mod loss;
mod network;
mod numbers;
mod patches;

use splitmask_pipeline::request::{ColourConfig, CropConfig, HiddenRequest, SampleRequest, ViewRequest};
use tch::nn::Path;
use toml::Table;

use crate::model::{encoder_flops, linear_flops};
use crate::objective::masked::{drop_path, side};
use crate::objective::{Kind, Objective, Plan, Pool, Scope, read, table};
use crate::optim::cosine;
use crate::setting::{Findings, Fitting, Violation, settings};

pub use centre::Centring;
use numbers::{COLLAPSE, NUMBERS};

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
    numbers: NUMBERS,
    collapse: COLLAPSE,
    sheets: &[],
    variants: || {
        vec![
            Box::new(DinoConfig::default()),
            Box::new(DinoConfig::with_patches()),
            Box::new(DinoConfig::of_dinov2()),
        ]
    },
    read: read::<DinoConfig>,
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
        /// Steps before the last layer is trained: an epoch of ImageNet; shorter runs want a hundredth to a twentieth of optim.total_steps.
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
        /// What makes the teacher use all of its outputs: `mean` (their running mean is taken off) or `sinkhorn` (Sinkhorn-Knopp over each batch).
        Frozen centring: Centring = Centring::Mean,
        /// Weight of KoLeo, which keeps the class tokens of a batch apart; 0.1 in DINOv2.
        Live koleo_weight: f64 = 0.0,
        /// Weight of iBOT's loss of patches that are hidden from the student; 1 in DINOv2; turning it on or off is another run.
        Live (Frozen at 0) ibot_weight: f64 = 0.0,
        /// Probability that a global crop has hidden patches.
        Restart ibot_mask_probability: f64 = 0.5,
        /// Range of their share of its patches.
        Restart ibot_mask_ratio: [f64; 2] = [0.1, 0.5],
        /// Give patches a head of their own, as DINOv2 does; false = that of the class token, as iBOT does.
        Frozen separate_heads: bool = false,
        /// Outputs of a patch head of its own; 0 = as many as objective.prototypes.
        Frozen ibot_prototypes: u32 = 0,
        /// Drop path of the student, linear over depth.
        Restart drop_path: f64 = 0.1,
    }
}

impl DinoConfig {
    /// iBOT: the loss of hidden patches beside DINO's, with one head for both.
    fn with_patches() -> Self {
        Self {
            ibot_weight: 1.0,
            ..Self::default()
        }
    }

    /// All options of DINOv2 (arXiv 2304.07193 §4).
    fn of_dinov2() -> Self {
        Self {
            centring: Centring::Sinkhorn,
            koleo_weight: 0.1,
            separate_heads: true,
            ..Self::with_patches()
        }
    }

    /// Whether hidden patches are learnt.
    fn learns_patches(&self) -> bool {
        self.ibot_weight != 0.0
    }

    /// Outputs for a patch.
    fn patch_prototypes(&self) -> u32 {
        if self.separate_heads && self.ibot_prototypes > 0 {
            self.ibot_prototypes
        } else {
            self.prototypes
        }
    }

    /// The masks of the global crops.
    fn hidden(&self, at: &Scope<'_>) -> HiddenRequest {
        HiddenRequest {
            view: GLOBAL,
            side: side(at.model),
            probability: self.ibot_mask_probability as f32,
            ratio: self.ibot_mask_ratio.map(|share| share as f32),
        }
    }

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
            crop: CropConfig {
                area: area.map(|share| share as f32),
                ..at.crop
            },
            colour: ColourConfig {
                blur: self.blur[place] as f32,
                solarise: self.solarise[place] as f32,
                ..at.colour
            },
            ..ViewRequest::new(name, size)
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
        self.check_terms(at, &mut found);
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
        self.odd(at)
    }

    fn request(&self, at: &Scope<'_>) -> SampleRequest {
        let mut views = vec![self.view(at, GLOBAL, 0), self.view(at, GLOBAL, 1)];
        views.extend((0..self.local_crops).map(|_| self.view(at, LOCAL, 2)));
        SampleRequest {
            hidden: self.learns_patches().then(|| self.hidden(at)),
            ..SampleRequest::of_views(views)
        }
    }

    fn build(&self, vs: &Path<'_>, at: &Scope<'_>) -> Box<dyn Objective> {
        Box::new(network::Dino::new(vs, self, at))
    }

    fn chance(&self, number: &str, _: &Scope<'_>) -> Option<f64> {
        match number {
            "distillation" => Some(f64::from(self.prototypes).ln()),
            // A crop without hidden patches costs nothing.
            "ibot" if self.learns_patches() => Some(self.ibot_mask_probability * f64::from(self.patch_prototypes()).ln()),
            _ => None,
        }
    }

    fn learns_by(&self) -> &'static [Pool] {
        if self.learns_patches() {
            &[Pool::Class, Pool::Mean]
        } else {
            &[Pool::Class]
        }
    }

    fn incomparable(&self) -> Option<&'static str> {
        Some("the teacher that it is held against, the centre and the last layer move as it trains: it may rise while features get better")
    }

    fn odd_with(&self, samples: u64) -> Vec<String> {
        self.unused_outputs(samples)
    }

    fn over_ranks(&self) -> Result<(), &'static str> {
        Ok(())
    }

    fn forward_flops(&self, at: &Scope<'_>) -> f64 {
        let m = at.model;
        let (d, patch) = (m.dim(), i64::from(m.patch));
        let encoder = |side: u32| {
            let n = (i64::from(side) / patch).pow(2);
            encoder_flops(m, n, n)
        };
        let [hidden, bottleneck, prototypes] = [self.hidden, self.bottleneck, self.prototypes].map(i64::from);
        let head = |prototypes| -> f64 {
            let widths = [(d, hidden), (hidden, hidden), (hidden, bottleneck), (bottleneck, prototypes)];
            widths.into_iter().map(|(inputs, outputs)| linear_flops(1, inputs, outputs)).sum()
        };
        let (patch_head, head) = (head(i64::from(self.patch_prototypes())), head(prototypes));
        let [low, high] = self.ibot_mask_ratio;
        let share = if self.learns_patches() {
            self.ibot_mask_probability * (low + high) / 2.0
        } else {
            0.0
        };
        let hidden_patches = share * m.patches() as f64;
        let global = f64::from(GLOBAL_CROPS) * (encoder(m.image) + head + hidden_patches * patch_head);
        let local = f64::from(self.local_crops) * (encoder(self.local_size) + head);
        // A backward pass is counted as two forward ones beside this, and the teacher has none.
        global + local + global / 3.0
    }
}

#[cfg(test)]
mod tests;
