//! The base encoder, its running average, and the loss between them.

use tch::Tensor;
use tch::nn::Path;
use torch_ext::ranks::Ranks;

use super::{KIND, MocoV3Config};
use crate::head::{Affine, Projection};
use crate::loss::{info_nce_of_keys, participation_ratio};
use crate::model::Vit;
use crate::objective::teacher::{TeacherWeights, in_force};
use crate::objective::two_views::{self, Pool};
use crate::objective::{BetweenImages, Losses, Objective, ObjectiveError, Plan, Scope, StepContext, settings};
use crate::optim::ParamRule;
use crate::tensor::StepInput;

/// Prefix of the momentum encoder's parameters and of its head's. Those of the base encoder, which is trained, stand at the root.
const MOMENTUM: &str = "momentum";

/// Views of an image. Each is normalised by itself in every BatchNorm (the authors' code has a forward pass for each).
const VIEWS: i64 = 2;

/// An encoder with its projection head: the base one or the momentum one.
#[derive(Debug)]
struct Network {
    vit: Vit,
    projection: Projection,
    pool: Pool,
}

impl Network {
    /// Parameters under `vs`: the encoder's, and `projection.*`.
    fn new(vs: &Path<'_>, config: &MocoV3Config, at: &Scope<'_>) -> Self {
        let vit = two_views::encoder(vs, config.positions, config.freeze_patches, at);
        Self {
            projection: Projection::new(&(vs / "projection"), vit.dim(), &config.projection, Affine::Neither),
            vit,
            pool: config.pool,
        }
    }

    /// Views of 2B rows, the second views behind the first, to their projections 2B×P.
    fn project(&self, views: &Tensor, training: Option<&Ranks>) -> Result<Tensor, ObjectiveError> {
        let described = self.pool.of(&self.vit.forward_features(views, training.is_some()));
        Ok(self.projection.forward(&described, VIEWS, training)?)
    }
}

/// Queries are what the predictor makes of the base encoder's projections, keys are the momentum encoder's projections. The momentum encoder's
/// BatchNorms see its own batches and have running statistics of their own; only weights are averaged.
#[derive(Debug)]
pub(super) struct MocoV3 {
    base: Network,
    momentum: Network,
    weights: TeacherWeights,
    predictor: Option<Projection>,
    config: MocoV3Config,
}

impl MocoV3 {
    /// Parameters under `vs`: the base encoder's at its root, `projection.*`, `predictor.*`, and the momentum encoder's and its head's under `momentum`.
    pub(super) fn new(vs: &Path<'_>, config: &MocoV3Config, at: &Scope<'_>) -> Self {
        let (base, momentum, weights) = TeacherWeights::build(vs, &(vs / MOMENTUM), |vs| Network::new(vs, config, at));
        let predictor = config.predictor();
        let width = i64::from(config.projection.out);
        Self {
            base,
            momentum,
            weights,
            predictor: predictor.map(|layers| Projection::new(&(vs / "predictor"), width, &layers, Affine::Neither)),
            config: config.clone(),
        }
    }
}

/// What the loss compares, 2B×P each.
struct Compared {
    queries: Tensor,
    keys: Tensor,
    /// What the predictor makes queries of; the queries themselves where there is none.
    projected: Tensor,
}

impl MocoV3 {
    fn compared(&self, x: &StepInput, ctx: &StepContext) -> Result<Compared, ObjectiveError> {
        let views = two_views::both(KIND.name, x, &self.base.vit)?;
        if ctx.train && ctx.step == 0 {
            // Weights of run.init_from have gone to the base encoder, and the two begin alike. In a run without them nothing changes here.
            self.weights.reset_teacher();
        }
        let training = ctx.training();
        let keys = tch::no_grad(|| self.momentum.project(&views, training))?;
        let projected = self.base.project(&views, training)?;
        let predicted = self.predictor.as_ref().map(|head| head.forward(&projected, VIEWS, training));
        Ok(Compared {
            queries: predicted.transpose()?.unwrap_or_else(|| projected.shallow_clone()),
            keys,
            projected,
        })
    }

    fn contrast(&self, compared: &Compared, ctx: &StepContext) -> Losses {
        let temperature = self.config.temperature;
        let contrast = info_nce_of_keys(&compared.queries, &compared.keys, temperature);
        Losses {
            // The sum of the two directions, each times 2τ (the authors' code).
            total: &contrast.loss * (4.0 * temperature),
            stats: vec![
                ("contrast_accuracy", contrast.accuracy),
                ("projection_rank", participation_ratio(&compared.projected)),
                (
                    "teacher_momentum",
                    in_force(self.config.momentum_at(ctx.step, ctx.total), &compared.projected),
                ),
            ],
            ..Losses::of_term("contrast", contrast.loss)
        }
    }
}

/// Descriptors are queries, keys and projections, two views each: 6×B×P.
impl BetweenImages for MocoV3 {
    fn describe(&self, x: &StepInput, ctx: &StepContext) -> Result<(Losses, Tensor), ObjectiveError> {
        let Compared { queries, keys, projected } = self.compared(x, ctx)?;
        let all = Tensor::cat(&[&queries, &keys, &projected.detach()], 0);
        Ok((two_views::no_losses(&queries), all.view([3 * VIEWS, x.len, -1])))
    }

    fn compare(&self, descriptors: &Tensor, ctx: &StepContext) -> Result<Losses, ObjectiveError> {
        let of = |n: i64| descriptors.narrow(0, n * VIEWS, VIEWS).flatten(0, 1);
        let (queries, keys, projected) = (of(0), of(1), of(2));
        Ok(self.contrast(&Compared { queries, keys, projected }, ctx))
    }
}

impl Objective for MocoV3 {
    fn forward(&self, x: &StepInput, ctx: &StepContext) -> Result<Losses, ObjectiveError> {
        Ok(self.contrast(&self.compared(x, ctx)?, ctx))
    }

    fn between_images(&self) -> Option<&dyn BetweenImages> {
        Some(self)
    }

    /// The base encoder, which is the one that the authors evaluate (arXiv 2104.02057, `main_lincls.py`).
    fn encoder(&self) -> &Vit {
        &self.base.vit
    }

    fn take_live(&mut self, plan: &dyn Plan) -> Result<(), ObjectiveError> {
        let new: &MocoV3Config = settings(plan, &KIND)?;
        self.config.temperature = new.temperature;
        self.config.momentum_end = new.momentum_end;
        Ok(())
    }

    /// The authors average at the beginning of a step, before its keys are computed, with that step's momentum. This is that average of the next step:
    /// nothing changes the base encoder between the two, and at the first step both encoders are equal and an average changes neither.
    fn after_step(&mut self, ctx: &StepContext, skipped: &Tensor) -> Result<(), ObjectiveError> {
        for head in [&mut self.base.projection, &mut self.momentum.projection]
            .into_iter()
            .chain(&mut self.predictor)
        {
            head.after_step(skipped);
        }
        self.weights.update(self.config.momentum_at(ctx.step + 1, ctx.total), skipped)
    }

    /// Everything decays, biases and BatchNorm too (the authors' code gives the optimizer no groups).
    fn rule(&self, name: &str, _: &[i64]) -> ParamRule {
        ParamRule {
            decay: true,
            layers_below_top: self.base.vit.layers_below_top(name),
        }
    }
}

#[cfg(test)]
mod tests;
