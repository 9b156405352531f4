//! MAE: predict the pixels of masked patches from the few that are seen (arXiv 2111.06377).

mod network;

use serde::{Deserialize, Serialize};
use splitmask_pipeline::request::{MaskSpec, SampleRequest};
use tch::nn::Path;
use toml::Table;

use crate::model::config::VitConfig;
use crate::model::{Positions, block_flops, encoder_flops, linear_flops};
use crate::objective::masked::{fit_mask, one_view, side};
use crate::objective::{Baseline, Better, CollapseRule, Kind, Number, Objective, Plan, Role, Scope, Unit, read, table};
use crate::setting::Class::{Frozen, Restart};
use crate::setting::{Findings, Fitting, Key, Violation, key, settings};

/// The row of the registry.
pub static KIND: Kind = Kind {
    name: "mae",
    doc: "predict the pixels of masked patches from the few that are seen",
    reference: "arXiv 2111.06377",
    keys: &[MASK_KEYS, DecoderShape::KEYS, MaeConfig::KEYS],
    numbers: &[
        Number {
            name: "reconstruction",
            help: "Mean squared error of the masked patches' pixels, in variances of a patch (with `norm_pixels`) or of the set.",
            role: Role::Term,
            unit: Unit::Plain,
            better: Better::Lower,
            baseline: Some(Baseline {
                number: "zero_prediction",
                who: "a model that predicts each patch's mean, one grey for its three channels (with `norm_pixels`), or the set's mean colour",
            }),
        },
        Number {
            name: "zero_prediction",
            help: "Reconstruction loss of a prediction of 0: near 1 with `norm_pixels`, less by the share of patches whose three channels have one value throughout.",
            role: Role::Measure,
            unit: Unit::Plain,
            better: Better::Neither,
            baseline: None,
        },
    ],
    collapse: &[CollapseRule {
        name: "reconstruction_of_zeros",
        help: "the reconstruction loss is above 98 % of that of a prediction of 0: nothing is predicted from the patches that are seen",
        remedy: "lower `optim.lr`, lengthen `optim.warmup_steps`; images of noise do it too",
        holds: |at| at.is_a_guess("reconstruction", "zero_prediction"),
    }],
    sheets: &[(
        "reconstruction",
        "image · seen · reconstruction (with norm_pixels, of the hidden patches' own mean and contrast)",
    )],
    variants: || {
        let with = |mask| -> Box<dyn Plan> {
            Box::new(MaeConfig {
                mask,
                ..MaeConfig::default()
            })
        };
        let blocks = MaskSpec::BlockwiseMask {
            count: 98,
            min_block: 16,
            max_block: 98,
        };
        vec![with(MaeConfig::default().mask), with(blocks)]
    },
    read: read::<MaeConfig>,
};

/// The keys of `[objective.mask]`.
const MASK_KEYS: &[Key] = &[
    key(
        Restart,
        "mask.kind",
        "how patches are masked: `uniform-mask`, or in blocks (`blockwise-mask`)",
    ),
    key(Restart, "mask.ratio", "share of the patches that is masked"),
    key(Restart, "mask.count", "masked patches"),
    key(Restart, "mask.min_block", "smallest block, patches"),
    key(Restart, "mask.max_block", "largest block, patches"),
];

/// `[objective.decoder]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DecoderShape {
    /// Blocks.
    pub layers: u32,
    /// Width.
    pub width: u32,
    /// Heads, divides the width.
    pub heads: u32,
}

impl Default for DecoderShape {
    /// That of all of the paper's encoders (arXiv 2111.06377 table 1).
    fn default() -> Self {
        Self {
            layers: 8,
            width: 512,
            heads: 16,
        }
    }
}

