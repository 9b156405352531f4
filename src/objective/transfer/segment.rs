//! Segment: a pre-trained encoder and a new head learn the class of each pixel from label maps. The paper's measure is UperNet on ADE20K (arXiv
//! 2112.10740 §4): that head, or the smaller decoder of ViTPose.

mod heads;
mod network;
mod numbers;

use serde::{Deserialize, Serialize};
use splitmask_pipeline::request::{IMAGE, MapRequest, SampleRequest, ViewRequest};
use tch::nn::Path;
use toml::Table;

use self::network::Segmenter;
use crate::head::{DeconvHead, UperNetShape};
use crate::model::config::VitConfig;
use crate::model::encoder_flops;
use crate::objective::masked::drop_path;
use crate::objective::{ClassesOf, Kind, Objective, Plan, Scope, Start, read, table};
use crate::setting::{Findings, Fitting, Violation, settings};

pub use super::freeze::Freeze;

/// The row of the registry.
pub static KIND: Kind = Kind {
    name: "segment",
    doc: "fine-tune a pre-trained encoder with label maps: a new head tells the class of each pixel",
    reference: "arXiv 2112.10740 §4, arXiv 2204.12484 §3.1, arXiv 1807.10221",
    keys: &[SegmentConfig::KEYS],
    numbers: numbers::NUMBERS,
    collapse: numbers::COLLAPSE,
    sheets: &[("segments", "image · its label map (grey: nothing is said) · what the network says")],
    variants: || {
        let upernet = SegmentConfig {
            head: Head::Upernet,
            width: UPERNET_WIDTH,
            ..SegmentConfig::default()
        };
        vec![Box::new(SegmentConfig::default()), Box::new(upernet)]
    },
    read: read::<SegmentConfig>,
};

/// What tells the classes of pixels apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "kebab-case")]
pub enum Head {
    /// Transposed convolutions on the encoder's last map (arXiv 2204.12484).
    #[default]
    Deconv,
    /// A pyramid over the outputs of four blocks (arXiv 1807.10221).
    Upernet,
}

/// Channels of the transposed convolutions (arXiv 2204.12484).
const DECONV_WIDTH: u32 = 256;
/// Those of UperNet beside a ViT-B (arXiv 2106.08254's code), which are the encoder's there.
const UPERNET_WIDTH: u32 = 768;

