//! The small-data colour recipe (arXiv 2112.10740 §5.5) on planar u8 views, in torchvision's arithmetic.
//!
//! Each step truncates to whole levels as torchvision's tensor operations on uint8 do; steps run back to back on blocks that stay in
//! the first-level cache. Only contrast breaks a run, because it needs the mean grey of what precedes it.

use rand::Rng;
use rand::seq::SliceRandom;

use crate::request::ColourConfig;

use super::blur::Blur;

/// One step of colour jitter.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Step {
    Brightness(f32),
    Contrast(f32),
    Saturation(f32),
    /// Turns of the colour circle, −0.5 to 0.5.
    Hue(f32),
    Grey,
    Solarise,
}

/// Factors of colour jitter and the order of its steps.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct JitterDraw {
    /// A permutation of 0 brightness, 1 contrast, 2 saturation, 3 hue.
    pub order: [u8; 4],
    /// Brightness, contrast and saturation factors (1 = as is) and hue shift (turns).
    pub factors: [f32; 4],
}

/// What happens to the colours of one view, in the order of the fields.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct ColourDraw {
    /// Colour jitter.
    pub jitter: Option<JitterDraw>,
    /// Greyscale.
    pub grey: bool,
    /// Gaussian blur of this sigma, pixels.
    pub blur: Option<f32>,
    /// Values of 128 and more inverted.
    pub solarise: bool,
}

impl ColourDraw {
    /// Draws the recipe. Randomness: `rng`; nothing is drawn for a recipe that is off.
    pub fn random(config: &ColourConfig, rng: &mut impl Rng) -> Self {
        if config.is_off() {
            return Self::default();
        }
        let hits = |rng: &mut _, p: f32| Rng::random::<f32>(rng) < p;
        let between = |rng: &mut _, low: f32, high: f32| low + (high - low) * Rng::random::<f32>(rng);
        let jitter = hits(rng, config.jitter).then(|| {
            let mut order = [0, 1, 2, 3];
            order.shuffle(rng);
            let [b, c, s, h] = config.jitter_strength;
            JitterDraw {
                order,
                factors: [
                    between(rng, (1.0 - b).max(0.0), 1.0 + b),
                    between(rng, (1.0 - c).max(0.0), 1.0 + c),
                    between(rng, (1.0 - s).max(0.0), 1.0 + s),
                    between(rng, -h, h),
                ],
            }
        });
        Self {
            jitter,
            grey: hits(rng, config.greyscale),
            blur: hits(rng, config.blur).then(|| between(rng, config.blur_sigma[0], config.blur_sigma[1])),
            solarise: hits(rng, config.solarise),
        }
    }
}

/// Applies colour draws to views in place, keeping its buffers. One per thread.
#[derive(Default)]
pub struct Painter {
    blur: Blur,
}

impl Painter {
    /// Changes a planar 3×`side`×`side` view.
    ///
    /// # Panics
    /// If the view is not of that size.
    pub fn apply(&mut self, draw: &ColourDraw, view: &mut [u8], side: usize) {
        assert_eq!(view.len(), 3 * side * side, "planar view of the stated side");
        let mut steps = [Step::Grey; 6];
        let mut n = 0;
        let mut push = |step| {
            steps[n] = step;
            n += 1;
        };
        if let Some(jitter) = draw.jitter {
            for which in jitter.order {
                let factor = jitter.factors[usize::from(which)];
                match which {
                    0 if factor != 1.0 => push(Step::Brightness(factor)),
                    1 if factor != 1.0 => push(Step::Contrast(factor)),
                    2 if factor != 1.0 => push(Step::Saturation(factor)),
                    3 if factor != 0.0 => push(Step::Hue(factor)),
                    _ => {}
                }
            }
        }
        if draw.grey {
            push(Step::Grey);
        }
        if let Some(sigma) = draw.blur {
            run(&steps[..n], view);
            self.blur.apply(view, side, sigma);
            n = 0;
            steps[0] = Step::Solarise;
        } else if n < steps.len() {
            steps[n] = Step::Solarise;
        }
        run(&steps[..n + usize::from(draw.solarise)], view);
    }
}

/// Runs steps over a view, cut in two before contrast.
fn run(steps: &[Step], view: &mut [u8]) {
    let contrast = steps.iter().position(|s| matches!(s, Step::Contrast(_)));
    match contrast {
        None if steps.is_empty() => {}
        None => {
            sweep(steps, 0.0, view, false);
        }
        Some(at) => {
            let sum = sweep(&steps[..at], 0.0, view, true);
            let mean = sum as f32 / (view.len() / 3) as f32;
            sweep(&steps[at..], mean, view, false);
        }
    }
}

/// Pixels of a block: three of them as f32 fill 12 KiB.
const BLOCK: usize = 1024;

type Plane = [f32; BLOCK];

/// One pass over a view; answers the sum of the truncated greys afterwards if asked. Uses AVX-512 or AVX2 where the CPU has it.
fn sweep(steps: &[Step], mean: f32, view: &mut [u8], sum: bool) -> u64 {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::is_x86_feature_detected as has;
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
        fn widest(steps: &[Step], mean: f32, view: &mut [u8], sum: bool) -> u64 {
            sweep_any(steps, mean, view, sum)
        }
        #[target_feature(enable = "avx2")]
        fn wide(steps: &[Step], mean: f32, view: &mut [u8], sum: bool) -> u64 {
            sweep_any(steps, mean, view, sum)
        }
        if has!("avx512f") && has!("avx512bw") && has!("avx512dq") && has!("avx512vl") {
            #[expect(unsafe_code, reason = "the same code compiled for wider registers")]
            // SAFETY: the CPU has these parts of AVX-512.
            return unsafe { widest(steps, mean, view, sum) };
        }
        if has!("avx2") {
            #[expect(unsafe_code, reason = "the same code compiled for wider registers")]
            // SAFETY: the CPU has AVX2.
            return unsafe { wide(steps, mean, view, sum) };
        }
    }
    sweep_any(steps, mean, view, sum)
}

