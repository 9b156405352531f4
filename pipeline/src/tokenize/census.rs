//! What a vocabulary makes of real pictures: how often each word occurs and what the patches that got it look like.

use super::codebook::Codebook;
use super::exact::cut;
use super::usage::{Usage, usage};

/// Counts words and adds up the pixels of their patches.
#[derive(Debug, Clone)]
pub struct Census {
    patch: usize,
    counts: Vec<u64>,
    sums: Vec<u64>,
    cut: Vec<u8>,
}

impl Census {
    /// An empty census of this vocabulary.
    #[must_use]
    pub fn new(book: &Codebook) -> Self {
        Self {
            patch: book.patch as usize,
            counts: vec![0; book.len()],
            sums: vec![0; book.vectors.len()],
            cut: vec![0; book.dim()],
        }
    }

    /// Adds a planar 3×side×side half-size picture and the words of its patches, row-major.
    ///
    /// # Panics
    /// If a word is none of the vocabulary or the picture is smaller than its words say.
    pub fn add(&mut self, half: &[u8], side: usize, words: &[u32]) {
        let grid = side / self.patch;
        for (at, &word) in words.iter().enumerate() {
            let word = word as usize;
            cut(half, side, self.patch, at / grid, at % grid, &mut self.cut);
            self.counts[word] += 1;
            let sums = &mut self.sums[word * self.cut.len()..][..self.cut.len()];
            sums.iter_mut().zip(&self.cut).for_each(|(s, &u)| *s += u64::from(u));
        }
    }

    /// Statistics so far.
    #[must_use]
    pub fn usage(&self) -> Usage {
        usage(&self.counts)
    }

    /// Stores the counts in the codebook, and the mean patches where it does not know what its words look like.
    /// Words that did not occur keep the look of their vector.
    ///
    /// # Panics
    /// If `book` is not as large as the one that was counted.
    pub fn finish(self, book: &mut Codebook) {
        assert_eq!(self.sums.len(), book.vectors.len(), "census of another vocabulary");
        if book.display.is_none() {
            let mut display = Vec::with_capacity(book.vectors.len());
            for (word, (&n, sums)) in self.counts.iter().zip(self.sums.chunks_exact(book.dim())).enumerate() {
                match n {
                    0 => display.extend(book.word_pixels(word)),
                    n => display.extend(sums.iter().map(|s| ((s + n / 2) / n) as u8)),
                }
            }
            book.display = Some(display);
        }
        book.counts = Some(self.counts);
    }
}

#[cfg(test)]
mod tests {
    use super::super::{BookSpec, PixelSpace, build_random_projection};
    use super::*;

    #[test]
    fn counts_and_mean_patches() {
        let spec = BookSpec {
            words: 3,
            patch: 1,
            pixels: PixelSpace::Raw,
            seed: 0,
        };
        let mut book = build_random_projection(&spec, [0.0, 1.0]).unwrap();
        let unseen = book.word_pixels(0);
        let mut census = Census::new(&book);
        census.add(&[10, 20, 30, 40, 1, 2, 3, 4, 0, 0, 0, 255], 2, &[1, 1, 2, 1]);
        assert_eq!((census.usage().distinct, census.usage().top_word), (2, 1));
        census.finish(&mut book);
        assert_eq!(book.counts, Some(vec![0, 3, 1]));
        assert_eq!(book.word_pixels(1), [23, 2, 85]);
        assert_eq!(book.word_pixels(2), [30, 3, 0]);
        assert_eq!(book.word_pixels(0), unseen);
        book.check().unwrap();
    }
}
