//! The fast pass: which words can be the best one of a patch, by integer upper bounds, then a finer estimate, then f64.
//!
//! For a patch x (rotated, length d) and a word e = lo + a∘(q + r), |r| ≤ ½ (see `table`), with prefix length K:
//! ```text
//! x·e = Σ x·lo + Σ y·(q + r),  y = x∘a = s·(p + ρ),  p bytes in −127..=127, s one scale for the patch
//!     = s·Σ p·q  +  s·Σ ρ·c  +  s·Σ ρ·(q − c)  +  Σ y·r  + Σ x·lo         c = mean of q
//! |s·Σ ρ·(q − c)| ≤ s·|ρ|·max|q − c|,   |Σ y·r| ≤ |y|·max|r|
//! ```
//! **Before** all, each patch meets the tile of words whose mean is most like it: that gives it a score which few others can reach.
//! **First** over the prefix, with the rest bounded band by band by |x_band|·|e_band − mean_band| (Cauchy-Schwarz). Lengths of word bands
//! are bytes too, so the bound of the rest comes out of the same integer sum: a word is dropped by one comparison of integers.
//! **Second**, survivors get the rest's sum with a scale of its own, hence a two-sided estimate; its lower end raises the patch's bar.
//! **Third**, words whose upper end reaches the bar are scored in f64. f32 rounding is bounded by `float_error`·|x|.

use super::codebook::Codebook;
use super::exact::best;
use super::kernel::{CELL, GROUP, Kernel, Sums, TILE};
use super::pixels::PixelMap;
use super::query::{Patch, choose_class, prepare, threshold};
use super::rotation::CHUNK;
use super::table::{BANDS, Class, LEAD, Table};

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
    /// Prefix and bands of one patch.
    line: Vec<i8>,
    survivors: Vec<(u32, u32, f64)>,
    exact: Vec<f64>,
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
            None => out[number] = exhaustive::<K>(table, map, book, patch, &mut s.exact),
        }
    }
    s.survivors.clear();
    plan::<K>(table, s);
    let mut sums: Sums<GROUP> = [[0; TILE]; GROUP];
    let tiles = table.words.len().div_ceil(TILE);
    for tile in 0..tiles {
        let words = &table.tiles[tile * padded..][..padded];
        let real = real(table, tile);
        let mut at = 0;
        for g in 0..s.patches.len() / GROUP {
            let patches = &mut s.patches[g * GROUP..][..GROUP];
            let class = &table.classes[patches[0].class as usize];
            let lines = class.chunks * CHUNK;
            let bytes = (lines + 4) * GROUP;
            let thresholds = std::array::from_fn(|i| patches[i].least);
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
                if mask & real != 0 && patches[i].met != tile as u32 {
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
    decide::<K>(table, map, book, s, bytes, out);
}

/// The lanes of a tile that hold words.
#[inline(always)]
fn real(table: &Table, tile: usize) -> u64 {
    u64::MAX >> (TILE - (table.words.len() - tile * TILE).min(TILE))
}

/// The tile whose mean word is most like a patch.
#[inline(always)]
fn likely<K: Kernel>(table: &Table, x: &[f32]) -> usize {
    let tiles = table.words.len().div_ceil(TILE);
    let mut best = (f32::NEG_INFINITY, 0);
    for (block, rows) in table.means.chunks_exact(LEAD).enumerate() {
        // SAFETY: the caller runs on a CPU with K.
        #[expect(unsafe_code, reason = "the caller runs on a CPU with K")]
        let scores = unsafe { K::lanes(rows, &x[..LEAD]) };
        for (lane, &score) in scores.iter().enumerate().take(tiles - block * CELL) {
            if score > best.0 {
                best = (score, block * CELL + lane);
            }
        }
    }
    best.1
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
            least: i32::MAX,
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
            // The tile that is most like the patch gives it a bar that the others will hardly reach.
            let tile = likely::<K>(table, x);
            s.line.clear();
            s.line.extend_from_slice(&bytes[..k]);
            s.line.extend(patch.bands);
            bytes[..k].fill(0);
            let mut sums: Sums<1> = [[0; TILE]];
            // SAFETY: the caller runs on a CPU with K.
            #[expect(unsafe_code, reason = "the caller runs on a CPU with K")]
            let [mask] = unsafe {
                K::tile(
                    &table.tiles[tile * padded..][..k],
                    &class.lengths[tile * 4..][..4],
                    &s.line,
                    &[i32::MIN],
                    &mut sums,
                )
            };
            patch.met = tile as u32;
            refine::<K>(
                table,
                class,
                &mut patch,
                place,
                tile,
                mask & real(table, tile),
                &sums[0],
                bytes,
                &mut s.survivors,
            );
            s.patches[place] = patch;
        }
        for patch in &mut s.patches[g * GROUP + members.len()..(g + 1) * GROUP] {
            patch.class = class_number;
        }
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
    // The most promising word first: it raises the bar for the others.
    let mut next = if mask.count_ones() > 1 {
        most_promising(mask, sums)
    } else {
        mask.trailing_zeros()
    };
    while mask != 0 {
        mask &= !(1 << next);
        let word = next as usize;
        if sums[word] > patch.least {
            let slot = tile * TILE + word;

            // SAFETY: the caller runs on a CPU with K.
            #[expect(unsafe_code, reason = "the caller runs on a CPU with K")]
            let m = unsafe { K::dot(&table.rows[slot * lines + skip..(slot + 1) * lines], &rest[skip * 64..]) };
            let lengths = &class.lengths[tile * 4 + word / 16].0.as_chunks::<BANDS>().0[word % 16];
            let bands = &patch.bands;
            // Written out: as a loop it would go through memory.
            let bound = i32::from(lengths[0]) * i32::from(bands[0])
                + i32::from(lengths[1]) * i32::from(bands[1])
                + i32::from(lengths[2]) * i32::from(bands[2])
                + i32::from(lengths[3]) * i32::from(bands[3]);
            let middle = patch.second + patch.scale * f64::from(sums[word] - bound) + patch.rest_scale * f64::from(m);
            if middle + patch.slack >= patch.bar {
                survivors.push((place as u32, slot as u32, middle + patch.slack));
                if middle - patch.slack > patch.bar {
                    patch.bar = middle - patch.slack;
                    patch.least = threshold(patch);
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
fn decide<K: Kernel>(table: &Table, map: &PixelMap, book: &Codebook, s: &mut Scratch, bytes: &[u8], out: &mut [u32]) {
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
        out[number] = best::<K>(book, &s.exact, group.iter().map(|&(_, slot, _)| word(slot)));
    }
}

#[inline(always)]
fn exhaustive<K: Kernel>(table: &Table, map: &PixelMap, book: &Codebook, patch: &[u8], exact: &mut [f64]) -> u32 {
    map.exact(patch, exact);
    if exact.iter().all(|&x| x == 0.0) {
        return 0;
    }
    best::<K>(book, exact, table.words.iter().copied())
}
