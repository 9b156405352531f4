//! A picture of all words.

use super::codebook::Codebook;
use crate::types::Image;

/// Pixels between words.
const GAP: usize = 1;

/// All words as a square grid of patches, `zoom` pixels for each pixel of a patch; the commonest first where counts are known, else the
/// darkest first.
///
/// # Panics
/// If `zoom` is 0.
#[must_use]
pub fn picture(book: &Codebook, zoom: usize) -> Image {
    assert!(zoom > 0, "a zoom of 0 shows nothing");
    let p = book.patch as usize;
    let looks: Vec<Vec<u8>> = (0..book.len()).map(|w| book.word_pixels(w)).collect();
    let mut order: Vec<usize> = (0..book.len()).collect();
    match &book.counts {
        Some(counts) => order.sort_by_key(|&w| (std::cmp::Reverse(counts[w]), w)),
        None => order.sort_by_key(|&w| (looks[w].iter().map(|&u| u64::from(u)).sum::<u64>(), w)),
    }
    let columns = (book.len() as f64).sqrt().ceil() as usize;
    let rows = book.len().div_ceil(columns);
    let cell = p * zoom + GAP;
    let (width, height) = (columns * cell + GAP, rows * cell + GAP);
    let mut pixels = vec![255u8; width * height * 3];
    for (place, &word) in order.iter().enumerate() {
        let (top, left) = (place / columns * cell + GAP, place % columns * cell + GAP);
        for y in 0..p * zoom {
            for x in 0..p * zoom {
                let to = ((top + y) * width + left + x) * 3;
                for c in 0..3 {
                    pixels[to + c] = looks[word][(c * p + y / zoom) * p + x / zoom];
                }
            }
        }
    }
    Image {
        width: width as u32,
        height: height as u32,
        pixels,
    }
}

#[cfg(test)]
mod tests {
    use super::super::{BookSpec, PixelSpace, build_random_projection};
    use super::*;

    #[test]
    fn commonest_word_comes_first() {
        let spec = BookSpec {
            words: 5,
            patch: 1,
            pixels: PixelSpace::Raw,
            seed: 0,
        };
        let mut book = build_random_projection(&spec, [0.0, 1.0]).unwrap();
        book.display = Some((0..15).collect());
        book.counts = Some(vec![0, 7, 9, 0, 1]);
        let shown = picture(&book, 2);
        assert_eq!((shown.width, shown.height), (3 * 3 + 1, 2 * 3 + 1));
        let at = |x: usize, y: usize| &shown.pixels[(y * 10 + x) * 3..][..3];
        assert_eq!(
            (at(0, 0), at(1, 1), at(2, 2), at(4, 1), at(7, 1)),
            (&[255; 3][..], &[6, 7, 8][..], &[6, 7, 8][..], &[3, 4, 5][..], &[12, 13, 14][..])
        );
        assert_eq!((at(1, 4), at(4, 4), at(7, 4)), (&[0, 1, 2][..], &[9, 10, 11][..], &[255; 3][..]));
    }
}
