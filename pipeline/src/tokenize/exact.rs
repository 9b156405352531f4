//! The definition of the answer: the f64 argmax. Slow, obviously right, and what candidates of the fast pass are rescored with.

use super::codebook::Codebook;
use super::kernel::{Kernel, Portable};

/// Cosine × |x| in f64 in one fixed order of summation (eight partial sums), so that every path that uses it agrees to the last bit.
#[must_use]
#[inline(always)]
pub(super) fn score<K: Kernel>(x: &[f64], word: &[f32]) -> f64 {
    let (xs, x_rest) = x.as_chunks::<8>();
    let (ws, w_rest) = word.as_chunks::<8>();
    // SAFETY: the caller runs on a CPU with K.
    #[expect(unsafe_code, reason = "the caller runs on a CPU with K")]
    let mut sums = unsafe { K::eighths(xs, ws) };
    for (lane, (x, w)) in x_rest.iter().zip(w_rest).enumerate() {
        sums[lane] += x * f64::from(*w);
    }
    ((sums[0] + sums[4]) + (sums[1] + sums[5])) + ((sums[2] + sums[6]) + (sums[3] + sums[7]))
}

/// The word of `words` with the largest [`score`], lowest index on ties.
#[inline(always)]
pub(super) fn best<K: Kernel>(book: &Codebook, x: &[f64], words: impl Iterator<Item = u32>) -> u32 {
    let mut best = (f64::NEG_INFINITY, u32::MAX);
    for word in words {
        let s = score::<K>(x, book.vector(word as usize));
        if s > best.0 || (s == best.0 && word < best.1) {
            best = (s, word);
        }
    }
    best.1
}

/// Copies the patch at (row, column) of a planar picture of side `side` into `out`, planar.
pub(super) fn cut(half: &[u8], side: usize, patch: usize, row: usize, column: usize, out: &mut [u8]) {
    for (line, to) in out.chunks_exact_mut(patch).enumerate() {
        let (channel, y) = (line / patch, line % patch);
        let from = (channel * side + row * patch + y) * side + column * patch;
        to.copy_from_slice(&half[from..from + patch]);
    }
}

/// Compares each patch with each word in f64: the oracle of the tests.
#[derive(Debug)]
pub struct Exhaustive<'a>(pub &'a Codebook);

impl Exhaustive<'_> {
    /// Word of one planar 3×p×p patch: largest score, lowest index on ties.
    #[must_use]
    pub fn word(&self, patch: &[u8]) -> u32 {
        let book = self.0;
        let mut x = vec![0.0; book.dim()];
        book.pixels.map(patch, &mut x);
        let mut best = (f64::NEG_INFINITY, 0);
        for (i, v) in book.vectors.chunks_exact(book.dim()).enumerate() {
            let s = score::<Portable>(&x, v);
            if s > best.0 {
                best = (s, i);
            }
        }
        best.1 as u32
    }

    /// Words of a planar 3×side×side picture, row-major.
    #[must_use]
    pub fn words(&self, half: &[u8], side: usize) -> Vec<u32> {
        let p = self.0.patch as usize;
        let mut patch = vec![0; self.0.dim()];
        let grid = side / p;
        (0..grid * grid)
            .map(|i| {
                cut(half, side, p, i / grid, i % grid, &mut patch);
                self.word(&patch)
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn score_is_the_dot_product_at_any_length() {
        for n in [3usize, 8, 12, 27, 192] {
            let x: Vec<f64> = (0..n).map(|i| i as f64 - 4.0).collect();
            let w: Vec<f32> = (0..n).map(|i| (i * i % 7) as f32).collect();
            let plain: f64 = x.iter().zip(&w).map(|(x, w)| x * f64::from(*w)).sum();
            assert_eq!(score::<Portable>(&x, &w), plain);
        }
    }

    #[test]
    fn cut_takes_the_right_pixels() {
        let side = 6;
        let half: Vec<u8> = (0..3 * side * side).map(|i| i as u8).collect();
        let mut out = vec![0; 12];
        cut(&half, side, 2, 1, 2, &mut out);
        assert_eq!(out, [16, 17, 22, 23, 52, 53, 58, 59, 88, 89, 94, 95]);
    }
}
