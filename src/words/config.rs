//! `[codebook]`: which visual words, and who finds them.

use serde::{Deserialize, Serialize};
use tch::Device;

use crate::setting::settings;

/// Who finds the words of a codebook: both give the same ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "kebab-case")]
pub enum WordsFoundBy {
    /// The device where that is a GPU, else the pipeline.
    #[default]
    Auto,
    /// The pipeline's workers, image by image, before a batch is queued.
    Pipeline,
    /// The trainer's device, batch by batch; the queue carries no words, and the workers have time for more images.
    Device,
}

impl WordsFoundBy {
    /// Whether `device` finds them.
    #[must_use]
    pub fn is_device(self, device: Device) -> bool {
        match self {
            Self::Auto => device.is_cuda(),
            Self::Pipeline => false,
            Self::Device => true,
        }
    }
}

settings! {
    /// `[codebook]`: the visual words.
    pub struct CodebookConfig in "codebook" {
        /// File of the visual words, made by `splitmask codebook`.
        Frozen path: String = String::new(),
        /// Who finds the words of images: the pipeline's workers or the trainer's device; auto = the device where that is a GPU. The words are the same.
        Restart found_by as "where": WordsFoundBy = WordsFoundBy::Auto,
    }
}
