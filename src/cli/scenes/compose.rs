//! One scene: a ground, and drawings that cover each other from the back to the front.

use image::{Rgb, RgbImage, RgbaImage, imageops};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use splitmask_pipeline::coco::RunLength;

use super::drawings::{CLASSES, Drawings, resized};
use crate::exit::CliError;

/// Objects of a scene, at most.
const MOST_OBJECTS: usize = 4;
/// Drawings of no group among them, at most.
const MOST_OTHERS: usize = 2;
/// Longer side of a drawing as a share of the scene's.
const SIDES: [f64; 2] = [0.25, 0.63];
/// Opacity from which a pixel belongs to what was drawn over it.
const OPAQUE: u8 = 128;
/// Spread of the ground's noise.
const NOISE: f64 = 24.0;

/// An object as far as it is seen.
pub(super) struct Object {
    /// Its number in the map.
    pub(super) class: i16,
    /// Left, top, width and height of its visible part, pixels.
    pub(super) area: [u32; 4],
    /// Pixels of it that are seen.
    pub(super) pixels: u32,
    /// Which those are.
    pub(super) mask: RunLength,
}

/// A picture with what it shows.
pub(super) struct Scene {
    pub(super) picture: RgbImage,
    /// Class of each pixel, row-major; 0 = background.
    pub(super) classes: Vec<i16>,
    pub(super) objects: Vec<Object>,
}

/// Scene `number` of a set. Randomness: a function of (`seed`, set, `number`).
pub(super) fn compose(drawings: &Drawings, val: bool, side: u32, seed: u64, number: u32) -> Result<Scene, CliError> {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    bytes[8..12].copy_from_slice(&number.to_le_bytes());
    bytes[12] = u8::from(val);
    let mut rng = ChaCha8Rng::from_seed(bytes);
    let mut picture = ground(side, &mut rng);
    let pixels = (side * side) as usize;
    let (mut classes, mut owner) = (vec![0i16; pixels], vec![0usize; pixels]);
    let mut of_object = vec![0i16];
    let objects = rng.random_range(1..=MOST_OBJECTS);
    let others = rng.random_range(0..=MOST_OTHERS);
    let mut kinds: Vec<usize> = (0..objects).map(|_| rng.random_range(0..CLASSES.len())).collect();
    for _ in 0..others {
        kinds.insert(rng.random_range(0..=kinds.len()), CLASSES.len());
    }
    for kind in kinds {
        let many = drawings.len(kind, val).max(1);
        let place = rng.random_range(0..many);
        let longer = (f64::from(side) * rng.random_range(SIDES[0]..SIDES[1])).round() as u32;
        let (mirrored, x, y) = (rng.random::<bool>(), rng.random::<f64>(), rng.random::<f64>());
        let Some(drawing) = drawings.open(kind, val, place) else {
            if kind == CLASSES.len() {
                continue;
            }
            return Err(CliError::usage(
                format!("no drawing of {} has an outline on transparent ground", CLASSES[kind]),
                None,
            ));
        };
        let mut drawing = resized(&drawing, longer);
        if mirrored {
            imageops::flip_horizontal_in_place(&mut drawing);
        }
        let is_object = kind < CLASSES.len();
        if is_object {
            of_object.push(kind as i16 + 1);
        }
        let number = if is_object { of_object.len() - 1 } else { 0 };
        // Up to a quarter of it lies outside.
        let start = |at: f64, length: u32| {
            let outside = i64::from(length / 4);
            let room = i64::from(side) - i64::from(length) + 2 * outside;
            (at * (room.max(0) + 1) as f64) as i64 - outside
        };
        let from = (start(x, drawing.width()), start(y, drawing.height()));
        lay(&drawing, from, &mut picture, |at| {
            owner[at] = number;
            classes[at] = of_object[number];
        });
    }
    Ok(Scene {
        objects: seen(&owner, &of_object, side),
        picture,
        classes,
    })
}

