//! The network and its losses.

use splitmask_pipeline::request::IMAGE;
use tch::nn::Path;
use tch::{Kind, Tensor};

use super::{KIND, SplitMaskConfig};
use crate::head::{Decoder, DecoderConfig, MimHead};
use crate::loss::{count_words, info_nce, token_accuracy};
use crate::model::config::VitConfig;
use crate::model::{Init, Vit, VitOptions, parameter};
use crate::objective::masked::{MaskedInput, masked_input};
use crate::objective::{BetweenImages, Column, Losses, Objective, ObjectiveError, Plan, Scope, Sheet, StepContext, settings};
use crate::tensor::{PatchSets, StepInput, flat_rows, place_rows, take_rows};

/// One shared encoder sees the patches of A and those of B as separate sequences; one shared shallow decoder completes both; each
/// branch predicts the words of what it did not see, and recognises the other half of its image. Both branches go through as one batch of 2B:
/// rows 0..B are branch A, rows B..2B branch B.
#[derive(Debug)]
pub(super) struct SplitMask {
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
    fn of(sets: &PatchSets) -> Self {
        Self {
            seen: Tensor::cat(&[&sets.a, &sets.b], 0),
            absent: Tensor::cat(&[&sets.not_a, &sets.not_b], 0),
        }
    }
}

impl SplitMask {
    /// Parameters under `vs`: the encoder's at its root, `decoder.*`, and `mim_head.*` if words are predicted.
    pub(super) fn new(vs: &Path<'_>, config: &SplitMaskConfig, at: &Scope<'_>) -> Self {
        let (model, vocabulary) = (at.model, at.words);
        let options = VitOptions::plain(config.drop_path);
        let vit = Vit::with(vs, model, &options);
        let decoder = DecoderConfig {
            depth: i64::from(config.decoder_depth),
            patches: model.patches(),
            positions: options.positions,
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
        let checked = masked_input(KIND.name, input, &self.vit, self.head.is_some().then_some(self.vocabulary))?;
        let (a, b) = (checked.sets.a.size(), checked.sets.b.size());
        if a != b {
            return Err(ObjectiveError::Shape {
                objective: KIND.name,
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
        let MaskedInput { image, words, sets } = self.checked(input)?;
        let b = input.len;
        let n = self.model.patches();
        let stacked = Stacked::of(sets);
        let completed = self.complete(image, &stacked, train);
        let mut total = Tensor::zeros([], (Kind::Float, completed.device()));
        let (mut terms, mut stats, mut counts) = (Vec::new(), Vec::new(), Vec::new());
        if let (Some(head), Some(words)) = (&self.head, words) {
            let absent = take_rows(&completed, &flat_rows(&stacked.absent, 2 * b, 1 + n, 1));
            let targets = words.flatten(0, 1).index_select(0, &flat_rows(&stacked.absent, b, n, 0));
            let (loss, predicted) = head.cross_entropy(&absent, &targets);
            total += &loss * self.config.inpaint_weight;
            terms.push(("inpaint", loss.detach()));
            stats.push(("token_accuracy", token_accuracy(&predicted, &targets)));
            counts.push(("predicted_perplexity", count_words(&predicted, self.vocabulary)));
        }
        let losses = Losses {
            total,
            terms,
            stats,
            counts,
            shares: vec![],
            counted: None,
        };
        Ok((losses, completed))
    }

    /// Mean of the patches of each branch, f32 2×B×D.
    fn descriptors(&self, completed: &Tensor) -> Tensor {
        let n = self.model.patches();
        let described = completed.narrow(1, 1, n).mean_dim([1i64].as_slice(), false, Kind::Float);
        described.view([2, -1, self.model.dim()])
    }
}

impl BetweenImages for SplitMask {
    fn describe(&self, x: &StepInput, ctx: &StepContext) -> Result<(Losses, Tensor), ObjectiveError> {
        let (losses, completed) = self.inpaint(x, ctx.train)?;
        Ok((losses, self.descriptors(&completed)))
    }

    fn compare(&self, descriptors: &Tensor, _: &StepContext) -> Result<Losses, ObjectiveError> {
        Ok(self.recognise(descriptors))
    }
}

impl SplitMask {
    /// The match term of descriptors 2×B×D.
    fn recognise(&self, descriptors: &Tensor) -> Losses {
        let contrast = info_nce(
            &descriptors.select(0, 0),
            &descriptors.select(0, 1),
            self.config.temperature,
            self.config.both_branch_negatives,
        );
        Losses {
            terms: vec![("match", contrast.loss.detach())],
            stats: vec![("match_accuracy", contrast.accuracy)],
            counts: vec![],
            shares: vec![],
            counted: None,
            total: contrast.loss * self.config.match_weight,
        }
    }
}

impl Objective for SplitMask {
    fn forward(&self, x: &StepInput, ctx: &StepContext) -> Result<Losses, ObjectiveError> {
        let (mut losses, completed) = self.inpaint(x, ctx.train)?;
        if self.config.match_ {
            let between = self.recognise(&self.descriptors(&completed));
            losses.total += between.total;
            losses.terms.extend(between.terms);
            losses.stats.extend(between.stats);
        }
        Ok(losses)
    }

    fn encoder(&self) -> &Vit {
        &self.vit
    }

    fn between_images(&self) -> Option<&dyn BetweenImages> {
        self.config.match_.then_some(self)
    }

    fn repeats(&self) -> bool {
        true
    }

    fn take_live(&mut self, plan: &dyn Plan) -> Result<(), ObjectiveError> {
        let new: &SplitMaskConfig = settings(plan, &KIND)?;
        self.config.inpaint_weight = new.inpaint_weight;
        self.config.match_weight = new.match_weight;
        self.config.temperature = new.temperature;
        Ok(())
    }

    fn pictures(&self, x: &StepInput) -> Result<Vec<Sheet>, ObjectiveError> {
        let MaskedInput { image, sets, .. } = self.checked(x)?;
        let (Some(head), Some(words)) = (&self.head, &x.words) else {
            return Ok(vec![]);
        };
        let n = self.model.patches();
        let predicted = tch::no_grad(|| {
            let completed = self.complete(image, &Stacked::of(sets), false);
            let likeliest = head.forward(&completed.narrow(1, 1, n)).argmax(-1, false);
            let (of_a, of_b) = (likeliest.narrow(0, 0, x.len), likeliest.narrow(0, x.len, x.len));
            // Each patch as a branch predicts it that did not see it.
            let seen_by_a = of_a.zeros_like().to_kind(Kind::Bool).scatter_value(1, &sets.a, 1);
            of_b.where_self(&seen_by_a, &of_a)
        });
        Ok(vec![Sheet {
            name: "inpaint",
            columns: vec![
                Column::View(IMAGE),
                Column::Seen(IMAGE, sets.a.shallow_clone()),
                Column::Seen(IMAGE, sets.b.shallow_clone()),
                Column::Words(predicted),
                Column::Words(words.shallow_clone()),
            ],
        }])
    }
}
