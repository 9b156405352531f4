//! From a picture to views: random resized crop, flip, colour recipe; evaluation crop; the half-size copy behind visual words.

mod blur;
mod colour;
mod crop;
mod half;
mod label_view;
mod object_view;
mod rand_augment;
mod resample;
#[cfg(test)]
mod tests;

use rand::Rng;

use crate::decode::{Orientation, Window};
use crate::request::ViewRequest;
use crate::types::Image;

pub use colour::{ColourDraw, JitterDraw, Painter};
pub use crop::{CropDraw, Inside};
pub use half::half_size;
pub use label_view::label_view;
pub use object_view::object_view;
pub use rand_augment::{RandAugmentDraw, RandAugmenter};
pub use resample::{Resampler, shrink};

/// Makes views of whole pictures, keeping its buffers. One per thread.
///
/// [`crate::sample::SampleMaker`] does the same from undecoded bytes, decoding only what a view needs.
#[derive(Default)]
pub struct Augmenter {
    resampler: Resampler,
    augmenter: RandAugmenter,
    painter: Painter,
}

impl Augmenter {
    /// With empty buffers.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A training view by its recipe as u8 planar 3×S×S. Randomness: all of it from `rng`, crop first, then flip, then colour, then RandAugment, which is
    /// applied before the colours.
    pub fn train_view(&mut self, image: &Image, spec: &ViewRequest, rng: &mut impl Rng, out: &mut Vec<u8>) {
        let draw = CropDraw::of_view(image.width, image.height, spec, rng);
        let colour = ColourDraw::random(&spec.colour, rng);
        let strong = RandAugmentDraw::random(spec.rand_augment.as_ref(), rng);
        self.resampler
            .view(&Window::whole(image), Orientation::default(), &draw, spec.size, out);
        self.augmenter.apply(&strong, out, spec.size as usize);
        self.painter.apply(&colour, out, spec.size as usize);
    }

    /// The evaluation view as u8 planar 3×`size`×`size`: shorter side to `round(size ÷ crop_ratio)`, centre crop, bicubic, in one pass.
    pub fn eval_view(&mut self, image: &Image, size: u32, crop_ratio: f32, out: &mut Vec<u8>) {
        let draw = CropDraw::centre(image.width, image.height, size, crop_ratio);
        self.resampler.view(&Window::whole(image), Orientation::default(), &draw, size, out);
    }
}
