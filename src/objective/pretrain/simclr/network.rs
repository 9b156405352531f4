//! The network and its loss.

use tch::Tensor;
use tch::nn::Path;

use super::{KIND, SimclrConfig};
use crate::head::{Affine, Projection};
use crate::loss::{info_nce, participation_ratio};
use crate::model::Vit;
use crate::objective::two_views;
use crate::objective::{BetweenImages, Losses, Objective, ObjectiveError, Plan, Scope, StepContext, settings};
use crate::tensor::StepInput;

/// Both views of all images go through encoder and projection head as one batch of 2B: rows 0..B are the first views.
#[derive(Debug)]
pub(super) struct Simclr {
    vit: Vit,
    projection: Projection,
    config: SimclrConfig,
}

impl Simclr {
    /// Parameters under `vs`: the encoder's at its root, `projection.*`.
    pub(super) fn new(vs: &Path<'_>, config: &SimclrConfig, at: &Scope<'_>) -> Self {
        let vit = two_views::encoder(vs, config.positions, config.freeze_patches, at);
        Self {
            projection: Projection::new(&(vs / "projection"), vit.dim(), &config.projection, Affine::Scale),
            vit,
            config: config.clone(),
        }
    }
}

impl Simclr {
    /// Projections 2B×P of both views of some images.
    fn project(&self, x: &StepInput, ctx: &StepContext) -> Result<Tensor, ObjectiveError> {
        let views = two_views::both(KIND.name, x, &self.vit)?;
        let described = self.config.pool.of(&self.vit.forward_features(&views, ctx.train));
        Ok(self.projection.forward(&described, 1, ctx.training())?)
    }

    /// The loss between the projections 2B×P of a batch.
    fn contrast(&self, projected: &Tensor) -> Losses {
        let images = projected.size()[0] / 2;
        let of = |start| projected.narrow(0, start, images);
        let contrast = info_nce(&of(0), &of(images), self.config.temperature, true);
        Losses {
            stats: vec![
                ("contrast_accuracy", contrast.accuracy),
                ("projection_rank", participation_ratio(projected)),
            ],
            ..Losses::of_term("contrast", contrast.loss)
        }
    }
}

/// Descriptors are the projections, 2×B×P.
impl BetweenImages for Simclr {
    fn describe(&self, x: &StepInput, ctx: &StepContext) -> Result<(Losses, Tensor), ObjectiveError> {
        let projected = self.project(x, ctx)?;
        Ok((two_views::no_losses(&projected), projected.view([2, x.len, -1])))
    }

    fn compare(&self, descriptors: &Tensor, _: &StepContext) -> Result<Losses, ObjectiveError> {
        Ok(self.contrast(&descriptors.flatten(0, 1)))
    }
}

impl Objective for Simclr {
    fn forward(&self, x: &StepInput, ctx: &StepContext) -> Result<Losses, ObjectiveError> {
        Ok(self.contrast(&self.project(x, ctx)?))
    }

    fn between_images(&self) -> Option<&dyn BetweenImages> {
        Some(self)
    }

    fn encoder(&self) -> &Vit {
        &self.vit
    }

    fn take_live(&mut self, plan: &dyn Plan) -> Result<(), ObjectiveError> {
        self.config.temperature = settings::<SimclrConfig>(plan, &KIND)?.temperature;
        Ok(())
    }

    fn after_step(&mut self, _: &StepContext, skipped: &Tensor) -> Result<(), ObjectiveError> {
        self.projection.after_step(skipped);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tch::{Device, nn};

    use super::*;
    use crate::head::ProjectionConfig;
    use crate::model::config::VitConfig;
    use crate::objective::two_views::{FIRST, SECOND};
    use crate::tensor::NamedView;

    fn small() -> (VitConfig, SimclrConfig) {
        let model = VitConfig {
            image: 16,
            patch: 4,
            width: 16,
            depth: 1,
            heads: 2,
            ..VitConfig::default()
        };
        let config = SimclrConfig {
            projection: ProjectionConfig {
                layers: 2,
                hidden: 32,
                out: 128,
            },
            ..SimclrConfig::default()
        };
        (model, config)
    }

    fn noise(images: i64) -> StepInput {
        let options = (tch::Kind::Float, Device::Cpu);
        let view = |name: &'static str| NamedView {
            name: name.into(),
            pixels: Tensor::randn([images, 3, 16, 16], options),
        };
        StepInput {
            len: images,
            views: vec![view(FIRST), view(SECOND)],
            words: None,
            largest_word: 0,
            hidden: None,
            sets: None,
            maps: None,
            objects: None,
            labels: Tensor::full([images], -1, (tch::Kind::Int64, Device::Cpu)),
        }
    }

    fn training(images: i64) -> StepContext {
        StepContext {
            train: true,
            ..StepContext::evaluation(0, 100, images)
        }
    }

    /// Projections of unlike images that use r dimensions have cosines of variance 1/r, and softmax pays half of that, over the temperature's square.
    #[test]
    fn a_new_network_pays_the_log_of_the_candidates_and_for_the_few_dimensions_it_uses() {
        let _turn = crate::tensor::alone();
        tch::manual_seed(21);
        let (model, mut config) = small();
        config.temperature = 0.5;
        let at = Scope::new(&model, 64, 0);
        let vs = nn::VarStore::new(Device::Cpu);
        let losses = config.build(&vs.root(), &at).forward(&noise(64), &training(64)).unwrap();
        let loss = losses.total.double_value(&[]);
        let rank = losses
            .stats
            .iter()
            .find(|(name, _)| *name == "projection_rank")
            .unwrap()
            .1
            .double_value(&[]);
        let want = config.at_start("contrast", &at).unwrap() + 1.0 / (2.0 * rank * config.temperature.powi(2));
        assert!((loss / want - 1.0).abs() < 0.02, "{loss} instead of {want}, rank {rank}");
    }

    #[test]
    fn a_skipped_step_leaves_the_running_statistics_and_a_taken_one_moves_them() {
        let _turn = crate::tensor::alone();
        tch::manual_seed(22);
        let (model, config) = small();
        let vs = nn::VarStore::new(Device::Cpu);
        let mut objective = config.build(&vs.root(), &Scope::new(&model, 8, 0));
        let buffers = || -> Vec<Tensor> {
            let vars: std::collections::BTreeMap<_, _> = vs.variables().into_iter().collect();
            let running = vars.iter().filter(|(name, _)| name.contains(".running_"));
            running.map(|(_, t)| t.copy()).collect()
        };
        let before = buffers();
        assert_eq!(before.len(), 4);
        let mut spoilt = noise(8);
        let _ = spoilt.views[0].pixels.fill_(f64::INFINITY);
        for (input, skipped) in [(&spoilt, 1f32), (&noise(8), 1.0)] {
            let _ = objective.forward(input, &training(8)).unwrap();
            objective.after_step(&training(8), &Tensor::from(skipped)).unwrap();
            assert_eq!(buffers(), before);
        }
        let _ = objective.forward(&noise(8), &training(8)).unwrap();
        objective.after_step(&training(8), &Tensor::from(0f32)).unwrap();
        let after = buffers();
        assert!(before.iter().zip(&after).all(|(a, b)| a != b));
    }
}
