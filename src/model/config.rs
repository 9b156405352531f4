//! Geometry of a vision transformer.

use serde::{Deserialize, Serialize};

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

/// `[model]`: the backbone. The keys of its geometry are frozen for the life of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct VitConfig {
    /// Named size; `width`, `depth` and `heads` override it where they are not 0.
    pub size: VitSize,
    /// Side of the square input, pixels.
    pub image: u32,
    /// Side of a square patch, pixels; even, divides `image`.
    pub patch: u32,
    /// Embedding width D; 0 = the size's.
    pub width: u32,
    /// Blocks; 0 = the size's.
    pub depth: u32,
    /// Attention heads, divides the width; 0 = the size's.
    pub heads: u32,
    /// Hidden width of the MLP ÷ D.
    pub mlp_ratio: f64,
    /// Initial LayerScale; 0 = none, as in the original ViT (docs/method.md §4).
    pub layer_scale: f64,
    /// Learned relative position bias, shared by all layers (BEiT's released code; docs/method.md §3).
    pub relative_bias: bool,
    /// Make a block's activations again in backward instead of keeping them (arXiv 1604.06174). Not part of the geometry: it may change.
    pub checkpoint_activations: bool,
}

impl Default for VitConfig {
    fn default() -> Self {
        Self {
            size: VitSize::Small,
            image: 224,
            patch: 16,
            width: 0,
            depth: 0,
            heads: 0,
            mlp_ratio: 4.0,
            layer_scale: 0.0,
            relative_bias: false,
            checkpoint_activations: false,
        }
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

    /// Checks ranges and divisibility; answers (key, value, what is allowed) of the first violation.
    ///
    /// # Errors
    /// The offending key.
    pub fn validate(&self) -> Result<(), (&'static str, String, String)> {
        let bad = |key, value: String, allowed: &str| Err((key, value, allowed.to_owned()));
        if self.patch == 0 || !self.patch.is_multiple_of(2) || self.patch > 64 {
            return bad("model.patch", self.patch.to_string(), "an even number from 2 to 64");
        }
        if self.image == 0 || !self.image.is_multiple_of(self.patch) || self.image > 2048 {
            return bad(
                "model.image",
                self.image.to_string(),
                &format!("a multiple of model.patch = {} up to 2048", self.patch),
            );
        }
        if self.dim() % self.head_count() != 0 {
            return bad(
                "model.width",
                self.dim().to_string(),
                &format!("a multiple of model.heads = {}", self.head_count()),
            );
        }
        if self.mlp_ratio <= 0.0 || !self.mlp_ratio.is_finite() {
            return bad("model.mlp_ratio", self.mlp_ratio.to_string(), "above 0");
        }
        if !(0.0..=1.0).contains(&self.layer_scale) {
            return bad("model.layer_scale", self.layer_scale.to_string(), "0 (off) to 1");
        }
        Ok(())
    }
}
