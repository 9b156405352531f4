//! `[objective]`: what is learnt. `kind` chooses; each objective owns its keys.

use serde::{Deserialize, Serialize};
use splitmask_pipeline::types::MaskSpec;

/// Which objective, with its own table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum ObjectiveConfig {
    /// Split, inpaint, match (arXiv 2112.10740).
    Splitmask(SplitMaskConfig),
    /// Masked image modelling over all positions (arXiv 2106.08254).
    Beit(BeitConfig),
}

impl Default for ObjectiveConfig {
    fn default() -> Self {
        Self::Splitmask(SplitMaskConfig::default())
    }
}

/// SplitMask's switches (spec §1). Defaults are the paper's, open points as in spec §1.4.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SplitMaskConfig {
    /// How patches are divided into the sets A and B.
    pub mask: MaskSpec,
    /// Predict the absent visual words.
    pub inpaint: bool,
    /// Weight of that loss.
    pub inpaint_weight: f64,
    /// Recognise the partner among the batch.
    #[serde(rename = "match")]
    pub match_: bool,
    /// Weight of that loss.
    pub match_weight: f64,
    /// Temperature of the match loss.
    pub temperature: f64,
    /// Negatives from both branches (2B−2) instead of the other one (B−1).
    pub both_branch_negatives: bool,
    /// Encode A and B apart; false encodes all patches twice, absent ones as mask embeddings (ablation row "BEiT-like", spec §3.3).
    pub split: bool,
    /// Blocks of the decoder.
    pub decoder_depth: u32,
    /// Add the decoder's position table to seen patches too.
    pub decoder_positions_on_seen: bool,
    /// Drop path of the encoder, linear over depth.
    pub drop_path: f64,
    /// Drop path of the decoder.
    pub decoder_drop_path: f64,
}

impl Default for SplitMaskConfig {
    fn default() -> Self {
        Self {
            mask: MaskSpec::BlockwiseSplit {
                min_block: 16,
                max_block: 75,
            },
            inpaint: true,
            inpaint_weight: 1.0,
            match_: true,
            match_weight: 1.0,
            temperature: 0.2,
            both_branch_negatives: false,
            split: true,
            decoder_depth: 2,
            decoder_positions_on_seen: true,
            drop_path: 0.1,
            decoder_drop_path: 0.0,
        }
    }
}

/// BEiT's switches (spec §5.1).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BeitConfig {
    /// Which patches are masked.
    pub mask: MaskSpec,
    /// Drop path, linear over depth.
    pub drop_path: f64,
    /// Divide the last matrices of layer l by √(2l) at initialisation.
    pub rescale_init: bool,
}

impl Default for BeitConfig {
    fn default() -> Self {
        Self {
            mask: MaskSpec::BlockwiseMask {
                count: 75,
                min_block: 16,
                max_block: 75,
            },
            drop_path: 0.1,
            rescale_init: true,
        }
    }
}
