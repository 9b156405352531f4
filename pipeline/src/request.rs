//! What an objective asks of the pipeline: named views with their recipes, visual words, a mask, a target. The pipeline makes exactly this of each
//! sample and never learns which objective asked. What comes back stands in [`crate::types`].

mod view;

use serde::{Deserialize, Serialize};

use crate::setting::Findings;

use view::ordered;
pub use view::{ColourConfig, CropConfig, Filter, IMAGE, RandAugment, ScaleJitter, ViewRequest};

/// Visual words to compute: those of a half-size copy of a view (docs/method.md §2), one for each patch of the view.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WordRequest {
    /// Name of the view; the first one of that name.
    pub view: &'static str,
    /// Side of the model's square patch on the view, pixels; the word's patch is half that side on the half-size copy.
    pub patch: u32,
}

/// One more picture: the crop and flip of a view at another size, with the colours of the file. For words that a network computes on the device
/// (arXiv 2106.08254 §2.1: the tokenizer has its own resize of the same crop).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TargetRequest {
    /// Name of the view; the first one of that name.
    pub view: &'static str,
    /// Side of the square target, pixels.
    pub size: u32,
}

/// The label map of a sample, cut by the crop and flip of a view, one class for each of its pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MapRequest {
    /// Name of the view; the first one of that name. Nothing else may move its pixels.
    pub view: &'static str,
}

/// The objects of a sample, moved by the crop and flip of a view and cut to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ObjectRequest {
    /// Name of the view; the first one of that name. Nothing else may move its pixels.
    pub view: &'static str,
}

/// A division of a grid of patches into sets.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MaskRequest {
    /// Patches a side of the square grid.
    pub side: u32,
    /// How its patches are divided.
    pub spec: MaskSpec,
}

/// How patches are divided into sets ([`crate::types::PatchSet`]).
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
    /// Exactly `round(ratio × n)` patches in A, which are the masked ones, drawn uniformly; the rest in neither set (arXiv 2111.06377 §3).
    UniformMask {
        /// Share of the patches that is masked.
        ratio: f32,
    },
    /// Exactly `count` patches in A, which are the masked ones, by BEiT's blocks; the rest in neither set.
    BlockwiseMask {
        /// Masked patches.
        count: u32,
        /// Smallest block, patches.
        min_block: u32,
        /// Largest block, patches.
        max_block: u32,
    },
}

/// Patches to hide in every view of a name, each view by a mask of its own: as many as a share of its grid that is drawn uniformly from `ratio`, by BEiT's
/// blocks; and in a share 1 − `probability` of the views none (iBOT, arXiv 2111.07832 §3.1; DINOv2, arXiv 2304.07193 §4).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct HiddenRequest {
    /// Name of the views.
    pub view: &'static str,
    /// Patches a side of their square grid.
    pub side: u32,
    /// Probability that a view has hidden patches.
    pub probability: f32,
    /// Range of their share of the grid.
    pub ratio: [f32; 2],
}

impl HiddenRequest {
    /// Checks that such masks can be drawn; `prefix` stands before the names of the keys, as `objective.ibot_mask_`.
    pub fn check(&self, prefix: &str, found: &mut Findings) {
        let (p, [low, high]) = (self.probability, self.ratio);
        found.need(
            p > 0.0 && p <= 1.0,
            &format!("{prefix}probability"),
            p,
            "above 0, at most 1 (0.5 in the paper)",
        );
        found.need(
            low > 0.0 && ordered(self.ratio, 0.0, 1.0) && high < 1.0,
            &format!("{prefix}ratio"),
            format!("{:?}", self.ratio),
            "[low, high] with 0 < low ≤ high < 1",
        );
    }
}

/// What is asked of the pipeline for each sample.
#[derive(Debug, Clone, PartialEq)]
pub struct SampleRequest {
    /// At least one view. The place of a view in this list seeds its draws.
    pub views: Vec<ViewRequest>,
    /// Visual words, if the pipeline is to compute them.
    pub words: Option<WordRequest>,
    /// A picture for words that are made elsewhere.
    pub target: Option<TargetRequest>,
    /// A mask.
    pub mask: Option<MaskRequest>,
    /// Patches to hide in some views.
    pub hidden: Option<HiddenRequest>,
    /// The label map of a view.
    pub map: Option<MapRequest>,
    /// The objects of a view.
    pub objects: Option<ObjectRequest>,
}

impl SampleRequest {
    /// Views and nothing else.
    #[must_use]
    pub fn of_views(views: Vec<ViewRequest>) -> Self {
        Self {
            views,
            words: None,
            target: None,
            mask: None,
            hidden: None,
            map: None,
            objects: None,
        }
    }

    /// Places of the views of that name.
    pub fn places<'a>(&'a self, name: &'a str) -> impl Iterator<Item = usize> + 'a {
        let views = self.views.iter().enumerate();
        views.filter(move |(_, view)| view.name == name).map(|(place, _)| place)
    }

    /// Patches of all views of a sample in which some are hidden (0 where none are asked for).
    #[must_use]
    pub fn patches_that_may_hide(&self) -> usize {
        self.hidden
            .map_or(0, |hidden| self.places(hidden.view).count() * (hidden.side as usize).pow(2))
    }

    /// Place of the first view of that name.
    #[must_use]
    pub fn place(&self, name: &str) -> Option<usize> {
        self.views.iter().position(|view| view.name == name)
    }

    /// Pixels of a sample's label map (0 where none is asked for).
    #[must_use]
    pub fn map_pixels(&self) -> usize {
        let view = self.map.and_then(|map| self.views.get(self.place(map.view)?));
        view.map_or(0, |view| (view.size as usize).pow(2))
    }

    /// Patches of an image (0 without words and mask).
    #[must_use]
    pub fn patches(&self) -> usize {
        let of_words = || {
            let words = self.words?;
            let view = self.views.get(self.place(words.view)?)?;
            Some(view.size / words.patch)
        };
        let side = self.mask.map(|mask| mask.side).or_else(of_words);
        (side.unwrap_or(0) as usize).pow(2)
    }

    /// Pixels of the view whose objects are asked for (0 where none are).
    #[must_use]
    pub fn object_pixels(&self) -> usize {
        let view = self.objects.and_then(|objects| self.views.get(self.place(objects.view)?));
        view.map_or(0, |view| (view.size as usize).pow(2))
    }

    /// Bytes of one sample in a batch, without its objects.
    #[must_use]
    pub fn sample_bytes(&self) -> usize {
        let sizes = self.views.iter().map(|view| view.size).chain(self.target.map(|target| target.size));
        let pixels: usize = sizes.map(picture_bytes).sum();
        let n = self.patches();
        let of_patches = n * 4 * usize::from(self.words.is_some()) + n * usize::from(self.mask.is_some());
        pixels + of_patches + self.patches_that_may_hide() + 2 * self.map_pixels() + 8
    }
}

/// Bytes of a square RGB picture.
#[must_use]
pub fn picture_bytes(size: u32) -> usize {
    3 * (size as usize).pow(2)
}
