//! SplitMask: split, inpaint, match (arXiv 2112.10740 §4).

mod network;

use splitmask_pipeline::request::{MaskSpec, SampleRequest};
use tch::nn::Path;
use toml::Table;

use crate::model::{block_flops, linear_flops};
use crate::objective::masked::{drop_path, fit_mask, odd_blocks, one_view, side};
use crate::objective::predicted_words::{self, FREQUENCIES, INPAINT_COLLAPSED, PREDICTED_PERPLEXITY};
use crate::objective::{Better, CollapseRule, Kind, Number, Objective, Plan, Role, Scope, Unit, read, table};
use crate::setting::Class::Restart;
use crate::setting::{Findings, Fitting, Key, Violation, key, settings};

/// The row of the registry.
pub static KIND: Kind = Kind {
    name: "splitmask",
    doc: "split the patches in two, inpaint each half from the other, match the halves of an image",
    reference: "arXiv 2112.10740 §4",
    keys: &[MASK_KEYS, SplitMaskConfig::KEYS],
    numbers: &[
        Number {
            name: "inpaint",
            help: "Cross-entropy of the absent visual words, in nats.",
            role: Role::Term,
            unit: Unit::Nats,
            better: Better::Lower,
            baseline: Some(FREQUENCIES),
        },
        Number {
            name: "match",
            help: "Contrastive loss between the descriptors of an image's halves, in nats.",
            role: Role::Term,
            unit: Unit::Nats,
            better: Better::Lower,
            baseline: None,
        },
        Number {
            name: "token_accuracy",
            help: "Share of absent visual words that were predicted right, 0 to 1.",
            role: Role::Measure,
            unit: Unit::Share,
            better: Better::Higher,
            baseline: None,
        },
        Number {
            name: "match_accuracy",
            help: "Share of images whose other half was recognised among the batch, 0 to 1.",
            role: Role::Measure,
            unit: Unit::Share,
            better: Better::Higher,
            baseline: None,
        },
        PREDICTED_PERPLEXITY,
    ],
    collapse: &[
        CollapseRule {
            name: "match_at_chance",
            help: "the match accuracy is under twice that of guessing: all images have the same descriptor",
            remedy: "a gradient norm near 0; lower `optim.lr`, raise `train.batch` or `objective.temperature`; identical or blank images do it too",
            holds: |at| {
                let chance = (at.chance)("match_accuracy").unwrap_or(0.0);
                at.mean("match_accuracy").is_some_and(|accuracy| accuracy < 2.0 * chance)
            },
        },
        INPAINT_COLLAPSED,
    ],
    variants: || {
        let with = |mask| -> Box<dyn Plan> {
            Box::new(SplitMaskConfig {
                mask,
                ..SplitMaskConfig::default()
            })
        };
        vec![with(SplitMaskConfig::default().mask), with(MaskSpec::UniformSplit { keep: 0.5 })]
    },
    read: read::<SplitMaskConfig>,
    sheets: &[("inpaint", "image · seen by A · seen by B · predicted words · true words")],
};

/// The keys of `[objective.mask]`.
const MASK_KEYS: &[Key] = &[
    key(
        Restart,
        "mask.kind",
        "how patches are divided into the sets A and B: `blockwise-split` (halves) or `uniform-split`",
    ),
    key(Restart, "mask.min_block", "smallest block, patches"),
    key(Restart, "mask.max_block", "largest block, patches"),
    key(Restart, "mask.keep", "share of the patches that each set sees, at most 0.5"),
];

