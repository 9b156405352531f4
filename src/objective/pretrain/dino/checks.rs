//! What of DINO's settings is wrong, and what is probably not meant.

use splitmask_pipeline::request::CropConfig;

use super::DinoConfig;
use super::centre::Centring;
use crate::objective::Scope;
use crate::objective::teacher::odd_momentum;
use crate::setting::{COLDEST, Findings};

/// Outputs for each image of a batch in the published recipe: 65,536 for 512. With more, many outputs are no image's.
const PROTOTYPES_PER_IMAGE: u32 = 128;
/// The highest temperature of a teacher that is known to work (arXiv 2104.14294 appendix, and dino#61 for 0.3).
const WARMEST_TEACHER: f64 = 0.07;
/// Batches below this have been seen to fail (dinov2#298).
const SMALL_BATCH: u32 = 64;

impl DinoConfig {
    pub(super) fn check_views(&self, at: &Scope<'_>, found: &mut Findings) {
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
                low as f32 > 0.0 && low <= high && high <= 1.0,
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

    pub(super) fn check_teacher(&self, found: &mut Findings) {
        let warmest = self.student_temperature;
        found.temperature("objective.student_temperature", warmest, "0.1 in the paper");
        for (key, temperature) in [
            ("objective.teacher_temperature", self.teacher_temperature),
            ("objective.teacher_temperature_start", self.teacher_temperature_start),
        ] {
            found.need(
                (COLDEST..=warmest).contains(&temperature),
                key,
                temperature,
                format!("{COLDEST} or above, at most objective.student_temperature = {warmest}: the teacher must be the surer one"),
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

    /// The terms of iBOT and KoLeo.
    pub(super) fn check_terms(&self, at: &Scope<'_>, found: &mut Findings) {
        found.weight("objective.ibot_weight", self.ibot_weight);
        found.weight("objective.koleo_weight", self.koleo_weight);
        found.need(
            self.koleo_weight == 0.0 || at.batch >= 2,
            "train.batch",
            at.batch,
            "at least 2 images with objective.koleo_weight, which keeps each away from its nearest neighbour in the batch",
        );
        // Settings of a term that is off are checked too, because a later reload may turn it on.
        self.hidden(at).check("objective.ibot_mask_", found);
        found.need(
            !self.learns_patches() || at.model.grid() >= 2,
            "objective.ibot_weight",
            self.ibot_weight,
            "0: an image of one patch has none to hide",
        );
        let own = self.ibot_prototypes;
        found.need(
            own == 0 || (2..=1 << 20).contains(&own),
            "objective.ibot_prototypes",
            own,
            "0 (as many as objective.prototypes), or 2 to 1048576",
        );
    }

    /// Options of DINOv2 that have no effect as the others are set.
    fn odd_options(&self) -> Vec<String> {
        let (d, patches) = (Self::default(), self.learns_patches());
        let masks = self.ibot_mask_probability != d.ibot_mask_probability || self.ibot_mask_ratio != d.ibot_mask_ratio;
        let idle = [
            (
                !patches && self.separate_heads,
                "objective.separate_heads",
                "objective.ibot_weight = 0",
            ),
            (
                !(patches && self.separate_heads) && self.ibot_prototypes != d.ibot_prototypes,
                "objective.ibot_prototypes",
                "the head of the class token for patches, or without patches",
            ),
            (
                !patches && masks,
                "objective.ibot_mask_probability or .ibot_mask_ratio",
                "objective.ibot_weight = 0",
            ),
            (
                self.centring == Centring::Sinkhorn && self.centre_momentum != d.centre_momentum,
                "objective.centre_momentum",
                "objective.centring = \"sinkhorn\", which keeps no centre",
            ),
        ];
        let idle = idle.into_iter().filter(|(odd, ..)| *odd);
        idle.map(|(_, key, with)| format!("{key} has no effect with {with}")).collect()
    }

    /// What of the schedules a training of that many steps never comes to.
    fn odd_schedule(&self, steps: u64) -> Vec<String> {
        let mut odd = Vec::new();
        let frozen = self.freeze_last_layer_steps;
        if frozen >= steps {
            odd.push(format!(
                "objective.freeze_last_layer_steps = {frozen} is not below optim.total_steps = {steps}: the head's last layer never learns; set it to a \
                 hundredth to a twentieth of the run"
            ));
        }
        let warming = self.teacher_warmup_steps;
        if warming > steps && self.teacher_temperature != self.teacher_temperature_start {
            odd.push(format!(
                "objective.teacher_warmup_steps = {warming} is beyond optim.total_steps = {steps}: the teacher never comes to objective.teacher_temperature = {}",
                self.teacher_temperature
            ));
        }
        odd.extend(odd_momentum(self.momentum, self.momentum_end));
        if self.centring == Centring::Mean && self.centre_momentum == 1.0 {
            odd.push("objective.centre_momentum = 1: the centre of the outputs stays 0, and nothing keeps the teacher from one output for all; 0.9 in the paper".into());
        }
        odd
    }

    /// Numbers of outputs with the keys that set them.
    fn outputs(&self) -> impl Iterator<Item = (&'static str, u32)> {
        let own = self.learns_patches() && self.separate_heads && self.ibot_prototypes > 0;
        let of_patches = own.then_some(("objective.ibot_prototypes", self.ibot_prototypes));
        [("objective.prototypes", self.prototypes)].into_iter().chain(of_patches)
    }

    /// Outputs that a set of `samples` images cannot use.
    pub(super) fn unused_outputs(&self, samples: u64) -> Vec<String> {
        let more = self.outputs().filter(|(_, outputs)| u64::from(*outputs) > samples);
        more.map(|(key, outputs)| {
            format!(
                "{key} = {outputs} is more than the {samples} images of the training set, of which each can have an output of its own: outputs that no image uses \
                 hold the loss at ln K; 1024 to 8192 suit some thousand images, and fewer suit fewer"
            )
        })
        .collect()
    }

    /// What is allowed and probably not meant.
    pub(super) fn odd(&self, at: &Scope<'_>) -> Vec<String> {
        let mut odd = self.odd_options();
        odd.extend(self.odd_schedule(at.steps));
        let batch = at.batch;
        for (key, prototypes) in self.outputs().filter(|(_, k)| *k > batch.saturating_mul(PROTOTYPES_PER_IMAGE)) {
            odd.push(format!(
                "{key} = {prototypes} is more than {PROTOTYPES_PER_IMAGE} for each of the {batch} images of a batch, the share of the \
                 published recipe: outputs that no image uses hold the loss at ln K; 1024 to 8192 suit small batches and sets"
            ));
        }
        if batch < SMALL_BATCH {
            let of_batch = match self.centring {
                Centring::Mean => "the centre of the outputs is a mean over it",
                Centring::Sinkhorn => "outputs are made equally frequent among its images",
            };
            odd.push(format!("train.batch = {batch} is small for objective.kind = \"dino\": {of_batch}"));
        }
        if self.local_crops > 0 && self.local_area[1] > self.global_area[1] {
            odd.push(format!(
                "objective.local_area reaches to {} of an image, objective.global_area to {}: local crops are meant to be the smaller ones",
                self.local_area[1], self.global_area[1]
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
}
