//! The network and its loss.

use std::borrow::Borrow;

use splitmask_pipeline::request::IMAGE;
use tch::nn::{self, Module, Path};
use tch::{Kind, Tensor};

use super::Recipe;
use super::erasing::erased;
use super::mixing::Mix;
use crate::model::{Init, Vit, layer_norm, linear, through};
use crate::objective::frequencies::Frequencies;
use crate::objective::input::shape;
use crate::objective::two_views::Pool;
use crate::objective::{Losses, MixedImages, Objective, ObjectiveError, Plan, Scope, StepContext, image};
use crate::tensor::{StepInput, look};

/// What a classifier is made of, and where its live settings come from.
#[derive(Debug, Clone, Copy)]
pub(in crate::objective) struct Parts {
    /// The objective's name, for messages.
    pub(in crate::objective) kind: &'static str,
    /// What the head sees of an image.
    pub(in crate::objective) pool: Pool,
    /// Whether the mean of the patches goes through a norm of the head's own instead of the encoder's last one (arXiv 2106.08254's code); the class
    /// token always comes from the encoder's.
    pub(in crate::objective) fresh_norm: bool,
    /// Whether the encoder stays as it is.
    pub(in crate::objective) frozen: bool,
    /// Deviation of the head's weights at the start.
    pub(in crate::objective) head_deviation: f64,
    /// How it learns.
    pub(in crate::objective) recipe: Recipe,
    /// The recipe of another plan of the same kind.
    pub(in crate::objective) recipe_of: fn(&dyn Plan) -> Result<Recipe, ObjectiveError>,
}

/// An encoder, and a linear head that tells the class of an image by its class token or the mean of its patches.
#[derive(Debug)]
pub(in crate::objective) struct Classifier {
    vit: Vit,
    /// The head's own norm, `fc_norm.*` as timm calls it.
    norm: Option<nn::LayerNorm>,
    head: nn::Linear,
    classes: i64,
    parts: Parts,
    frequencies: Frequencies,
}

impl Classifier {
    /// Parameters under `vs`: the encoder's at its root, `fc_norm.*` and `head.*`, all as timm's.
    pub(in crate::objective) fn new(vs: &Path<'_>, parts: Parts, at: &Scope<'_>) -> Self {
        // Unknown outside of training on a set, where the loss means nothing.
        let classes = parts.recipe.known_classes(at).max(1);
        let vit = Vit::new(vs, at.model, if parts.frozen { 0.0 } else { parts.recipe.drop_path });
        let norm = (parts.fresh_norm && parts.pool == Pool::Mean).then(|| layer_norm(&(vs / "fc_norm"), vit.dim()));
        if parts.frozen {
            vit.freeze();
        } else if norm.is_some() {
            // Nothing that is learnt from goes through it.
            vit.freeze_norm();
        }
        let init = Init::Normal { std: parts.head_deviation };
        Self {
            head: linear(&(vs / "head"), vit.dim(), classes as i64, true, init),
            norm,
            vit,
            classes: classes as i64,
            parts,
            frequencies: Frequencies::new(at.label_counts, classes, vs.device()),
        }
    }

    /// Logits f32 B×K of normalised images B×3×S×S.
    fn logits(&self, images: &Tensor, train: bool) -> Tensor {
        let tokens = || match self.norm {
            Some(_) => self.vit.unnormed_features(images, train),
            None => self.vit.forward_features(images, train),
        };
        let tokens = if self.parts.frozen { tch::no_grad(tokens) } else { tokens() };
        let seen = self.parts.pool.of(&tokens);
        let seen = self.norm.as_ref().map_or_else(|| seen.shallow_clone(), |norm| norm.forward(&seen));
        through(&self.head, &seen).to_kind(Kind::Float)
    }

    /// Which of some labels name a class: bool B.
    fn usable(&self, labels: &Tensor) -> Tensor {
        labels.ge(0).logical_and(&labels.lt(self.classes))
    }

    /// Target of each label, f32 B×K: its class, with `smoothing` of it spread over all; zeros without a usable label.
    fn targets(&self, labels: &Tensor, smoothing: f64) -> Tensor {
        let class = labels.clamp(0, self.classes - 1).unsqueeze(1);
        let sharp = Tensor::zeros([labels.size()[0], self.classes], (Kind::Float, labels.device())).scatter_value(1, &class, 1.0);
        (sharp * (1.0 - smoothing) + smoothing / self.classes as f64) * self.usable(labels).unsqueeze(1).to_kind(Kind::Float)
    }

