//! The fast pass: which words can be the best one of a patch, by integer upper bounds, then a finer estimate, then f64.
//!
//! For a patch x (rotated, length d) and a word e = lo + a∘(q + r), |r| ≤ ½ (see `table`), with prefix length K:
//! ```text
//! x·e = Σ x·lo + Σ y·(q + r),  y = x∘a = s·(p + ρ),  p bytes in −127..=127, s one scale for the patch
//!     = s·Σ p·q  +  s·Σ ρ·c  +  s·Σ ρ·(q − c)  +  Σ y·r  + Σ x·lo         c = mean of q
//! |s·Σ ρ·(q − c)| ≤ s·|ρ|·max|q − c|,   |Σ y·r| ≤ |y|·max|r|
//! ```
//! **First** over the prefix, with the rest bounded band by band by |x_band|·|e_band − mean_band| (Cauchy-Schwarz). Lengths of word bands
//! are bytes too, so the bound of the rest comes out of the same integer sum: a word is dropped by one comparison of integers.
//! **Second**, survivors get the rest's sum with a scale of its own, hence a two-sided estimate; its lower end raises the patch's bar.
//! **Third**, words whose upper end reaches the bar are scored in f64. f32 rounding is bounded by `float_error`·|x|.

use super::codebook::Codebook;
use super::exact::best;
use super::kernel::{GROUP, Kernel, Sums};
use super::pixels::PixelMap;
use super::rotation::CHUNK;
use super::table::{BANDS, Class, TILE, Table};

/// A prefix is long enough if the rest can move a score by less than so many standard deviations of the scores. Decides speed only.
const REST_TO_SPREAD: f32 = 1.6;

/// What is known of one patch.
#[derive(Debug, Clone, Copy, Default)]
struct Patch {
    /// Place among the patches of the call.
    number: u32,
    class: u32,
    /// Scale of the prefix and its reciprocal, scale of the rest.
    scale: f64,
    per_scale: f64,
    rest_scale: f64,
    /// The integer sum `n` of the first step means: score ≤ first + scale·n.
    first: f64,
    /// The sums n, m of the second step mean: |score − (second + scale·n + rest_scale·m)| ≤ slack.
    second: f64,
    slack: f64,
    /// A score that some word has at least.
    bar: f64,
    /// Band lengths as bytes.
    bands: [i8; BANDS],
}

/// Buffers, reused.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    pixels: Vec<f32>,
    work: Vec<f32>,
    /// Rotated patches, padded.
    rotated: Vec<f32>,
    order: Vec<(u32, u32)>,
    patches: Vec<Patch>,
    /// Prefixes of all groups.
    groups: Vec<i8>,
    /// Rests of all patches, padded, zero in the prefix.
    rests: Vec<i8>,
    rho: Vec<f32>,
    survivors: Vec<(u32, u32, f64)>,
    exact: Vec<f64>,
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

