//! The nouns of the pipeline: samples, views, masks and batches. Plain data, no behaviour beyond shape arithmetic.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::cursor::Cursor;
use crate::name::Name;
use crate::setting::Findings;

/// Identity of one sample in the stream; the seed of everything random about it.
///
/// Order and randomness are functions of (run seed, this id), never of thread timing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SampleId {
    /// Pass over the data, from 0.
    pub epoch: u32,
    /// Index of the shard in the *unshuffled* shard list.
    pub shard: u32,
    /// Index of the sample in its shard, from 0, counted over groups of members.
    pub member: u32,
}

/// One WebDataset sample as it stands in a tar shard: undecoded members under one key.
#[derive(Debug, Clone)]
pub struct RawSample {
    /// Where it came from.
    pub id: SampleId,
    /// Object path of the shard, for messages.
    pub shard: Arc<str>,
    /// Member path up to the first dot of its file name (WebDataset's rule).
    pub key: Name,
    /// Bytes of the image member.
    pub image: Bytes,
    /// Lower-case extension of the image member, without the dot; a hint only, the decoder looks at the bytes.
    pub extension: String,
    /// Class index from a `.cls` member, if there is one.
    pub label: Option<u32>,
}

/// RGB picture, 8 bits, row-major H×W×3 without padding.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Image {
    /// Columns, pixels.
    pub width: u32,
    /// Rows, pixels.
    pub height: u32,
    /// `height × width × 3` bytes.
    pub pixels: Vec<u8>,
}

/// Where random resized crops are drawn from.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CropConfig {
    /// Range of the crop's share of the image area (arXiv 2112.10740 §5.5 uses BEiT's 0.08..1; scene images 0.08..0.25).
    pub area: [f32; 2],
    /// Range of width ÷ height, drawn log-uniformly.
    pub aspect: [f32; 2],
    /// Probability of a horizontal flip.
    pub flip: f32,
}

impl Default for CropConfig {
    fn default() -> Self {
        Self {
            area: [0.08, 1.0],
            aspect: [0.75, 4.0 / 3.0],
            flip: 0.5,
        }
    }
}

/// Whether a range is one, within bounds; NaN is in no range.
fn ordered(range: [f32; 2], low: f32, high: f32) -> bool {
    low <= range[0] && range[0] <= range[1] && range[1] <= high
}

impl CropConfig {
    /// Checks that crops can be drawn; `table` is where the settings stand, such as `augment.crop`.
    pub fn check(&self, table: &str, found: &mut Findings) {
        found.need(
            self.area[0] > 0.0 && ordered(self.area, 0.0, 1.0),
            &format!("{table}.area"),
            format!("{:?}", self.area),
            "[low, high] with 0 < low ≤ high ≤ 1",
        );
        found.need(
            ordered(self.aspect, 0.01, 100.0),
            &format!("{table}.aspect"),
            format!("{:?}", self.aspect),
            "[low, high] with 0.01 ≤ low ≤ high ≤ 100",
        );
        found.share(&format!("{table}.flip"), self.flip);
    }
}

/// Colour augmentation of the paper's small-data recipe (arXiv 2112.10740 §5.5; strengths of BYOL and DINO, docs/method.md §1).
///
/// All probabilities 0 is the paper's default: crop and flip only. Order as torchvision: jitter (brightness, contrast, saturation, hue
/// in random order), greyscale, Gaussian blur, solarise.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ColourConfig {
    /// Probability of colour jitter.
    pub jitter: f32,
    /// Strengths: brightness, contrast, saturation factors drawn from 1 ± s, hue shift from ± s (turns of the colour circle, ≤ 0.5).
    pub jitter_strength: [f32; 4],
    /// Probability of greyscale.
    pub greyscale: f32,
    /// Probability of Gaussian blur.
    pub blur: f32,
    /// Range of the blur's sigma, pixels of the view.
    pub blur_sigma: [f32; 2],
    /// Probability of solarisation (values ≥ 128 inverted).
    pub solarise: f32,
}

impl Default for ColourConfig {
    fn default() -> Self {
        Self {
            jitter: 0.0,
            jitter_strength: [0.4, 0.4, 0.2, 0.1],
            greyscale: 0.0,
            blur: 0.0,
            blur_sigma: [0.1, 2.0],
            solarise: 0.0,
        }
    }
}

impl ColourConfig {
    /// Largest sigma of a blur, pixels: beyond it the kernel would be wider than most views.
    pub const MAX_SIGMA: f32 = 10.0;

    /// Checks that colours can be drawn; `table` is where the settings stand, such as `augment.colour`.
    pub fn check(&self, table: &str, found: &mut Findings) {
        for (key, share) in [
            ("jitter", self.jitter),
            ("greyscale", self.greyscale),
            ("blur", self.blur),
            ("solarise", self.solarise),
        ] {
            found.share(&format!("{table}.{key}"), share);
        }
        let s = self.jitter_strength;
        found.need(
            s.iter().all(|x| (0.0..=1.0).contains(x)) && s[3] <= 0.5,
            &format!("{table}.jitter_strength"),
            format!("{s:?}"),
            "strengths of 0 to 1, hue at most 0.5",
        );
        found.need(
            ordered(self.blur_sigma, 0.01, Self::MAX_SIGMA),
            &format!("{table}.blur_sigma"),
            format!("{:?}", self.blur_sigma),
            format!("[low, high] with 0.01 ≤ low ≤ high ≤ {} pixels", Self::MAX_SIGMA),
        );
    }

