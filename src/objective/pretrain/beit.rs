//! BEiT: masked image modelling over all positions (arXiv 2106.08254 §2).

use splitmask_pipeline::request::{IMAGE, MaskSpec, SampleRequest};
use tch::Tensor;
use tch::nn::Path;
use toml::Table;

use crate::head::MimHead;
use crate::loss::{count_words, token_accuracy};
use crate::model::config::VitConfig;
use crate::model::{Init, QkvBias, Vit, VitOptions, encoder_flops, linear_flops, parameter};
use crate::objective::masked::{MaskedInput, drop_path, embed_hidden, fit_mask, masked_input, one_view, side};
use crate::objective::predicted_words::{self, FREQUENCIES, INPAINT_COLLAPSED, PREDICTED_PERPLEXITY};
use crate::objective::{
    Better, Column, Kind, Losses, Number, Objective, ObjectiveError, Plan, Role, Scope, Sheet, StepContext, Unit, read, settings, table,
};
use crate::setting::Class::Restart;
use crate::setting::{Findings, Fitting, Key, Violation, key, settings};
use crate::tensor::{StepInput, flat_rows, take_rows};

/// The row of the registry.
pub static KIND: Kind = Kind {
    name: "beit",
    doc: "predict the visual words of masked patches from all positions",
    reference: "arXiv 2106.08254 §2",
    keys: &[MASK_KEYS, BeitConfig::KEYS],
    numbers: &[
        Number {
            name: "inpaint",
            help: "Cross-entropy of the masked visual words, in nats.",
            role: Role::Term,
            unit: Unit::Nats,
            better: Better::Lower,
            baseline: Some(FREQUENCIES),
        },
        Number {
            name: "token_accuracy",
            help: "Share of masked visual words that were predicted right, 0 to 1.",
            role: Role::Measure,
            unit: Unit::Share,
            better: Better::Higher,
            baseline: None,
        },
        PREDICTED_PERPLEXITY,
    ],
    collapse: &[INPAINT_COLLAPSED],
    variants: || vec![Box::new(BeitConfig::default())],
    read: read::<BeitConfig>,
    sheets: &[("inpaint", "image · seen · predicted words · true words")],
};

/// The keys of `[objective.mask]`.
const MASK_KEYS: &[Key] = &[
    key(Restart, "mask.kind", "how patches are masked: `blockwise-mask`"),
    key(Restart, "mask.count", "masked patches"),
    key(Restart, "mask.min_block", "smallest block, patches"),
    key(Restart, "mask.max_block", "largest block, patches"),
];

settings! {
    /// BEiT's settings (arXiv 2106.08254 §2.3, §2.5 and appendix G).
    pub struct BeitConfig in "objective" {
        /// Drop path, linear over depth.
        Restart drop_path: f64 = 0.1,
        /// Divide the last matrices of layer l by √(2l) at initialisation.
        Frozen rescale_init: bool = true,
    }
    tables {
        /// Which patches are masked.
        mask: MaskSpec = MaskSpec::BlockwiseMask { count: 75, min_block: 16, max_block: 75 },
    }
}

impl Plan for BeitConfig {
    fn kind(&self) -> &'static Kind {
        &KIND
    }

    fn table(&self) -> Table {
        table(self)
    }

    fn fit(&mut self, at: &Scope<'_>, fitting: &mut Fitting<'_>) {
        fit_mask(&mut self.mask, at.model, fitting);
    }

    fn check(&self, at: &Scope<'_>) -> Vec<Violation> {
        let mut found = Findings::default();
        found.need(
            matches!(self.mask, MaskSpec::BlockwiseMask { .. }),
            "objective.mask.kind",
            format!("\"{}\"", self.mask.kind()),
            "\"blockwise-mask\": one set is masked",
        );
        self.mask.check("objective.mask", side(at.model), &mut found);
        drop_path("objective.drop_path", self.drop_path, &mut found);
        found.found()
    }

    fn request(&self, at: &Scope<'_>) -> SampleRequest {
        one_view(at, self.mask, true)
    }

    fn build(&self, vs: &Path<'_>, at: &Scope<'_>) -> Box<dyn Objective> {
        Box::new(Beit::new(vs, self, at))
    }

    fn over_ranks(&self) -> Result<(), &'static str> {
        Ok(())
    }

    fn chance(&self, number: &str, at: &Scope<'_>) -> Option<f64> {
        predicted_words::chance(number, at)
    }

    fn forward_flops(&self, at: &Scope<'_>) -> f64 {
        let m = at.model;
        let (n, d) = (m.patches(), m.dim());
        let masked = self.mask.counts(n as usize).0 as i64;
        encoder_flops(m, n, n) + linear_flops(masked, d, at.words)
    }
}