    /// The views of some images that are learnt from, B×3×S×S each; one of them in an evaluation.
    fn views<'a>(&self, x: &'a StepInput, train: bool) -> Result<Vec<&'a Tensor>, ObjectiveError> {
        let first = image(self.parts.kind, x, &self.vit)?;
        if !train {
            return Ok(vec![first]);
        }
        let views: Vec<&Tensor> = x.views_named(IMAGE).collect();
        let wanted = i64::from(self.parts.recipe.repeats);
        shape(self.parts.kind, "the number of views", &[views.len() as i64], &[wanted])?;
        for view in &views {
            shape(self.parts.kind, "the view", &view.size(), &first.size())?;
        }
        Ok(views)
    }

    /// Images of a step, a part of a batch of `whole` images if they have `partners`, as they are learnt from: their first views, then their second ones.
    /// Images and partners come in the order of the batch; all are mixed as `mix` says.
    fn prepared(&self, views: &[&Tensor], partners: Option<&[&Tensor]>, whole: i64, mix: Mix, ctx: &StepContext) -> Tensor {
        if !ctx.train {
            return joined(views);
        }
        let (first, stride) = if partners.is_some() {
            (ctx.rows.start, ctx.rows.stride)
        } else {
            (0, 1)
        };
        // The rows of a second view stand behind those of all first ones.
        let erase =
            |images: &Tensor, view: usize, first| erased(images, self.parts.recipe.erasing, ctx.seed, view as i64 * whole + first, stride);
        let mixed = views.iter().enumerate().map(|(n, view)| {
            let own = erase(view, n, first);
            let other = match partners {
                _ if mix == Mix::Off => own.shallow_clone(),
                None => own.flip([0]),
                Some(partners) => {
                    // The first partner is that of the last image.
                    let last = first + (partners[n].size()[0] - 1) * stride;
                    erase(partners[n], n, whole - 1 - last).flip([0])
                }
            };
            mix.apply(&own, &other)
        });
        joined(&mixed.collect::<Vec<_>>())
    }

    /// Losses of some images of a batch whose labels are `labels`; `partners` are those that they are mixed with, in the order of the batch, or none
    /// where they are the whole batch.
    fn losses(&self, x: &StepInput, partners: Option<&StepInput>, labels: &Tensor, ctx: &StepContext) -> Result<Losses, ObjectiveError> {
        let own = self.views(x, ctx.train)?;
        let other = partners.map(|partners| self.views(partners, ctx.train)).transpose()?;
        let whole = labels.size()[0];
        let mix = if ctx.train {
            Mix::draw(&self.parts.recipe, ctx.seed, self.vit.image())
        } else {
            Mix::Off
        };
        let logits = self.logits(&self.prepared(&own, other.as_deref(), whole, mix, ctx), ctx.train);
        look(|| "head".into(), &logits);
        // Views × images × classes.
        let logits = logits.view([own.len() as i64, x.len, self.classes]);
        let log_shares = logits.log_softmax(-1, Kind::Float);

        let share = mix.own_share();
        let partner_labels = partners.map_or(&x.labels, |partners| &partners.labels).flip([0]);
        let smoothing = if ctx.train { self.parts.recipe.smoothing } else { 0.0 };
        let targets = self.targets(&x.labels, smoothing) * share + self.targets(&partner_labels, smoothing) * (1.0 - share);
        // Sums over these images, divided by the labelled ones of the whole batch: the means of parts add up to that of the batch.
        let labelled = self.usable(labels).sum(Kind::Float).clamp_min(1.0);
        let mean = |sum: Tensor| sum * (whole as f64 / x.len as f64) / &labelled;
        let mean_of_views = |sum: Tensor| mean(sum) / own.len() as f64;
        let loss = mean_of_views(-(&targets * &log_shares).sum(Kind::Float));

        let class = if share >= 0.5 { x.labels.shallow_clone() } else { partner_labels };
        let usable = self.usable(&class);
        let told = logits.argmax(-1, false).eq_tensor(&class).logical_and(&usable);
        let guess = mean(-(&targets * &self.frequencies.logarithms).sum(Kind::Float));
        let mut stats = vec![("class_accuracy", mean_of_views(told.sum(Kind::Float))), ("frequency_guess", guess)];
        let commonest = |commonest: i64| mean(class.eq(commonest).logical_and(&usable).sum(Kind::Float));
        stats.extend(self.frequencies.commonest.map(|class| ("commonest_class", commonest(class))));
        Ok(Losses {
            stats,
            shares: vec![(
                "unlabelled",
                self.usable(&x.labels).logical_not().to_kind(Kind::Float).mean(Kind::Float),
            )],
            counted: Some(self.usable(labels).to_kind(Kind::Float).mean(Kind::Float)),
            ..Losses::of_term("classification", loss)
        })
    }
}

/// Views behind each other; no copy of a single one.
fn joined<T: Borrow<Tensor>>(views: &[T]) -> Tensor {
    match views {
        [one] => one.borrow().shallow_clone(),
        all => Tensor::cat(all, 0),
    }
}

impl Objective for Classifier {
    fn forward(&self, x: &StepInput, ctx: &StepContext) -> Result<Losses, ObjectiveError> {
        self.losses(x, None, &x.labels, ctx)
    }

    fn encoder(&self) -> &Vit {
        &self.vit
    }

    fn take_live(&mut self, plan: &dyn Plan) -> Result<(), ObjectiveError> {
        let new = (self.parts.recipe_of)(plan)?;
        self.parts.recipe = Recipe {
            smoothing: new.smoothing,
            mixup: new.mixup,
            cutmix: new.cutmix,
            cutmix_share: new.cutmix_share,
            erasing: new.erasing,
            ..self.parts.recipe
        };
        Ok(())
    }

    fn mixed_images(&self) -> Option<&dyn MixedImages> {
        Some(self)
    }

    fn class_logits(&self, images: &Tensor) -> Option<Tensor> {
        Some(self.logits(images, false))
    }

    fn is_class_head(&self, name: &str) -> bool {
        name.starts_with("head.") || name.starts_with("fc_norm.")
    }
}

impl MixedImages for Classifier {
    fn mixes(&self) -> bool {
        self.parts.recipe.mixup > 0.0 || self.parts.recipe.cutmix > 0.0
    }

    fn forward_part(&self, x: &StepInput, partners: &StepInput, labels: &Tensor, ctx: &StepContext) -> Result<Losses, ObjectiveError> {
        self.losses(x, Some(partners), labels, ctx)
    }
}
