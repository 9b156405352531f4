//! A whole picture through a network that sees squares of one size: squeezed into one, or by windows that overlap.

use splitmask_pipeline::augment::{CropDraw, Resampler};
use splitmask_pipeline::decode::{Orientation, Rect, Window};
use splitmask_pipeline::types::{Batch, Image};
use tch::{Device, Kind, Tensor};

use crate::eval::config::EvalConfig;
use crate::eval::error::EvalError;
use crate::objective::Objective;
use crate::tensor::{Normalise, step_input};

/// Windows that go through the network at once.
const AT_ONCE: usize = 16;

/// How a picture is seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Windows {
    /// Squeezed into one square.
    Whole,
    /// Its shorter side resized to the square's, and windows every so many pixels; 0 = two thirds of the square (arXiv 2106.08254's code: 341 of 512).
    Slide(u32),
}

impl Windows {
    /// As `eval.slide` and `eval.slide_stride` say.
    #[must_use]
    pub fn of(config: &EvalConfig) -> Self {
        if config.slide {
            Self::Slide(config.slide_stride)
        } else {
            Self::Whole
        }
    }
}

/// First pixels of windows of `side` along `length` pixels, `stride` apart; the last one is moved back inside.
fn starts(length: i64, side: i64, stride: i64) -> Vec<i64> {
    let beyond = (length - side).max(0);
    let windows = (beyond + stride - 1) / stride + 1;
    (0..windows).map(|window| (window * stride).min(beyond)).collect()
}

/// Logits f32 K×`height`×`width` as the mean of those of windows of `side`, `stride` apart: `logits` gives those of the windows that begin at some (row,
/// column), each K×`side`×`side`, B×K×`side`×`side` together.
///
/// # Errors
/// Those of `logits`.
pub fn stitched<E>(
    (height, width): (i64, i64),
    side: i64,
    stride: i64,
    mut logits: impl FnMut(&[(i64, i64)]) -> Result<Tensor, E>,
) -> Result<Tensor, E> {
    let columns = starts(width, side, stride);
    let places: Vec<(i64, i64)> = starts(height, side, stride)
        .into_iter()
        .flat_map(|row| columns.iter().map(move |column| (row, *column)))
        .collect();
    let mut sum: Option<(Tensor, Tensor)> = None;
    for part in places.chunks(AT_ONCE) {
        let seen = logits(part)?;
        let (sum, times) = sum.get_or_insert_with(|| {
            let options = (Kind::Float, seen.device());
            (
                Tensor::zeros([seen.size()[1], height, width], options),
                Tensor::zeros([height, width], options),
            )
        });
        for (at, (row, column)) in (0..).zip(part) {
            let window = |of: &Tensor| of.narrow(-2, *row, side).narrow(-1, *column, side);
            let mut place = window(sum);
            place += seen.get(at);
            let mut place = window(times);
            place += 1.0;
        }
    }
    let (sum, times) = sum.expect("there is a window");
    Ok(sum / times)
}

/// A network that looks at pictures of any size.
pub struct Seer<'a> {
    objective: &'a dyn Objective,
    device: Device,
    normalise: Normalise,
    side: u32,
    windows: Windows,
    resampler: Resampler,
}

impl<'a> Seer<'a> {
    /// Of squares of `side` pixels.
    #[must_use]
    pub fn new(objective: &'a dyn Objective, device: Device, normalise: Normalise, side: u32, windows: Windows) -> Self {
        Self {
            objective,
            device,
            normalise,
            side,
            windows,
            resampler: Resampler::new(),
        }
    }

    /// Logits f32 K×H×W of an upright picture of W × H pixels; `None` from a network that tells no pixels apart.
    ///
    /// # Errors
    /// What libtorch said.
    pub fn see(&mut self, picture: &Image) -> Result<Option<Tensor>, EvalError> {
        let (width, height) = (i64::from(picture.width), i64::from(picture.height));
        let side = i64::from(self.side);
        let seen = match self.windows {
            Windows::Whole => {
                let whole = Rect {
                    x: 0.0,
                    y: 0.0,
                    width: width as f64,
                    height: height as f64,
                };
                self.squares(picture, &[whole])?
            }
            Windows::Slide(stride) => {
                let stride = if stride == 0 { 2 * side / 3 } else { stride.into() };
                let shorter = width.min(height) as f64;
                let resized = |length: i64| ((length as f64 * side as f64 / shorter).round() as i64).max(side);
                let (rw, rh) = (resized(width), resized(height));
                let (sx, sy) = (width as f64 / rw as f64, height as f64 / rh as f64);
                let rect = |(row, column): &(i64, i64)| Rect {
                    x: *column as f64 * sx,
                    y: *row as f64 * sy,
                    width: side as f64 * sx,
                    height: side as f64 * sy,
                };
                let logits = |places: &[(i64, i64)]| {
                    let rects: Vec<Rect> = places.iter().map(rect).collect();
                    let coarse = self.squares(picture, &rects).map_err(Some)?.ok_or(None)?;
                    Ok(coarse.upsample_bilinear2d([side, side], false, None, None))
                };
                match stitched((rh, rw), side, stride, logits) {
                    Ok(all) => Some(all.unsqueeze(0)),
                    Err(None) => None,
                    Err(Some(error)) => return Err(error),
                }
            }
        };
        Ok(seen.map(|logits| logits.upsample_bilinear2d([height, width], false, None, None).squeeze_dim(0)))
    }

    /// Logits f32 B×K×h×w of B rectangles of a picture, each squeezed into a square.
    fn squares(&mut self, picture: &Image, rects: &[Rect]) -> Result<Option<Tensor>, EvalError> {
        let mut pixels = vec![];
        let mut square = vec![];
        for area in rects {
            let draw = CropDraw::squeezed(*area, self.side);
            self.resampler
                .view(&Window::whole(picture), Orientation::default(), &draw, self.side, &mut square);
            pixels.extend_from_slice(&square);
        }
        let batch = Batch::of_images(self.side, pixels);
        let input = step_input(&batch, 0..batch.len, self.device, &self.normalise)?;
        Ok(self.objective.pixel_logits(&input.views[0].pixels))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_cover_a_picture_and_the_last_ones_lie_inside() {
        assert_eq!(starts(56, 32, 21), [0, 21, 24]);
        assert_eq!(starts(40, 32, 21), [0, 8]);
        assert_eq!(starts(32, 32, 21), [0]);
        // Stitched from windows of what is there, the picture comes back.
        let picture = Tensor::arange(3 * 40 * 56, (Kind::Float, Device::Cpu)).view([3, 40, 56]);
        let cut = |places: &[(i64, i64)]| -> Result<Tensor, ()> {
            let windows = places
                .iter()
                .map(|(row, column)| picture.narrow(1, *row, 32).narrow(2, *column, 32));
            Ok(Tensor::stack(&windows.collect::<Vec<_>>(), 0))
        };
        let back = stitched((40, 56), 32, 21, cut).unwrap();
        assert!((back - picture).abs().max().double_value(&[]) < 1e-3);
    }
}
