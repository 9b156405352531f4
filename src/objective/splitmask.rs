//! SplitMask: split, inpaint, match (arXiv 2112.10740 §4).

use splitmask_pipeline::types::{ColourConfig, CropConfig, MaskSpec, ViewPlan};
use tch::nn::Path;
use tch::{Kind, Tensor};

use crate::head::{Decoder, DecoderConfig, MimHead};
use crate::loss::{count_words, info_nce, token_accuracy};
use crate::model::config::VitConfig;
use crate::model::{Init, Vit, VitOptions, block_flops, linear_flops, parameter};
use crate::objective::config::{ObjectiveConfig, SplitMaskConfig};
use crate::objective::{Branch, Coupling, Losses, MaskedInput, Objective, ObjectiveError, Prediction, masked_input};
use crate::tensor::{Parts, StepInput, flat_rows, place_rows, take_rows};

pub(crate) const NAME: &str = "splitmask";

/// One shared encoder sees the patches of A and those of B as separate sequences; one shared shallow decoder completes both; each
/// branch predicts the words of what it did not see, and recognises the other half of its image. Both branches go through as one batch of 2B:
/// rows 0..B are branch A, rows B..2B branch B.
#[derive(Debug)]
pub struct SplitMask {
    vit: Vit,
    /// Stands for absent patches in the encoder; only without splitting.
    mask_token: Option<Tensor>,
    decoder: Decoder,
    head: Option<MimHead>,
    vocabulary: i64,
    model: VitConfig,
    config: SplitMaskConfig,
}

/// Both branches' index lists, stacked.
struct Stacked {
    /// 2B×K.
    seen: Tensor,
    /// 2B×(N−K).
    absent: Tensor,
}

impl Stacked {
    fn of(parts: &Parts) -> Self {
        Self {
            seen: Tensor::cat(&[&parts.seen_a, &parts.seen_b], 0),
            absent: Tensor::cat(&[&parts.absent_a, &parts.absent_b], 0),
        }
    }
}

impl SplitMask {
    /// Parameters under `vs`: the backbone's at its root, `decoder.*`, and `mim_head.*` if words are predicted.
    #[must_use]
    pub fn new(vs: &Path<'_>, config: &SplitMaskConfig, model: &VitConfig, vocabulary: i64) -> Self {
        let options = VitOptions::plain(config.drop_path);
        let vit = Vit::with(vs, model, &options);
        let decoder = DecoderConfig {
            depth: i64::from(config.decoder_depth),
            patches: model.patches(),
            insert: config.split,
            positions_on_seen: config.decoder_positions_on_seen,
            drop_path: config.decoder_drop_path,
        };
        Self {
            mask_token: (!config.split).then(|| parameter(vs, "mask_token", &[1, 1, model.dim()], Init::Normal { std: 0.02 })),
            decoder: Decoder::new(&(vs / "decoder"), &decoder, &Vit::block_options(model, &options)),
            head: config
                .inpaint
                .then(|| MimHead::new(&(vs / "mim_head"), model.dim(), vocabulary, options.weights)),
            vit,
            vocabulary,
            model: model.clone(),
            config: config.clone(),
        }
    }

    fn checked<'a>(&self, input: &'a StepInput) -> Result<MaskedInput<'a>, ObjectiveError> {
        let checked = masked_input(NAME, input, &self.vit, self.head.is_some().then_some(self.vocabulary))?;
        let (a, b) = (checked.parts.seen_a.size(), checked.parts.seen_b.size());
        if a != b {
            return Err(ObjectiveError::Shape {
                objective: NAME,
                what: "set B of the mask",
                got: b,
                want: format!("{a:?}, as set A"),
            });
        }
        Ok(checked)
    }

    /// Encoder and decoder on both branches: 2B×(1+N)×D, normalised.
    fn complete(&self, image: &Tensor, stacked: &Stacked, train: bool) -> Tensor {
        let seen = &stacked.seen;
        let (two_b, k) = seen.size2().expect("seen patches are 2B×K");
        let b = two_b / 2;
        let n = self.model.patches();
        let encoded = match &self.mask_token {
            None => {
                let tokens = take_rows(&self.vit.embed(image), &flat_rows(seen, b, n, 0));
                self.vit.encode(&tokens.view([two_b, k, -1]), Some(seen), train)
            }
            Some(mask) => {
                let patches = self.vit.patches(image);
                let d = self.vit.dim();
                let background = mask.view([1, d]).expand([two_b * n, d], false);
                let known = take_rows(&patches, &flat_rows(seen, b, n, 0));
                let tokens = place_rows(&background, &flat_rows(seen, two_b, n, 0), &known).view([two_b, n, d]);
                self.vit
                    .encode(&(tokens + self.vit.patch_positions(self.model.grid())), None, train)
            }
        };
        self.decoder.forward_t(&encoded, seen, train)
    }
}