impl DecoderShape {
    const KEYS: &'static [Key] = &[
        key(Frozen, "decoder.layers", "blocks of the decoder"),
        key(Frozen, "decoder.width", "its width"),
        key(Frozen, "decoder.heads", "its attention heads"),
    ];

    /// A decoder is the lighter half: by default it is no wider than the encoder, with heads as wide as the paper's.
    fn fit(&mut self, encoder: i64, fitting: &mut Fitting<'_>) {
        let head_width = self.width / self.heads.max(1);
        if let (true, Ok(width)) = (i64::from(self.width) > encoder, u32::try_from(encoder)) {
            let why = format!("the encoder is {encoder} wide, and the decoder is the lighter half");
            fitting.fit("objective.decoder.width", &mut self.width, width, why);
        }
        if !self.width.is_multiple_of(self.heads.max(1)) || self.width / self.heads.max(1) != head_width {
            let heads = (1..=self.width / head_width.max(1))
                .rev()
                .find(|heads| self.width.is_multiple_of(*heads));
            let why = format!("objective.decoder.width = {}", self.width);
            fitting.fit("objective.decoder.heads", &mut self.heads, heads.unwrap_or(1), why);
        }
    }

    fn check(&self, positions: Positions, found: &mut Findings) {
        found.need(
            (1..=48).contains(&self.layers),
            "objective.decoder.layers",
            self.layers,
            "1 to 48 (8 in the paper)",
        );
        found.need(
            (1..=8192).contains(&self.width),
            "objective.decoder.width",
            self.width,
            "1 to 8192 (512 in the paper)",
        );
        positions.check("objective.decoder.width", self.width.into(), found);
        found.need(
            self.heads >= 1 && self.width.is_multiple_of(self.heads),
            "objective.decoder.heads",
            self.heads,
            format!("a divisor of objective.decoder.width = {}", self.width),
        );
    }
}

settings! {
    /// MAE's settings (arXiv 2111.06377 §3 and appendix A.1).
    pub struct MaeConfig in "objective" {
        /// Normalise the target pixels of each patch by their own mean and deviation.
        Frozen norm_pixels: bool = true,
        /// Positions of encoder and decoder: `sin-cos` (fixed, as published) or `learned`.
        Frozen positions: Positions = Positions::SinCos,
    }
    tables {
        /// Which patches are masked.
        mask: MaskSpec = MaskSpec::UniformMask { ratio: 0.75 },
        /// The decoder.
        decoder: DecoderShape = DecoderShape::default(),
    }
}

/// Pixels of a patch, all channels.
fn patch_values(model: &VitConfig) -> i64 {
    3 * i64::from(model.patch).pow(2)
}

