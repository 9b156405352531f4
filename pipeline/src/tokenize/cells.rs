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

use std::collections::HashSet;

use super::codebook::Codebook;
use super::exact::best;
use super::kernel::Kernel;
use super::pixels::PixelMap;
use super::rotation::{PAD, Rotation};

/// Words of a cell.
const CELL: usize = 32;
/// Components that are met exactly.
const LEAD: usize = 16;
/// Ends of the groups of leading components, for the radii of cells.
const GROUPS: [usize; 3] = [1, 4, LEAD];
/// Bands of the rest.
const BANDS: usize = 4;
/// Rows of a word: leading components, lengths of bands.
const WORD_ROWS: usize = LEAD + BANDS;
/// Rows of a cell: the same of its centre, then radii.
const CELL_ROWS: usize = WORD_ROWS + GROUPS.len();

/// One number of each word of a cell, or of 32 cells.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
struct Lanes([f32; CELL]);

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
    /// Slot by slot, `padded` numbers.
    rows: Vec<f32>,
    /// Ends of the bands.
    ends: [usize; BANDS],
    /// Bound of the rounding of one f32 score ÷ |x|.
    float_error: f64,
}

/// Buffers, reused.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    pixels: Vec<f32>,
    work: Vec<f32>,
    rotated: Vec<f32>,
    bounds: Vec<f32>,
    survivors: Vec<(u32, f32)>,
    exact: Vec<f64>,
}

fn length(v: &[f64]) -> f64 {
    v.iter().map(|v| v * v).sum::<f64>().sqrt()
}

/// Rounded up.
fn above(x: f64) -> f32 {
    (x * (1.0 + 1e-6)) as f32
}

/// Orders `slots` so that every `CELL` of them lie close to each other.
fn halve(slots: &mut [usize], e: &[f64], padded: usize) {
    if slots.len() <= CELL {
        return;
    }
    let n = slots.len() as f64;
    let variance = |j: usize| {
        let (sum, squares) = slots
            .iter()
            .map(|&s| e[s * padded + j])
            .fold((0.0, 0.0), |(sum, squares), x| (sum + x, squares + x * x));
        squares / n - (sum / n) * (sum / n)
    };
    let widest = (0..LEAD)
        .map(|j| (variance(j), j))
        .fold((f64::MIN, 0), |a, b| if b.0 > a.0 { b } else { a })
        .1;
    let middle = slots.len().div_ceil(CELL).div_ceil(2) * CELL;
    let key = |&s: &usize| (e[s * padded + widest], s);
    slots.select_nth_unstable_by(middle - 1, |a, b| {
        let (a, b) = (key(a), key(b));
        a.0.total_cmp(&b.0).then(a.1.cmp(&b.1))
    });
    let (low, high) = slots.split_at_mut(middle);
    halve(low, e, padded);
    halve(high, e, padded);
}

impl Cells {
    /// Whether cells will leave out most words: true if the leading components hold most of what tells words apart. Decides speed only.
    pub(super) fn suit(book: &Codebook) -> bool {
        let rotated = Rotated::new(book);
        let variance = |j: usize| {
            let n = rotated.len() as f64;
            let column = || (0..rotated.len()).map(|slot| rotated.row(slot)[j]);
            let mean = column().sum::<f64>() / n;
            column().map(|x| (x - mean).powi(2)).sum::<f64>()
        };
        let lead: f64 = (0..LEAD).map(variance).sum();
        let rest: f64 = (LEAD..rotated.padded).map(variance).sum();
        lead > rest
    }

