//! A contact sheet: thumbnails on a grid, each with its class below.

use image::{Rgb, RgbImage, imageops};
use splitmask_pipeline::types::Image;

use crate::picture::{LETTER, write};

/// Side of a thumbnail, pixels.
const THUMB: u32 = 112;
/// Room between cells, and around the sheet.
const GAP: u32 = 8;
/// Height of a caption of two lines.
const CAPTION: u32 = 2 * (LETTER + 2);

const PAPER: Rgb<u8> = Rgb([246, 246, 244]);
const FRAME: Rgb<u8> = Rgb([255, 255, 255]);

/// One picture of the sheet.
pub(super) struct Cell {
    /// The picture; `None` where it could not be decoded.
    pub(super) image: Option<Image>,
    /// What stands below it.
    pub(super) caption: String,
}

/// Draws the cells row by row on a grid that is about as wide as it is high.
pub(super) fn draw(cells: Vec<Cell>) -> RgbImage {
    let columns = (cells.len() as f64).sqrt().ceil().max(1.0) as u32;
    let rows = (cells.len() as u32).div_ceil(columns).max(1);
    let mut sheet = RgbImage::from_pixel(GAP + columns * (THUMB + GAP), GAP + rows * (THUMB + CAPTION + GAP), PAPER);
    for (i, cell) in cells.into_iter().enumerate() {
        let (x, y) = (
            GAP + i as u32 % columns * (THUMB + GAP),
            GAP + i as u32 / columns * (THUMB + CAPTION + GAP),
        );
        imageops::replace(&mut sheet, &RgbImage::from_pixel(THUMB, THUMB, FRAME), x.into(), y.into());
        match cell.image.and_then(thumbnail) {
            Some(thumb) => {
                let (left, top) = (x + (THUMB - thumb.width()) / 2, y + (THUMB - thumb.height()) / 2);
                imageops::replace(&mut sheet, &thumb, left.into(), top.into());
            }
            None => write(&mut sheet, "not readable", x + LETTER, y + THUMB / 2),
        }
        for (line, text) in fold(&cell.caption).iter().enumerate() {
            write(&mut sheet, text, x, y + THUMB + 2 + line as u32 * (LETTER + 2));
        }
    }
    sheet
}

/// Shrinks or enlarges to fit the cell.
fn thumbnail(image: Image) -> Option<RgbImage> {
    let full = RgbImage::from_raw(image.width, image.height, image.pixels)?;
    let scale = f64::from(THUMB) / f64::from(full.width().max(full.height()).max(1));
    let side = |x: u32| ((f64::from(x) * scale).round() as u32).clamp(1, THUMB);
    let (w, h) = (side(full.width()), side(full.height()));
    Some(imageops::resize(&full, w, h, imageops::FilterType::Triangle))
}

/// At most two lines that fit under a thumbnail; a longer text keeps its end, which tells classes apart.
fn fold(caption: &str) -> Vec<String> {
    let per_line = (THUMB / LETTER) as usize;
    let letters: Vec<char> = caption.chars().collect();
    let cut = letters.len().saturating_sub(2 * per_line);
    letters[cut..].chunks(per_line).map(|line| line.iter().collect()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(width: u32, height: u32, colour: [u8; 3]) -> Cell {
        let pixels = colour.repeat((width * height) as usize);
        Cell {
            image: Some(Image { width, height, pixels }),
            caption: "animals/birds".into(),
        }
    }

    #[test]
    fn lays_cells_on_a_grid_with_captions() {
        let sheet = draw(vec![
            cell(300, 100, [255, 0, 0]),
            cell(10, 20, [0, 0, 255]),
            Cell {
                image: None,
                caption: String::new(),
            },
        ]);
        assert_eq!(sheet.dimensions(), (GAP + 2 * (THUMB + GAP), GAP + 2 * (THUMB + CAPTION + GAP)));
        let middle = |column: u32, row: u32| {
            sheet
                .get_pixel(
                    GAP + column * (THUMB + GAP) + THUMB / 2,
                    GAP + row * (THUMB + CAPTION + GAP) + THUMB / 2,
                )
                .0
        };
        assert_eq!((middle(0, 0), middle(1, 0)), ([255, 0, 0], [0, 0, 255]));
        assert_eq!(
            sheet.get_pixel(GAP + 5, GAP + 5).0,
            FRAME.0,
            "a wide picture is centred on its frame"
        );
        let ink = |from: u32| {
            (from..from + CAPTION)
                .flat_map(|y| (GAP..GAP + THUMB).map(move |x| (x, y)))
                .filter(|&(x, y)| *sheet.get_pixel(x, y) == Rgb([60, 60, 60]))
                .count()
        };
        assert!(ink(GAP + THUMB) > 50, "caption is drawn");
    }

    #[test]
    fn long_captions_keep_their_end() {
        assert_eq!(fold("birds"), ["birds"]);
        assert_eq!(fold("signs_and_symbols/traffic/warnings"), ["and_symbols/tr", "affic/warnings"]);
        assert!(fold("").is_empty());
    }
}
