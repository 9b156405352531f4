//! Objects in whole pictures, by a network that sees square canvases of one size.

use splitmask_pipeline::augment::{CropDraw, Resampler};
use splitmask_pipeline::decode::{Orientation, Window};
use splitmask_pipeline::request::ScaleJitter;
use splitmask_pipeline::types::{Batch, Image, Object};
use tch::Device;

use crate::eval::error::EvalError;
use crate::head::mask_rcnn::Found;
use crate::objective::Objective;
use crate::tensor::{Normalise, step_input};

/// A found object and how sure the network is of its class.
#[derive(Debug, Clone, PartialEq)]
pub struct Sure {
    /// In pixels of its picture.
    pub object: Object,
    /// 0 to 1.
    pub probability: f32,
}

/// A network that finds objects in pictures of any size: the longer side becomes the canvas's, and the ground of the training fills the rest.
pub struct Finder<'a> {
    objective: &'a dyn Objective,
    device: Device,
    normalise: Normalise,
    side: u32,
    resampler: Resampler,
}

impl<'a> Finder<'a> {
    /// By canvases of `side` pixels.
    #[must_use]
    pub fn new(objective: &'a dyn Objective, device: Device, normalise: Normalise, side: u32) -> Self {
        Self {
            objective,
            device,
            normalise,
            side,
            resampler: Resampler::new(),
        }
    }

    /// What is found in upright pictures, the surest first, seen all at once; `None` from a network that finds no objects.
    ///
    /// # Errors
    /// What libtorch said; a network whose answers are not finite.
    pub fn find(&mut self, pictures: &[Image]) -> Result<Option<Vec<Vec<Sure>>>, EvalError> {
        let (mut pixels, mut canvas, mut seen) = (vec![], vec![], vec![]);
        for picture in pictures {
            let draw = CropDraw::whole(picture.width, picture.height, self.side, ScaleJitter::default().ground);
            let inside = draw.inside(picture.width, picture.height, self.side);
            self.resampler
                .view(&Window::whole(picture), Orientation::default(), &draw, self.side, &mut canvas);
            pixels.extend_from_slice(&canvas);
            seen.push([inside.columns.len() as f32, inside.rows.len() as f32]);
        }
        let batch = Batch::of_images(self.side, pixels);
        let input = step_input(&batch, 0..batch.len, self.device, &self.normalise)?;
        let Some(found) = self.objective.objects(&input.views[0].pixels, &seen) else {
            return Ok(None);
        };
        if !found.iter().all(|found| found.is_finite) {
            return Err(EvalError::BrokenWeights);
        }
        let of_picture = |((found, picture), [columns, rows]): ((&Found, &Image), [f32; 2])| -> Vec<Sure> {
            let times = [picture.width as f32 / columns, picture.height as f32 / rows];
            let one = |n: usize| Sure {
                object: found.object(n, times, [picture.width, picture.height]),
                probability: found.scores[n],
            };
            (0..found.boxes.len()).map(one).collect()
        };
        Ok(Some(found.iter().zip(pictures).zip(seen).map(of_picture).collect()))
    }
}
