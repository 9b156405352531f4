//! Segment: a pre-trained encoder and a new head learn the class of each pixel from label maps. The paper's measure is UperNet on ADE20K (arXiv
//! 2112.10740 §4); the head here is the smaller decoder of ViTPose.

mod network;
mod numbers;

use splitmask_pipeline::request::{IMAGE, MapRequest, SampleRequest, ViewRequest};
use tch::nn::Path;
use toml::Table;

use self::network::Segmenter;
use super::freeze::FORWARD_ONLY;
use crate::head::DeconvHead;
use crate::model::encoder_flops;
use crate::objective::masked::drop_path;
use crate::objective::{ClassesOf, Kind, Objective, Plan, Scope, Start, read, table};
use crate::setting::{Findings, Fitting, Violation, settings};

pub use super::freeze::Freeze;

/// The row of the registry.
pub static KIND: Kind = Kind {
    name: "segment",
    doc: "fine-tune a pre-trained encoder with label maps: a new head tells the class of each pixel",
    reference: "arXiv 2112.10740 §4, arXiv 2204.12484 §3.1",
    keys: &[SegmentConfig::KEYS],
    numbers: numbers::NUMBERS,
    collapse: numbers::COLLAPSE,
    sheets: &[("segments", "image · its label map (grey: nothing is said) · what the network says")],
    variants: || vec![Box::new(SegmentConfig::default())],
    read: read::<SegmentConfig>,
};

settings! {
    /// Segmentation's settings. The encoder is that of `run.init_from`; learning rates by layer are `optim.layer_decay`.
    pub struct SegmentConfig in "objective" {
        /// Classes of the label maps, the outputs of the head; 0 = those that the manifest of `data.train` names.
        Frozen classes: u32 = 0,
        /// Channels of the head's transposed convolutions.
        Frozen width: u32 = 256,
        /// What does not learn: `none`, or the `encoder`, so that the head alone does.
        Frozen freeze: Freeze = Freeze::None,
        /// Drop path of the encoder, linear over depth.
        Restart drop_path: f64 = 0.1,
    }
}

impl SegmentConfig {
    /// Classes K; 0 where they are not known, as when a config is checked.
    fn known_classes(&self, at: &Scope<'_>) -> usize {
        match self.classes {
            0 => at.label_counts.len(),
            classes => classes as usize,
        }
    }

    fn is_frozen(&self) -> bool {
        self.freeze == Freeze::Encoder
    }
}

impl Plan for SegmentConfig {
    fn kind(&self) -> &'static Kind {
        &KIND
    }

    fn table(&self) -> Table {
        table(self)
    }

    fn fit(&mut self, _: &Scope<'_>, fitting: &mut Fitting<'_>) {
        if self.is_frozen() {
            let why = "objective.freeze = \"encoder\": what does not learn drops no path";
            fitting.fit("objective.drop_path", &mut self.drop_path, 0.0, why);
        }
    }

    fn check(&self, at: &Scope<'_>) -> Vec<Violation> {
        let mut found = Findings::default();
        found.need(
            self.classes != 1 && self.classes <= 32_767,
            "objective.classes",
            self.classes,
            "0 (those of the manifest), or 2 to 32767",
        );
        found.need(
            (1..=4096).contains(&self.width),
            "objective.width",
            self.width,
            "1 to 4096 channels",
        );
        drop_path("objective.drop_path", self.drop_path, &mut found);
        found.need(
            !self.is_frozen() || self.drop_path == 0.0,
            "objective.drop_path",
            self.drop_path,
            "0 beside objective.freeze = \"encoder\": what does not learn drops no path",
        );
        found.need(
            DeconvHead::doublings(at.model.patch).is_some(),
            "model.patch",
            at.model.patch,
            "4, 8, 16, 32 … pixels: the head doubles the map of patches until a cell is 4 pixels wide",
        );
        found.found()
    }

    fn start(&self) -> Start {
        match self.freeze {
            Freeze::None => Start::BetterPretrained,
            Freeze::Encoder => Start::Pretrained("objective.freeze = \"encoder\""),
        }
    }

    fn request(&self, at: &Scope<'_>) -> SampleRequest {
        SampleRequest {
            map: Some(MapRequest { view: IMAGE }),
            ..SampleRequest::of_views(vec![ViewRequest {
                crop: at.crop,
                colour: at.colour,
                ..ViewRequest::new(IMAGE, at.model.image)
            }])
        }
    }

    fn build(&self, vs: &Path<'_>, at: &Scope<'_>) -> Box<dyn Objective> {
        Box::new(Segmenter::new(vs, self, at))
    }

    fn classes(&self) -> Option<u32> {
        Some(self.classes)
    }

    fn classes_of(&self) -> ClassesOf {
        ClassesOf::Pixels
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
            "segmentation" => Some(classes.ln()),
            "pixel_accuracy" => Some(1.0 / classes),
            _ => None,
        }
    }

    fn forward_flops(&self, at: &Scope<'_>) -> f64 {
        let patches = at.model.patches();
        let share = if self.is_frozen() { FORWARD_ONLY } else { 1.0 };
        let doublings = DeconvHead::doublings(at.model.patch).unwrap_or(0);
        let side = i64::from(at.model.image / at.model.patch);
        let head = DeconvHead::flops(at.model.dim(), side, doublings, self.width.into(), self.known_classes(at) as i64);
        share * encoder_flops(at.model, patches, patches) + head
    }
}