settings! {
    /// SplitMask's settings (arXiv 2112.10740 §4 and §5.5). What the paper leaves open is in docs/method.md, with the default taken here.
    pub struct SplitMaskConfig in "objective" {
        /// Predict the absent words; to turn it off in a run, set its weight to 0.
        Frozen inpaint: bool = true,
        /// Weight of that loss.
        Live inpaint_weight: f64 = 1.0,
        /// Recognise the partner; to turn it off in a run, set its weight to 0.
        Frozen match_ as "match": bool = true,
        /// Weight of that loss.
        Live match_weight: f64 = 1.0,
        /// Temperature of the match loss.
        Live temperature: f64 = 0.2,
        /// Negatives from both branches (2B−2) instead of one (B−1).
        Restart both_branch_negatives: bool = false,
        /// Encode the sets apart; false encodes all patches twice, absent ones as mask embeddings (arXiv 2112.10740 table 8).
        Frozen split: bool = true,
        /// Blocks of the decoder.
        Frozen decoder_depth: u32 = 2,
        /// Add the decoder's positions to seen patches too.
        Restart decoder_positions_on_seen: bool = true,
        /// Drop path of the encoder, linear over depth.
        Restart drop_path: f64 = 0.1,
        /// Drop path of the decoder.
        Restart decoder_drop_path: f64 = 0.0,
    }
    tables {
        /// How patches are divided into the sets A and B.
        mask: MaskSpec = MaskSpec::BlockwiseSplit { min_block: 16, max_block: 75 },
    }
}

impl SplitMaskConfig {
    /// Descriptors that the partner is searched among: those of one branch, or of both but for itself.
    fn candidates(&self, batch: u32) -> f64 {
        let batch = f64::from(batch);
        if self.both_branch_negatives { 2.0 * batch - 1.0 } else { batch }
    }
}