/// Words of `bytes` (patches one after the other) into `out`.
#[inline(always)]
pub(super) fn search<K: Kernel>(table: &Table, map: &PixelMap, book: &Codebook, s: &mut Scratch, bytes: &[u8], out: &mut Vec<u32>) {
    let (d, padded) = (book.dim(), table.padded);
    let n = bytes.len() / d;
    out.clear();
    out.resize(n, u32::MAX);
    s.pixels.resize(d, 0.0);
    s.work.resize(d, 0.0);
    s.rho.resize(padded, 0.0);
    s.rotated.clear();
    s.rotated.resize(n * padded, 0.0);
    s.order.clear();
    s.exact.resize(d, 0.0);
    for (number, (patch, x)) in bytes.chunks_exact(d).zip(s.rotated.chunks_exact_mut(padded)).enumerate() {
        map.fast(patch, &mut s.pixels);
        table.rotation.fast(&mut s.pixels, &mut s.work, x);
        match choose_class(table, x) {
            Some(class) => s.order.push((class as u32, number as u32)),
            None => out[number] = exhaustive(table, map, book, patch, &mut s.exact),
        }
    }
    plan::<K>(table, s);
    s.survivors.clear();
    let mut sums: Sums = [[0; TILE]; GROUP];
    let tiles = table.words.len().div_ceil(TILE);
    for tile in 0..tiles {
        let words = &table.tiles[tile * padded..][..padded];
        let real = u64::MAX >> (TILE - (table.words.len() - tile * TILE).min(TILE));
        let mut at = 0;
        for g in 0..s.patches.len() / GROUP {
            let patches = &mut s.patches[g * GROUP..][..GROUP];
            let class = &table.classes[patches[0].class as usize];
            let lines = class.chunks * CHUNK;
            let bytes = (lines + 4) * GROUP;
            let thresholds = std::array::from_fn(|i| threshold(&patches[i]));
            // SAFETY: the caller runs on a CPU with K.
            #[expect(unsafe_code, reason = "the caller runs on a CPU with K")]
            let masks = unsafe {
                K::tile(
                    &words[..lines],
                    &class.lengths[tile * 4..][..4],
                    &s.groups[at..][..bytes],
                    &thresholds,
                    &mut sums,
                )
            };
            at += bytes;
            for (i, mask) in masks.into_iter().enumerate() {
                if mask & real != 0 {
                    let place = g * GROUP + i;
                    let rest = &s.rests[place * padded..][..padded];
                    refine::<K>(
                        table,
                        class,
                        &mut patches[i],
                        place,
                        tile,
                        mask & real,
                        &sums[i],
                        rest,
                        &mut s.survivors,
                    );
                }
            }
        }
    }
    decide(table, map, book, s, bytes, out);
}

/// The largest integer that is certainly below the sum of any word that reaches the bar.
#[inline(always)]
fn threshold(p: &Patch) -> i32 {
    (((p.bar - p.first) * p.per_scale).floor() as i32).saturating_sub(1)
}

/// Prefix length by energies; none if the patch is all zero.
#[inline(always)]
fn choose_class(table: &Table, x: &[f32]) -> Option<usize> {
    let mut energies = [0f32; super::codebook::MAX_CHUNKS + 1];
    let mut spreads = [0f32; super::codebook::MAX_CHUNKS + 1];
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

/// Sorts patches into groups of one class and quantises them.
#[inline(always)]
fn plan<K: Kernel>(table: &Table, s: &mut Scratch) {
    let padded = table.padded;
    s.order.sort_unstable();
    // A group works at the longest prefix of its patches: leftovers of a class join the next one.
    let places = s.order.len().next_multiple_of(GROUP);
    s.patches.clear();
    s.patches.resize(
        places,
        Patch {
            number: u32::MAX,
            bar: f64::INFINITY,
            per_scale: 1.0,
            ..Patch::default()
        },
    );
    s.groups.clear();
    s.rests.clear();
    s.rests.resize(places * padded, 0);
    for g in 0..places / GROUP {
        let members = &s.order[g * GROUP..(g * GROUP + GROUP).min(s.order.len())];
        let class_number = members.last().map_or(0, |m| m.0);
        let class = &table.classes[class_number as usize];
        let k = class.chunks * CHUNK;
        let start = s.groups.len();
        s.groups.resize(start + (k + 4) * GROUP, 0);
        let group = &mut s.groups[start..];
        for (i, &(_, number)) in members.iter().enumerate() {
            let place = g * GROUP + i;
            let x = &s.rotated[number as usize * padded..][..padded];
            let bytes = &mut s.rests[place * padded..][..padded];
            let mut patch = prepare(table, class, x, bytes, &mut s.rho);
            (patch.number, patch.class) = (number, class_number);
            for (step, four) in bytes[..k].as_chunks::<4>().0.iter().enumerate() {
                group[(step * GROUP + i) * 4..][..4].copy_from_slice(four);
            }
            group[(k / 4 * GROUP + i) * 4..][..4].copy_from_slice(&patch.bands);
            bytes[..k].fill(0);
            s.patches[place] = patch;
        }
        for patch in &mut s.patches[g * GROUP + members.len()..(g + 1) * GROUP] {
            patch.class = class_number;
        }
    }
}

/// Bounds and bytes of a rotated patch: prefix and rest, each with its scale.
#[inline(always)]
fn prepare(table: &Table, class: &Class, x: &[f32], bytes: &mut [i8], rho: &mut [f32]) -> Patch {
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
        bands,
        ..Patch::default()
    }
}

