//! `[picture]`: pictures of what the objective and its encoder make of images, and `curves.svg`, in the run folder.

use crate::setting::{Findings, settings};

settings! {
    /// `[picture]`: pictures of what the objective and its encoder make of images, and `curves.svg`, in the run folder.
    pub struct PictureConfig in "picture" {
        /// Steps between pictures; 0 = only at the end.
        Live every_steps: u64 = 1000,
        /// Images in a picture.
        Live rows: u32 = 8,
        /// Pictures of earlier steps that are kept of each kind, spread over the run, for the page; 0 = only the latest.
        Live keep: u32 = 30,
    }
}

impl PictureConfig {
    /// Checks ranges.
    pub fn check(&self, found: &mut Findings) {
        found.need((1..=64).contains(&self.rows), "picture.rows", self.rows, "1 to 64 images");
        found.need(self.keep <= 1000, "picture.keep", self.keep, "0 to 1000 pictures");
    }
}
