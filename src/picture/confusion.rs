//! Which classes are taken for which, as a picture.

use std::collections::BTreeMap;

use image::imageops::{replace, rotate270};
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
/// Classes that get cells of that side, however large the matrix becomes.
const NAMED: usize = 250;
/// Letters of a name at most.
const NAME: usize = 24;

/// Draws the matrix: a row for what an image is, a column for what it was taken for, in the order of `names`; a cell is the darker the larger its share
/// of the row, green on the diagonal and red beside it. Up to [`NAMED`] classes have their names before the rows and above the columns; of more than
/// [`SIDE`] classes several share a cell.
#[must_use]
pub fn confusion(names: &[String], pairs: &BTreeMap<(usize, usize), usize>) -> RgbImage {
    let together = names.len().div_ceil(SIDE).max(1);
    let rows = names.len().div_ceil(together).max(1);
    let named = names.len() <= NAMED;
    let cell = (SIDE / rows).clamp(if named { WITH_NAMES } else { 1 }, 32);
    let mut counts = vec![0usize; rows * rows];
    for ((is, said), images) in pairs {
        counts[is / together * rows + said / together] += images;
    }
    let side = (rows * cell) as u32;
    let listed = named.then(|| list(names, cell as u32, side));
    let before = MARGIN + listed.as_ref().map_or(0, |listed| listed.width() + MARGIN);
    let mut drawn = RgbImage::from_pixel(before + side + MARGIN, before + side + MARGIN, PAPER);
    if let Some(listed) = listed {
        replace(&mut drawn, &listed, MARGIN.into(), before.into());
        replace(&mut drawn, &rotate270(&listed), before.into(), MARGIN.into());
    }
    for (row, of_row) in counts.chunks_exact(rows).enumerate() {
        let y = before + (row * cell) as u32;
        let total: usize = of_row.iter().sum();
        for (column, images) in of_row.iter().enumerate() {
            let colour = match total {
                0 => EMPTY,
                _ => shade(*images as f64 / total as f64, if row == column { RIGHT } else { WRONG }),
            };
            let x = before + (column * cell) as u32;
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

/// The names below each other, a cell high each; long ones end in two points.
fn list(names: &[String], cell: u32, side: u32) -> RgbImage {
    let short = |name: &String| match name.chars().count() {
        0..=NAME => name.clone(),
        _ => name.chars().take(NAME - 2).chain("..".chars()).collect(),
    };
    let names: Vec<String> = names.iter().map(short).collect();
    let longest = names.iter().map(|name| name.chars().count()).max().unwrap_or(0) as u32;
    let mut drawn = RgbImage::from_pixel(longest * LETTER, side, PAPER);
    for (row, name) in (0..).zip(&names) {
        write(&mut drawn, name, 0, row * cell + (cell - LETTER) / 2);
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
        let before = 2 * MARGIN + 4 * LETTER;
        let side = before + 3 * 32 + MARGIN;
        assert_eq!(drawn.dimensions(), (side, side));
        let cell = |row: u32, column: u32| drawn.get_pixel(before + column * 32 + 3, before + row * 32 + 3).0;
        assert_eq!(cell(0, 0), RIGHT.map(|c| c as u8));
        assert_eq!(cell(0, 1), [255, 255, 255]);
        let [r, g, b] = cell(1, 0);
        assert!(r > g && r > b && g < 255, "red: {:?}", cell(1, 0));
        assert_eq!(cell(2, 1), EMPTY.0);
        let ink = |x: u32, y: u32| *drawn.get_pixel(x, y) == Rgb([60, 60, 60]);
        let middle = before + 16;
        let of_row = (MARGIN..before).filter(|x| ink(*x, middle)).count();
        let of_column = (MARGIN..before).filter(|y| ink(middle, *y)).count();
        assert!(of_row > 0 && of_column > 0, "the names of the first row and column");
    }

    #[test]
    fn a_hundred_classes_have_their_names_and_long_ones_are_cut_as_one_can_see() {
        let names: Vec<String> = (0..100).map(|n| format!("a name of more than twenty-four letters, {n}")).collect();
        let drawn = confusion(&names, &BTreeMap::new());
        let before = 2 * MARGIN + NAME as u32 * LETTER;
        assert_eq!(drawn.width(), before + 100 * WITH_NAMES as u32 + MARGIN);
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
            32 + 3 * MARGIN,
            "without classes: nothing to see, and no panic"
        );
    }
}
