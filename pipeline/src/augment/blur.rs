//! Gaussian blur of planar views.

use crate::request::ColourConfig;

/// Taps on each side of the middle at most: three sigmas of the largest sigma allowed.
const MAX_RADIUS: usize = 32;

/// Buffers of the blur.
#[derive(Default)]
pub(super) struct Blur {
    /// One plane after the vertical pass, each row padded by mirror images.
    rows: Vec<f32>,
}

impl Blur {
    /// Blurs each plane of a 3×`side`×`side` view: separable, f32, mirrored at the border without repeating it, rounded at the end.
    ///
    /// As torchvision's `gaussian_blur` with a kernel of 2⌈3σ⌉ + 1 taps. A wider kernel changes at most 0.3 % of the weight along each
    /// axis, so a value by two levels at the very worst.
    pub(super) fn apply(&mut self, view: &mut [u8], side: usize, sigma: f32) {
        let sigma = sigma.clamp(1e-3, ColourConfig::MAX_SIGMA);
        let radius = ((3.0 * sigma).ceil() as usize).min(MAX_RADIUS).min(side.saturating_sub(1));
        if radius == 0 {
            return;
        }
        let mut taps = [0.0f32; MAX_RADIUS + 1];
        for (i, tap) in taps.iter_mut().enumerate().take(radius + 1) {
            *tap = (-0.5 * (i as f32 / sigma).powi(2)).exp();
        }
        let taps = &mut taps[..=radius];
        let sum = taps[0] + 2.0 * taps[1..].iter().sum::<f32>();
        taps.iter_mut().for_each(|t| *t /= sum);
        for plane in view.chunks_exact_mut(side * side) {
            blur_plane(plane, side, taps, &mut self.rows);
        }
    }
}

/// `n` mirrored into 0..`len` (…2 1 0 1 2…); `n` is at most one length out.
fn mirror(n: isize, len: usize) -> usize {
    let last = len as isize - 1;
    (last - (last - n.abs()).abs()) as usize
}

fn blur_plane(plane: &mut [u8], side: usize, taps: &[f32], buffer: &mut Vec<f32>) {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        #[target_feature(enable = "avx2")]
        fn wide(plane: &mut [u8], side: usize, taps: &[f32], buffer: &mut Vec<f32>) {
            blur_any(plane, side, taps, buffer);
        }
        #[expect(unsafe_code, reason = "the same code compiled for wider registers")]
        // SAFETY: the CPU has AVX2.
        return unsafe { wide(plane, side, taps, buffer) };
    }
    blur_any(plane, side, taps, buffer);
}

/// Outputs computed together: their sums stay in registers over all taps.
const LANES: usize = 16;

#[inline(always)]
fn blur_any(plane: &mut [u8], side: usize, taps: &[f32], buffer: &mut Vec<f32>) {
    let radius = taps.len() - 1;
    let width = side.max(LANES) + 2 * radius;
    buffer.resize(width * side, 0.0);
    // Vertically first. The last block of a row overlaps the one before; pictures narrower than a block go pixel by pixel.
    for y in 0..side {
        let row = &mut buffer[y * width + radius..];
        let line = |n: isize| &plane[mirror(n, side) * side..][..side];
        if side < LANES {
            for x in 0..side {
                row[x] = taps[0] * f32::from(line(y as isize)[x]);
                for (k, &tap) in taps.iter().enumerate().skip(1) {
                    row[x] += tap * f32::from(u16::from(line(y as isize - k as isize)[x]) + u16::from(line((y + k) as isize)[x]));
                }
            }
            continue;
        }
        for x in (0..side).step_by(LANES).map(|x| x.min(side - LANES)) {
            let block = |n: isize| line(n)[x..].first_chunk::<LANES>().expect("a block lies within its row");
            let mut sums = block(y as isize).map(|v| taps[0] * f32::from(v));
            for (k, &tap) in taps.iter().enumerate().skip(1) {
                let (above, below) = (block(y as isize - k as isize), block((y + k) as isize));
                for i in 0..LANES {
                    sums[i] += tap * f32::from(u16::from(above[i]) + u16::from(below[i]));
                }
            }
            row[x..x + LANES].copy_from_slice(&sums);
        }
    }
    // Then along each padded row.
    for (row, out) in buffer.chunks_exact_mut(width).zip(plane.chunks_exact_mut(side)) {
        for k in 1..=radius {
            row[radius - k] = row[radius + mirror(-(k as isize), side)];
            row[radius + side - 1 + k] = row[radius + mirror((side - 1 + k) as isize, side)];
        }
        for x in (0..side).step_by(LANES).map(|x| x.min(side.saturating_sub(LANES))) {
            let block = |at: usize| row[at..].first_chunk::<LANES>().expect("rows are padded");
            let mut sums = block(radius + x).map(|v| taps[0] * v + 0.5);
            for (k, &tap) in taps.iter().enumerate().skip(1) {
                let (left, right) = (block(radius + x - k), block(radius + x + k));
                for i in 0..LANES {
                    sums[i] += tap * (left[i] + right[i]);
                }
            }
            for (o, s) in out[x..].iter_mut().zip(sums) {
                *o = s as u8;
            }
        }
    }
}
