//! Search in a vocabulary whose words crowd together, as patches of pictures do: whole cells of words are left out by one bound.
//!
//! Rotated words are split into cells of [`CELL`] by halving again and again along the component that varies most. For a patch x and a
//! word w of a cell with centre c, both cut into groups g of components (the first [`LEAD`] in three, the rest in four bands):
//! ```text
//! x·w ≤ Σ_lead x·c + Σ_lead groups |x_g|·max|w_g − c_g| + Σ_bands |x_b|·max|w_b|      for the cell (Cauchy-Schwarz)
//! x·w ≤ Σ_lead x·w + Σ_bands |x_b|·|w_b|                                               for a word
//! ```
//! Both are dot products of one extended patch, 32 lanes of f32 at a time. Words that may still win get their f32 score, those within
//! its error bound of the best are scored in f64. The bytes of `search` would be too coarse here: flat patches see hundreds of words
//! within one unit of them.

use super::codebook::Codebook;
use super::exact::best;
use super::kernel::{CELL, Kernel, Lanes};
use super::pixels::PixelMap;
use super::rotated::Rotated;
use super::rotation::Rotation;

/// Patches that go through the cells together; at most 32.
const GROUP: usize = 28;
/// Cells pay off where the leading components vary so many times as much as the rest. Decides speed only.
const LEAD_TO_REST: f64 = 3.0;
/// Components that are met exactly.
const LEAD: usize = 16;
/// Ends of the groups of leading components, for the radii of cells.
const GROUPS: [usize; 3] = [1, 4, LEAD];
/// Bands of the rest.
const BANDS: usize = 4;
/// Rows of a word: leading components, lengths of bands.
const WORD_ROWS: usize = LEAD + BANDS;
/// Bands before this row are scored before the others.
const NEAR: usize = LEAD + 2;
/// Rows of a cell: the same of its centre, then radii.
const CELL_ROWS: usize = WORD_ROWS + GROUPS.len();

/// 16 components on a cache line.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
struct Line([f32; 16]);

/// The vocabulary in cells.
#[derive(Debug)]
pub(super) struct Cells {
    rotation: Rotation,
    padded: usize,
    /// Slot → index in the codebook, `u32::MAX` behind the last word of a cell. Of equal words only the lowest index is here.
    words: Vec<u32>,
    /// Block of 32 cells by block, `CELL_ROWS` each.
    bounds: Vec<Lanes>,
    /// Cell by cell, `WORD_ROWS` each.
    leads: Vec<Lanes>,
    /// Slot by slot, the components up to the second band's end.
    near: Vec<Line>,
    /// Slot by slot, those behind.
    far: Vec<Line>,
    /// Ends of the bands.
    ends: [usize; BANDS],
    /// Bound of the rounding of one f32 score ÷ |x|.
    float_error: f64,
}

/// What is known of one patch.
#[derive(Debug, Clone, Copy)]
struct Patch {
    /// Leading components, lengths of bands, lengths of groups.
    extended: [f32; CELL_ROWS],
    /// Bound of the rounding of its scores.
    slack: f32,
    /// Words below this cannot be the best one: two errors below the best score so far.
    bar: f32,
    /// Slot of that score.
    best: u32,
}

/// A word that reached a patch's bar.
#[derive(Debug, Clone, Copy)]
struct Found {
    patch: u32,
    slot: u32,
    score: f32,
}

/// Buffers, reused.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    pixels: Vec<f32>,
    work: Vec<f32>,
    rotated: Vec<f32>,
    patches: Vec<Patch>,
    bounds: Vec<[f32; CELL]>,
    /// Cell by cell, bit i: patch i of the group may have its word here.
    visitors: Vec<u32>,
    found: Vec<Found>,
    exact: Vec<f64>,
}

fn length(v: &[f64]) -> f64 {
    v.iter().map(|v| v * v).sum::<f64>().sqrt()
}

/// Rounded up.
fn above(x: f64) -> f32 {
    (x * (1.0 + 1e-6)) as f32
}

impl Cells {
    /// Whether cells will leave out most words: true if the leading components hold nearly all of what tells words apart. Decides speed only.
    pub(super) fn suit(book: &Codebook) -> bool {
        let rotated = Rotated::by_energy(book);
        let variance = |j: usize| {
            let n = rotated.len() as f64;
            let mean = rotated.column(j).sum::<f64>() / n;
            rotated.column(j).map(|x| (x - mean).powi(2)).sum::<f64>()
        };
        let lead: f64 = (0..LEAD).map(variance).sum();
        let rest: f64 = (LEAD..rotated.padded).map(variance).sum();
        lead > LEAD_TO_REST * rest
    }