#[inline(always)]
fn sweep_any(steps: &[Step], mean: f32, view: &mut [u8], sum: bool) -> u64 {
    let pixels = view.len() / 3;
    let (red, rest) = view.split_at_mut(pixels);
    let (green, blue) = rest.split_at_mut(pixels);
    let (mut r, mut g, mut b) = ([0.0; BLOCK], [0.0; BLOCK], [0.0; BLOCK]);
    let mut total = 0;
    for ((red, green), blue) in red.chunks_mut(BLOCK).zip(green.chunks_mut(BLOCK)).zip(blue.chunks_mut(BLOCK)) {
        load(red, &mut r);
        load(green, &mut g);
        load(blue, &mut b);
        for step in steps {
            match *step {
                Step::Brightness(f) => {
                    for plane in [&mut r, &mut g, &mut b] {
                        plane.iter_mut().for_each(|v| *v = level(f * *v));
                    }
                }
                Step::Contrast(f) => {
                    let add = (1.0 - f) * mean;
                    for plane in [&mut r, &mut g, &mut b] {
                        plane.iter_mut().for_each(|v| *v = level(f * *v + add));
                    }
                }
                Step::Saturation(f) => saturate(f, &mut r, &mut g, &mut b),
                Step::Hue(turns) => turn(turns, &mut r, &mut g, &mut b),
                Step::Grey => {
                    for i in 0..BLOCK {
                        let v = grey(r[i], g[i], b[i]);
                        (r[i], g[i], b[i]) = (v, v, v);
                    }
                }
                Step::Solarise => {
                    for plane in [&mut r, &mut g, &mut b] {
                        plane.iter_mut().for_each(|v| *v = if *v >= 128.0 { 255.0 - *v } else { *v });
                    }
                }
            }
        }
        if sum {
            // Whole numbers below 2^24: exact in any order.
            let mut part = 0.0f32;
            let mut sums = [0.0f32; 16];
            let n = red.len();
            for at in (0..n / 16 * 16).step_by(16) {
                for (k, s) in sums.iter_mut().enumerate() {
                    *s += grey(r[at + k], g[at + k], b[at + k]);
                }
            }
            for i in n / 16 * 16..n {
                part += grey(r[i], g[i], b[i]);
            }
            total += (part + sums.iter().sum::<f32>()) as u64;
        }
        if !steps.is_empty() {
            store(&r, red);
            store(&g, green);
            store(&b, blue);
        }
    }
    total
}

#[inline(always)]
fn load(from: &[u8], to: &mut Plane) {
    to.iter_mut().zip(from).for_each(|(t, &f)| *t = f32::from(f));
}

#[inline(always)]
fn store(from: &Plane, to: &mut [u8]) {
    // Whole numbers 0 to 255 stand in the low bits of the sum with 2^23: cheaper than a saturating cast.
    to.iter_mut().zip(from).for_each(|(t, &f)| *t = (f + 8_388_608.0).to_bits() as u8);
}

/// Clamped to 0…255 and truncated, as a cast to uint8 does. (`clamp` would keep NaN apart, at the cost of two more instructions.)
#[inline(always)]
#[expect(clippy::manual_clamp, reason = "no NaN can be here")]
fn level(v: f32) -> f32 {
    v.max(0.0).min(255.0).trunc()
}

/// ITU-R 601 luma as torchvision rounds it.
#[inline(always)]
fn grey(r: f32, g: f32, b: f32) -> f32 {
    (0.2989 * r + 0.587 * g + 0.114 * b).trunc()
}

#[inline(always)]
fn saturate(f: f32, r: &mut Plane, g: &mut Plane, b: &mut Plane) {
    for i in 0..BLOCK {
        let add = (1.0 - f) * grey(r[i], g[i], b[i]);
        r[i] = level(f * r[i] + add);
        g[i] = level(f * g[i] + add);
        b[i] = level(f * b[i] + add);
    }
}

/// Hue shift through HSV. Back from HSV each channel is v − c · clamp(min(k, 4 − k), 0, 1) with k = (n + 6h) mod 6 and n = 5, 3, 1:
/// the usual six cases without a branch.
#[inline(always)]
#[expect(clippy::manual_clamp, reason = "no NaN can be here")]
fn turn(turns: f32, r: &mut Plane, g: &mut Plane, b: &mut Plane) {
    for i in 0..BLOCK {
        let (red, green, blue) = (r[i], g[i], b[i]);
        let high = red.max(green).max(blue);
        let chroma = high - red.min(green).min(blue);
        let scale = 1.0 / if chroma == 0.0 { 1.0 } else { chroma };
        // Sixths of a turn, −1 to 5.
        let sector = if high == red {
            (green - blue) * scale
        } else if high == green {
            2.0 + (blue - red) * scale
        } else {
            4.0 + (red - green) * scale
        };
        let mut hue = sector + 6.0 * turns;
        hue = if hue < 0.0 { hue + 6.0 } else { hue };
        hue = if hue >= 6.0 { hue - 6.0 } else { hue };
        let channel = |n: f32| {
            let k = n + hue;
            let k = if k >= 6.0 { k - 6.0 } else { k };
            let v = high - chroma * k.min(4.0 - k).max(0.0).min(1.0);
            // torchvision goes back to uint8 as ⌊v × 255.999⌋ for v in 0…1.
            (v * (255.999 / 255.0)).trunc()
        };
        (r[i], g[i], b[i]) = (channel(5.0), channel(3.0), channel(1.0));
    }
}
