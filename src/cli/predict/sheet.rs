//! Sheets to look at: somebody's own images, each with its likeliest classes beside it.

use std::path::{Path, PathBuf};

use image::{Rgb, RgbImage, imageops};
use splitmask_pipeline::types::Image;

use crate::cli::png::write_png;
use crate::exit::CliError;
use crate::picture::{LETTER, write};

/// Images on a sheet; what comes after goes to the next one.
const MOST: usize = 60;
/// Images side by side.
const COLUMNS: u32 = 3;
/// Side of an image, pixels.
const THUMB: u32 = 96;
/// Room around an image and around what is said of it, pixels.
const GAP: u32 = 8;
/// Letters of a line.
const LETTERS: usize = 26;
/// Width of a line, pixels.
const WIDTH: u32 = LETTERS as u32 * LETTER;
/// Height of a line with its bar and the room below it, pixels.
const LINE: u32 = 16;
/// Height of a bar, pixels.
const BAR: u32 = 3;
/// Classes beside an image: the lines that the file's leaves.
const CLASSES: usize = (THUMB / LINE) as usize - 1;

const PAPER: Rgb<u8> = Rgb([246, 246, 244]);
const SURE: Rgb<u8> = Rgb([24, 120, 60]);
const UNSURE: Rgb<u8> = Rgb([222, 222, 218]);

/// One image of a sheet.
pub(super) struct Cell {
    /// As the network saw it: [`thumbnail`].
    pub(super) picture: RgbImage,
    /// Its file.
    pub(super) file: String,
    /// Names and probabilities of its classes, the likeliest first.
    pub(super) classes: Vec<(String, f64)>,
}

/// An image of `side` pixels, u8 planar 3×S×S, in the size that it has on a sheet.
pub(super) fn thumbnail(planes: &[u8], side: u32) -> RgbImage {
    let plane = (side * side) as usize;
    let whole = RgbImage::from_fn(side, side, |x, y| {
        let at = (y * side + x) as usize;
        Rgb([planes[at], planes[plane + at], planes[2 * plane + at]])
    });
    imageops::resize(&whole, THUMB, THUMB, imageops::FilterType::Triangle)
}

/// The file of the `n`-th sheet.
fn name(n: usize) -> String {
    format!("classes-{n:03}.png")
}

/// Whether a file has the name of a sheet.
pub(super) fn is_sheet(file: &str) -> bool {
    let number = file.strip_prefix("classes-").and_then(|rest| rest.strip_suffix(".png"));
    number.and_then(|n| n.parse().ok()).is_some_and(|n| name(n) == file)
}

/// Sheets that are written as they fill: `classes-001.png` and so on.
pub(super) struct Sheets {
    folder: PathBuf,
    /// Those of the sheet that is not full yet.
    cells: Vec<Cell>,
    written: Vec<PathBuf>,
}

impl Sheets {
    /// Into a folder, which is made if it is not there.
    ///
    /// # Errors
    /// I/O, naming the folder.
    pub(super) fn in_folder(folder: &Path) -> Result<Self, CliError> {
        std::fs::create_dir_all(folder).map_err(|e| CliError::io(format!("{}: {e}", folder.display())))?;
        Ok(Self {
            folder: folder.to_owned(),
            cells: vec![],
            written: vec![],
        })
    }

    /// The file of the sheet that is not full yet.
    fn place(&self) -> PathBuf {
        self.folder.join(name(self.written.len() + 1))
    }

    /// Adds an image, and answers the file that it will stand in.
    ///
    /// # Errors
    /// I/O, naming the file.
    pub(super) fn add(&mut self, cell: Cell) -> Result<PathBuf, CliError> {
        let place = self.place();
        self.cells.push(cell);
        if self.cells.len() == MOST {
            self.write()?;
        }
        Ok(place)
    }

    /// Writes the last sheet, and removes those that an earlier call has left beyond it; the files of all, in order.
    ///
    /// # Errors
    /// I/O, naming the file.
    pub(super) fn finish(mut self) -> Result<Vec<PathBuf>, CliError> {
        if !self.cells.is_empty() {
            self.write()?;
        }
        let beyond = (self.written.len() + 1..).map(|n| self.folder.join(name(n)));
        for left in beyond.take_while(|file| file.exists()) {
            std::fs::remove_file(&left).map_err(|e| CliError::io(format!("{}: {e}", left.display())))?;
        }
        Ok(self.written)
    }

    fn write(&mut self) -> Result<(), CliError> {
        let (place, drawn) = (self.place(), draw(&self.cells));
        let picture = Image {
            width: drawn.width(),
            height: drawn.height(),
            pixels: drawn.into_raw(),
        };
        write_png(&picture, &place)?;
        self.cells.clear();
        self.written.push(place);
        Ok(())
    }
}

