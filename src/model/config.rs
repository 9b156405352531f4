//! Geometry of a vision transformer.

use serde::{Deserialize, Serialize};

use crate::setting::{Findings, settings};

/// Named sizes (width, depth, heads). `small` and `base` are DeiT-S and ViT-B (docs/method.md §4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "kebab-case")]
pub enum VitSize {
    /// 128 wide, 6 layers, 2 heads: the demo.
    Nano,
    /// 192 wide, 12 layers, 3 heads.
    Tiny,
    /// 384 wide, 12 layers, 6 heads.
    #[default]
    Small,
    /// 768 wide, 12 layers, 12 heads.
    Base,
}

settings! {
    /// `[model]`: the backbone. The keys of its geometry are frozen for the life of a run.
    pub struct VitConfig in "model" {
        /// `nano`, `tiny`, `small` or `base`.
        Frozen size: VitSize = VitSize::Small,
        /// Side of the square input, pixels.
        Frozen image: u32 = 224,
        /// Side of a square patch, pixels.
        Frozen patch: u32 = 16,
        /// Embedding width; 0 = the size's.
        Frozen width: u32 = 0,
        /// Blocks; 0 = the size's.
        Frozen depth: u32 = 0,
        /// Attention heads; 0 = the size's.
        Frozen heads: u32 = 0,
        /// Hidden width of the MLP ÷ width.
        Frozen mlp_ratio: f64 = 4.0,
        /// Initial LayerScale; 0 = none.
        Frozen layer_scale: f64 = 0.0,
        /// Shared relative position bias.
        Frozen relative_bias: bool = false,
        /// Make a block's activations again in backward instead of keeping them: less memory, about a third more time.
        Restart checkpoint_activations: bool = false,
    }
}

impl VitConfig {
    fn preset(&self) -> (u32, u32, u32) {
        match self.size {
            VitSize::Nano => (128, 6, 2),
            VitSize::Tiny => (192, 12, 3),
            VitSize::Small => (384, 12, 6),
            VitSize::Base => (768, 12, 12),
        }
    }

    /// Embedding width D.
    #[must_use]
    pub fn dim(&self) -> i64 {
        i64::from(if self.width == 0 { self.preset().0 } else { self.width })
    }

    /// Hidden width of the MLP.
    #[must_use]
    pub fn hidden(&self) -> i64 {
        (self.dim() as f64 * self.mlp_ratio).round() as i64
    }

    /// Number of blocks.
    #[must_use]
    pub fn layers(&self) -> i64 {
        i64::from(if self.depth == 0 { self.preset().1 } else { self.depth })
    }

    /// Attention heads.
    #[must_use]
    pub fn head_count(&self) -> i64 {
        i64::from(if self.heads == 0 { self.preset().2 } else { self.heads })
    }

    /// Patches a side.
    #[must_use]
    pub fn grid(&self) -> i64 {
        i64::from(self.image / self.patch.max(1))
    }

    /// Patches N.
    #[must_use]
    pub fn patches(&self) -> i64 {
        self.grid().pow(2)
    }

    /// Checks ranges and divisibility.
    pub fn check(&self, found: &mut Findings) {
        found.need(
            self.patch > 0 && self.patch.is_multiple_of(2) && self.patch <= 64,
            "model.patch",
            self.patch,
            "an even number from 2 to 64",
        );
        found.need(
            self.image > 0 && (self.patch == 0 || self.image.is_multiple_of(self.patch)) && self.image <= 2048,
            "model.image",
            self.image,
            format!("a multiple of model.patch = {} up to 2048", self.patch),
        );
        found.need(
            self.dim() % self.head_count() == 0,
            "model.width",
            self.dim(),
            format!("a multiple of model.heads = {}", self.head_count()),
        );
        found.need(
            self.mlp_ratio > 0.0 && self.mlp_ratio.is_finite(),
            "model.mlp_ratio",
            self.mlp_ratio,
            "above 0",
        );
        found.need(
            (0.0..=1.0).contains(&self.layer_scale),
            "model.layer_scale",
            self.layer_scale,
            "0 (off) to 1",
        );
    }

    /// Whether [`Self::check`] finds nothing.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        let mut found = Findings::default();
        self.check(&mut found);
        found.found().is_empty()
    }
}