    /// Whether nothing is ever changed.
    #[must_use]
    pub fn is_off(&self) -> bool {
        self.jitter == 0.0 && self.greyscale == 0.0 && self.blur == 0.0 && self.solarise == 0.0
    }
}

/// One picture that a sample turns into.
#[derive(Debug, Clone, PartialEq)]
pub struct ViewSpec {
    /// Side of the square view, pixels.
    pub size: u32,
    /// How its crop is drawn.
    pub crop: CropConfig,
    /// How its colours are changed.
    pub colour: ColourConfig,
}

/// Visual words to compute: those of a half-size copy of view 0 (docs/method.md §2), one for each patch of the view.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WordSpec {
    /// Side of the model's square patch on the view, pixels; the word's patch is half that side on the half-size copy.
    pub patch: u32,
}

/// How patches are assigned to parts: 0 = in no set, 1 = set A (or masked), 2 = set B.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind", deny_unknown_fields)]
pub enum MaskSpec {
    /// Every patch in A or B, exactly half each; A grows as BEiT's blocks (arXiv 2112.10740 §5.5, 2106.08254 Algorithm 1).
    BlockwiseSplit {
        /// Smallest block, patches.
        min_block: u32,
        /// Largest block, patches.
        max_block: u32,
    },
    /// Two disjoint uniform sets of `round(keep × n)` patches each; `keep` = 0.25 is the paper's 75 % masking, 0.5 a full split.
    UniformSplit {
        /// Share of the patches that each set sees, at most 0.5.
        keep: f32,
    },
    /// Exactly `count` patches masked (part 1) by BEiT's blocks, the rest 0.
    BlockwiseMask {
        /// Masked patches.
        count: u32,
        /// Smallest block, patches.
        min_block: u32,
        /// Largest block, patches.
        max_block: u32,
    },
}

/// What an objective asks of the pipeline: views, words and masks of each sample. The pipeline builds exactly this and knows no objective.
#[derive(Debug, Clone, PartialEq)]
pub struct ViewPlan {
    /// At least one view; DINO would ask for 2 global and k local ones.
    pub views: Vec<ViewSpec>,
    /// Visual words of view 0.
    pub words: Option<WordSpec>,
    /// Side in pixels of one more picture, last in the batch: the crop and flip of view 0 resized to this side, colours as in the file.
    /// For words that a network computes on the device (arXiv 2106.08254 §2.1: the tokenizer has its own resize of the same crop).
    pub target: Option<u32>,
    /// Partition of the patch grid of view 0: `side` patches a side.
    pub mask: Option<(u32, MaskSpec)>,
}

impl ViewPlan {
    /// Patches of view 0 (0 without words and mask).
    #[must_use]
    pub fn patches(&self) -> usize {
        match (self.words, self.mask) {
            (Some(w), _) => ((self.views[0].size / w.patch) as usize).pow(2),
            (None, Some((side, _))) => (side as usize).pow(2),
            (None, None) => 0,
        }
    }

    /// Sides of all pictures of a sample, pixels: the views, then the target.
    pub fn sizes(&self) -> impl Iterator<Item = u32> + '_ {
        self.views.iter().map(|v| v.size).chain(self.target)
    }

    /// Bytes of one sample in a batch.
    #[must_use]
    pub fn sample_bytes(&self) -> usize {
        let views: usize = self.sizes().map(|side| 3 * (side as usize).pow(2)).sum();
        let n = self.patches();
        views + n * 4 * usize::from(self.words.is_some()) + n * usize::from(self.mask.is_some()) + 8
    }
}

/// One sample ready for a batch. Buffers are recycled.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sample {
    /// Where it came from.
    pub id: Option<SampleId>,
    /// One buffer per view, then the target's: u8, planar 3×S×S, not normalised.
    pub views: Vec<Vec<u8>>,
    /// Visual word of each patch, row-major; empty if the plan asks for none.
    pub words: Vec<u32>,
    /// Part of each patch, row-major; empty if the plan asks for none.
    pub parts: Vec<u8>,
    /// Class index, −1 if unknown.
    pub label: i64,
}

/// How long the stages of one sample took, and what was noticed on the way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StageTimes {
    /// Bytes to pixels.
    pub decode: Duration,
    /// Crop, resize, colour of all views.
    pub augment: Duration,
    /// Visual words and mask.
    pub tokenize: Duration,
    /// The file ended early and was kept.
    pub truncated: bool,
}

/// B samples as flat buffers and the cursor behind them. No tensor type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// Samples B.
    pub len: usize,
    /// Sides of the views and of the target, pixels.
    pub sizes: Vec<u32>,
    /// One buffer per view, then the target's: u8, B×3×S×S.
    pub views: Vec<Vec<u8>>,
    /// Visual words B×n, or empty.
    pub words: Vec<u32>,
    /// Parts B×n, or empty.
    pub parts: Vec<u8>,
    /// Class index per sample, −1 if unknown.
    pub labels: Vec<i64>,
    /// Identity of each sample.
    pub ids: Vec<SampleId>,
    /// Where the stream goes on after this batch.
    pub cursor: Cursor,
}

impl Batch {
    /// Bytes held, as the queue's byte bound counts them.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.views.iter().map(Vec::len).sum::<usize>() + self.words.len() * 4 + self.parts.len() + self.labels.len() * 8
    }
}
