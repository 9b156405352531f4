//! The words, rotated and quantised, in the layouts of the fast pass, with what its error bounds need.
//!
//! A rotated word is `e = lo + a∘q + δ` with bytes `q` in 0..=levels and per-component `lo`, `a` fitted to all words. A patch meets its
//! first K components as bytes; of the rest it knows the lengths of four bands, of word and patch alike, and bounds their product by
//! Cauchy-Schwarz. Adding those four lengths as one more group of four bytes makes the integer sum itself the upper bound.

use super::codebook::Codebook;
use super::kernel::{CELL, Lanes, Line, TILE};
use super::rotated::Rotated;
use super::rotation::{CHUNK, Rotation};

/// Bands of the components behind the prefix.
pub(super) const BANDS: usize = 4;

/// Components by which the words of a tile are alike.
pub(super) const LEAD: usize = 16;

/// What a prefix length K needs to know.
#[derive(Debug)]
pub(super) struct Class {
    /// K ÷ 16.
    pub(super) chunks: usize,
    /// Ends of the bands, in chunks.
    pub(super) ends: [usize; BANDS],
    /// Shortest length of any word in each band.
    pub(super) least: [f64; BANDS],
    /// Length of one unit of `lengths`.
    pub(super) step: [f64; BANDS],
    /// Bytes ⌈(length − least) ÷ step⌉: four lines for each tile, lanes as in `tiles`.
    pub(super) lengths: Vec<Line>,
    /// Largest |q − centre| of any word over the prefix, and over the rest.
    pub(super) spread: [f64; 2],
    /// Largest |δ ÷ a| of any word over the prefix, and over the rest.
    pub(super) rounding: [f64; 2],
    /// Mean length of the words behind the prefix; decides speed only.
    pub(super) mean_rest: f32,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) rotation: Rotation,
    /// Padded length of a rotated vector.
    pub(super) padded: usize,
    /// Chunks of 16 components that are not all padding.
    pub(super) chunks: usize,
    /// Distinct words; slot → index in the codebook. The words of a tile lie close to each other.
    pub(super) words: Vec<u32>,
    /// Tile by tile, four components by four components: four lines of 16 words × 4 bytes.
    pub(super) tiles: Vec<Line>,
    /// Means of the leading components of tiles: block of 32 tiles by block, `LEAD` each.
    pub(super) means: Vec<Lanes>,
    /// Slot by slot, `padded` bytes.
    pub(super) rows: Vec<Line>,
    /// Per component, padded with zeros: `e ≈ lo + a·q`.
    pub(super) lo: Vec<f32>,
    pub(super) a: Vec<f32>,
    /// Mean of q.
    pub(super) centre: Vec<f32>,
    /// |centre|₂.
    pub(super) centre_length: f32,
    /// Mean of e.
    pub(super) mean: Vec<f32>,
    /// Standard deviation of e; decides speed only.
    pub(super) deviation: Vec<f32>,
    pub(super) classes: Vec<Class>,
    /// Relative error of a sum of f32 products over a vector.
    pub(super) sum_error: f64,
    /// Bound of all f32 rounding in a score ÷ |x|.
    pub(super) float_error: f64,
}

fn length(v: impl Iterator<Item = f64>) -> f64 {
    v.map(|v| v * v).sum::<f64>().sqrt()
}

