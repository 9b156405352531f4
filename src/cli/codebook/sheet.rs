//! What a dVAE makes of real pictures: usage of its words, what they stand for, and a sheet to look at.

use splitmask_pipeline::tokenize::{Usage, usage};
use splitmask_pipeline::types::Image;

use crate::dvae::Dvae;

/// Pictures on the sheet.
const SHOWN: usize = 24;
/// Pictures side by side.
const COLUMNS: usize = 3;
const GAP: usize = 6;

/// Counts words, adds up the pixels of the patches that got them, and the squared error of pictures rebuilt from their words.
pub(super) struct Census {
    stride: usize,
    counts: Vec<u64>,
    sums: Vec<u64>,
    error: f64,
    numbers: u64,
    kept: Vec<Kept>,
}

/// One picture for the sheet.
struct Kept {
    pixels: Vec<u8>,
    rebuilt: Option<Vec<u8>>,
    words: Vec<i64>,
}

impl Census {
    pub(super) fn new(dvae: &Dvae) -> Self {
        let g = dvae.header.geometry;
        let (words, stride) = (g.words as usize, g.stride as usize);
        Self {
            stride,
            counts: vec![0; words],
            sums: vec![0; words * 3 * stride * stride],
            error: 0.0,
            numbers: 0,
            kept: vec![],
        }
    }

    /// Adds a planar 3×side×side picture, its words, row-major, and what they rebuild.
    pub(super) fn add(&mut self, pixels: &[u8], side: usize, words: &[i64], rebuilt: Option<&[u8]>) {
        let (s, grid) = (self.stride, side / self.stride);
        for (at, &word) in words.iter().enumerate() {
            self.counts[word as usize] += 1;
            let sums = &mut self.sums[word as usize * 3 * s * s..][..3 * s * s];
            for (i, sum) in sums.iter_mut().enumerate() {
                *sum += u64::from(pixels[place(i, s, at % grid, at / grid, side)]);
            }
        }
        if let Some(rebuilt) = rebuilt {
            let squares = pixels.iter().zip(rebuilt).map(|(a, b)| f64::from(a.abs_diff(*b)).powi(2));
            self.error += squares.sum::<f64>();
            self.numbers += pixels.len() as u64;
        }
        if self.kept.len() < SHOWN {
            self.kept.push(Kept {
                pixels: pixels.to_vec(),
                rebuilt: rebuilt.map(<[u8]>::to_vec),
                words: words.to_vec(),
            });
        }
    }

    pub(super) fn usage(&self) -> Usage {
        usage(&self.counts)
    }

    /// Peak signal-to-noise ratio in dB; none without a decoder.
    pub(super) fn psnr(&self) -> Option<f64> {
        (self.numbers > 0).then(|| 10.0 * (255.0f64.powi(2) / (self.error / self.numbers as f64).max(1e-9)).log10())
    }

    /// Stores counts and looks in the tokenizer; a word that did not occur looks grey.
    pub(super) fn finish(&self, dvae: &mut Dvae) {
        let one = 3 * self.stride * self.stride;
        let looks = self.counts.iter().zip(self.sums.chunks_exact(one)).flat_map(|(&n, sums)| {
            sums.iter().map(move |s| match n {
                0 => 128,
                n => ((s + n / 2) / n) as u8,
            })
        });
        dvae.display = Some(looks.collect());
        dvae.counts = Some(self.counts.clone());
    }

    /// The sheet: for each picture itself, rebuilt from its words (where there is a decoder), and as a mosaic of what the words stand for.
    pub(super) fn picture(&self, dvae: &Dvae, side: usize) -> Image {
        let panels = 2 + usize::from(dvae.has_decoder());
        let (cell_w, cell_h) = (panels * (side + 1) + GAP, side + GAP);
        let rows = self.kept.len().div_ceil(COLUMNS).max(1);
        let (width, height) = (COLUMNS * cell_w + GAP, rows * cell_h + GAP);
        let mut pixels = vec![255; 3 * width * height];
        let mut put = |left: usize, top: usize, picture: &[u8]| {
            for (y, row) in picture.chunks_exact(side).take(side).enumerate() {
                for x in 0..row.len() {
                    for c in 0..3 {
                        pixels[3 * ((top + y) * width + left + x) + c] = picture[(c * side + y) * side + x];
                    }
                }
            }
        };
        for (i, kept) in self.kept.iter().enumerate() {
            let (left, top) = (GAP + i % COLUMNS * cell_w, GAP + i / COLUMNS * cell_h);
            let mosaic = self.mosaic(dvae, side, &kept.words);
            let panels = [Some(&kept.pixels), kept.rebuilt.as_ref(), Some(&mosaic)];
            for (j, panel) in panels.into_iter().flatten().enumerate() {
                put(left + j * (side + 1), top, panel);
            }
        }
        Image {
            width: width as u32,
            height: height as u32,
            pixels,
        }
    }

    fn mosaic(&self, dvae: &Dvae, side: usize, words: &[i64]) -> Vec<u8> {
        let (s, grid) = (self.stride, side / self.stride);
        let mut out = vec![0; 3 * side * side];
        for (at, &word) in words.iter().enumerate() {
            for (i, value) in dvae.look(word as usize).into_iter().enumerate() {
                out[place(i, s, at % grid, at / grid, side)] = value;
            }
        }
        out
    }
}

/// Index in a planar picture of number `i` of the planar patch in column `x`, row `y` of the grid.
fn place(i: usize, stride: usize, x: usize, y: usize, side: usize) -> usize {
    let (c, row, column) = (i / (stride * stride), i / stride % stride, i % stride);
    (c * side + y * stride + row) * side + x * stride + column
}