/// The encoder sees every position, masked ones as one learned embedding; a linear head predicts their words.
#[derive(Debug)]
struct Beit {
    vit: Vit,
    mask_token: Tensor,
    head: MimHead,
    vocabulary: i64,
    model: VitConfig,
}

impl Beit {
    /// Parameters under `vs`: the encoder's at its root, `mask_token`, `mim_head.*`.
    fn new(vs: &Path<'_>, config: &BeitConfig, at: &Scope<'_>) -> Self {
        let (model, vocabulary) = (at.model, at.words);
        let weights = Init::CutNormal { std: 0.02 };
        let options = VitOptions {
            qkv_bias: QkvBias::QueryValue,
            weights,
            rescale: config.rescale_init,
            ..VitOptions::plain(config.drop_path)
        };
        Self {
            vit: Vit::with(vs, model, &options),
            mask_token: parameter(vs, "mask_token", &[1, 1, model.dim()], weights),
            head: MimHead::new(&(vs / "mim_head"), model.dim(), vocabulary, weights),
            vocabulary,
            model: model.clone(),
        }
    }

    /// Features B×(1+N)×D with the patches `masked` B×K hidden.
    fn features(&self, image: &Tensor, masked: &Tensor, train: bool) -> Tensor {
        let rows = flat_rows(masked, image.size()[0], self.model.patches(), 0);
        self.vit
            .encode(&embed_hidden(&self.vit, image, &rows, &self.mask_token), None, train)
    }
}

impl Objective for Beit {
    fn forward(&self, x: &StepInput, ctx: &StepContext) -> Result<Losses, ObjectiveError> {
        let MaskedInput { image, words, sets } = masked_input(KIND.name, x, &self.vit, Some(self.vocabulary))?;
        let words = words.ok_or(ObjectiveError::Lacks {
            objective: KIND.name,
            what: "visual words",
        })?;
        let masked = &sets.a;
        let n = self.model.patches();
        let features = self.features(image, masked, ctx.train);
        let targets = words.flatten(0, 1).index_select(0, &flat_rows(masked, x.len, n, 0));
        let rows = take_rows(&features, &flat_rows(masked, x.len, 1 + n, 1));
        let (loss, predicted) = self.head.cross_entropy(&rows, &targets);
        Ok(Losses {
            stats: vec![("token_accuracy", token_accuracy(&predicted, &targets))],
            counts: vec![("predicted_perplexity", count_words(&predicted, self.vocabulary))],
            shares: vec![],
            counted: None,
            ..Losses::of_term("inpaint", loss)
        })
    }

    fn encoder(&self) -> &Vit {
        &self.vit
    }

    fn repeats(&self) -> bool {
        true
    }

    fn take_live(&mut self, plan: &dyn Plan) -> Result<(), ObjectiveError> {
        // No key of BEiT's is live.
        settings::<BeitConfig>(plan, &KIND).map(|_| ())
    }

    fn pictures(&self, x: &StepInput) -> Result<Vec<Sheet>, ObjectiveError> {
        let MaskedInput { image, sets, .. } = masked_input(KIND.name, x, &self.vit, None)?;
        let Some(words) = &x.words else { return Ok(vec![]) };
        let n = self.model.patches();
        let predicted = tch::no_grad(|| {
            let features = self.features(image, &sets.a, false);
            self.head.forward(&features.narrow(1, 1, n)).argmax(-1, false)
        });
        Ok(vec![Sheet {
            name: "inpaint",
            columns: vec![
                Column::View(IMAGE),
                Column::Seen(IMAGE, sets.not_a.shallow_clone()),
                Column::Words(predicted),
                Column::Words(words.shallow_clone()),
            ],
        }])
    }
}
