//! A patch as the fast pass sees it: prefix and rest in bytes, and the bounds of what that loses (see `search`).

use super::codebook::MAX_CHUNKS;
use super::rotation::CHUNK;
use super::table::{BANDS, Class, Table};

/// A prefix is long enough if the rest can move a score by less than so many standard deviations of the scores. Decides speed only.
const REST_TO_SPREAD: f32 = 1.6;

/// What is known of one patch.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Patch {
    /// Place among the patches of the call.
    pub(super) number: u32,
    pub(super) class: u32,
    /// The tile it has met already.
    pub(super) met: u32,
    /// Scale of the prefix and its reciprocal, scale of the rest.
    pub(super) scale: f64,
    pub(super) per_scale: f64,
    pub(super) rest_scale: f64,
    /// The integer sum `n` of the first step means: score ≤ first + scale·n.
    pub(super) first: f64,
    /// The sums n, m of the second step mean: |score − (second + scale·n + rest_scale·m)| ≤ slack.
    pub(super) second: f64,
    pub(super) slack: f64,
    /// A score that some word has at least.
    pub(super) bar: f64,
    /// Sums of the first step above this may reach the bar.
    pub(super) least: i32,
    /// Band lengths as bytes.
    pub(super) bands: [i8; BANDS],
}

/// Sum over a padded length in 16 lanes.
#[inline(always)]
fn sum16(n: usize, f: impl Fn(usize) -> f32) -> f32 {
    let mut lanes = [0f32; 16];
    for at in (0..n).step_by(16) {
        for (lane, sum) in lanes.iter_mut().enumerate() {
            *sum += f(at + lane);
        }
    }
    lanes.iter().sum()
}

/// Largest over a padded length; not below 0.
#[inline(always)]
fn max16(n: usize, f: impl Fn(usize) -> f32) -> f32 {
    let mut lanes = [0f32; 16];
    for at in (0..n).step_by(16) {
        for (lane, max) in lanes.iter_mut().enumerate() {
            let x = f(at + lane);
            *max = if x > *max { x } else { *max };
        }
    }
    lanes.into_iter().fold(0.0, f32::max)
}

/// Bytes `p` and remainders `rho` of `y·per_scale = p + rho`.
#[inline(always)]
fn quantise(x: &[f32], a: &[f32], per_scale: f32, p: &mut [i8], rho: &mut [f32]) {
    // Adding 1.5·2²³ rounds to a whole number and leaves its two's complement in the low byte.
    const ROUND: f32 = 12_582_912.0;
    for (((x, a), p), rho) in x.iter().zip(a).zip(p).zip(rho) {
        let v = x * a * per_scale;
        let rounded = v + ROUND;
        *p = rounded.to_bits() as i8;
        *rho = v - (rounded - ROUND);
    }
}

/// Prefix length by energies; none if the patch is all zero.
#[inline(always)]
pub(super) fn choose_class(table: &Table, x: &[f32]) -> Option<usize> {
    let mut energies = [0f32; MAX_CHUNKS + 1];
    let mut spreads = [0f32; MAX_CHUNKS + 1];
    for c in 0..table.chunks {
        let (x, deviation) = (&x[c * CHUNK..][..CHUNK], &table.deviation[c * CHUNK..][..CHUNK]);
        energies[c] = sum16(CHUNK, |j| x[j] * x[j]);
        spreads[c + 1] = spreads[c] + sum16(CHUNK, |j| (x[j] * deviation[j]).powi(2));
    }
    for c in (0..table.chunks).rev() {
        energies[c] += energies[c + 1];
    }
    if !(energies[0] > 0.0) {
        return None;
    }
    let fits = |class: &Class| energies[class.chunks] * class.mean_rest * class.mean_rest <= REST_TO_SPREAD.powi(2) * spreads[class.chunks];
    Some(table.classes.iter().position(fits).unwrap_or(table.classes.len() - 1))
}

/// Bounds and bytes of a rotated patch: prefix and rest, each with its scale.
#[inline(always)]
pub(super) fn prepare(table: &Table, class: &Class, x: &[f32], bytes: &mut [i8], rho: &mut [f32]) -> Patch {
    let (k, padded) = (class.chunks * CHUNK, table.padded);
    let a = &table.a[..padded];
    // Lengths from above: f32 sums err by less than one part in a thousand.
    const UP: f64 = 1.001;
    let root = |sum: f32| f64::from(sum).sqrt() * UP;
    let length = root(sum16(padded, |j| x[j] * x[j]));
    let mut start = class.chunks;
    let band_lengths: [f64; BANDS] = class.ends.map(|end| {
        let range = start * CHUNK;
        start = end;
        root(sum16(end * CHUNK - range, |j| x[range + j] * x[range + j]))
    });
    let reach = |range: std::ops::Range<usize>| max16(range.len(), |j| (x[range.start + j] * a[range.start + j]).abs());
    let tiny = f64::from(f32::MIN_POSITIVE) * 1e6;
    let band_reach = (0..BANDS).map(|b| band_lengths[b] * class.step[b]).fold(0.0, f64::max);
    let scale = (f64::from(reach(0..k)).max(band_reach) / 126.0).max(tiny);
    let rest_scale = (f64::from(reach(k..padded)) / 126.0).max(tiny);
    let (pre, rest) = (0..k, k..padded);
    quantise(
        &x[pre.clone()],
        &a[pre.clone()],
        (1.0 / scale) as f32,
        &mut bytes[pre.clone()],
        &mut rho[pre.clone()],
    );
    quantise(
        &x[rest.clone()],
        &a[rest.clone()],
        (1.0 / rest_scale) as f32,
        &mut bytes[rest.clone()],
        &mut rho[rest.clone()],
    );
    let part = |range: std::ops::Range<usize>, scale: f64, part: usize| {
        let (x, a, rho, c) = (&x[range.clone()], &a[range.clone()], &rho[range.clone()], &table.centre[range]);
        let n = x.len();
        let remainder = root(sum16(n, |j| rho[j] * rho[j]));
        let y = root(sum16(n, |j| (x[j] * a[j]).powi(2)));
        let shift = scale * f64::from(sum16(n, |j| rho[j] * c[j]));
        let slack = scale * remainder * (class.spread[part] + table.sum_error * f64::from(table.centre_length)) + y * class.rounding[part];
        (shift, slack)
    };
    let (shift, slack) = part(pre, scale, 0);
    let (rest_shift, rest_slack) = part(rest, rest_scale, 1);
    let low = f64::from(sum16(k, |j| x[j] * table.lo[j]));
    let rest_low = f64::from(sum16(padded - k, |j| x[k + j] * table.lo[k + j]));
    let rest_mean = f64::from(sum16(padded - k, |j| x[k + j] * table.mean[k + j]));
    let float = table.float_error * length;
    let bands = std::array::from_fn(|b| (band_lengths[b] * class.step[b] / scale).ceil() as i8);
    let least: f64 = (0..BANDS).map(|b| band_lengths[b] * class.least[b]).sum();
    Patch {
        scale,
        per_scale: 1.0 / scale,
        rest_scale,
        first: low + rest_mean + shift + slack + least + float,
        second: low + rest_low + shift + rest_shift,
        slack: slack + rest_slack + float,
        bar: f64::NEG_INFINITY,
        least: i32::MIN,
        bands,
        ..Patch::default()
    }
}

/// The largest integer that is certainly below the sum of any word that reaches the bar.
#[inline(always)]
pub(super) fn threshold(p: &Patch) -> i32 {
    (((p.bar - p.first) * p.per_scale).floor() as i32).saturating_sub(1)
}