impl Table {
    /// `levels`: largest byte of a quantised word, 255, or 127 where the instruction set needs it.
    pub(super) fn new(book: &Codebook, levels: u8) -> Self {
        let d = book.dim();
        let rotated = Rotated::new(book);
        let (padded, v) = (rotated.padded, rotated.len());
        let order = rotated.crowds(TILE, &rotated.rotation.energies(LEAD.min(d)));
        let e: Vec<f64> = order.iter().flat_map(|&place| rotated.row(place)).copied().collect();
        let column = |j: usize| e.iter().skip(j).step_by(padded).copied();
        let n = v as f64;
        let mut table = Self {
            rotation: rotated.rotation.clone(),
            padded,
            chunks: d.div_ceil(CHUNK),
            words: order.iter().map(|&place| rotated.words[place]).collect(),
            tiles: vec![Line([0; 64]); v.div_ceil(TILE) * padded],
            means: vec![Lanes([0.0; CELL]); v.div_ceil(TILE).div_ceil(CELL) * LEAD],
            rows: vec![Line([0; 64]); v * padded / 64],
            lo: vec![0.0; padded],
            a: vec![0.0; padded],
            centre: vec![0.0; padded],
            centre_length: 0.0,
            mean: vec![0.0; padded],
            deviation: vec![0.0; padded],
            classes: vec![],
            sum_error: 0.0,
            float_error: 0.0,
        };
        let mut q = vec![0u8; v * padded];
        // δ ÷ a; where all words agree a is 0 and so is δ but for the rounding of lo, which `float_error` covers.
        let mut rounding = vec![0.0; v * padded];
        for j in 0..d {
            let (least, most) = column(j).fold((f64::INFINITY, f64::NEG_INFINITY), |(l, m), x| (l.min(x), m.max(x)));
            // Bounds hold for the f32 values that are used with patches.
            let lo = least as f32;
            let a = ((most - least) / f64::from(levels)) as f32;
            let a = if a > 1e-12 { a } else { 0.0 };
            let mut sum = 0.0;
            for slot in 0..v {
                let at = slot * padded + j;
                if a > 0.0 {
                    let exact = (e[at] - f64::from(lo)) / f64::from(a);
                    q[at] = exact.round().clamp(0.0, f64::from(levels)) as u8;
                    rounding[at] = exact - f64::from(q[at]);
                }
                sum += f64::from(q[at]);
            }
            let mean = column(j).sum::<f64>() / n;
            (table.lo[j], table.a[j]) = (lo, a);
            table.centre[j] = (sum / n) as f32;
            table.mean[j] = mean as f32;
            table.deviation[j] = (column(j).map(|x| (x - mean).powi(2)).sum::<f64>() / n).sqrt() as f32;
        }
        table.centre_length = length(table.centre.iter().map(|&v| v.into())) as f32 * 1.0001;
        table.lay_out(&q);
        for (slot, row) in e.chunks_exact(padded).enumerate() {
            let tile = slot / TILE;
            let members = (v - tile * TILE).min(TILE) as f64;
            for (mean, e) in table.means[tile / CELL * LEAD..].iter_mut().zip(&row[..LEAD]) {
                mean.0[tile % CELL] += (e / members) as f32;
            }
        }
        let mut chunks = 1;
        while chunks <= table.chunks {
            table.classes.push(table.class(chunks, &e, &q, &rounding, levels));
            let next = chunks + (chunks / 4).max(1);
            chunks = if next > table.chunks && chunks < table.chunks {
                table.chunks
            } else {
                next
            };
        }
        let lengths = 1.0 + length(table.lo.iter().map(|&v| v.into())) + length(table.mean.iter().map(|&v| v.into()));
        // Sums of f32 products in 16 lanes err by (padded ÷ 16 + 8)·u: one each for lo and mean, the others for rounding `lo` and the
        // quotients x·a ÷ s to f32.
        table.sum_error = (padded as f64 / CHUNK as f64 + 8.0) * 2f64.powi(-24);
        table.float_error = (table.rotation.error() + 4.0 * table.sum_error) * lengths * 1.01;
        table
    }

    fn lay_out(&mut self, q: &[u8]) {
        let padded = self.padded;
        for slot in 0..self.words.len() {
            let (tile, vector, lane) = (slot / TILE, slot % TILE / 16, slot % 16);
            for j in 0..padded {
                let byte = q[slot * padded + j];
                self.tiles[tile * padded + j / 4 * 4 + vector].0[lane * 4 + j % 4] = byte;
                self.rows[(slot * padded + j) / 64].0[j % 64] = byte;
            }
        }
    }

    fn class(&self, chunks: usize, e: &[f64], q: &[u8], rounding: &[f64], levels: u8) -> Class {
        let (padded, v, k) = (self.padded, self.words.len(), chunks * CHUNK);
        let rest = self.chunks - chunks;
        let ends = [8, 4, 2, 1].map(|part| chunks + rest.div_ceil(part));
        let band = |b: usize| {
            let start = if b == 0 { chunks } else { ends[b - 1] };
            start * CHUNK..ends[b] * CHUNK
        };
        let row = |slot: usize| slot * padded..(slot + 1) * padded;
        let mut lengths = vec![[0.0; BANDS]; v];
        let (mut spread, mut round, mut mean_rest) = ([0f64; 2], [0f64; 2], 0.0);
        for (slot, lengths) in lengths.iter_mut().enumerate() {
            let (e, q, r) = (&e[row(slot)], &q[row(slot)], &rounding[row(slot)]);
            for b in 0..BANDS {
                lengths[b] = length(band(b).map(|j| e[j] - f64::from(self.mean[j])));
            }
            mean_rest += length(lengths.iter().copied());
            for (part, range) in [0..k, k..padded].into_iter().enumerate() {
                spread[part] = spread[part].max(length(range.clone().map(|j| f64::from(q[j]) - f64::from(self.centre[j]))));
                round[part] = round[part].max(length(range.map(|j| r[j])));
            }
        }
        let mut class = Class {
            chunks,
            ends,
            least: [0.0; BANDS],
            step: [0.0; BANDS],
            lengths: vec![Line([0; 64]); v.div_ceil(TILE) * 4],
            spread,
            rounding: round,
            mean_rest: (mean_rest / v as f64) as f32,
        };
        for b in 0..BANDS {
            let (least, most) = lengths.iter().fold((f64::INFINITY, 0f64), |(l, m), x| (l.min(x[b]), m.max(x[b])));
            class.least[b] = least;
            class.step[b] = (most - least) / f64::from(levels) * (1.0 + 1e-9);
            for (slot, lengths) in lengths.iter().enumerate() {
                let (tile, vector, lane) = (slot / TILE, slot % TILE / 16, slot % 16);
                let units = if class.step[b] > 0.0 {
                    ((lengths[b] - least) / class.step[b]).ceil()
                } else {
                    0.0
                };
                class.lengths[tile * 4 + vector].0[lane * 4 + b] = units.clamp(0.0, f64::from(levels)) as u8;
            }
        }
        class
    }
}
