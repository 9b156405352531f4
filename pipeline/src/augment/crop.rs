//! Where a view is cut out of a picture.

use rand::Rng;

use crate::decode::Rect;
use crate::request::CropConfig;

/// Crop and flip of one view, in coordinates of the upright picture.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CropDraw {
    /// Whole pixels for a training crop, fractional for the evaluation crop.
    pub area: Rect,
    /// Mirrored left to right.
    pub flip: bool,
    /// Pixels around the area that the resampler may see: 0 cuts first and resizes then, as torchvision's training crop does.
    pub margin: f64,
}

impl CropDraw {
    /// RandomResizedCrop and flip as torchvision draws them: ten tries of area (uniform) and aspect (log-uniform), then the largest
    /// centred crop of an allowed aspect. Randomness: `rng`, in this order.
    pub fn random(width: u32, height: u32, config: &CropConfig, rng: &mut impl Rng) -> Self {
        let area = random_area(width, height, config, rng);
        Self {
            area,
            flip: rng.random::<f32>() < config.flip,
            margin: 0.0,
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
            // Support of the bicubic kernel at this reduction.
            margin: 2.0 * sx.max(sy).max(1.0) + 1.0,
        }
    }

    /// The part of the picture that must be there for the resampler.
    #[must_use]
    pub fn seen(&self, width: u32, height: u32) -> Rect {
        self.area.grown(self.margin, width, height)
    }
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
