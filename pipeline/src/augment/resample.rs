//! One pass from decoded pixels to a square planar view: crop, bicubic resize, orientation and flip.

use fast_image_resize as fr;

use crate::decode::{Orientation, Window};

use super::crop::CropDraw;

/// Resizes windows into views, keeping its buffers. One per thread.
pub struct Resampler {
    resizer: fr::Resizer,
    square: Vec<u8>,
}

impl Default for Resampler {
    fn default() -> Self {
        Self::new()
    }
}

impl Resampler {
    /// With the best instructions that the CPU has.
    #[must_use]
    pub fn new() -> Self {
        Self {
            resizer: fr::Resizer::new(),
            square: vec![],
        }
    }

    /// Cuts `draw` out of a window of the stored picture and writes it upright as u8 planar 3×`size`×`size`.
    ///
    /// Bicubic with a = −0.5 and a support that widens with the reduction, as Pillow and torchvision (antialias) do.
    ///
    /// # Panics
    /// If the window does not hold what the draw needs.
    pub fn view(&mut self, window: &Window<'_>, orientation: Orientation, draw: &CropDraw, size: u32, out: &mut Vec<u8>) {
        let (stored_width, stored_height) = window.stored;
        let (width, height) = orientation.size(stored_width, stored_height);
        let area = orientation.stored(draw.area, stored_width, stored_height);
        let seen = orientation.stored(draw.seen(width, height), stored_width, stored_height);
        let seen = seen.pixels(window.denom, stored_width, stored_height);
        let placed = window.placed;
        let (left, top) = (seen.left - placed.left, seen.top - placed.top);

        let source = fr::images::ImageRef::new(placed.width, placed.height, window.pixels, fr::PixelType::U8x3)
            .expect("a window holds the pixels of its size");
        let source =
            fr::images::CroppedImage::new(&source, left, top, seen.width, seen.height).expect("the window covers what the crop needs");
        let d = f64::from(window.denom);
        let (x, box_width) = within(area.x / d - f64::from(seen.left), area.width / d, seen.width);
        let (y, box_height) = within(area.y / d - f64::from(seen.top), area.height / d, seen.height);
        let options = fr::ResizeOptions::new()
            .resize_alg(fr::ResizeAlg::Convolution(fr::FilterType::CatmullRom))
            .crop(x, y, box_width, box_height);

        let side = size as usize;
        self.square.resize(3 * side * side, 0);
        let mut square =
            fr::images::Image::from_slice_u8(size, size, &mut self.square, fr::PixelType::U8x3).expect("the buffer has the view's size");
        self.resizer
            .resize(&source, &mut square, &options)
            .expect("the crop box lies within its picture");

        let orientation = if draw.flip { orientation.flipped() } else { orientation };
        out.resize(3 * side * side, 0);
        planar(&self.square, side, orientation, out);
    }
}

/// A box that rounding pushed out of 0..`limit` moved back.
fn within(start: f64, length: f64, limit: u32) -> (f64, f64) {
    let start = start.clamp(0.0, f64::from(limit));
    (start, length.min(f64::from(limit) - start))
}

/// Interleaved stored square → upright planes.
fn planar(square: &[u8], side: usize, orientation: Orientation, out: &mut [u8]) {
    let (red, rest) = out.split_at_mut(side * side);
    let (green, blue) = rest.split_at_mut(side * side);
    let rows = red
        .chunks_exact_mut(side)
        .zip(green.chunks_exact_mut(side))
        .zip(blue.chunks_exact_mut(side));
    let (start, step_x, step_y) = orientation.walk(side, side);
    for (y, ((r, g), b)) in rows.enumerate() {
        let first = start + y as isize * step_y;
        let write = |(p, ((r, g), b)): (&[u8], ((&mut u8, &mut u8), &mut u8))| {
            (*r, *g, *b) = (p[0], p[1], p[2]);
        };
        let targets = r.iter_mut().zip(g).zip(b);
        match step_x {
            1 => square[3 * first as usize..].chunks_exact(3).zip(targets).for_each(write),
            -1 => square[..3 * (first as usize + 1)]
                .chunks_exact(3)
                .rev()
                .zip(targets)
                .for_each(write),
            _ => (0..side as isize)
                .map(|x| &square[3 * (first + x * step_x) as usize..][..3])
                .zip(targets)
                .for_each(write),
        }
    }
}
