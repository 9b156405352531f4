//! The network and its loss.

use splitmask_pipeline::request::IMAGE;
use tch::nn::Path;
use tch::{Kind, Reduction, Tensor};
use torch_ext::ranks::{Ranks, RanksError, Reduce};

use super::{KIND, SegmentConfig};
use crate::head::DeconvHead;
use crate::model::Vit;
use crate::objective::frequencies::Frequencies;
use crate::objective::input::shape;
use crate::objective::{Column, Losses, Objective, ObjectiveError, Plan, Scope, Sheet, StepContext, image, settings};
use crate::tensor::{StepInput, look};

/// An encoder, and a head that tells the class of each pixel by the encoder's last map.
#[derive(Debug)]
pub(super) struct Segmenter {
    vit: Vit,
    head: DeconvHead,
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
        let vit = Vit::new(vs, at.model, if config.is_frozen() { 0.0 } else { config.drop_path });
        if config.is_frozen() {
            vit.freeze();
        }
        let doublings = DeconvHead::doublings(at.model.patch).expect("a patch that was checked");
        Self {
            head: DeconvHead::new(&(vs / "head"), vit.dim(), doublings, config.width.into(), classes as i64),
            vit,
            classes: classes as i64,
            frozen: config.is_frozen(),
            frequencies: Frequencies::new(at.label_counts, classes, vs.device()),
        }
    }

    /// Logits f32 B×K×h×w of normalised images B×3×S×S, one for each square of 4 pixels.
    fn logits(&self, images: &Tensor, training: Option<&Ranks>) -> Result<Tensor, RanksError> {
        let tokens = || self.vit.forward_features(images, training.is_some());
        let tokens = if self.frozen { tch::no_grad(tokens) } else { tokens() };
        let side = self.vit.image() / self.vit.patch();
        // The class token, where there is one, stands before the patches.
        let patches = tokens.narrow(1, tokens.size()[1] - side * side, side * side);
        let map = patches.transpose(1, 2).reshape([-1, self.vit.dim(), side, side]);
        Ok(self.head.forward(&map, training)?.to_kind(Kind::Float))
    }

    /// The same for each of S × S pixels.
    fn pixel_by_pixel(&self, images: &Tensor, training: Option<&Ranks>) -> Result<Tensor, RanksError> {
        let size = [self.vit.image(), self.vit.image()];
        Ok(self.logits(images, training)?.upsample_bilinear2d(size, false, None, None))
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
        let logits = self.pixel_by_pixel(image(KIND.name, x, &self.vit)?, ctx.training())?;
        look(|| "head".into(), &logits);
        let usable = self.usable(maps);
        let share = |these: &Tensor| these.to_kind(Kind::Float).mean(Kind::Float);
        // On several ranks the labelled pixels of one share on the mean: then the mean over the ranks of these quotients is that over all labelled pixels.
        let labelled = usable.sum(Kind::Float);
        if let Some(ranks) = ctx.training() {
            ranks.all_reduce(&[(&labelled, Reduce::Mean)])?;
        }
        // Without any the sums are 0, and so are the quotients.
        let labelled = labelled.clamp_min(1e-6);
        let targets = maps.where_scalarother(&usable, -1);
        let summed = |log_shares: &Tensor| log_shares.nll_loss_nd::<Tensor>(&targets, None, Reduction::Sum, -1);
        let loss = summed(&logits.log_softmax(1, Kind::Float)) / &labelled;
        let among = |these: Tensor| these.logical_and(&usable).sum(Kind::Float) / &labelled;
        // A guess by frequency costs the same at each pixel of a class.
        let class = targets.clamp(0, self.classes - 1).flatten(0, -1);
        let of_frequency = self.frequencies.logarithms.index_select(0, &class).view_as(&targets) * usable.to_kind(Kind::Float);
        let mut stats = vec![
            ("pixel_accuracy", among(logits.argmax(1, false).eq_tensor(maps))),
            ("frequency_guess", -of_frequency.sum(Kind::Float) / &labelled),
            ("unlabelled_pixels", share(&maps.lt(0))),
            ("unknown_class_pixels", share(&maps.ge(self.classes))),
        ];
        stats.extend(
            self.frequencies
                .commonest
                .map(|commonest| ("commonest_class", among(maps.eq(commonest)))),
        );
        Ok(Losses {
            stats,
            ..Losses::of_term("segmentation", loss)
        })
    }

    fn encoder(&self) -> &Vit {
        &self.vit
    }

    fn take_live(&mut self, plan: &dyn Plan) -> Result<(), ObjectiveError> {
        // None of its keys is live.
        settings::<SegmentConfig>(plan, &KIND).map(|_| ())
    }

    fn after_step(&mut self, _: &StepContext, skipped: &Tensor) -> Result<(), ObjectiveError> {
        self.head.after_step(skipped);
        Ok(())
    }

    fn pixel_logits(&self, images: &Tensor) -> Option<Tensor> {
        Some(self.logits(images, None).expect("an evaluation asks no other rank"))
    }

    fn is_class_head(&self, name: &str) -> bool {
        name.starts_with("head.")
    }

    fn pictures(&self, x: &StepInput) -> Result<Vec<Sheet>, ObjectiveError> {
        let said = self.pixel_by_pixel(image(KIND.name, x, &self.vit)?, None)?.argmax(1, false);
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