/// Draws images row by row, each with its file and its classes at its right; a bar below each class is as long as it is likely.
fn draw(cells: &[Cell]) -> RgbImage {
    let rows = (cells.len() as u32).div_ceil(COLUMNS);
    let (across, down) = (THUMB + GAP + WIDTH + GAP, THUMB + GAP);
    let mut sheet = RgbImage::from_pixel(GAP + COLUMNS * across, GAP + rows * down, PAPER);
    for (n, cell) in (0u32..).zip(cells) {
        let (x, y) = (GAP + n % COLUMNS * across, GAP + n / COLUMNS * down);
        imageops::replace(&mut sheet, &cell.picture, x.into(), y.into());
        let x = x + THUMB + GAP;
        write(&mut sheet, end(&cell.file, LETTERS), x, y);
        for (line, (name, probability)) in (1u32..).zip(cell.classes.iter().take(CLASSES)) {
            let (y, share) = (y + line * LINE, format!("{probability:.3} "));
            write(&mut sheet, &format!("{share}{}", end(name, LETTERS - share.len())), x, y);
            let long = (probability * f64::from(WIDTH)).round() as u32;
            for (u, v) in (0..WIDTH).flat_map(|u| (0..BAR).map(move |v| (u, v))) {
                sheet.put_pixel(x + u, y + LETTER + 1 + v, if u < long { SURE } else { UNSURE });
            }
        }
    }
    sheet
}

/// As many letters as fit, the last ones: they tell files and classes apart.
fn end(text: &str, letters: usize) -> &str {
    let cut = text.chars().count().saturating_sub(letters);
    text.char_indices().nth(cut).map_or("", |(at, _)| &text[at..])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(probability: f64) -> Cell {
        Cell {
            picture: thumbnail(&[[200; 4], [10; 4], [60; 4]].concat(), 2),
            file: "mine/cat.png".into(),
            classes: vec![("cat".into(), probability), ("dog".into(), 1.0 - probability)],
        }
    }

    #[test]
    fn an_image_has_its_classes_beside_it_and_bars_that_tell_how_likely_they_are() {
        let sheet = draw(&[cell(0.75), cell(1.0)]);
        assert_eq!(sheet.dimensions(), (8 + 3 * (96 + 8 + 208 + 8), 8 + 96 + 8));
        assert_eq!(sheet.get_pixel(GAP + THUMB / 2, GAP + THUMB / 2).0, [200, 10, 60]);
        let bar = |image: u32, line: u32| {
            let x = GAP + image * (THUMB + WIDTH + 2 * GAP) + THUMB + GAP;
            (0..WIDTH)
                .filter(|u| *sheet.get_pixel(x + u, GAP + line * LINE + LETTER + 1) == SURE)
                .count() as u32
        };
        assert_eq!([(0, 1), (0, 2), (1, 1), (1, 2)].map(|(n, line)| bar(n, line)), [156, 52, WIDTH, 0]);
        let ink = |from: u32| {
            let rows = (from..from + LETTER).flat_map(|y| (GAP + THUMB..GAP + THUMB + WIDTH).map(move |x| (x, y)));
            rows.filter(|(x, y)| *sheet.get_pixel(*x, *y) == Rgb([60, 60, 60])).count()
        };
        assert!([0, 1, 2].iter().all(|line| ink(GAP + line * LINE) > 50), "file and classes");
        assert_eq!(ink(GAP + 3 * LINE), 0, "no third class");
    }

    #[test]
    fn long_names_keep_their_end_whatever_their_letters_are() {
        assert_eq!(end("cat", 26), "cat");
        assert_eq!(end("zäune/gärten", 6), "gärten");
        assert_eq!(end("", 6), "");
    }

    #[test]
    fn what_does_not_fit_on_a_sheet_goes_to_the_next_one() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("new");
        let mut sheets = Sheets::in_folder(&folder).unwrap();
        let places: Vec<PathBuf> = (0..=MOST).map(|_| sheets.add(cell(0.5)).unwrap()).collect();
        let files = sheets.finish().unwrap();
        assert_eq!(files, ["classes-001.png", "classes-002.png"].map(|name| folder.join(name)));
        assert!(places[..MOST].iter().all(|place| *place == files[0]) && places[MOST] == files[1]);
        let heights: Vec<u32> = files.iter().map(|file| image::open(file).unwrap().height()).collect();
        assert_eq!(heights, [20, 1].map(|rows| 8 + rows * 104));
    }
}