    pub(super) fn new(book: &Codebook) -> Self {
        let rotated = Rotated::new(book);
        let (padded, v) = (rotated.padded, rotated.len());
        let mut order: Vec<usize> = (0..v).collect();
        halve(&mut order, &rotated.e, padded);
        let rest = (padded - LEAD) / LEAD;
        let ends = [8, 4, 2, 1].map(|part| LEAD + rest.div_ceil(part) * LEAD);
        let cells = v.div_ceil(CELL);
        let mut made = Self {
            padded,
            words: vec![u32::MAX; cells * CELL],
            bounds: vec![Lanes([0.0; CELL]); cells.div_ceil(CELL) * CELL_ROWS],
            leads: vec![Lanes([0.0; CELL]); cells * WORD_ROWS],
            rows: vec![0.0; cells * CELL * padded],
            ends,
            float_error: 0.0,
            rotation: Rotation::new(book.patch as usize),
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
                made.rows[slot * padded..][..padded]
                    .iter_mut()
                    .zip(row)
                    .for_each(|(to, &e)| *to = e as f32);
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
        s.pixels.resize(d, 0.0);
        s.work.resize(d, 0.0);
        s.exact.resize(d, 0.0);
        s.rotated.clear();
        s.rotated.resize(self.padded, 0.0);
        out.clear();
        // Neighbours are alike: the cell that held the last winner is where the next bar comes from.
        let mut likely = 0;
        for patch in bytes.chunks_exact(d) {
            map.fast(patch, &mut s.pixels);
            self.rotation.fast(&mut s.pixels, &mut s.work, &mut s.rotated);
            let length = f64::from(sum16::<K>(&s.rotated, &s.rotated)).sqrt();
            if !(length > 0.0) {
                map.exact(patch, &mut s.exact);
                let candidates = self.words.iter().copied().filter(|&w| w != u32::MAX);
                out.push(best(book, &s.exact, candidates));
                continue;
            }
            self.survivors::<K>(length, likely, s);
            if let [(slot, _)] = s.survivors[..] {
                likely = slot as usize / CELL;
                out.push(self.words[slot as usize]);
            } else {
                likely = s.survivors.first().map_or(0, |&(slot, _)| slot as usize / CELL);
                map.exact(patch, &mut s.exact);
                let candidates = s.survivors.iter().map(|&(slot, _)| self.words[slot as usize]);
                out.push(best(book, &s.exact, candidates));
            }
        }
    }

    /// Words that may have the largest score with the rotated patch.
    #[inline(always)]
    fn survivors<K: Kernel>(&self, length: f64, likely: usize, s: &mut Scratch) {
        let x = &s.rotated[..];
        let mut extended = [0f32; CELL_ROWS];
        extended[..LEAD].copy_from_slice(&x[..LEAD]);
        // Sums of squares err by less than 2e-5.
        let root = |range: std::ops::Range<usize>| sum16::<K>(&x[range.clone()], &x[range]).sqrt() * 1.00002;
        let mut start = LEAD;
        for (b, &end) in self.ends.iter().enumerate() {
            extended[LEAD + b] = root(start..end);
            start = end;
        }
        let mut start = 0;
        for (g, &end) in GROUPS.iter().enumerate() {
            extended[WORD_ROWS + g] = x[start..end].iter().map(|x| x * x).sum::<f32>().sqrt() * 1.00002;
            start = end;
        }
        let cells = self.words.len() / CELL;
        s.bounds.clear();
        for rows in self.bounds.chunks_exact(CELL_ROWS) {
            let values = lanes::<K, CELL_ROWS>(rows, &extended);
            s.bounds.extend_from_slice(&values);
        }
        let slack = (self.float_error * length) as f32 * 1.01;
        let mut bar = f32::NEG_INFINITY;
        s.survivors.clear();
        let mut most = (f32::NEG_INFINITY, 0);
        for (cell, &bound) in s.bounds[..cells].iter().enumerate() {
            if bound > most.0 {
                most = (bound, cell);
            }
        }
        for first in [likely, most.1] {
            if s.bounds[first] >= bar {
                self.visit::<K>(first, x, &extended, slack, &mut bar, &mut s.survivors);
                s.bounds[first] = f32::NEG_INFINITY;
            }
        }
        for block in 0..cells.div_ceil(CELL) {
            let from = block * CELL;
            let mut mask = at_least(&s.bounds[from..from + CELL], bar);
            while mask != 0 {
                let cell = from + mask.trailing_zeros() as usize;
                mask &= mask - 1;
                if cell < cells && s.bounds[cell] >= bar {
                    self.visit::<K>(cell, x, &extended, slack, &mut bar, &mut s.survivors);
                }
            }
        }
        s.survivors.retain(|&(_, score)| score >= bar);
    }

    /// Scores the words of a cell that may reach the bar, which is two errors below the best score so far.
    #[inline(always)]
    fn visit<K: Kernel>(
        &self,
        cell: usize,
        x: &[f32],
        extended: &[f32; CELL_ROWS],
        slack: f32,
        bar: &mut f32,
        found: &mut Vec<(u32, f32)>,
    ) {
        let rows = &self.leads[cell * WORD_ROWS..][..WORD_ROWS];
        let uppers = lanes::<K, WORD_ROWS>(rows, extended);
        let mut mask = at_least(&uppers, *bar);
        while mask != 0 {
            let lane = mask.trailing_zeros() as usize;
            mask &= mask - 1;
            let slot = cell * CELL + lane;
            if uppers[lane] < *bar || self.words[slot] == u32::MAX {
                continue;
            }
            let score = sum16::<K>(x, &self.rows[slot * self.padded..][..self.padded]);
            if score >= *bar {
                found.push((slot as u32, score));
                *bar = bar.max(score - 2.0 * slack);
            }
        }
    }
}

/// Distinct words, rotated.
struct Rotated {
    padded: usize,
    words: Vec<u32>,
    e: Vec<f64>,
}

impl Rotated {
    fn new(book: &Codebook) -> Self {
        let rotation = Rotation::new(book.patch as usize);
        let padded = book.dim().next_multiple_of(PAD);
        // Of words that are the same the lowest index wins always: keep only that one.
        let mut seen = HashSet::new();
        let bits = |w: u32| book.vector(w as usize).iter().map(|v| (v + 0.0).to_bits()).collect::<Vec<_>>();
        let words: Vec<u32> = (0..book.len() as u32).filter(|&w| seen.insert(bits(w))).collect();
        let mut e = vec![0.0; words.len() * padded];
        for (row, &w) in e.chunks_exact_mut(padded).zip(&words) {
            let x: Vec<f64> = book.vector(w as usize).iter().map(|&v| f64::from(v)).collect();
            rotation.exact(&x, row);
        }
        Self { padded, words, e }
    }