settings! {
    /// Segmentation's settings. The encoder is that of `run.init_from`; learning rates by layer are `optim.layer_decay`.
    pub struct SegmentConfig in "objective" {
        /// Classes of the label maps, the outputs of the head; 0 = those that the manifest of `data.train` names.
        Frozen classes: u32 = 0,
        /// What tells the classes apart: `deconv`, transposed convolutions on the encoder's last map, or `upernet`, a pyramid over the outputs of four blocks.
        Frozen head: Head = Head::Deconv,
        /// Channels of the head's convolutions; 768 where `head = "upernet"` and nothing is said.
        Frozen width: u32 = DECONV_WIDTH,
        /// Blocks whose outputs `upernet` sees: four, ascending, counted from 1; none named = those at a third, half and two thirds of the depth and the last (4, 6, 8, 12 of 12).
        Frozen blocks: Vec<u32> = vec![],
        /// Weight of the loss of `upernet`'s auxiliary head, which sees the third of these; 0 = no such head.
        Live (Frozen at 0) auxiliary_weight: f64 = 0.4,
        /// Channels of the auxiliary head.
        Frozen auxiliary_width: u32 = 256,
        /// Share of the channels that the classifiers of `upernet` do not see in a step of training.
        Restart dropout: f64 = 0.1,
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

    /// UperNet's measures beside a model that was checked; `None` with another head.
    fn upernet(&self, model: &VitConfig) -> Option<UperNetShape> {
        let named = <[u32; 4]>::try_from(self.blocks.as_slice()).ok();
        let blocks = named.map(|blocks| blocks.map(|block| block as usize));
        (self.head == Head::Upernet).then(|| UperNetShape {
            blocks: blocks
                .or_else(|| UperNetShape::blocks_of(model.layers() as usize))
                .expect("four blocks, which was checked"),
            width: self.width.into(),
            auxiliary_width: self.auxiliary_width.into(),
            auxiliary_weight: self.auxiliary_weight,
            dropout: self.dropout,
        })
    }

    /// What is wrong with the settings that only `upernet` has, or with what it stands beside.
    fn check_upernet(&self, at: &Scope<'_>, found: &mut Findings) {
        let layers = at.model.layers();
        found.need_or(
            layers >= 4,
            "model.depth",
            layers,
            "4 or more blocks beside objective.head = \"upernet\", which sees the outputs of four",
            "objective.head = \"deconv\" sees the last one alone",
        );
        let ascending = self.blocks.len() == 4 && self.blocks.is_sorted_by(|a, b| a < b) && self.blocks[0] > 0;
        let to_the_end = self.blocks.last().is_some_and(|last| i64::from(*last) == layers);
        found.need(
            self.blocks.is_empty() || ascending && to_the_end,
            "objective.blocks",
            format!("{:?}", self.blocks),
            format!("none, or four of the blocks 1 to {layers}, ascending; {layers} as the last one, for nothing is learnt from what lies behind it"),
        );
        found.need(
            at.model.grid() >= 2,
            "model.image",
            at.model.image,
            format!(
                "{} or more beside objective.head = \"upernet\": two patches a side, for it halves a map",
                2 * at.model.patch
            ),
        );
        found.need(
            at.batch >= 2,
            "train.batch",
            at.batch,
            "2 or more beside objective.head = \"upernet\": it normalises averages of whole images over the batch",
        );
        found.weight("objective.auxiliary_weight", self.auxiliary_weight);
        found.need(
            (1..=4096).contains(&self.auxiliary_width),
            "objective.auxiliary_width",
            self.auxiliary_width,
            "1 to 4096 channels",
        );
        found.need(
            (0.0..1.0).contains(&self.dropout),
            "objective.dropout",
            self.dropout,
            "0 (off) to below 1",
        );
    }

    /// What is wrong beside `deconv`: patches that no doubling makes 4 pixels wide, and settings of the other head.
    fn check_deconv(&self, at: &Scope<'_>, found: &mut Findings) {
        found.need_or(
            DeconvHead::doublings(at.model.patch).is_some(),
            "model.patch",
            at.model.patch,
            "4, 8, 16, 32 … pixels: the head doubles the map of patches until a cell is 4 pixels wide",
            "objective.head = \"upernet\" takes any patch",
        );
        let default = Self::default();
        let none = "nothing: objective.head = \"deconv\" has no such thing, \"upernet\" has";
        found.need(self.blocks.is_empty(), "objective.blocks", format!("{:?}", self.blocks), none);
        for (key, value, default) in [
            ("objective.auxiliary_weight", self.auxiliary_weight, default.auxiliary_weight),
            (
                "objective.auxiliary_width",
                self.auxiliary_width.into(),
                default.auxiliary_width.into(),
            ),
            ("objective.dropout", self.dropout, default.dropout),
        ] {
            found.need(value == default, key, value, none);
        }
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
        if self.head == Head::Upernet && self.width == DECONV_WIDTH {
            let why = "objective.head = \"upernet\"";
            fitting.fit("objective.width", &mut self.width, UPERNET_WIDTH, why);
        }
        self.freeze.fit(&mut self.drop_path, fitting);
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
        self.freeze.check(self.drop_path, &mut found);
        match self.head {
            Head::Deconv => self.check_deconv(at, &mut found),
            Head::Upernet => self.check_upernet(at, &mut found),
        }
        found.found()
    }

    fn start(&self) -> Start {
        self.freeze.start()
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

    fn pyramid(&self, model: &VitConfig) -> Option<UperNetShape> {
        self.upernet(model)
    }

    fn classes_of(&self) -> ClassesOf {
        ClassesOf::Pixels
    }

    fn undetermined(&self) -> Option<&'static str> {
        Some("the backward passes of bilinear resizing and of a loss over maps")
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
            "segmentation" | "auxiliary" => Some(classes.ln()),
            "pixel_accuracy" => Some(1.0 / classes),
            _ => None,
        }
    }

    fn forward_flops(&self, at: &Scope<'_>) -> f64 {
        let patches = at.model.patches();
        let share = self.freeze.forward_share();
        let (dim, side, classes) = (at.model.dim(), at.model.grid(), self.known_classes(at) as i64);
        let head = match self.upernet(at.model) {
            Some(shape) => shape.flops(dim, side, classes),
            None => {
                let doublings = DeconvHead::doublings(at.model.patch).unwrap_or(0);
                DeconvHead::flops(dim, side, doublings, self.width.into(), classes)
            }
        };
        share * encoder_flops(at.model, patches, patches) + head
    }
}
