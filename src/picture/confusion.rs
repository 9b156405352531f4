//! Which classes are taken for which, as a picture.

use std::collections::BTreeMap;

use image::{Rgb, RgbImage};

use super::text::{LETTER, write};

const MARGIN: u32 = 6;
const PAPER: Rgb<u8> = Rgb([250, 250, 250]);
/// A row of a class without images.
const EMPTY: Rgb<u8> = Rgb([224, 224, 228]);
const RIGHT: [f64; 3] = [24.0, 120.0, 60.0];
const WRONG: [f64; 3] = [200.0, 40.0, 30.0];
/// Side of the matrix that is aimed at, pixels.
const SIDE: usize = 640;
/// Cells of at least this side have room for the name of their row.
const WITH_NAMES: usize = LETTER as usize + 2;
/// Letters of a name at most.
const NAME: usize = 24;

/// Draws the matrix: a row for what an image is, a column for what it was taken for, in the order of `names`; a cell is the darker the larger its share
/// of the row, green on the diagonal and red beside it. Names stand before the rows where there is room for letters; of more than [`SIDE`] classes
/// several share a cell.
#[must_use]
pub fn confusion(names: &[String], pairs: &BTreeMap<(usize, usize), usize>) -> RgbImage {
    let together = names.len().div_ceil(SIDE).max(1);
    let rows = names.len().div_ceil(together).max(1);
    let cell = (SIDE / rows).clamp(1, 32);
    let mut counts = vec![0usize; rows * rows];
    for ((is, said), images) in pairs {
        counts[is / together * rows + said / together] += images;
    }
    let named = together == 1 && cell >= WITH_NAMES;
    let longest = names.iter().map(|name| name.chars().count().min(NAME)).max().unwrap_or(0) as u32;
    let left = MARGIN + if named { longest * LETTER + MARGIN } else { 0 };
    let side = (rows * cell) as u32;
    let mut drawn = RgbImage::from_pixel(left + side + MARGIN, side + 2 * MARGIN, PAPER);
    for (row, of_row) in counts.chunks_exact(rows).enumerate() {
        let y = MARGIN + (row * cell) as u32;
        if let Some(name) = names.get(row).filter(|_| named) {
            let name: String = name.chars().take(NAME).collect();
            write(&mut drawn, &name, MARGIN, y + (cell as u32 - LETTER) / 2);
        }
        let total: usize = of_row.iter().sum();
        for (column, images) in of_row.iter().enumerate() {
            let colour = match total {
                0 => EMPTY,
                _ => shade(*images as f64 / total as f64, if row == column { RIGHT } else { WRONG }),
            };
            let x = left + (column * cell) as u32;
            // A line of paper between cells that are large enough for one.
            let inner = if cell > 4 { cell as u32 - 1 } else { cell as u32 };
            for v in 0..inner {
                for u in 0..inner {
                    drawn.put_pixel(x + u, y + v, colour);
                }
            }
        }
    }
    drawn
}

/// White for 0, the colour for 1; small shares are lifted so that a few confused images can be seen.
fn shade(share: f64, colour: [f64; 3]) -> Rgb<u8> {
    let depth = share.sqrt();
    Rgb(colour.map(|c| (255.0 + (c - 255.0) * depth).round() as u8))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn right_answers_are_green_wrong_ones_red_and_classes_without_images_grey() {
        let names: Vec<String> = ["cat", "dog", "fish"].map(str::to_owned).into();
        let pairs = BTreeMap::from([((0, 0), 4), ((1, 0), 1), ((1, 1), 1)]);
        let drawn = confusion(&names, &pairs);
        let left = 2 * MARGIN + 4 * LETTER;
        assert_eq!(drawn.dimensions(), (left + 3 * 32 + MARGIN, 3 * 32 + 2 * MARGIN));
        let cell = |row: u32, column: u32| drawn.get_pixel(left + column * 32 + 3, MARGIN + row * 32 + 3).0;
        assert_eq!(cell(0, 0), RIGHT.map(|c| c as u8));
        assert_eq!(cell(0, 1), [255, 255, 255]);
        let [r, g, b] = cell(1, 0);
        assert!(r > g && r > b && g < 255, "red: {:?}", cell(1, 0));
        assert_eq!(cell(2, 1), EMPTY.0);
        let ink = (MARGIN..left)
            .filter(|x| *drawn.get_pixel(*x, MARGIN + 16) == Rgb([60, 60, 60]))
            .count();
        assert!(ink > 0, "the name of the first row");
    }

    #[test]
    fn many_classes_share_cells() {
        let names: Vec<String> = (0..1500).map(|n| n.to_string()).collect();
        let drawn = confusion(&names, &BTreeMap::from([((1499, 1499), 2)]));
        assert_eq!(drawn.dimensions(), (500 + 2 * MARGIN, 500 + 2 * MARGIN));
        assert_eq!(drawn.get_pixel(MARGIN + 499, MARGIN + 499).0, RIGHT.map(|c| c as u8));
        assert_eq!(drawn.get_pixel(MARGIN, MARGIN), &EMPTY);
        assert_eq!(
            confusion(&[], &BTreeMap::new()).height(),
            32 + 2 * MARGIN,
            "without classes: nothing to see, and no panic"
        );
    }
}
