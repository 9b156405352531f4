//! A view and its recipe: crop or jitter, filter, RandAugment, colours.

use crate::setting::{Findings, settings};

settings! {
    /// Where random resized crops are drawn from.
    #[derive(Copy)]
    pub struct CropConfig in "augment.crop" {
        /// Range of the crop's share of the image area.
        Rebuild area: [f32; 2] = [0.08, 1.0],
        /// Range of the crop's width ÷ height.
        Rebuild aspect: [f32; 2] = [0.75, 4.0 / 3.0],
        /// Probability of a horizontal flip.
        Rebuild flip: f32 = 0.5,
    }
}

/// Whether a range is one, within bounds; NaN is in no range.
pub(super) fn ordered(range: [f32; 2], low: f32, high: f32) -> bool {
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

settings! {
    /// Colour augmentation of the paper's small-data recipe (arXiv 2112.10740 §5.5; strengths of BYOL and DINO, docs/method.md §1).
    ///
    /// All probabilities 0 is the paper's default: crop and flip only. Order as torchvision: jitter (brightness, contrast, saturation, hue
    /// in random order), greyscale, Gaussian blur, solarise.
    #[derive(Copy)]
    pub struct ColourConfig in "augment.colour" {
        /// Probability of colour jitter.
        Rebuild jitter: f32 = 0.0,
        /// Strengths of brightness, contrast, saturation, hue.
        Rebuild jitter_strength: [f32; 4] = [0.4, 0.4, 0.2, 0.1],
        /// Probability of greyscale.
        Rebuild greyscale: f32 = 0.0,
        /// Probability of Gaussian blur.
        Rebuild blur: f32 = 0.0,
        /// Range of the blur's sigma, pixels.
        Rebuild blur_sigma: [f32; 2] = [0.1, 2.0],
        /// Probability of solarisation.
        Rebuild solarise: f32 = 0.0,
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

/// RandAugment of a view (arXiv 1909.13719; timm's `rand-m9-mstd0.5-inc1`): two random operations of 15, each applied every other time, between crop and
/// colours.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RandAugment {
    /// Mean magnitude, 0 to 10.
    pub magnitude: f32,
    /// Standard deviation of an operation's own magnitude.
    pub deviation: f32,
}

impl RandAugment {
    /// Checks that magnitudes can be drawn; `key` is that of the magnitude, and with `_deviation` behind it that of their deviation.
    pub fn check(&self, key: &str, found: &mut Findings) {
        let (m, d) = (self.magnitude, self.deviation);
        found.need((0.0..=10.0).contains(&m), key, m, "0 (off) to 10 (9 in DeiT)");
        found.need((0.0..=10.0).contains(&d), &format!("{key}_deviation"), d, "0 to 10 (0.5 in DeiT)");
    }
}

/// Large-scale jitter (arXiv 2012.07177 §3; arXiv 2203.16527 §3 trains detectors with it): the longer side of the picture becomes a random multiple of the
/// view's side, and the picture is cropped to the view, or laid on a ground of one colour, at a random place. In an evaluation it becomes the view's side,
/// with the ground on the right or below.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ScaleJitter {
    /// Range of the multiple, drawn uniformly.
    pub scale: [f32; 2],
    /// Colour of the ground: the mean that normalising subtracts, so that the model sees 0 there.
    pub ground: [u8; 3],
}

impl Default for ScaleJitter {
    /// 0.1 to 2, on the mean of ImageNet's pixels.
    fn default() -> Self {
        Self {
            scale: [0.1, 2.0],
            ground: [124, 116, 104],
        }
    }
}

impl ScaleJitter {
    /// Checks that scales can be drawn; `key` is that of the range.
    pub fn check(&self, key: &str, found: &mut Findings) {
        found.need(
            ordered(self.scale, 0.01, 10.0),
            key,
            format!("{:?}", self.scale),
            "[low, high] with 0.01 ≤ low ≤ high ≤ 10 (0.1 to 2 in the paper)",
        );
    }
}

/// The kernel that a picture is resized with. It widens as the picture shrinks, so that no pixel is passed over: as in Pillow, and in torchvision with
/// antialiasing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Filter {
    /// Cubics with a = −0.5, two pixels to each side.
    #[default]
    Bicubic,
    /// A triangle, one pixel to each side: what torchvision's random resized crop takes where nothing is said.
    Bilinear,
}

/// The name of the view where there is one only.
pub const IMAGE: &str = "image";

/// One picture that a sample turns into, drawn by a recipe of its own.
///
/// Views differ in what their objective gives them: two of 224 pixels and eight of 96 from smaller crops (DINO, arXiv 2104.14294 §3.1), or two of one
/// size of which one is always blurred and the other sometimes solarised (BYOL, arXiv 2006.07733 appendix B; MoCo v3, arXiv 2104.02057).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ViewRequest {
    /// What the objective calls it. Views of equal standing may share a name: they then share a size too.
    pub name: &'static str,
    /// Side of the square view, pixels.
    pub size: u32,
    /// How its crop is drawn.
    pub crop: CropConfig,
    /// How the picture is laid on the view instead, mirrored as `crop` says.
    pub jitter: Option<ScaleJitter>,
    /// What it is resized with for training; evaluations are bicubic.
    pub filter: Filter,
    /// What is done between crop and colours.
    pub rand_augment: Option<RandAugment>,
    /// How its colours are changed.
    pub colour: ColourConfig,
}

impl ViewRequest {
    /// A view with the default crop, bicubic, with the colours of the file.
    #[must_use]
    pub fn new(name: &'static str, size: u32) -> Self {
        Self {
            name,
            size,
            crop: CropConfig::default(),
            jitter: None,
            filter: Filter::default(),
            rand_augment: None,
            colour: ColourConfig::default(),
        }
    }
}
