//! The network and its loss.

use splitmask_pipeline::request::IMAGE;
use tch::nn::Path;
use tch::{Kind, Reduction, Tensor};
use torch_ext::ranks::{Ranks, RanksError, Reduce};

use super::heads::{Logits, PixelHead};
use super::{KIND, SegmentConfig};
use crate::model::Vit;
use crate::objective::frequencies::Frequencies;
use crate::objective::input::shape;
use crate::objective::{Column, Losses, Objective, ObjectiveError, Plan, Scope, Sheet, StepContext, image, settings};
use crate::tensor::{StepInput, look};

/// An encoder, and a head that tells the class of each pixel.
#[derive(Debug)]
pub(super) struct Segmenter {
    vit: Vit,
    head: PixelHead,
    /// Of the loss of the head's auxiliary logits, where it has these.
    auxiliary_weight: f64,
    classes: i64,
    frozen: bool,
    /// Of the classes among the pixels.
    frequencies: Frequencies,
}

impl Segmenter {
    /// Parameters under `vs`: the encoder's at its root under timm's names, the head's under `head`.
    pub(super) fn new(vs: &Path<'_>, config: &SegmentConfig, at: &Scope<'_>) -> Self {
        // Unknown outside of training on a set, where the loss means nothing.
        let classes = config.known_classes(at).max(1);
        let vit = Vit::new(vs, at.model, if config.freeze.is_encoder() { 0.0 } else { config.drop_path });
        if config.freeze.is_encoder() {
            vit.freeze();
        }
        Self {
            head: PixelHead::new(&(vs / "head"), config, &vit, at.model, classes as i64),
            vit,
            auxiliary_weight: config.auxiliary_weight,
            classes: classes as i64,
            frozen: config.freeze.is_encoder(),
            frequencies: Frequencies::new(at.label_counts, classes, vs.device()),
        }
    }

    /// Logits of normalised images B×3×S×S.
    fn logits(&self, images: &Tensor, training: Option<&Ranks>, auxiliary: bool) -> Result<Logits, RanksError> {
        let seen = || self.head.see(&self.vit, images, training.is_some());
        let seen = if self.frozen { tch::no_grad(seen) } else { seen() };
        self.head.forward(&seen, training, auxiliary)
    }

    /// Logits of cells bilinearly to S × S pixels.
    fn of_pixels(&self, cells: &Tensor) -> Tensor {
        cells.upsample_bilinear2d([self.vit.image(), self.vit.image()], false, None, None)
    }

    /// Label maps of a step: i64 B×S×S.
    fn maps<'a>(&self, x: &'a StepInput) -> Result<&'a Tensor, ObjectiveError> {
        let objective = KIND.name;
        let maps = x.maps.as_ref().ok_or(ObjectiveError::Lacks {
            objective,
            what: "label map",
        })?;
        shape(
            objective,
            "the label map",
            &maps.size(),
            &[x.len, self.vit.image(), self.vit.image()],
        )?;
        Ok(maps)
    }

    /// Which pixels a class is said of that is learnt: bool.
    fn usable(&self, maps: &Tensor) -> Tensor {
        maps.ge(0).logical_and(&maps.lt(self.classes))
    }
}

impl Objective for Segmenter {
    fn forward(&self, x: &StepInput, ctx: &StepContext) -> Result<Losses, ObjectiveError> {
        let maps = self.maps(x)?;
        let cells = self.logits(image(KIND.name, x, &self.vit)?, ctx.training(), true)?;
        let logits = self.of_pixels(&cells.classes);
        look(|| "head".into(), &logits);
        let usable = self.usable(maps);
        let share = |these: &Tensor| these.to_kind(Kind::Float).mean(Kind::Float);
        // On several ranks the labelled pixels of one share on the mean: then the mean over the ranks of these quotients is that over all labelled pixels.
        let labelled = usable.sum(Kind::Float);
        if let Some(ranks) = ctx.training() {
            ranks.all_reduce(&[(&labelled, Reduce::Mean)])?;
        }
        let counted = &labelled / usable.numel() as f64;
        // Without any the sums are 0, and so are the quotients.
        let labelled = labelled.clamp_min(1e-6);
        let targets = maps.where_scalarother(&usable, -1);
        let summed = |log_shares: &Tensor| log_shares.nll_loss_nd::<Tensor>(&targets, None, Reduction::Sum, -1);
        let loss_of = |logits: &Tensor| summed(&logits.log_softmax(1, Kind::Float)) / &labelled;
        let loss = loss_of(&logits);
        let among = |these: Tensor| these.logical_and(&usable).sum(Kind::Float) / &labelled;
        // A guess by frequency costs the same at each pixel of a class.
        let class = targets.clamp(0, self.classes - 1).flatten(0, -1);
        let of_frequency = self.frequencies.logarithms.index_select(0, &class).view_as(&targets) * usable.to_kind(Kind::Float);
        let mut stats = vec![
            ("pixel_accuracy", among(logits.argmax(1, false).eq_tensor(maps))),
            ("frequency_guess", -of_frequency.sum(Kind::Float) / &labelled),
        ];
        stats.extend(
            self.frequencies
                .commonest
                .map(|commonest| ("commonest_class", among(maps.eq(commonest)))),
        );
        let mut losses = Losses {
            stats,
            shares: vec![
                ("unlabelled_pixels", share(&maps.lt(0))),
                ("unknown_class_pixels", share(&maps.ge(self.classes))),
            ],
            counted: Some(counted),
            ..Losses::of_term("segmentation", loss)
        };
        if let Some(auxiliary) = &cells.auxiliary {
            let loss = loss_of(&self.of_pixels(auxiliary));
            losses.terms.push(("auxiliary", loss.detach()));
            // A tensor of its own: the first term is told with the values that the total has now.
            let total = &losses.total + loss * self.auxiliary_weight;
            losses.total = total;
        }
        Ok(losses)
    }

    fn encoder(&self) -> &Vit {
        &self.vit
    }

    fn take_live(&mut self, plan: &dyn Plan) -> Result<(), ObjectiveError> {
        self.auxiliary_weight = settings::<SegmentConfig>(plan, &KIND)?.auxiliary_weight;
        Ok(())
    }

    fn after_step(&mut self, _: &StepContext, skipped: &Tensor) -> Result<(), ObjectiveError> {
        self.head.after_step(skipped);
        Ok(())
    }

    fn pixel_logits(&self, images: &Tensor) -> Option<Tensor> {
        let logits = self.logits(images, None, false);
        Some(logits.expect("an evaluation asks no other rank").classes)
    }

    fn is_class_head(&self, name: &str) -> bool {
        name.starts_with("head.")
    }

    fn pictures(&self, x: &StepInput) -> Result<Vec<Sheet>, ObjectiveError> {
        let cells = self.logits(image(KIND.name, x, &self.vit)?, None, false)?;
        let said = self.of_pixels(&cells.classes).argmax(1, false);
        Ok(vec![Sheet {
            name: KIND.sheets[0].0,
            columns: vec![
                Column::View(IMAGE),
                Column::Classes(self.maps(x)?.shallow_clone()),
                Column::Classes(said),
            ],
        }])
    }
}
