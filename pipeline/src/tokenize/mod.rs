//! Stand-in for the tokenizer so that this branch builds alone: same interface, plain f32 argmax. Replaced at the merge.

use std::sync::Arc;

/// V unit vectors of 3×patch×patch numbers.
#[derive(Debug, Clone)]
pub struct Codebook {
    /// Side of a word's patch on the half-size copy, pixels.
    pub patch: u32,
    /// V×d, row-major.
    pub vectors: Vec<f32>,
}

/// Assigns words to patches.
#[derive(Debug)]
pub struct Tokenizer {
    codebook: Arc<Codebook>,
}

/// Buffers of one thread.
#[derive(Debug, Default)]
pub struct TokenizerScratch {
    patch: Vec<f32>,
}

impl Tokenizer {
    /// Prepares nothing.
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

    /// Words of a planar 3×side×side picture, row-major over its patches.
    pub fn words(&self, scratch: &mut TokenizerScratch, half: &[u8], side: usize, out: &mut Vec<u32>) {
        let p = self.codebook.patch as usize;
        out.clear();
        for i in 0..(side / p).pow(2) {
            let (row, column) = (i / (side / p) * p, i % (side / p) * p);
            scratch.patch.clear();
            for c in 0..3 {
                for y in row..row + p {
                    scratch
                        .patch
                        .extend(half[(c * side + y) * side + column..][..p].iter().map(|&v| f32::from(v)));
                }
            }
            let mut best = (f32::NEG_INFINITY, 0);
            for (word, vector) in self.codebook.vectors.chunks_exact(3 * p * p).enumerate() {
                let score: f32 = vector.iter().zip(&scratch.patch).map(|(a, b)| a * b).sum();
                if score > best.0 {
                    best = (score, word as u32);
                }
            }
            out.push(best.1);
        }
    }
}
