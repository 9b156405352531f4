//! The network and its loss.

use splitmask_pipeline::request::IMAGE;
use tch::Tensor;
use tch::nn::{self, Path};

use super::{KIND, MaeConfig, patch_values};
use crate::head::{Decoder, DecoderConfig};
use crate::loss::{image_of_patches, mean_squared_error, patch_pixels, patch_scale};
use crate::model::config::VitConfig;
use crate::model::{BlockOptions, Init, QkvBias, Vit, VitOptions, linear, through};
use crate::objective::masked::{MaskedInput, masked_input};
use crate::objective::{Column, Losses, Objective, ObjectiveError, Plan, Sheet, StepContext, settings};
use crate::optim::ParamRule;
use crate::tensor::{PatchSets, StepInput, flat_rows, take_rows};

/// The encoder sees the unmasked patches alone; a narrower decoder sees its output and a mask embedding for each of the others, and a linear layer predicts
/// the pixels of those.
#[derive(Debug)]
pub(super) struct Mae {
    vit: Vit,
    /// Encoder's width to decoder's.
    narrow: nn::Linear,
    decoder: Decoder,
    /// Decoder's width to pixels.
    pixels: nn::Linear,
    norm_pixels: bool,
    model: VitConfig,
}

impl Mae {
    /// Parameters under `vs`: the encoder's at its root, `decoder.embed.*`, `decoder.*`, `decoder.pred.*`. All matrices are Xavier's.
    pub(super) fn new(vs: &Path<'_>, config: &MaeConfig, model: &VitConfig) -> Self {
        let weights = Init::Xavier;
        let options = VitOptions {
            weights,
            positions: config.positions,
            ..VitOptions::plain(0.0)
        };
        let width = i64::from(config.decoder.width);
        let decoder = DecoderConfig {
            depth: config.decoder.layers.into(),
            patches: model.patches(),
            positions: config.positions,
            insert: true,
            positions_on_seen: true,
            drop_path: 0.0,
        };
        let blocks = BlockOptions {
            dim: width,
            heads: config.decoder.heads.into(),
            hidden: 4 * width,
            layer_scale: 0.0,
            qkv_bias: QkvBias::Full,
            weights,
            recompute: model.checkpoint_activations,
        };
        let under = vs / "decoder";
        Self {
            vit: Vit::with(vs, model, &options),
            narrow: linear(&(&under / "embed"), model.dim(), width, true, weights),
            decoder: Decoder::new(&under, &decoder, &blocks),
            pixels: linear(&(&under / "pred"), width, patch_values(model), true, weights),
            norm_pixels: config.norm_pixels,
            model: model.clone(),
        }
    }

    /// Decoder's output B×(1+N)×W, normalised.
    fn decode(&self, image: &Tensor, sets: &PatchSets, train: bool) -> Tensor {
        let seen = &sets.not_a;
        let (b, k) = seen.size2().expect("seen patches are B×K");
        let tokens = take_rows(&self.vit.embed(image), &flat_rows(seen, b, sets.patches, 0));
        let encoded = self.vit.encode(&tokens.view([b, k, -1]), Some(seen), train);
        self.decoder.forward_t(&through(&self.narrow, &encoded), seen, train)
    }

    fn patch(&self) -> i64 {
        self.model.patch.into()
    }
}

impl Objective for Mae {
    fn forward(&self, x: &StepInput, ctx: &StepContext) -> Result<Losses, ObjectiveError> {
        let MaskedInput { image, sets, .. } = masked_input(KIND.name, x, &self.vit, None)?;
        let (n, masked) = (sets.patches, &sets.a);
        let decoded = self.decode(image, sets, ctx.train);
        let predicted = through(&self.pixels, &take_rows(&decoded, &flat_rows(masked, x.len, 1 + n, 1)));
        let mut target = take_rows(&patch_pixels(image, self.patch()), &flat_rows(masked, x.len, n, 0));
        if self.norm_pixels {
            let (mean, deviation) = patch_scale(&target);
            target = (target - mean) / deviation;
        }
        let zero = target.square().mean(tch::Kind::Float);
        Ok(Losses {
            stats: vec![("zero_prediction", zero)],
            ..Losses::of_term("reconstruction", mean_squared_error(&predicted, &target))
        })
    }

    fn encoder(&self) -> &Vit {
        &self.vit
    }

    fn repeats(&self) -> bool {
        true
    }

    fn take_live(&mut self, plan: &dyn Plan) -> Result<(), ObjectiveError> {
        // No key of MAE's is live.
        settings::<MaeConfig>(plan, &KIND).map(|_| ())
    }

    /// MAE's code decays all but vectors: class and mask token do decay.
    fn rule(&self, name: &str, dims: &[i64]) -> ParamRule {
        ParamRule {
            decay: dims.len() > 1,
            layers_below_top: self.vit.layers_below_top(name),
        }
    }

    fn pictures(&self, x: &StepInput) -> Result<Vec<Sheet>, ObjectiveError> {
        let MaskedInput { image, sets, .. } = masked_input(KIND.name, x, &self.vit, None)?;
        let reconstruction = tch::no_grad(|| {
            let decoded = self.decode(image, sets, false).narrow(1, 1, sets.patches);
            let mut predicted = through(&self.pixels, &decoded).to_kind(tch::Kind::Float);
            let own = patch_pixels(image, self.patch());
            if self.norm_pixels {
                let (mean, deviation) = patch_scale(&own);
                predicted = predicted * deviation + mean;
            }
            let masked = Tensor::zeros([x.len, sets.patches], (tch::Kind::Bool, image.device())).scatter_value(1, &sets.a, 1);
            image_of_patches(&predicted.where_self(&masked.unsqueeze(2), &own), self.patch())
        });
        Ok(vec![Sheet {
            name: "reconstruction",
            columns: vec![
                Column::View(IMAGE),
                Column::Seen(IMAGE, sets.not_a.shallow_clone()),
                Column::Pixels(reconstruction),
            ],
        }])
    }
}