    pub(super) fn new(book: &Codebook) -> Self {
        let rotated = Rotated::by_energy(book);
        let (padded, v) = (rotated.padded, rotated.len());
        let order = rotated.crowds(CELL, &[1.0; LEAD]);
        let rest = (padded - LEAD) / LEAD;
        let ends = [8, 4, 2, 1].map(|part| LEAD + rest.div_ceil(part) * LEAD);
        let cells = v.div_ceil(CELL);
        let near = ends[NEAR - 1 - LEAD] / 16;
        let far = padded / 16 - near;
        let mut made = Self {
            padded,
            words: vec![u32::MAX; cells * CELL],
            bounds: vec![Lanes([0.0; CELL]); cells.div_ceil(CELL) * CELL_ROWS],
            leads: vec![Lanes([0.0; CELL]); cells * WORD_ROWS],
            near: vec![Line([0.0; 16]); cells * CELL * near],
            far: vec![Line([0.0; 16]); cells * CELL * far],
            ends,
            float_error: 0.0,
            rotation: rotated.rotation.clone(),
        };
        let band = |b: usize| if b == 0 { LEAD..ends[0] } else { ends[b - 1]..ends[b] };
        let group = |g: usize| if g == 0 { 0..GROUPS[0] } else { GROUPS[g - 1]..GROUPS[g] };
        let mut reach = 0f64;
        for (cell, members) in order.chunks(CELL).enumerate() {
            let centre: Vec<f64> = (0..LEAD)
                .map(|j| {
                    let column = members.iter().map(|&s| rotated.row(s)[j]);
                    let (least, most) = column.fold((f64::INFINITY, f64::NEG_INFINITY), |(l, m), x| (l.min(x), m.max(x)));
                    f64::from(((least + most) / 2.0) as f32)
                })
                .collect();
            let (mut radii, mut longest) = ([0f64; GROUPS.len()], [0f64; BANDS]);
            for (lane, &s) in members.iter().enumerate() {
                let row = rotated.row(s);
                let slot = cell * CELL + lane;
                made.words[slot] = rotated.words[s];
                let lines = made.near[slot * near..][..near]
                    .iter_mut()
                    .chain(&mut made.far[slot * far..][..far]);
                lines
                    .zip(row.as_chunks::<16>().0)
                    .for_each(|(line, row)| line.0 = row.map(|e| e as f32));
                let lead = &mut made.leads[cell * WORD_ROWS..][..WORD_ROWS];
                for j in 0..LEAD {
                    lead[j].0[lane] = row[j] as f32;
                }
                for b in 0..BANDS {
                    let length = length(&row[band(b)]);
                    lead[LEAD + b].0[lane] = above(length);
                    longest[b] = longest[b].max(length);
                }
                for (g, radius) in radii.iter_mut().enumerate() {
                    let off: Vec<f64> = group(g).map(|j| row[j] - centre[j]).collect();
                    *radius = radius.max(length(&off));
                }
                reach = reach.max(length(row));
            }
            let rows = &mut made.bounds[cell / CELL * CELL_ROWS..][..CELL_ROWS];
            let numbers = centre.iter().map(|&c| c as f32).chain(longest.map(above)).chain(radii.map(above));
            rows.iter_mut().zip(numbers).for_each(|(row, x)| row.0[cell % CELL] = x);
        }
        // Products of f32 vectors summed in any order err by at most (n + 1)·u·|x|·|w|; the chain of a lane has n ÷ 16 links. 64 u is more
        // than the longest chain and the rounding of words; 2⁻²⁴ for larger patches grows with it.
        let links = 64.0 + padded as f64 / 8.0;
        made.float_error = (made.rotation.error() + links * 2f64.powi(-24)) * reach * 1.01;
        made
    }