/// Draws with the corner at `from`, and calls `covered` with each pixel that now belongs to the drawing.
fn lay(drawing: &RgbaImage, (left, top): (i64, i64), picture: &mut RgbImage, mut covered: impl FnMut(usize)) {
    let (width, height) = picture.dimensions();
    for (x, y, pixel) in drawing.enumerate_pixels() {
        let (x, y) = (left + i64::from(x), top + i64::from(y));
        if x < 0 || y < 0 || x >= i64::from(width) || y >= i64::from(height) {
            continue;
        }
        let (x, y) = (x as u32, y as u32);
        let [r, g, b, opacity] = pixel.0;
        let below = picture.get_pixel_mut(x, y);
        for (value, over) in below.0.iter_mut().zip([r, g, b]) {
            let (o, v, n) = (u32::from(opacity), u32::from(*value), u32::from(over));
            *value = ((v * (255 - o) + n * o + 127) / 255) as u8;
        }
        if opacity >= OPAQUE {
            covered((y * width + x) as usize);
        }
    }
}

/// What is seen of each object.
fn seen(owner: &[usize], of_object: &[i16], side: u32) -> Vec<Object> {
    let mut boxes = vec![(side, side, 0u32, 0u32, 0u32); of_object.len()];
    for (at, number) in (0u32..).zip(owner) {
        let (x, y) = (at % side, at / side);
        let (left, top, right, bottom, pixels) = boxes[*number];
        boxes[*number] = (left.min(x), top.min(y), right.max(x + 1), bottom.max(y + 1), pixels + 1);
    }
    let each = boxes.into_iter().zip(of_object).enumerate().skip(1);
    let visible = each.filter(|(_, ((.., pixels), _))| *pixels > 0);
    visible
        .map(|(number, ((left, top, right, bottom, pixels), class))| {
            let own: Vec<u8> = owner.iter().map(|of| u8::from(*of == number)).collect();
            Object {
                class: *class,
                area: [left, top, right - left, bottom - top],
                pixels,
                mask: RunLength::of_pixels(side, side, &own),
            }
        })
        .collect()
}

/// Four corner colours that run into each other, under noise of low frequency.
fn ground(side: u32, rng: &mut ChaCha8Rng) -> RgbImage {
    let corners: [[f64; 3]; 4] = std::array::from_fn(|_| std::array::from_fn(|_| rng.random_range(90.0..256.0)));
    let cells: usize = rng.random_range(4..=16);
    let mut normal = || {
        // Box and Muller's transformation.
        let (a, b): (f64, f64) = (rng.random(), rng.random());
        (-2.0 * (1.0 - a).ln()).sqrt() * (std::f64::consts::TAU * b).cos()
    };
    let noise: Vec<f64> = (0..cells * cells).map(|_| NOISE * normal()).collect();
    let between = |a: f64, b: f64, t: f64| a + (b - a) * t;
    let grid = |x: f64, y: f64| {
        let place = |t: f64| {
            let at = t * (cells - 1) as f64;
            let cell = (at.floor() as usize).min(cells - 2);
            (cell, at - cell as f64)
        };
        let ((cx, tx), (cy, ty)) = (place(x), place(y));
        let row = |y: usize| between(noise[y * cells + cx], noise[y * cells + cx + 1], tx);
        between(row(cy), row(cy + 1), ty)
    };
    RgbImage::from_fn(side, side, |x, y| {
        let t = |at: u32| (f64::from(at) + 0.5) / f64::from(side);
        let (x, y) = (t(x), t(y));
        let noise = grid(x, y);
        Rgb(std::array::from_fn(|c| {
            let upper = between(corners[0][c], corners[1][c], x);
            let lower = between(corners[2][c], corners[3][c], x);
            (between(upper, lower, y) + noise).round().clamp(0.0, 255.0) as u8
        }))
    })
}
