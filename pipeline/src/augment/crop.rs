//! Where a view is cut out of a picture.

use std::ops::Range;

use rand::Rng;

use crate::decode::Rect;
use crate::request::{CropConfig, Filter, ScaleJitter, ViewRequest};

/// Crop and flip of one view, in coordinates of the upright picture, and what it is resized with.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CropDraw {
    /// Whole pixels for a training crop, fractional for the evaluation crop. It may reach beyond the picture.
    pub area: Rect,
    /// Mirrored left to right.
    pub flip: bool,
    /// Kernel of the resize. Bicubic unless a view's recipe says otherwise.
    pub filter: Filter,
    /// Pixels around the area that the resampler may see: 0 cuts first and resizes then, as torchvision's training crop does.
    pub margin: f64,
    /// Colour of what lies beyond the picture.
    pub ground: [u8; 3],
}

/// Columns and rows of a view that show the picture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inside {
    /// Of a view that is not mirrored.
    pub columns: Range<u32>,
    /// From the top.
    pub rows: Range<u32>,
}

impl Inside {
    /// The columns in a view of `size` pixels that may be mirrored.
    #[must_use]
    pub fn columns(&self, flip: bool, size: u32) -> Range<u32> {
        match flip {
            true => size - self.columns.end..size - self.columns.start,
            false => self.columns.clone(),
        }
    }
}

impl CropDraw {
    /// As a view's recipe says, for training. Randomness: `rng`.
    pub fn of_view(width: u32, height: u32, view: &ViewRequest, rng: &mut impl Rng) -> Self {
        let draw = match &view.jitter {
            Some(jitter) => Self::jittered(width, height, view.size, jitter, view.crop.flip, rng),
            None => Self::random(width, height, &view.crop, rng),
        };
        Self {
            filter: view.filter,
            ..draw
        }
    }

    /// Large-scale jitter: the longer side resized to a random multiple of `size`, and a view cut out or the picture laid on its ground at a random place,
    /// whole pixels of the view apart. Randomness: `rng`: scale, column, row, flip with probability `flip`.
    pub fn jittered(width: u32, height: u32, size: u32, jitter: &ScaleJitter, flip: f32, rng: &mut impl Rng) -> Self {
        let [low, high] = jitter.scale.map(f64::from);
        let longer = (low + (high - low) * rng.random::<f64>()) * f64::from(size);
        let mut start = |resized: u32| {
            let room = resized.abs_diff(size);
            let at = f64::from(rng.random_range(0..=room));
            if resized > size { at } else { -at }
        };
        let (columns, rows) = resized(width, height, longer);
        let (left, top) = (start(columns), start(rows));
        Self {
            flip: rng.random::<f32>() < flip,
            ..Self::placed((width, height), (columns, rows), size, (left, top), jitter.ground)
        }
    }

    /// The whole picture with its aspect, its longer side as long as the view's and its corner in the view's upper left one, on a ground of one colour.
    #[must_use]
    pub fn whole(width: u32, height: u32, size: u32, ground: [u8; 3]) -> Self {
        Self::placed((width, height), resized(width, height, size.into()), size, (0.0, 0.0), ground)
    }

    /// A picture resized to `to` columns and rows, seen from `left` and `top` of them on.
    fn placed((width, height): (u32, u32), to: (u32, u32), size: u32, (left, top): (f64, f64), ground: [u8; 3]) -> Self {
        let (x, y) = (f64::from(width) / f64::from(to.0), f64::from(height) / f64::from(to.1));
        Self {
            area: Rect {
                x: left * x,
                y: top * y,
                width: f64::from(size) * x,
                height: f64::from(size) * y,
            },
            flip: false,
            filter: Filter::Bicubic,
            margin: around(x, y),
            ground,
        }
    }

    /// Which pixels of a view of `size` show the picture of `width` × `height`; the rest shows the ground.
    #[must_use]
    pub fn inside(&self, width: u32, height: u32, size: u32) -> Inside {
        let range = |from: f64, length: f64, limit: u32| {
            let step = length / f64::from(size);
            let place = |edge: f64| ((edge - from) / step).round().clamp(0.0, f64::from(size)) as u32;
            place(0.0)..place(limit.into())
        };
        Inside {
            columns: range(self.area.x, self.area.width, width),
            rows: range(self.area.y, self.area.height, height),
        }
    }

    /// RandomResizedCrop and flip as torchvision draws them: ten tries of area (uniform) and aspect (log-uniform), then the largest
    /// centred crop of an allowed aspect. Randomness: `rng`, in this order.
    pub fn random(width: u32, height: u32, config: &CropConfig, rng: &mut impl Rng) -> Self {
        let area = random_area(width, height, config, rng);
        Self {
            area,
            flip: rng.random::<f32>() < config.flip,
            filter: Filter::Bicubic,
            margin: 0.0,
            ground: [0; 3],
        }
    }