    fn len(&self) -> usize {
        self.words.len()
    }

    fn row(&self, slot: usize) -> &[f64] {
        &self.e[slot * self.padded..][..self.padded]
    }
}

/// Σ over rows of lanes × number.
#[inline(always)]
fn lanes<K: Kernel, const ROWS: usize>(rows: &[Lanes], x: &[f32]) -> [f32; CELL] {
    let mut sums = [0f32; CELL];
    for (row, &x) in rows[..ROWS].iter().zip(&x[..ROWS]) {
        for lane in 0..CELL {
            sums[lane] = K::fma(row.0[lane], x, sums[lane]);
        }
    }
    sums
}

/// Dot product over a multiple of 16.
#[inline(always)]
fn sum16<K: Kernel>(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0f32; 16];
    for (a, b) in a.as_chunks::<16>().0.iter().zip(b.as_chunks::<16>().0) {
        for lane in 0..16 {
            lanes[lane] = K::fma(a[lane], b[lane], lanes[lane]);
        }
    }
    let mut width = 8;
    while width > 0 {
        for lane in 0..width {
            lanes[lane] += lanes[lane + width];
        }
        width /= 2;
    }
    lanes[0]
}

/// Bit i: value i reaches the bar.
#[inline(always)]
fn at_least(values: &[f32], bar: f32) -> u32 {
    let mut mask = 0;
    for (i, &v) in values.iter().enumerate() {
        mask |= u32::from(v >= bar) << i;
    }
    mask
}