impl SplitMask {
    /// The inpaint term alone, and both branches completed: 2B×(1+N)×D.
    fn inpaint(&self, input: &StepInput, train: bool) -> Result<(Losses, Tensor), ObjectiveError> {
        let MaskedInput { image, words, parts } = self.checked(input)?;
        let b = input.len;
        let n = self.model.patches();
        let stacked = Stacked::of(parts);
        let completed = self.complete(image, &stacked, train);
        let mut total = Tensor::zeros([], (Kind::Float, completed.device()));
        let (mut terms, mut stats, mut counts) = (Vec::new(), Vec::new(), None);
        if let (Some(head), Some(words)) = (&self.head, words) {
            let absent = take_rows(&completed, &flat_rows(&stacked.absent, 2 * b, 1 + n, 1));
            let targets = words.flatten(0, 1).index_select(0, &flat_rows(&stacked.absent, b, n, 0));
            let (loss, predicted) = head.cross_entropy(&absent, &targets);
            total += &loss * self.config.inpaint_weight;
            terms.push(("inpaint", loss.detach()));
            stats.push(("token_accuracy", token_accuracy(&predicted, &targets)));
            counts = Some(count_words(&predicted, self.vocabulary));
        }
        let losses = Losses {
            total,
            terms,
            stats,
            predicted: counts,
        };
        Ok((losses, completed))
    }

    /// Mean of the patches of each branch, f32 2×B×D.
    fn describe(&self, completed: &Tensor) -> Tensor {
        let n = self.model.patches();
        let described = completed.narrow(1, 1, n).mean_dim([1i64].as_slice(), false, Kind::Float);
        described.view([2, -1, self.model.dim()])
    }
}

impl Coupling for SplitMask {
    fn separable(&self, input: &StepInput, train: bool) -> Result<(Losses, Tensor), ObjectiveError> {
        let (losses, completed) = self.inpaint(input, train)?;
        let described = self.describe(&completed);
        Ok((losses, described))
    }

    fn couple(&self, descriptors: &Tensor) -> Losses {
        let contrast = info_nce(
            &descriptors.select(0, 0),
            &descriptors.select(0, 1),
            self.config.temperature,
            self.config.both_branch_negatives,
        );
        Losses {
            terms: vec![("match", contrast.loss.detach())],
            stats: vec![("match_accuracy", contrast.accuracy)],
            predicted: None,
            total: contrast.loss * self.config.match_weight,
        }
    }
}

impl Objective for SplitMask {
    fn name(&self) -> &'static str {
        NAME
    }

    fn views(&self, crop: CropConfig, colour: ColourConfig) -> ViewPlan {
        ObjectiveConfig::Splitmask(self.config.clone()).views(&self.model, crop, colour)
    }

    fn forward_t(&self, input: &StepInput, train: bool) -> Result<Losses, ObjectiveError> {
        let (mut losses, completed) = self.inpaint(input, train)?;
        if self.config.match_ {
            let coupled = self.couple(&self.describe(&completed));
            losses.total += coupled.total;
            losses.terms.extend(coupled.terms);
            losses.stats.extend(coupled.stats);
        }
        Ok(losses)
    }

    fn coupling(&self) -> Option<&dyn Coupling> {
        self.config.match_.then_some(self)
    }

    fn forward_flops(&self) -> f64 {
        let m = &self.model;
        let (n, d, h) = (m.patches(), m.dim(), m.hidden());
        let seen = match self.config.mask {
            MaskSpec::UniformSplit { keep } => (f64::from(keep) * n as f64).round() as i64,
            MaskSpec::BlockwiseSplit { .. } | MaskSpec::BlockwiseMask { .. } => n / 2,
        };
        let encoded = if self.config.split { seen } else { n };
        let branch = m.layers() as f64 * block_flops(1 + encoded, d, h) + f64::from(self.config.decoder_depth) * block_flops(1 + n, d, h);
        let head = self.head.as_ref().map_or(0.0, |_| linear_flops(n - seen, d, self.vocabulary));
        linear_flops(n, 3 * i64::from(m.patch).pow(2), d) + 2.0 * (branch + head)
    }

    fn apply_live(&mut self, config: &ObjectiveConfig) -> Result<(), ObjectiveError> {
        let ObjectiveConfig::Splitmask(new) = config else {
            return Err(ObjectiveError::Kind {
                objective: NAME,
                got: config.kind(),
            });
        };
        self.vit.set_drop_path(new.drop_path);
        self.decoder.set_drop_path(new.decoder_drop_path);
        // Which modules exist, and what the pipeline was told, stay as built.
        self.config = SplitMaskConfig {
            mask: self.config.mask,
            inpaint: self.config.inpaint,
            split: self.config.split,
            decoder_depth: self.config.decoder_depth,
            decoder_positions_on_seen: self.config.decoder_positions_on_seen,
            ..new.clone()
        };
        Ok(())
    }

    fn backbone(&self) -> &Vit {
        &self.vit
    }

    fn predict(&self, input: &StepInput) -> Result<Option<Prediction>, ObjectiveError> {
        let MaskedInput { image, parts, .. } = self.checked(input)?;
        let Some(head) = &self.head else { return Ok(None) };
        let n = self.model.patches();
        let words = tch::no_grad(|| {
            let completed = self.complete(image, &Stacked::of(parts), false);
            head.forward(&completed.narrow(1, 1, n)).argmax(-1, false)
        });
        let branch = |name, seen: &Tensor, start| Branch {
            name,
            seen: seen.shallow_clone(),
            words: words.narrow(0, start, input.len),
        };
        Ok(Some(Prediction {
            branches: vec![branch("A", &parts.seen_a, 0), branch("B", &parts.seen_b, input.len)],
        }))
    }
}
