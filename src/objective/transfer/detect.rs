//! Detect: a pre-trained encoder and Mask R-CNN's neck and heads learn to find objects, their boxes and masks (arXiv 2112.10740 §5.5, arXiv 1703.06870).

mod network;
mod numbers;
mod rules;

use splitmask_pipeline::request::{IMAGE, ObjectRequest, SampleRequest, ScaleJitter, ViewRequest};
use tch::nn::Path;
use toml::Table;

use self::network::Detector;
use crate::head::mask_rcnn::{MaskRcnn, MaskRcnnConfig};
use crate::model::encoder_flops;
use crate::objective::masked::drop_path;
use crate::objective::{ClassesOf, Kind, Objective, Plan, Scope, Start, read, table};
use crate::setting::{Findings, Fitting, Violation, settings};

pub use super::freeze::Freeze;

/// The row of the registry.
pub static KIND: Kind = Kind {
    name: "detect",
    doc: "fine-tune a pre-trained encoder with marked objects: Mask R-CNN finds their boxes, classes and masks",
    reference: "arXiv 2112.10740 §5.5, arXiv 1703.06870",
    keys: &[DetectConfig::KEYS],
    numbers: numbers::NUMBERS,
    collapse: numbers::COLLAPSE,
    sheets: &[(
        "objects",
        "image · its objects · what the network finds with a probability of a half or more",
    )],
    variants: || vec![Box::new(DetectConfig::default())],
    read: read::<DetectConfig>,
};

settings! {
    /// Detection's settings. Defaults are torchvision's. The encoder is that of `run.init_from`; learning rates by layer are `optim.layer_decay`.
    pub struct DetectConfig in "objective" {
        /// Classes of objects; 0 = those that the manifest of `data.train` names.
        Frozen classes: u32 = 0,
        /// Channels of the feature pyramid.
        Frozen channels: u32 = 256,
        /// Columns of the two layers between a region and its class and box.
        Frozen box_width: u32 = 1024,
        /// Convolutions between a region and its mask.
        Frozen mask_depth: u32 = 4,
        /// Channels of those convolutions.
        Frozen mask_width: u32 = 256,
        /// Side of the anchors on the finest map, patches; that of each coarser map's is twice as long.
        Frozen anchor: f64 = 2.0,
        /// Side in pixels of a region that is read off the map of 16 pixels a cell; smaller ones are read off finer maps, larger ones off coarser.
        Frozen canonical: f64 = 224.0,
        /// Whether regions are aligned with the centres of the maps' cells; torchvision's are half a cell off.
        Frozen aligned: bool = false,
        /// What does not learn: `none`, or the `encoder`.
        Frozen freeze: Freeze = Freeze::None,
        /// Drop path of the encoder, linear over depth.
        Restart drop_path: f64 = 0.1,
        /// Large-scale jitter: the picture's longer side becomes a random multiple of the model's image in this range, and is cropped or laid on a ground.
        Restart scale: [f32; 2] = [0.1, 2.0],
        /// From this overlap with an object on an anchor stands for it; so does the best one of each object.
        Live anchor_object: f64 = 0.7,
        /// Below this overlap with all objects an anchor stands for background.
        Live anchor_background: f64 = 0.3,
        /// Anchors of a picture that are learnt from.
        Live anchors: u32 = 256,
        /// Share of them that may stand for objects.
        Live anchor_share: f64 = 0.5,
        /// Best anchors of each map that are looked at in training.
        Live candidates: u32 = 2000,
        /// The same in evaluations.
        Live eval_candidates: u32 = 1000,
        /// Proposed regions of a picture in training.
        Live proposals: u32 = 2000,
        /// The same in evaluations.
        Live eval_proposals: u32 = 1000,
        /// Of two proposals of a map that overlap more, the better one stays.
        Live proposal_overlap: f64 = 0.7,
        /// From this overlap with an object on a region stands for it, below for background.
        Live region_object: f64 = 0.5,
        /// Regions of a picture that are learnt from.
        Live regions: u32 = 512,
        /// Share of them that may stand for objects.
        Live region_share: f64 = 0.25,
        /// What is found with a probability up to this is left out.
        Live least_probability: f64 = 0.05,
        /// Of two found objects of a class that overlap more, the surer one stays.
        Live found_overlap: f64 = 0.5,
        /// Found objects of a picture.
        Live found: u32 = 100,
        /// Weight of the loss of objectness.
        Live objectness_weight: f64 = 1.0,
        /// Weight of the loss of the proposals' boxes.
        Live proposal_weight: f64 = 1.0,
        /// Weight of the loss of the regions' classes.
        Live class_weight: f64 = 1.0,
        /// Weight of the loss of the regions' boxes.
        Live box_weight: f64 = 1.0,
        /// Weight of the loss of masks.
        Live mask_weight: f64 = 1.0,
    }
}

