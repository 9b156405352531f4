//! Assigns words to the patches of a picture.

use std::sync::Arc;

use super::codebook::Codebook;
use super::exact::{cut, score};

/// Assigns to each patch the word with the largest cosine similarity, lowest index on ties: the f64 argmax on every input.
#[derive(Debug)]
pub struct Tokenizer {
    codebook: Arc<Codebook>,
}

/// Buffers of one thread; reused from picture to picture.
#[derive(Debug, Default)]
pub struct TokenizerScratch {
    patches: Vec<u8>,
    exact: Vec<f64>,
    x: Vec<f32>,
    scores: Vec<f32>,
}

impl Tokenizer {
    /// Prepares the tables.
    #[must_use]
    pub fn new(codebook: Arc<Codebook>) -> Self {
        Self { codebook }
    }

    /// The vocabulary.
    #[must_use]
    pub fn codebook(&self) -> &Arc<Codebook> {
        &self.codebook
    }

    /// Buffers for one thread.
    #[must_use]
    pub fn scratch(&self) -> TokenizerScratch {
        TokenizerScratch::default()
    }

    /// Words of the patches of `half`, a planar 3×side×side picture, row-major over the grid; replaces the content of `out`.
    ///
    /// # Panics
    /// If `half` has not 3×side×side bytes or `side` is not a multiple of the codebook's patch ([`Codebook::check_fits`] tells beforehand).
    pub fn words(&self, scratch: &mut TokenizerScratch, half: &[u8], side: usize, out: &mut Vec<u32>) {
        let (p, d) = (self.codebook.patch as usize, self.codebook.dim());
        assert!(
            half.len() == 3 * side * side && side.is_multiple_of(p),
            "{} bytes are no picture of side {side} in patches of {p}",
            half.len()
        );
        let grid = side / p;
        let mut patches = std::mem::take(&mut scratch.patches);
        patches.resize(grid * grid * d, 0);
        for (i, patch) in patches.chunks_exact_mut(d).enumerate() {
            cut(half, side, p, i / grid, i % grid, patch);
        }
        self.patch_words(scratch, &patches, out);
        scratch.patches = patches;
    }

    /// Words of patches that lie one after the other, each planar 3×p×p; replaces the content of `out`.
    ///
    /// # Panics
    /// If `patches` is not a whole number of patches.
    pub fn patch_words(&self, scratch: &mut TokenizerScratch, patches: &[u8], out: &mut Vec<u32>) {
        let book = &*self.codebook;
        let d = book.dim();
        assert!(patches.len().is_multiple_of(d), "{} bytes are no patches of {d}", patches.len());
        scratch.exact.resize(d, 0.0);
        scratch.x.resize(d, 0.0);
        out.clear();
        for patch in patches.chunks_exact(d) {
            book.pixels.map(patch, &mut scratch.exact);
            scratch.x.iter_mut().zip(&scratch.exact).for_each(|(o, &x)| *o = x as f32);
            scratch.scores.clear();
            scratch.scores.extend(book.vectors.chunks_exact(d).map(|w| dot(&scratch.x, w)));
            let best = scratch.scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            // |f32 dot − real dot| ≤ (d + 2)·2⁻²⁴·Σ|x||e| ≤ (d + 2)·2⁻²⁴·|x|·|e|, for both of the compared words.
            let norm = scratch.exact.iter().map(|x| x * x).sum::<f64>().sqrt();
            let slack = (2.0 * (d as f64 + 4.0) * 2f64.powi(-24) * norm * 1.002) as f32 * 1.001;
            let mut winner = (f64::NEG_INFINITY, 0);
            for (i, _) in scratch.scores.iter().enumerate().filter(|(_, s)| **s >= best - slack) {
                let s = score(&scratch.exact, book.vector(i));
                if s > winner.0 {
                    winner = (s, i);
                }
            }
            out.push(winner.1 as u32);
        }
    }
}

fn dot(x: &[f32], w: &[f32]) -> f32 {
    let mut sums = [0f32; 16];
    let (xs, x_rest) = x.as_chunks::<16>();
    let (ws, w_rest) = w.as_chunks::<16>();
    for (x, w) in xs.iter().zip(ws) {
        (0..16).for_each(|i| sums[i] += x[i] * w[i]);
    }
    sums.iter().sum::<f32>() + x_rest.iter().zip(w_rest).map(|(x, w)| x * w).sum::<f32>()
}