    /// Words of `bytes` (patches one after the other) into `out`.
    #[inline(always)]
    pub(super) fn search<K: Kernel>(&self, map: &PixelMap, book: &Codebook, s: &mut Scratch, bytes: &[u8], out: &mut Vec<u32>) {
        let d = book.dim();
        let cells = self.words.len() / CELL;
        let blocks = cells.div_ceil(CELL);
        s.pixels.resize(d, 0.0);
        s.work.resize(d, 0.0);
        s.exact.resize(d, 0.0);
        s.rotated.clear();
        s.rotated.resize(GROUP * self.padded, 0.0);
        s.bounds.resize(GROUP * blocks, [0.0; CELL]);
        s.visitors.clear();
        s.visitors.resize(blocks * CELL, 0);
        out.clear();
        let mut likely = 0;
        // Patches go through the cells together, so that a cell is read from memory once for all of them.
        for group in bytes.chunks(GROUP * d) {
            s.patches.clear();
            s.found.clear();
            for (i, patch) in group.chunks_exact(d).enumerate() {
                map.fast(patch, &mut s.pixels);
                let x = &mut s.rotated[i * self.padded..][..self.padded];
                self.rotation.fast(&mut s.pixels, &mut s.work, x);
                let mut patch = self.extend::<K>(x);
                let bounds = &mut s.bounds[i * blocks..][..blocks];
                for (bounds, rows) in bounds.iter_mut().zip(self.bounds.chunks_exact(CELL_ROWS)) {
                    *bounds = lanes::<K, CELL_ROWS>(rows, &patch.extended);
                }
                // Neighbours are alike: the first bar comes from the cell of the last patch's best word, the next from the highest bound.
                for most in 0..2 {
                    let bounds = bounds.as_flattened_mut();
                    let cell = if most == 1 { highest(&bounds[..cells]) } else { likely };
                    if bounds[cell] >= patch.bar {
                        bounds[cell] = f32::NEG_INFINITY;
                        self.visit::<K>(cell, i, x, &mut patch, &mut s.found);
                    }
                }
                likely = patch.best as usize / CELL;
                for (block, bounds) in bounds.iter().enumerate() {
                    let mut mask = at_least::<K>(bounds, patch.bar);
                    while mask != 0 {
                        s.visitors[block * CELL + mask.trailing_zeros() as usize] |= 1 << i;
                        mask &= mask - 1;
                    }
                }
                s.patches.push(patch);
            }
            for cell in 0..cells {
                let mut mask = std::mem::take(&mut s.visitors[cell]);
                while mask != 0 {
                    let i = mask.trailing_zeros() as usize;
                    mask &= mask - 1;
                    if s.bounds[i * blocks + cell / CELL][cell % CELL] >= s.patches[i].bar {
                        let x = &s.rotated[i * self.padded..][..self.padded];
                        self.visit::<K>(cell, i, x, &mut s.patches[i], &mut s.found);
                    }
                }
            }
            self.decide::<K>(map, book, s, group, out);
        }
    }

    /// The last step: f64 where more than one word is left.
    #[inline(always)]
    fn decide<K: Kernel>(&self, map: &PixelMap, book: &Codebook, s: &mut Scratch, group: &[u8], out: &mut Vec<u32>) {
        let d = book.dim();
        s.found.retain(|f| f.score >= s.patches[f.patch as usize].bar);
        s.found.sort_unstable_by_key(|f| (f.patch, f.slot));
        let mut found = &s.found[..];
        for (i, patch) in group.chunks_exact(d).enumerate() {
            let (mine, others) = found.split_at(found.partition_point(|f| f.patch as usize <= i));
            found = others;
            if let [one] = mine {
                out.push(self.words[one.slot as usize]);
                continue;
            }
            map.exact(patch, &mut s.exact);
            // A patch of zeros is as far from all words.
            let zero = !(s.patches[i].slack > 0.0);
            let all = self.words.iter().copied().filter(|&w| zero && w != u32::MAX);
            out.push(best::<K>(
                book,
                &s.exact,
                mine.iter().map(|f| self.words[f.slot as usize]).chain(all),
            ));
        }
    }

