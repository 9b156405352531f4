//! `inpaint.png`: image · what A saw · what B saw · predicted words · true words, one row per image.

use image::{Rgb, RgbImage};

/// One image of the picture. Patches are in row-major order of a square grid.
#[derive(Debug, Clone)]
pub struct Row {
    /// View as the model got it before normalisation: u8, planar 3×S×S.
    pub view: Vec<u8>,
    /// Part of each patch: 1 = A, 2 = B, 0 = neither.
    pub parts: Vec<u8>,
    /// True word of each patch.
    pub words: Vec<u32>,
    /// Word predicted for each patch by branch A (sees part 1) and branch B (sees part 2).
    pub predicted: [Vec<u32>; 2],
}

const GAP: u32 = 4;
const MARGIN: u32 = 6;
const ABSENT: Rgb<u8> = Rgb([96, 96, 104]);
const PAPER: Rgb<u8> = Rgb([250, 250, 250]);

/// Draws the picture.
///
/// `size` = side of a view, pixels; `word` answers the side and the pixels (u8, planar 3×side×side) that stand for a visual word. A patch that A
/// did not see is painted with A's prediction, every other with B's: so each prediction shown is of a patch its branch could not see.
#[must_use]
pub fn inpaint(rows: &[Row], size: u32, word: &dyn Fn(u32) -> (u32, Vec<u8>)) -> RgbImage {
    // Small views are enlarged so that a person can see them.
    let zoom = (128 / size).max(1);
    let cell = size * zoom;
    let width = 2 * MARGIN + 5 * cell + 4 * GAP;
    let height = 2 * MARGIN + rows.len() as u32 * (cell + GAP);
    let mut sheet = RgbImage::from_pixel(width, height.max(1), PAPER);
    for (r, row) in rows.iter().enumerate() {
        let y = MARGIN + r as u32 * (cell + GAP);
        let x = |column: u32| MARGIN + column * (cell + GAP);
        let side = row.parts.len().isqrt() as u32;
        let patch = size / side.max(1);
        let plane = (size * size) as usize;
        let pixel = |u: u32, v: u32| {
            let at = (v * size + u) as usize;
            Rgb([row.view[at], row.view[plane + at], row.view[2 * plane + at]])
        };
        let part_at = |u: u32, v: u32| row.parts[((v / patch).min(side - 1) * side + (u / patch).min(side - 1)) as usize];
        let mut blit = |column: u32, colour: &dyn Fn(u32, u32) -> Rgb<u8>| {
            for v in 0..cell {
                for u in 0..cell {
                    sheet.put_pixel(x(column) + u, y + v, colour(u / zoom, v / zoom));
                }
            }
        };
        blit(0, &pixel);
        blit(1, &|u, v| if part_at(u, v) == 1 { pixel(u, v) } else { ABSENT });
        blit(2, &|u, v| if part_at(u, v) == 2 { pixel(u, v) } else { ABSENT });
        let paint = |words: &dyn Fn(usize) -> u32| {
            let patches: Vec<(u32, Vec<u8>)> = (0..row.parts.len()).map(|i| word(words(i))).collect();
            move |u: u32, v: u32| {
                let (pu, pv) = ((u / patch).min(side - 1), (v / patch).min(side - 1));
                let (word_side, pixels) = &patches[(pv * side + pu) as usize];
                let scale = |offset: u32| (offset * word_side / patch).min(word_side - 1);
                let at = (scale(v - pv * patch) * word_side + scale(u - pu * patch)) as usize;
                let plane = (word_side * word_side) as usize;
                Rgb([pixels[at], pixels[plane + at], pixels[2 * plane + at]])
            }
        };
        let predicted = paint(&|i| row.predicted[usize::from(row.parts[i] == 1)][i]);
        blit(3, &predicted);
        let truth = paint(&|i| row.words[i]);
        blit(4, &truth);
    }
    sheet
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_patch_shows_the_branch_that_did_not_see_it() {
        let row = Row {
            view: vec![200; 3 * 4 * 4],
            parts: vec![1, 2, 2, 1],
            words: vec![0; 4],
            predicted: [vec![1; 4], vec![2; 4]],
        };
        // Word w is a flat 2×2 patch of red 10·w, green 100, blue 200.
        let sheet = inpaint(&[row], 4, &|w| (2, [[10 * w as u8; 4], [100; 4], [200; 4]].concat()));
        let zoom = 128 / 4;
        let cell = 4 * zoom;
        let at = |column: u32, u: u32, v: u32| sheet.get_pixel(MARGIN + column * (cell + GAP) + u * zoom, MARGIN + v * zoom).0[0];
        assert_eq!(at(0, 0, 0), 200);
        assert_eq!((at(1, 0, 0), at(1, 2, 0)), (200, ABSENT.0[0]), "A sees the first patch only");
        assert_eq!((at(2, 0, 0), at(2, 2, 0)), (ABSENT.0[0], 200));
        assert_eq!(at(3, 0, 0), 20, "A saw it, so B's prediction is shown");
        assert_eq!(at(3, 2, 0), 10);
        assert_eq!(at(4, 2, 0), 0);
        assert_eq!(
            sheet.get_pixel(MARGIN + 4 * (cell + GAP), MARGIN).0,
            [0, 100, 200],
            "planes are red, green, blue"
        );
    }
}
