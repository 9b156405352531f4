//! One pass from decoded pixels to a square planar view: crop, resize, orientation and flip.

use fast_image_resize as fr;
use fr::images::{TypedCroppedImage, TypedImage, TypedImageRef};

use crate::decode::{Orientation, Window};
use crate::request::Filter;

use super::crop::{CropDraw, Inside};

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
    /// By the draw's filter, whose support widens with the reduction, as Pillow and torchvision (antialias) do. The bytes are Pillow's but for a level here
    /// and there: Pillow goes along rows first, by weights of 22 bits, fast_image_resize along columns first, by weights of 15. Bicubic views differ by more
    /// where an overshoot is clipped between the two passes.
    ///
    /// # Panics
    /// If the window does not hold what the draw needs.
    pub fn view(&mut self, window: &Window<'_>, orientation: Orientation, draw: &CropDraw, size: u32, out: &mut Vec<u8>) {
        let filter = match draw.filter {
            Filter::Bicubic => fr::FilterType::CatmullRom,
            Filter::Bilinear => fr::FilterType::Bilinear,
        };
        self.resample(window, orientation, draw, (size, filter), out);
    }

    /// As [`Resampler::view`] with a three-lobed Lanczos kernel, as BEiT makes its tokenizer's picture (arXiv 2106.08254 §2.1).
    ///
    /// # Panics
    /// As there.
    pub fn target(&mut self, window: &Window<'_>, orientation: Orientation, draw: &CropDraw, size: u32, out: &mut Vec<u8>) {
        self.resample(window, orientation, draw, (size, fr::FilterType::Lanczos3), out);
    }

    fn resample(
        &mut self,
        window: &Window<'_>,
        orientation: Orientation,
        draw: &CropDraw,
        (size, filter): (u32, fr::FilterType),
        out: &mut Vec<u8>,
    ) {
        let (stored_width, stored_height) = window.stored;
        let (width, height) = orientation.size(stored_width, stored_height);
        let inside = draw.inside(width, height, size);
        let whole = inside.columns == (0..size) && inside.rows == (0..size);
        // What lies beyond the picture is not resized but filled.
        let area = if whole { draw.area } else { draw.area.grown(0.0, width, height) };
        let (columns, rows) = orientation.size(inside.columns.len() as u32, inside.rows.len() as u32);
        let area = orientation.stored(area, stored_width, stored_height);
        let seen = orientation.stored(draw.seen(width, height), stored_width, stored_height);
        let seen = seen.pixels(window.denom, stored_width, stored_height);
        let placed = window.placed;
        let (left, top) = (seen.left - placed.left, seen.top - placed.top);

        let source = Rgb::from_buffer(placed.width, placed.height, window.pixels).expect("a window holds the pixels of its size");
        let source =
            TypedCroppedImage::from_ref(&source, left, top, seen.width, seen.height).expect("the window covers what the crop needs");
        let d = f64::from(window.denom);
        let (x, box_width) = within(area.x / d - f64::from(seen.left), area.width / d, seen.width);
        let (y, box_height) = within(area.y / d - f64::from(seen.top), area.height / d, seen.height);
        let ((x, box_width), (y, box_height)) = (off_the_grid(x, box_width, columns), off_the_grid(y, box_height, rows));
        let options = fr::ResizeOptions::new()
            .resize_alg(fr::ResizeAlg::Convolution(filter))
            .crop(x, y, box_width, box_height);

        let side = size as usize;
        self.square.resize(3 * columns as usize * rows as usize, 0);
        if columns > 0 && rows > 0 {
            resize(&mut self.resizer, &source, &mut self.square, (columns, rows), &options);
        }

        let orientation = if draw.flip { orientation.flipped() } else { orientation };
        out.resize(3 * side * side, 0);
        if whole {
            planar(&self.square, side, orientation, out);
        } else {
            let place = Inside {
                columns: inside.columns(draw.flip, size),
                rows: inside.rows,
            };
            on_ground(&self.square, (columns, rows), orientation, out, &place, draw.ground);
        }
    }
}

type Rgb<'a> = TypedImageRef<'a, fr::pixels::U8x3>;

/// The one call of the resizer. For RGB bytes alone: its call for any pixel type compiles 4 MB of kernels that nobody here runs.
fn resize(
    resizer: &mut fr::Resizer,
    source: &TypedCroppedImage<'_, Rgb<'_>>,
    out: &mut [u8],
    (width, height): (u32, u32),
    options: &fr::ResizeOptions,
) {
    let mut target = TypedImage::<fr::pixels::U8x3>::from_buffer(width, height, out).expect("the buffer has the picture's size");
    resizer
        .resize_typed(source, &mut target, options)
        .expect("the crop box lies within its picture");
}

/// A whole picture resized with a three-lobed Lanczos kernel.
///
/// # Panics
/// If `pixels` is not `from.0 × from.1 × 3` bytes.
#[must_use]
pub fn shrink(resizer: &mut fr::Resizer, pixels: &[u8], from: (u32, u32), to: (u32, u32)) -> Vec<u8> {
    let source = Rgb::from_buffer(from.0, from.1, pixels).expect("the buffer has the picture's size");
    let source = TypedCroppedImage::from_ref(&source, 0, 0, from.0, from.1).expect("the whole picture");
    let mut out = vec![0; 3 * to.0 as usize * to.1 as usize];
    let options = fr::ResizeOptions::new().resize_alg(fr::ResizeAlg::Convolution(fr::FilterType::Lanczos3));
    resize(resizer, &source, &mut out, to, &options);
    out
}