impl DetectConfig {
    /// Classes K; 0 where they are not known, as when a config is checked.
    fn known_classes(&self, at: &Scope<'_>) -> usize {
        match self.classes {
            0 => at.label_counts.len(),
            classes => classes as usize,
        }
    }

    fn shape(&self, at: &Scope<'_>) -> MaskRcnnConfig {
        MaskRcnnConfig {
            channels: self.channels.into(),
            box_width: self.box_width.into(),
            mask_depth: self.mask_depth as usize,
            mask_width: self.mask_width.into(),
            anchor: self.anchor,
            canonical: self.canonical,
            aligned: self.aligned,
            // Unknown outside of training on a set, where the loss means nothing.
            ..MaskRcnnConfig::of_classes(self.known_classes(at).max(1) as i64)
        }
    }

    fn jitter(&self) -> ScaleJitter {
        ScaleJitter {
            scale: self.scale,
            ..ScaleJitter::default()
        }
    }
}

impl Plan for DetectConfig {
    fn kind(&self) -> &'static Kind {
        &KIND
    }

    fn table(&self) -> Table {
        table(self)
    }

    fn fit(&mut self, _: &Scope<'_>, fitting: &mut Fitting<'_>) {
        self.freeze.fit(&mut self.drop_path, fitting);
    }

    fn check(&self, at: &Scope<'_>) -> Vec<Violation> {
        let mut found = Findings::default();
        self.check_numbers(&mut found);
        self.jitter().check("objective.scale", &mut found);
        drop_path("objective.drop_path", self.drop_path, &mut found);
        self.freeze.check(self.drop_path, &mut found);
        let patch = at.model.patch;
        found.need(
            patch >= 4 && patch.is_power_of_two(),
            "model.patch",
            patch,
            "4, 8, 16, 32 or 64 pixels: the maps of the pyramid have cells of a quarter of a patch and up, and each twice as large ones",
        );
        found.need(
            !(patch >= 4 && patch.is_power_of_two()) || MaskRcnn::fits(at.model.image, patch),
            "model.image",
            at.model.image,
            format!(
                "a multiple of {}, two patches: the coarsest map halves that of the patches",
                2 * patch
            ),
        );
        found.found()
    }

    fn start(&self) -> Start {
        self.freeze.start()
    }

    fn request(&self, at: &Scope<'_>) -> SampleRequest {
        SampleRequest {
            objects: Some(ObjectRequest { view: IMAGE }),
            ..SampleRequest::of_views(vec![ViewRequest {
                crop: at.crop,
                colour: at.colour,
                jitter: Some(self.jitter()),
                ..ViewRequest::new(IMAGE, at.model.image)
            }])
        }
    }

    fn build(&self, vs: &Path<'_>, at: &Scope<'_>) -> Box<dyn Objective> {
        Box::new(Detector::new(vs, self, at))
    }

    fn classes(&self) -> Option<u32> {
        Some(self.classes)
    }

    fn classes_of(&self) -> ClassesOf {
        ClassesOf::Objects
    }

    fn whole_batch(&self) -> bool {
        true
    }

    fn over_ranks(&self) -> Result<(), &'static str> {
        Ok(())
    }

    fn chance(&self, number: &str, at: &Scope<'_>) -> Option<f64> {
        let classes = Some(self.known_classes(at) as f64).filter(|classes| *classes > 0.0)?;
        match number {
            "objectness" => Some(2f64.ln()),
            "region_classes" => Some((classes + 1.0).ln()),
            _ => None,
        }
    }

    fn forward_flops(&self, at: &Scope<'_>) -> f64 {
        let patches = at.model.patches();
        let share = self.freeze.forward_share();
        let regions = [f64::from(self.regions), f64::from(self.regions) * self.region_share];
        share * encoder_flops(at.model, patches, patches) + MaskRcnn::flops(at.model.dim(), at.model.grid(), &self.shape(at), regions)
    }
}