    /// Shorter side resized to `round(size ÷ crop_ratio)`, then the centre `size` × `size`, as one rectangle of the picture.
    #[must_use]
    pub fn centre(width: u32, height: u32, size: u32, crop_ratio: f32) -> Self {
        let (w, h) = (f64::from(width), f64::from(height));
        let shorter = (f64::from(size) / f64::from(crop_ratio)).round().max(f64::from(size));
        // The longer side is cut to whole pixels, as torchvision does.
        let resized = |side: f64, other: f64| if side <= other { shorter } else { (shorter * side / other).floor() };
        let (rw, rh) = (resized(w, h), resized(h, w));
        let (sx, sy) = (w / rw, h / rh);
        let left = ((rw - f64::from(size)) / 2.0).round_ties_even();
        let top = ((rh - f64::from(size)) / 2.0).round_ties_even();
        Self {
            area: Rect {
                x: left * sx,
                y: top * sy,
                width: f64::from(size) * sx,
                height: f64::from(size) * sy,
            },
            flip: false,
            filter: Filter::Bicubic,
            margin: around(sx, sy),
            ground: [0; 3],
        }
    }

    /// That part of a picture, squeezed into a square of `size` pixels.
    #[must_use]
    pub fn squeezed(area: Rect, size: u32) -> Self {
        let side = f64::from(size);
        Self {
            area,
            flip: false,
            filter: Filter::Bicubic,
            margin: around(area.width / side, area.height / side),
            ground: [0; 3],
        }
    }

    /// The part of the picture that must be there for the resampler.
    #[must_use]
    pub fn seen(&self, width: u32, height: u32) -> Rect {
        self.area.grown(self.margin, width, height)
    }
}

/// Support of the bicubic kernel, the widest of a view, where a pixel of the view is `x` × `y` of the picture.
fn around(x: f64, y: f64) -> f64 {
    2.0 * x.max(y).max(1.0) + 1.0
}

/// Columns and rows of a picture whose longer side becomes `longer`.
fn resized(width: u32, height: u32, longer: f64) -> (u32, u32) {
    let scale = longer / f64::from(width.max(height));
    let side = |side: u32| ((f64::from(side) * scale).round() as u32).max(1);
    (side(width), side(height))
}

