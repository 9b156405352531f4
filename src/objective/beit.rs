//! BEiT: masked image modelling over all positions (arXiv 2106.08254 §2).

use splitmask_pipeline::types::{ColourConfig, CropConfig, MaskSpec, ViewPlan};
use tch::Tensor;
use tch::nn::Path;

use crate::head::MimHead;
use crate::loss::{count_words, token_accuracy};
use crate::model::config::VitConfig;
use crate::model::{Init, QkvBias, Vit, VitOptions, block_flops, linear_flops, parameter};
use crate::objective::config::{BeitConfig, ObjectiveConfig};
use crate::objective::{Branch, Losses, MaskedInput, Objective, ObjectiveError, Prediction, masked_input};
use crate::tensor::{StepInput, flat_rows, place_rows, take_rows};

pub(crate) const NAME: &str = "beit";

/// The encoder sees every position, masked ones as one learned embedding; a linear head predicts their words.
#[derive(Debug)]
pub struct Beit {
    vit: Vit,
    mask_token: Tensor,
    head: MimHead,
    vocabulary: i64,
    model: VitConfig,
    config: BeitConfig,
}

impl Beit {
    /// Parameters under `vs`: the backbone's at its root, `mask_token`, `mim_head.*`.
    #[must_use]
    pub fn new(vs: &Path<'_>, config: &BeitConfig, model: &VitConfig, vocabulary: i64) -> Self {
        let weights = Init::CutNormal { std: 0.02 };
        let options = VitOptions {
            drop_path: config.drop_path,
            qkv_bias: QkvBias::QueryValue,
            weights,
            rescale: config.rescale_init,
        };
        Self {
            vit: Vit::with(vs, model, &options),
            mask_token: parameter(vs, "mask_token", &[1, 1, model.dim()], weights),
            head: MimHead::new(&(vs / "mim_head"), model.dim(), vocabulary, weights),
            vocabulary,
            model: model.clone(),
            config: config.clone(),
        }
    }

    /// Features B×(1+N)×D with the patches `masked` B×K hidden.
    fn features(&self, image: &Tensor, masked: &Tensor, train: bool) -> Tensor {
        let patches = self.vit.patches(image);
        let (b, n, d) = patches.size3().expect("patches are B×N×D");
        let rows = flat_rows(masked, b, n, 0);
        let hidden = self.mask_token.view([1, d]).expand([rows.size()[0], d], false);
        let tokens = place_rows(&patches.view([b * n, d]), &rows, &hidden).view([b, n, d]);
        self.vit
            .encode(&(tokens + self.vit.patch_positions(self.model.grid())), None, train)
    }
}

impl Objective for Beit {
    fn name(&self) -> &'static str {
        NAME
    }

    fn views(&self, crop: CropConfig, colour: ColourConfig) -> ViewPlan {
        ObjectiveConfig::Beit(self.config.clone()).views(&self.model, crop, colour)
    }

    fn forward_t(&self, input: &StepInput, train: bool) -> Result<Losses, ObjectiveError> {
        let MaskedInput { image, words, parts } = masked_input(NAME, input, &self.vit, Some(self.vocabulary))?;
        let words = words.ok_or(ObjectiveError::Lacks {
            objective: NAME,
            what: "visual words",
        })?;
        let masked = &parts.seen_a;
        let n = self.model.patches();
        let features = self.features(image, masked, train);
        let targets = words.flatten(0, 1).index_select(0, &flat_rows(masked, input.len, n, 0));
        let rows = take_rows(&features, &flat_rows(masked, input.len, 1 + n, 1));
        let (loss, predicted) = self.head.cross_entropy(&rows, &targets);
        let stats = vec![("token_accuracy", token_accuracy(&predicted, &targets))];
        Ok(Losses {
            terms: vec![("inpaint", loss.detach())],
            stats,
            predicted: Some(count_words(&predicted, self.vocabulary)),
            total: loss,
        })
    }

    fn apply_live(&mut self, config: &ObjectiveConfig) -> Result<(), ObjectiveError> {
        let ObjectiveConfig::Beit(new) = config else {
            return Err(ObjectiveError::Kind {
                objective: NAME,
                got: config.kind(),
            });
        };
        self.vit.set_drop_path(new.drop_path);
        self.config.drop_path = new.drop_path;
        Ok(())
    }

    fn forward_flops(&self) -> f64 {
        let m = &self.model;
        let (n, d) = (m.patches(), m.dim());
        let masked = match self.config.mask {
            MaskSpec::BlockwiseMask { count, .. } => i64::from(count),
            MaskSpec::BlockwiseSplit { .. } | MaskSpec::UniformSplit { .. } => n / 2,
        };
        linear_flops(n, 3 * i64::from(m.patch).pow(2), d)
            + m.layers() as f64 * block_flops(1 + n, d, m.hidden())
            + linear_flops(masked, d, self.vocabulary)
    }

    fn backbone(&self) -> &Vit {
        &self.vit
    }

    fn predict(&self, input: &StepInput) -> Result<Option<Prediction>, ObjectiveError> {
        let MaskedInput { image, parts, .. } = masked_input(NAME, input, &self.vit, None)?;
        let n = self.model.patches();
        let words = tch::no_grad(|| {
            self.head
                .forward(&self.features(image, &parts.seen_a, false).narrow(1, 1, n))
                .argmax(-1, false)
        });
        Ok(Some(Prediction {
            branches: vec![Branch {
                name: "masked",
                seen: parts.absent_a.shallow_clone(),
                words,
            }],
        }))
    }
}