impl Plan for SplitMaskConfig {
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
            matches!(self.mask, MaskSpec::BlockwiseSplit { .. } | MaskSpec::UniformSplit { .. }),
            "objective.mask.kind",
            format!("\"{}\"", self.mask.kind()),
            "\"blockwise-split\" or \"uniform-split\": two sets are needed",
        );
        self.mask.check("objective.mask", side(at.model), &mut found);
        found.need(
            self.inpaint || self.match_,
            "objective.inpaint",
            false,
            "true, or objective.match = true: something must be learnt",
        );
        found.weight("objective.inpaint_weight", self.inpaint_weight);
        found.weight("objective.match_weight", self.match_weight);
        let on = |term: bool, weight: f64| term && !(weight <= 0.0);
        found.need(
            on(self.inpaint, self.inpaint_weight) || on(self.match_, self.match_weight) || !(self.inpaint || self.match_),
            "objective.inpaint_weight",
            self.inpaint_weight,
            "a positive weight on some loss that is on",
        );
        found.temperature("objective.temperature", self.temperature, "0.2 in the paper");
        found.need(
            !self.match_ || at.batch >= 2,
            "train.batch",
            at.batch,
            "at least 2 images with objective.match = true, which compares them",
        );
        found.need(
            (1..=48).contains(&self.decoder_depth),
            "objective.decoder_depth",
            self.decoder_depth,
            "1 to 48 (2 in the paper)",
        );
        drop_path("objective.drop_path", self.drop_path, &mut found);
        drop_path("objective.decoder_drop_path", self.decoder_drop_path, &mut found);
        found.found()
    }

    fn oddities(&self, at: &Scope<'_>) -> Vec<String> {
        odd_blocks(&self.mask, at.model).into_iter().collect()
    }

    fn request(&self, at: &Scope<'_>) -> SampleRequest {
        one_view(at, self.mask, self.inpaint)
    }

    fn build(&self, vs: &Path<'_>, at: &Scope<'_>) -> Box<dyn Objective> {
        Box::new(network::SplitMask::new(vs, self, at))
    }

    fn over_ranks(&self) -> Result<(), &'static str> {
        Ok(())
    }

    fn chance(&self, number: &str, at: &Scope<'_>) -> Option<f64> {
        let candidates = self.candidates(at.batch);
        match number {
            "match" => Some(candidates.ln()),
            "match_accuracy" => Some(1.0 / candidates),
            number => predicted_words::chance(number, at),
        }
    }

    fn forward_flops(&self, at: &Scope<'_>) -> f64 {
        let m = at.model;
        let (n, d, h) = (m.patches(), m.dim(), m.hidden());
        let seen = self.mask.counts(n as usize).0 as i64;
        let encoded = if self.split { seen } else { n };
        let branch = m.layers() as f64 * block_flops(1 + encoded, d, h) + f64::from(self.decoder_depth) * block_flops(1 + n, d, h);
        let head = if self.inpaint { linear_flops(n - seen, d, at.words) } else { 0.0 };
        linear_flops(n, 3 * i64::from(m.patch).pow(2), d) + 2.0 * (branch + head)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::config::VitConfig;
    use crate::objective::Judged;

    fn wrong(config: &SplitMaskConfig, batch: u32) -> Vec<String> {
        let model = VitConfig::default();
        let found = config.check(&Scope::new(&model, batch, 0));
        found.into_iter().map(|v| v.key).collect()
    }

    #[test]
    fn violations_name_their_key() {
        let d = SplitMaskConfig::default;
        let cases = [
            (SplitMaskConfig { temperature: 0.0, ..d() }, "objective.temperature"),
            (
                SplitMaskConfig {
                    inpaint: false,
                    match_: false,
                    ..d()
                },
                "objective.inpaint",
            ),
            (
                SplitMaskConfig {
                    inpaint_weight: 0.0,
                    match_: false,
                    ..d()
                },
                "objective.inpaint_weight",
            ),
            (SplitMaskConfig { decoder_depth: 0, ..d() }, "objective.decoder_depth"),
            (SplitMaskConfig { drop_path: 1.0, ..d() }, "objective.drop_path"),
            (
                SplitMaskConfig {
                    match_weight: f64::NAN,
                    ..d()
                },
                "objective.match_weight",
            ),
        ];
        for (config, key) in cases {
            assert_eq!(wrong(&config, 2), [key]);
        }
        assert_eq!(wrong(&d(), 1), ["train.batch"]);
        assert_eq!(wrong(&SplitMaskConfig { match_: false, ..d() }, 1), [""; 0]);
    }

    /// Whether a rule holds for an interval with these means; guessing recognises one half in 128.
    fn holds(rule: &str, means: &[(&str, f64)]) -> bool {
        let means = means.iter().map(|(k, v)| ((*k).to_owned(), *v)).collect();
        let chance = |name: &str| (name == "match_accuracy").then_some(1.0 / 128.0);
        let judged = Judged {
            means: &means,
            chance: &chance,
        };
        let found = KIND.collapse.iter().find(|r| r.name == rule);
        (found.expect("the rule exists").holds)(&judged)
    }

    #[test]
    fn one_word_for_all_patches_is_a_collapse_unless_the_targets_are_few_too() {
        let few = |predicted, targets| {
            holds(
                "inpaint_collapsed",
                &[("predicted_perplexity", predicted), ("codebook_perplexity", targets)],
            )
        };
        assert!(few(1.0, 300.0) && few(1.99, 8.0));
        assert!(!few(2.0, 300.0) && !few(1.0, 7.9));
        assert!(!few(f64::NAN, 300.0), "a step that was not finite has an alert of its own");
        assert!(
            !holds("inpaint_collapsed", &[("codebook_perplexity", 300.0)]),
            "no words, no collapse"
        );
    }

    #[test]
    fn twice_the_accuracy_of_guessing_is_no_collapse() {
        let at = |accuracy| holds("match_at_chance", &[("match_accuracy", accuracy)]);
        assert!(at(1.9 / 128.0) && !at(2.0 / 128.0) && !at(f64::NAN));
        assert!(!holds("match_at_chance", &[]), "no match loss, no collapse");
    }

    #[test]
    fn guessing_is_among_the_candidates_of_the_whole_batch() {
        let model = VitConfig::default();
        let at = Scope::new(&model, 128, 8192);
        let one = SplitMaskConfig::default();
        let both = SplitMaskConfig {
            both_branch_negatives: true,
            ..one
        };
        assert_eq!(one.chance("match", &at), Some(128f64.ln()));
        assert_eq!(both.chance("match", &at), Some(255f64.ln()));
        assert_eq!(both.chance("match_accuracy", &at), Some(1.0 / 255.0));
        assert_eq!(one.chance("inpaint", &at), Some(8192f64.ln()));
        assert_eq!(one.chance("inpaint", &Scope { words: 0, ..at }), None);
    }
}