/// A box that rounding pushed out of 0..`limit` moved back.
fn within(start: f64, length: f64, limit: u32) -> (f64, f64) {
    let start = start.clamp(0.0, f64::from(limit));
    (start, length.min(f64::from(limit) - start))
}

/// A hundred-millionth of a pixel, which changes no byte.
const INWARD: f64 = 1e-8;

/// A box whose first and last pixel of `size` lie between pixels of the picture.
///
/// fast_image_resize 6.1 leaves out weights of zero at the ends of a pixel's range, and takes the ranges of the first and the last pixel for the outermost
/// ones. Where a box is enlarged and one of these two falls exactly on a pixel of the picture, all weights beside that one are zero, its neighbours reach
/// further, and memory before or behind the rows is read: a crash, or foreign pixels.
fn off_the_grid(start: f64, length: f64, size: u32) -> (f64, f64) {
    if length < f64::from(size) && length > 1.0 {
        (start + INWARD, length - 2.0 * INWARD)
    } else {
        (start, length)
    }
}

/// Interleaved stored pixels of `stored` columns and rows → upright planes at their place on a ground of one colour.
fn on_ground(pixels: &[u8], stored: (u32, u32), orientation: Orientation, out: &mut [u8], place: &Inside, ground: [u8; 3]) {
    let plane = out.len() / 3;
    let side = plane.isqrt();
    let (start, step_x, step_y) = orientation.walk(stored.0 as usize, stored.1 as usize);
    for (channel, plane) in out.chunks_exact_mut(plane).enumerate() {
        plane.fill(ground[channel]);
        for (y, row) in (0isize..).zip(place.rows.clone()) {
            let row = &mut plane[row as usize * side..][place.columns.start as usize..place.columns.end as usize];
            for (x, value) in (0isize..).zip(row) {
                *value = pixels[3 * (start + x * step_x + y * step_y) as usize + channel];
            }
        }
    }
}

/// Interleaved stored square → upright planes. Uses AVX2 where the CPU has it.
fn planar(square: &[u8], side: usize, orientation: Orientation, out: &mut [u8]) {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        #[target_feature(enable = "avx2")]
        fn wide(square: &[u8], side: usize, orientation: Orientation, out: &mut [u8]) {
            planar_any(square, side, orientation, out);
        }
        #[expect(unsafe_code, reason = "the same code compiled for wider registers")]
        // SAFETY: the CPU has AVX2.
        return unsafe { wide(square, side, orientation, out) };
    }
    planar_any(square, side, orientation, out);
}

#[inline(always)]
fn planar_any(square: &[u8], side: usize, orientation: Orientation, out: &mut [u8]) {
    let (red, rest) = out.split_at_mut(side * side);
    let (green, blue) = rest.split_at_mut(side * side);
    let rows = red
        .chunks_exact_mut(side)
        .zip(green.chunks_exact_mut(side))
        .zip(blue.chunks_exact_mut(side));
    let (start, step_x, step_y) = orientation.walk(side, side);
    for (y, ((r, g), b)) in rows.enumerate() {
        let first = start + y as isize * step_y;
        if orientation.transpose {
            for x in 0..side {
                let at = 3 * (first + x as isize * step_x) as usize;
                (r[x], g[x], b[x]) = (square[at], square[at + 1], square[at + 2]);
            }
            continue;
        }
        let row = first as usize / side * side;
        let pixels = &square[3 * row..][..3 * side];
        for (((r, g), b), p) in r.iter_mut().zip(&mut *g).zip(&mut *b).zip(pixels.chunks_exact(3)) {
            (*r, *g, *b) = (p[0], p[1], p[2]);
        }
        if orientation.mirror_x {
            [r, g, b].into_iter().for_each(<[u8]>::reverse);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::Rect;
    use crate::types::Image;

    #[test]
    fn a_picture_on_a_ground_is_copied_to_its_place_however_it_is_stored() {
        let image = Image {
            width: 30,
            height: 20,
            pixels: (0..1800u32).map(|at| (at * 37 % 251) as u8).collect(),
        };
        let whole = CropDraw::whole(30, 20, 30, [9, 99, 200]);
        let lower = CropDraw {
            area: Rect {
                x: -4.0,
                y: -13.0,
                ..whole.area
            },
            ..whole
        };
        let mut resampler = Resampler::new();
        for (draw, left, top, flip) in [(whole, 0, 0, false), (lower, 4, 13, false), (lower, 4, 13, true)] {
            for mirror in [false, true] {
                // The picture of a file whose rows run backwards, which is turned back.
                let mut stored = image.clone();
                if mirror {
                    stored.pixels = stored.pixels.chunks_exact(90).rev().flatten().copied().collect();
                }
                let orientation = Orientation {
                    mirror_y: mirror,
                    ..Orientation::default()
                };
                let mut out = vec![];
                resampler.view(&Window::whole(&stored), orientation, &CropDraw { flip, ..draw }, 30, &mut out);
                for (c, ground) in draw.ground.into_iter().enumerate() {
                    for y in 0..30usize {
                        for x in 0..30usize {
                            let column = if flip { 29 - x } else { x };
                            let source = column.checked_sub(left).zip(y.checked_sub(top)).filter(|(u, v)| *u < 30 && *v < 20);
                            let wanted = source.map_or(ground, |(u, v)| image.pixels[(v * 30 + u) * 3 + c]);
                            assert_eq!(out[c * 900 + y * 30 + x], wanted, "{x} {y} {flip} {mirror}");
                        }
                    }
                }
            }
        }
    }
}