fn random_area(width: u32, height: u32, config: &CropConfig, rng: &mut impl Rng) -> Rect {
    let (w, h) = (f64::from(width), f64::from(height));
    let [area_min, area_max] = config.area.map(f64::from);
    let [aspect_min, aspect_max] = config.aspect.map(f64::from);
    let uniform = |rng: &mut _, low: f64, high: f64| low + (high - low) * Rng::random::<f64>(rng);
    for _ in 0..10 {
        let area = w * h * uniform(rng, area_min, area_max);
        let aspect = uniform(rng, aspect_min.ln(), aspect_max.ln()).exp();
        let cw = (area * aspect).sqrt().round_ties_even();
        let ch = (area / aspect).sqrt().round_ties_even();
        if cw >= 1.0 && cw <= w && ch >= 1.0 && ch <= h {
            let y = rng.random_range(0..=height - ch as u32);
            let x = rng.random_range(0..=width - cw as u32);
            return Rect {
                x: x.into(),
                y: y.into(),
                width: cw,
                height: ch,
            };
        }
    }
    let aspect = w / h;
    let (cw, ch) = if aspect < aspect_min {
        (w, (w / aspect_min).round_ties_even().clamp(1.0, h))
    } else if aspect > aspect_max {
        ((h * aspect_max).round_ties_even().clamp(1.0, w), h)
    } else {
        (w, h)
    };
    Rect {
        x: ((w - cw) / 2.0).floor(),
        y: ((h - ch) / 2.0).floor(),
        width: cw,
        height: ch,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    use super::*;

    proptest! {
        #[test]
        fn crops_lie_within_the_picture(w in 1u32..3000, h in 1u32..3000, seed: u64, size in 8u32..256) {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            let draw = CropDraw::random(w, h, &CropConfig::default(), &mut rng).area;
            prop_assert!(draw.x >= 0.0 && draw.y >= 0.0 && draw.width >= 1.0 && draw.height >= 1.0);
            prop_assert!(draw.x + draw.width <= f64::from(w) && draw.y + draw.height <= f64::from(h));
            prop_assert_eq!(draw.x.fract() + draw.y.fract() + draw.width.fract() + draw.height.fract(), 0.0);
            let eval = CropDraw::centre(w, h, size, 0.875).area;
            prop_assert!(eval.x > -1e-6 && eval.y > -1e-6);
            prop_assert!(eval.x + eval.width < f64::from(w) + 1e-6 && eval.y + eval.height < f64::from(h) + 1e-6);
        }
    }

    #[test]
    fn area_and_aspect_have_torchvisions_distribution() {
        // A transcription of torchvision's get_params to plain Python (random.uniform, round), 400,000 crops of a 500×375 picture: mean
        // area share 0.4328, mean log aspect 0.0307. (Below (0.08 + 1) ÷ 2 and above 0, as large crops fit at few aspects only.)
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let n = 40_000;
        let (mut share, mut aspect, mut flips) = (0.0, 0.0, 0);
        for _ in 0..n {
            let draw = CropDraw::random(500, 375, &CropConfig::default(), &mut rng);
            share += draw.area.width * draw.area.height / (500.0 * 375.0) / f64::from(n);
            aspect += (draw.area.width / draw.area.height).ln() / f64::from(n);
            flips += u32::from(draw.flip);
        }
        assert!((share - 0.4328).abs() < 0.005, "{share}");
        assert!((aspect - 0.0307).abs() < 0.004, "{aspect}");
        assert!((f64::from(flips) / f64::from(n) - 0.5).abs() < 0.02);
    }

    #[test]
    fn jitter_scales_the_longer_side_and_keeps_the_aspect_and_the_places_are_whole_pixels() {
        let mut rng = ChaCha8Rng::seed_from_u64(2);
        let jitter = ScaleJitter::default();
        let (n, mut scales, mut flips, mut beyond) = (20_000, 0.0, 0, 0);
        for _ in 0..n {
            let draw = CropDraw::jittered(640, 427, 128, &jitter, 0.5, &mut rng);
            // Columns of the resized picture, and of the view that the picture's edge is away from its own.
            let (columns, start) = (640.0 / draw.area.width * 128.0, draw.area.x / draw.area.width * 128.0);
            assert!((columns - columns.round()).abs() < 1e-6 && (start - start.round()).abs() < 1e-6);
            assert!(if columns > 128.0 {
                start >= 0.0 && start + 128.0 <= columns + 1e-6
            } else {
                start <= 0.0 && columns - start <= 128.0 + 1e-6
            });
            let rows = 427.0 / draw.area.height * 128.0;
            assert!((rows - columns * 427.0 / 640.0).abs() <= 0.85, "{columns} × {rows}");
            let inside = draw.inside(640, 427, 128);
            assert_eq!(inside.columns.len(), columns.min(128.0).round() as usize);
            assert_eq!(inside.rows.len(), rows.min(128.0).round() as usize);
            scales += columns / 128.0 / f64::from(n);
            flips += u32::from(draw.flip);
            beyond += u32::from(columns > 128.0);
        }
        // Uniform in 0.1 to 2: mean 1.05, a share of 1 ÷ 1.9 above 1.
        assert!((scales - 1.05).abs() < 0.01, "{scales}");
        assert!((f64::from(beyond) / f64::from(n) - 1.0 / 1.9).abs() < 0.015, "{beyond}");
        assert!((f64::from(flips) / f64::from(n) - 0.5).abs() < 0.02);
        let whole = CropDraw::whole(640, 427, 128, [1, 2, 3]);
        assert_eq!(
            (whole.inside(640, 427, 128).columns, whole.inside(640, 427, 128).rows),
            (0..128, 0..85)
        );
        assert_eq!(
            CropDraw::whole(5000, 3, 64, [0; 3]).inside(5000, 3, 64).rows,
            0..1,
            "a strip keeps a row"
        );
    }

    #[test]
    fn a_strip_falls_back_to_the_centre() {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let draw = CropDraw::random(1000, 10, &CropConfig::default(), &mut rng).area;
        assert!(draw.height <= 10.0);
        let config = CropConfig {
            area: [1.0, 1.0],
            ..CropConfig::default()
        };
        let draw = CropDraw::random(1000, 10, &config, &mut rng).area;
        assert_eq!((draw.width, draw.height, draw.x, draw.y), (13.0, 10.0, 493.0, 0.0));
    }

    #[test]
    fn the_evaluation_crop_is_torchvisions() {
        // Resize(256) of 500×375 gives 341×256; CenterCrop(224) starts at column round(58.5) = 58, row 16.
        let draw = CropDraw::centre(500, 375, 224, 0.875).area;
        let (sx, sy) = (500.0 / 341.0, 375.0 / 256.0);
        let expected = [58.0 * sx, 16.0 * sy, 224.0 * sx, 224.0 * sy];
        for (a, b) in [draw.x, draw.y, draw.width, draw.height].into_iter().zip(expected) {
            assert!((a - b).abs() < 1e-9);
        }
    }
}
