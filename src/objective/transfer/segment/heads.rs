//! The two heads, and what each sees of an encoder.

use tch::nn::Path;
use tch::{Kind, Tensor};
use torch_ext::ranks::{Ranks, RanksError};

use super::SegmentConfig;
use crate::head::{DeconvHead, Neck, UperNet};
use crate::model::Vit;
use crate::model::config::VitConfig;

/// What a head sees of some images.
pub(super) enum Seen {
    /// The encoder's last map, normed: B×D×g×g.
    Last(Tensor),
    /// The outputs of four blocks, not normed, B×D×g×g each.
    Blocks([Tensor; 4]),
}

/// What a head answers, f32 B×K×h×w: one cell for some pixels.
pub(super) struct Logits {
    /// Of the classes.
    pub(super) classes: Tensor,
    /// Of the classes as an auxiliary head tells them, for its loss alone.
    pub(super) auxiliary: Option<Tensor>,
}

/// What tells the classes of pixels apart.
#[derive(Debug)]
pub(super) enum PixelHead {
    Deconv(DeconvHead),
    UperNet(Box<UperNet>, [usize; 4]),
}

impl PixelHead {
    /// Parameters under `vs`: those of `deconv` at its root, those of `upernet` under that name, so that neither is taken for the other's.
    pub(super) fn new(vs: &Path<'_>, config: &SegmentConfig, vit: &Vit, model: &VitConfig, classes: i64) -> Self {
        if let Some(shape) = config.upernet(model) {
            // What it sees lies before the last norm.
            vit.freeze_norm();
            let head = UperNet::new(&(vs / "upernet"), vit.dim(), &shape, classes);
            return Self::UperNet(Box::new(head), shape.blocks);
        }
        let doublings = DeconvHead::doublings(model.patch).expect("a patch that was checked");
        Self::Deconv(DeconvHead::new(vs, vit.dim(), doublings, config.width.into(), classes))
    }

    /// What it is to see of normalised images B×3×S×S.
    pub(super) fn see(&self, vit: &Vit, images: &Tensor, train: bool) -> Seen {
        match self {
            Self::Deconv(_) => {
                let tokens = vit.forward_features(images, train);
                let side = vit.image() / vit.patch();
                // The class token, where there is one, stands before the patches.
                let patches = tokens.narrow(1, tokens.size()[1] - side * side, side * side);
                Seen::Last(patches.transpose(1, 2).reshape([-1, vit.dim(), side, side]))
            }
            Self::UperNet(_, blocks) => Seen::Blocks(Neck::maps(&vit.outputs_of(images, blocks, train))),
        }
    }

    /// Logits of what was seen; in `training` by statistics of the batch. `auxiliary` asks for those too, where there is such a head.
    pub(super) fn forward(&self, seen: &Seen, training: Option<&Ranks>, auxiliary: bool) -> Result<Logits, RanksError> {
        let (classes, auxiliary) = match (self, seen) {
            (Self::Deconv(head), Seen::Last(map)) => (head.forward(map, training)?, None),
            (Self::UperNet(head, _), Seen::Blocks(maps)) => {
                let maps = head.necked(maps, training)?;
                let classes = head.logits(&maps, training)?;
                let auxiliary = if auxiliary { head.auxiliary_logits(&maps, training)? } else { None };
                (classes, auxiliary)
            }
            _ => unreachable!("a head is given what it asked for"),
        };
        Ok(Logits {
            classes: classes.to_kind(Kind::Float),
            auxiliary: auxiliary.map(|logits| logits.to_kind(Kind::Float)),
        })
    }

    /// Moves the running statistics, unless the step was skipped.
    pub(super) fn after_step(&mut self, skipped: &Tensor) {
        match self {
            Self::Deconv(head) => head.after_step(skipped),
            Self::UperNet(head, _) => head.after_step(skipped),
        }
    }
}