    /// What is known of a patch before any word is met.
    #[inline(always)]
    fn extend<K: Kernel>(&self, x: &[f32]) -> Patch {
        // Sums of squares err by less than 2e-5.
        const UP: f32 = 1.00002;
        let lines = x.as_chunks::<16>().0;
        let mut extended = [0f32; CELL_ROWS];
        extended[..LEAD].copy_from_slice(&x[..LEAD]);
        let mut start = LEAD;
        for (b, &end) in self.ends.iter().enumerate() {
            extended[LEAD + b] = norm::<K>(&lines[start / 16..end / 16]) * UP;
            start = end;
        }
        let mut start = 0;
        for (g, &end) in GROUPS.iter().enumerate() {
            extended[WORD_ROWS + g] = x[start..end].iter().map(|x| x * x).sum::<f32>().sqrt() * UP;
            start = end;
        }
        Patch {
            slack: self.float_error as f32 * norm::<K>(lines) * 1.01,
            bar: f32::NEG_INFINITY,
            best: 0,
            extended,
        }
    }

    /// Scores the words of a cell that may reach the bar, which is two errors below the best score so far.
    #[inline(always)]
    fn visit<K: Kernel>(&self, cell: usize, number: usize, x: &[f32], patch: &mut Patch, found: &mut Vec<Found>) {
        let rows = &self.leads[cell * WORD_ROWS..][..WORD_ROWS];
        let uppers = lanes::<K, WORD_ROWS>(rows, &patch.extended);
        let mut mask = at_least::<K>(&uppers, patch.bar);
        let near = self.ends[NEAR - 1 - LEAD] / 16;
        let far = self.padded / 16 - near;
        let (x_near, x_far) = x.as_chunks::<16>().0.split_at(near);
        // The rows lie far off in memory.
        let mut ahead = mask;
        while ahead != 0 {
            let slot = cell * CELL + ahead.trailing_zeros() as usize;
            self.near[slot * near..][..near].iter().for_each(K::prefetch);
            ahead &= ahead - 1;
        }
        while mask != 0 {
            let lane = mask.trailing_zeros() as usize;
            mask &= mask - 1;
            let slot = cell * CELL + lane;
            if uppers[lane] < patch.bar || self.words[slot] == u32::MAX {
                continue;
            }
            // A third of a row shows most words to be too small.
            let mut score = dot::<K>(x_near, &self.near[slot * near..][..near]);
            let rest: f32 = (NEAR..WORD_ROWS).map(|b| rows[b].0[lane] * patch.extended[b]).sum();
            if score + rest < patch.bar {
                continue;
            }
            score += dot::<K>(x_far, &self.far[slot * far..][..far]);
            if score >= patch.bar {
                found.push(Found {
                    patch: number as u32,
                    slot: slot as u32,
                    score,
                });
                if score - 2.0 * patch.slack > patch.bar {
                    (patch.bar, patch.best) = (score - 2.0 * patch.slack, slot as u32);
                }
            }
        }
    }
}

/// Σ over rows of lanes × number.
#[inline(always)]
fn lanes<K: Kernel, const ROWS: usize>(rows: &[Lanes], x: &[f32]) -> [f32; CELL] {
    // SAFETY: the caller runs on a CPU with K.
    #[expect(unsafe_code, reason = "the caller runs on a CPU with K")]
    unsafe {
        K::lanes(&rows[..ROWS], &x[..ROWS])
    }
}

/// Place of the largest value.
#[inline(always)]
fn highest(values: &[f32]) -> usize {
    let mut most = (f32::NEG_INFINITY, 0);
    for (i, &value) in values.iter().enumerate() {
        if value > most.0 {
            most = (value, i);
        }
    }
    most.1
}

/// Dot product.
#[inline(always)]
fn dot<K: Kernel>(a: &[[f32; 16]], b: &[Line]) -> f32 {
    // SAFETY: the caller runs on a CPU with K; a `Line` is its array, aligned.
    #[expect(unsafe_code, reason = "the caller runs on a CPU with K; a line is its array")]
    unsafe {
        K::dot32(a, std::slice::from_raw_parts(b.as_ptr().cast(), b.len()))
    }
}

/// Length.
#[inline(always)]
fn norm<K: Kernel>(a: &[[f32; 16]]) -> f32 {
    // SAFETY: the caller runs on a CPU with K.
    #[expect(unsafe_code, reason = "the caller runs on a CPU with K")]
    unsafe {
        K::dot32(a, a).sqrt()
    }
}

/// Bit i: value i reaches the bar.
#[inline(always)]
fn at_least<K: Kernel>(values: &[f32; CELL], bar: f32) -> u32 {
    // SAFETY: as above.
    #[expect(unsafe_code, reason = "the caller runs on a CPU with K")]
    unsafe {
        K::at_least(values, bar)
    }
}
