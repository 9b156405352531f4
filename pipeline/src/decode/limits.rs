//! What one sample may cost.

/// What one sample may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Width × height at most.
    pub max_pixels: u64,
    /// Bytes at most: of the file, of the picture in its own pixel format, of a progressive JPEG's coefficients.
    pub max_bytes: u64,
    /// JPEGs that end early are decoded as far as they go; the rest is grey.
    pub keep_truncated: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_pixels: 64_000_000,
            max_bytes: 256 << 20,
            keep_truncated: false,
        }
    }
}