impl Plan for MaeConfig {
    fn kind(&self) -> &'static Kind {
        &KIND
    }

    fn table(&self) -> Table {
        table(self)
    }

    fn fit(&mut self, at: &Scope<'_>, fitting: &mut Fitting<'_>) {
        fit_mask(&mut self.mask, at.model, fitting);
        self.decoder.fit(at.model.dim(), fitting);
    }

    fn check(&self, at: &Scope<'_>) -> Vec<Violation> {
        let mut found = Findings::default();
        found.need(
            matches!(self.mask, MaskSpec::UniformMask { .. } | MaskSpec::BlockwiseMask { .. }),
            "objective.mask.kind",
            format!("\"{}\"", self.mask.kind()),
            "\"uniform-mask\" or \"blockwise-mask\": one set is masked",
        );
        self.mask.check("objective.mask", side(at.model), &mut found);
        self.decoder.check(self.positions, &mut found);
        self.positions.check("model.width", at.model.dim(), &mut found);
        found.found()
    }

    fn request(&self, at: &Scope<'_>) -> SampleRequest {
        one_view(at, self.mask, false)
    }

    fn build(&self, vs: &Path<'_>, at: &Scope<'_>) -> Box<dyn Objective> {
        Box::new(network::Mae::new(vs, self, at.model))
    }

    fn over_ranks(&self) -> Result<(), &'static str> {
        Ok(())
    }

    fn chance(&self, number: &str, at: &Scope<'_>) -> Option<f64> {
        let values = patch_values(at.model) as f64;
        // Targets have the unbiased variance 1, so their mean square is a little less.
        (number == "reconstruction" && self.norm_pixels).then_some((values - 1.0) / values)
    }

    fn at_start(&self, number: &str, at: &Scope<'_>) -> Option<f64> {
        // Xavier's last layer turns the decoder's normalised output into predictions of this variance, and guesses cost it on top.
        let (width, values) = (f64::from(self.decoder.width), patch_values(at.model) as f64);
        Some(self.chance(number, at)? + 2.0 * width / (width + values))
    }

    fn forward_flops(&self, at: &Scope<'_>) -> f64 {
        let m = at.model;
        let (n, d, values) = (m.patches(), m.dim(), patch_values(m));
        let masked = self.mask.counts(n as usize).0 as i64;
        let width = i64::from(self.decoder.width);
        encoder_flops(m, n, n - masked)
            + linear_flops(1 + n - masked, d, width)
            + f64::from(self.decoder.layers) * block_flops(1 + n, width, 4 * width)
            + linear_flops(masked, width, values)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objective::Judged;

    fn base() -> VitConfig {
        VitConfig {
            width: 768,
            heads: 12,
            ..VitConfig::default()
        }
    }

    fn wrong(config: &MaeConfig) -> Vec<String> {
        let model = base();
        let found = config.check(&Scope::new(&model, 1, 0));
        found.into_iter().map(|v| v.key).collect()
    }

    #[test]
    fn violations_name_their_key() {
        let d = MaeConfig::default;
        let decoder = DecoderShape::default();
        let cases = [
            (
                MaeConfig {
                    mask: MaskSpec::UniformMask { ratio: 1.0 },
                    ..d()
                },
                "objective.mask.ratio",
            ),
            (
                MaeConfig {
                    mask: MaskSpec::UniformSplit { keep: 0.25 },
                    ..d()
                },
                "objective.mask.kind",
            ),
            (
                MaeConfig {
                    decoder: DecoderShape { layers: 0, ..decoder },
                    ..d()
                },
                "objective.decoder.layers",
            ),
            (
                MaeConfig {
                    decoder: DecoderShape {
                        width: 510,
                        heads: 10,
                        ..decoder
                    },
                    ..d()
                },
                "objective.decoder.width",
            ),
            (
                MaeConfig {
                    decoder: DecoderShape { heads: 7, ..decoder },
                    ..d()
                },
                "objective.decoder.heads",
            ),
        ];
        for (config, key) in cases {
            assert_eq!(wrong(&config), [key]);
        }
        assert_eq!(wrong(&d()), [""; 0]);
    }

    #[test]
    fn the_decoder_is_no_wider_than_the_encoder_unless_somebody_says_so() {
        let fitted = |encoder: i64, set: &'static str| {
            let is_set = |key: &str| key == set;
            let (mut shape, mut fitting) = (DecoderShape::default(), Fitting::new(&is_set));
            shape.fit(encoder, &mut fitting);
            (shape.width, shape.heads)
        };
        assert_eq!(fitted(768, ""), (512, 16));
        assert_eq!(fitted(384, ""), (384, 12));
        assert_eq!(fitted(96, ""), (96, 3));
        assert_eq!(fitted(16, ""), (16, 1));
        assert_eq!(fitted(96, "objective.decoder.width"), (512, 16));
    }

    #[test]
    fn guessing_costs_one_variance_of_a_patch_and_the_start_costs_more() {
        let model = base();
        let at = Scope::new(&model, 1, 0);
        let config = MaeConfig::default();
        assert_eq!(config.chance("reconstruction", &at), Some(767.0 / 768.0));
        let start = config.at_start("reconstruction", &at).unwrap();
        assert!((start - (767.0 / 768.0 + 0.8)).abs() < 1e-12);
        let raw = MaeConfig {
            norm_pixels: false,
            ..config
        };
        assert_eq!(raw.chance("reconstruction", &at), None);
    }

    #[test]
    fn predicting_nothing_is_told() {
        let holds = |loss, zero| {
            let means = [("reconstruction", loss), ("zero_prediction", zero)].map(|(k, v)| (k.to_owned(), v));
            let chance = |_: &str| None;
            let judged = Judged {
                means: &means.into(),
                chance: &chance,
            };
            (KIND.collapse[0].holds)(&judged)
        };
        assert!(holds(0.6, 0.6) && holds(0.99, 1.0));
        assert!(!holds(0.5, 0.6) && !holds(f64::NAN, 1.0) && !holds(0.0, 0.0));
    }
}
