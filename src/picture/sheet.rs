//! A sheet of what an objective makes of some images: one row for each, columns side by side, with headings.

use image::{Rgb, RgbImage};

use super::text::{LETTER, wrapped, write};

/// One square of the sheet. Patches are in row-major order of a square grid.
#[derive(Debug, Clone)]
pub enum Cell {
    /// Pixels: u8, planar 3×S×S.
    Pixels(Vec<u8>),
    /// Pixels where a patch was seen, grey elsewhere.
    Seen {
        /// u8, planar 3×S×S.
        pixels: Vec<u8>,
        /// Of each patch.
        seen: Vec<bool>,
    },
    /// A visual word for each patch.
    Words(Vec<u32>),
}

const GAP: u32 = 4;
const MARGIN: u32 = 6;
/// Height of a line of a heading.
const LINE: u32 = LETTER + 3;
const ABSENT: Rgb<u8> = Rgb([96, 96, 104]);
const PAPER: Rgb<u8> = Rgb([250, 250, 250]);

/// What a visual word looks like: (side, planar 3×side×side bytes).
pub type WordPixels<'a> = dyn Fn(u32) -> (u32, Vec<u8>) + 'a;

/// Draws rows of cells, all of side `size` pixels. The caption says what the columns show, separated by " · ": each part stands above its column, the last
/// one above all that follow.
#[must_use]
pub fn sheet(caption: &str, rows: &[Vec<Cell>], size: u32, word: &WordPixels<'_>) -> RgbImage {
    // Small views are enlarged so that a person can see them.
    let zoom = (128 / size).max(1);
    let square = size * zoom;
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0) as u32;
    let width = 2 * MARGIN + columns * (square + GAP) - GAP.min(columns * GAP);
    let left = |column: usize| MARGIN + column as u32 * (square + GAP);
    let parts: Vec<&str> = caption.split(" · ").take(columns as usize).collect();
    let headings = parts.iter().enumerate().map(|(c, heading)| {
        let room = if c + 1 == parts.len() { width - MARGIN - left(c) } else { square };
        wrapped(heading, (room / LETTER) as usize)
    });
    let headings: Vec<Vec<String>> = headings.collect();
    let band = headings.iter().map(Vec::len).max().unwrap_or(0) as u32 * LINE;
    let height = 2 * MARGIN + band + rows.len() as u32 * (square + GAP);
    let mut sheet = RgbImage::from_pixel(width, height, PAPER);
    for (c, lines) in headings.iter().enumerate() {
        for (line, text) in (0..).zip(lines) {
            write(&mut sheet, text, left(c), MARGIN + line * LINE);
        }
    }
    for (r, row) in rows.iter().enumerate() {
        let y = MARGIN + band + r as u32 * (square + GAP);
        for (c, cell) in row.iter().enumerate() {
            let x = left(c);
            let colour = colours(cell, size, word);
            for v in 0..square {
                for u in 0..square {
                    sheet.put_pixel(x + u, y + v, colour(u / zoom, v / zoom));
                }
            }
        }
    }
    sheet
}

/// The colour of each pixel of a cell.
fn colours<'a>(cell: &'a Cell, size: u32, word: &WordPixels<'_>) -> Box<dyn Fn(u32, u32) -> Rgb<u8> + 'a> {
    let plane = (size * size) as usize;
    let pixel = move |pixels: &[u8], u: u32, v: u32| {
        let at = (v * size + u) as usize;
        Rgb([pixels[at], pixels[plane + at], pixels[2 * plane + at]])
    };
    // (side of the grid, side of a patch).
    let grid = |patches: usize| {
        let side = (patches.isqrt() as u32).max(1);
        (side, (size / side).max(1))
    };
    match cell {
        Cell::Pixels(pixels) => Box::new(move |u, v| pixel(pixels, u, v)),
        Cell::Seen { pixels, seen } => {
            let (side, patch) = grid(seen.len());
            let place = move |u: u32, v: u32| ((v / patch).min(side - 1) * side + (u / patch).min(side - 1)) as usize;
            Box::new(move |u, v| if seen[place(u, v)] { pixel(pixels, u, v) } else { ABSENT })
        }
        Cell::Words(words) => {
            let (side, patch) = grid(words.len());
            let tiles: Vec<(u32, Vec<u8>)> = words.iter().map(|w| word(*w)).collect();
            Box::new(move |u, v| {
                let (pu, pv) = ((u / patch).min(side - 1), (v / patch).min(side - 1));
                let (tile, pixels) = &tiles[(pv * side + pu) as usize];
                let scale = |offset: u32| (offset * tile / patch).min(tile - 1);
                let at = (scale(v - pv * patch) * tile + scale(u - pu * patch)) as usize;
                let plane = (tile * tile) as usize;
                Rgb([pixels[at], pixels[plane + at], pixels[2 * plane + at]])
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_show_pixels_seen_patches_and_words() {
        let pixels = vec![200; 3 * 4 * 4];
        let row = vec![
            Cell::Pixels(pixels.clone()),
            Cell::Seen {
                pixels,
                seen: vec![true, false, false, true],
            },
            Cell::Words(vec![1, 2, 2, 1]),
        ];
        // Word w is a flat 2×2 patch of red 10·w, green 100, blue 200.
        let sheet = sheet("image · what is seen of it · its words", &[row], 4, &|w| {
            (2, [[10 * w as u8; 4], [100; 4], [200; 4]].concat())
        });
        let zoom = 128 / 4;
        let square = 4 * zoom;
        assert_eq!(sheet.width(), 2 * MARGIN + 3 * square + 2 * GAP);
        // The longest heading takes two lines.
        let top = MARGIN + 2 * LINE;
        assert_eq!(sheet.height(), top + square + GAP + MARGIN);
        let at = |column: u32, u: u32, v: u32| sheet.get_pixel(MARGIN + column * (square + GAP) + u * zoom, top + v * zoom).0;
        let written = |column: u32| {
            let from = MARGIN + column * (square + GAP);
            (from..from + square).any(|x| (MARGIN..top).any(|y| *sheet.get_pixel(x, y) != PAPER))
        };
        assert!((0..3).all(written), "a heading above each column");
        assert_eq!(at(0, 0, 0), [200; 3]);
        assert_eq!((at(1, 0, 0), at(1, 2, 0)), ([200; 3], ABSENT.0));
        assert_eq!(
            (at(2, 0, 0), at(2, 2, 0)),
            ([10, 100, 200], [20, 100, 200]),
            "planes are red, green, blue"
        );
    }

    #[test]
    fn no_rows_still_make_a_picture() {
        assert_eq!(sheet("image", &[], 4, &|_| (1, vec![0; 3])).dimensions(), (2 * MARGIN, 2 * MARGIN));
    }
}