/// Second step for the words of a tile that passed the first one for a patch.
#[inline(always)]
#[expect(clippy::too_many_arguments, reason = "inlined into its only caller")]
fn refine<K: Kernel>(
    table: &Table,
    class: &Class,
    patch: &mut Patch,
    place: usize,
    tile: usize,
    mut mask: u64,
    sums: &[i32; TILE],
    rest: &[i8],
    survivors: &mut Vec<(u32, u32, f64)>,
) {
    let lines = table.padded / 64;
    let skip = class.chunks * CHUNK / 64;
    let mut least = i32::MIN;
    // The most promising word first: it raises the bar for the others.
    let mut next = if mask.count_ones() > 1 {
        most_promising(mask, sums)
    } else {
        mask.trailing_zeros()
    };
    while mask != 0 {
        mask &= !(1 << next);
        let word = next as usize;
        if sums[word] > least {
            let slot = tile * TILE + word;
            // SAFETY: the caller runs on a CPU with K.
            #[expect(unsafe_code, reason = "the caller runs on a CPU with K")]
            let m = unsafe { K::dot(&table.rows[slot * lines + skip..(slot + 1) * lines], &rest[skip * 64..]) };
            let lengths = &class.lengths[tile * 4 + word / 16].0[word % 16 * 4..][..BANDS];
            let bound: i32 = lengths.iter().zip(patch.bands).map(|(&l, b)| i32::from(l) * i32::from(b)).sum();
            let middle = patch.second + patch.scale * f64::from(sums[word] - bound) + patch.rest_scale * f64::from(m);
            if middle + patch.slack >= patch.bar {
                survivors.push((place as u32, slot as u32, middle + patch.slack));
                if middle - patch.slack > patch.bar {
                    patch.bar = middle - patch.slack;
                    least = threshold(patch);
                }
            }
        }
        next = mask.trailing_zeros();
    }
}

#[inline(always)]
fn most_promising(mask: u64, sums: &[i32; TILE]) -> u32 {
    let mut best = (i32::MIN, mask.trailing_zeros());
    let mut left = mask;
    while left != 0 {
        let word = left.trailing_zeros();
        if sums[word as usize] > best.0 {
            best = (sums[word as usize], word);
        }
        left &= left - 1;
    }
    best.1
}

/// Third step: f64 where more than one word is left.
#[inline(always)]
fn decide(table: &Table, map: &PixelMap, book: &Codebook, s: &mut Scratch, bytes: &[u8], out: &mut [u32]) {
    let d = book.dim();
    let patches = &s.patches;
    s.survivors.retain(|&(place, _, upper)| upper >= patches[place as usize].bar);
    s.survivors.sort_unstable_by_key(|&(place, slot, _)| (place, slot));
    for group in s.survivors.chunk_by(|a, b| a.0 == b.0) {
        let number = patches[group[0].0 as usize].number as usize;
        let word = |slot: u32| table.words[slot as usize];
        if let [(_, slot, _)] = group {
            out[number] = word(*slot);
            continue;
        }
        map.exact(&bytes[number * d..][..d], &mut s.exact);
        out[number] = best(book, &s.exact, group.iter().map(|&(_, slot, _)| word(slot)));
    }
}

#[inline(always)]
fn exhaustive(table: &Table, map: &PixelMap, book: &Codebook, patch: &[u8], exact: &mut [f64]) -> u32 {
    map.exact(patch, exact);
    if exact.iter().all(|&x| x == 0.0) {
        return 0;
    }
    best(book, exact, table.words.iter().copied())
}
