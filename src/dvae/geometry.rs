//! Sizes of encoder and decoder.

use serde::{Deserialize, Serialize};

use super::DvaeError;

/// Sizes. DALL-E's are 8192 words, width 256, stride 8, 2 blocks a group (arXiv 2102.12092 appendix A.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Geometry {
    /// Words V.
    pub words: i64,
    /// Channels of the first group W; group i has W·2^i.
    pub width: i64,
    /// Pixels a side for each word; a power of two. There are log2(stride) + 1 groups with a 2×2 pooling between each two.
    pub stride: i64,
    /// Residual blocks of a group.
    pub blocks: i64,
}

impl Geometry {
    /// Groups of blocks.
    #[must_use]
    pub fn groups(&self) -> i64 {
        i64::from(self.stride.trailing_zeros()) + 1
    }

    /// Channels of group `i`, from 0.
    #[must_use]
    pub fn channels(&self, i: i64) -> i64 {
        self.width << i
    }

    /// Channels that a word is embedded in before the decoder's first block (128 where the width is 256).
    #[must_use]
    pub fn embedding(&self) -> i64 {
        (self.width / 2).max(8)
    }

    /// Factor of each residual branch: 1 ÷ (number of blocks)².
    #[must_use]
    pub fn gain(&self) -> f64 {
        1.0 / ((self.groups() * self.blocks) as f64).powi(2)
    }

    /// Checks ranges.
    ///
    /// # Errors
    /// [`DvaeError::Setting`] naming the field.
    pub fn validate(&self) -> Result<(), DvaeError> {
        let check = |ok: bool, key: &'static str, value: i64, allowed: &str| {
            ok.then_some(()).ok_or_else(|| DvaeError::Setting {
                key,
                value: value.to_string(),
                allowed: allowed.to_owned(),
            })
        };
        check((2..=1 << 20).contains(&self.words), "words", self.words, "2 to 1048576 words")?;
        check(
            (4..=1024).contains(&self.width) && self.width % 4 == 0,
            "width",
            self.width,
            "a multiple of 4 from 4 to 1024",
        )?;
        check(
            [2, 4, 8, 16].contains(&self.stride),
            "stride",
            self.stride,
            "2, 4, 8 or 16 pixels a side for each word",
        )?;
        check(
            (1..=8).contains(&self.blocks),
            "blocks",
            self.blocks,
            "1 to 8 residual blocks a group",
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dall_es_sizes() {
        let g = Geometry {
            words: 8192,
            width: 256,
            stride: 8,
            blocks: 2,
        };
        g.validate().unwrap();
        assert_eq!((g.groups(), g.channels(3), g.embedding()), (4, 2048, 128));
        assert_eq!(g.gain(), 1.0 / 64.0);
        let message = Geometry { stride: 6, ..g }.validate().unwrap_err().to_string();
        assert_eq!(message, "stride = 6: expected 2, 4, 8 or 16 pixels a side for each word");
    }
}
