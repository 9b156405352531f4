//! Odd pictures of every format, against what Pillow and OpenCV see in them.
//!
//! `zoo.tar.gz` holds the pictures and `zoo.tsv` the colours, both written by `make_zoo.py`. Where the two libraries agree, so do we; where they
//! differ the table says whom we follow, or that the file is refused, and why.

use std::collections::BTreeMap;
use std::io::Read;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use splitmask_pipeline::decode::{Decoder, Limits, Rect, header};
use splitmask_pipeline::types::Image;

/// Colours at a grid of places, and their mean over the picture.
struct Seen {
    width: u32,
    height: u32,
    mean: [f64; 3],
    grid: Vec<u8>,
}

enum Right {
    Seen(Seen),
    /// Reason, as it is counted.
    Refused(String),
}

fn folder() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/zoo"))
}

fn pictures() -> BTreeMap<String, Vec<u8>> {
    let mut tar = tar::Archive::new(flate2::read::GzDecoder::new(
        std::fs::File::open(folder().join("zoo.tar.gz")).unwrap(),
    ));
    let entries = tar.entries().unwrap().map(|entry| {
        let mut entry = entry.unwrap();
        let name = entry.path().unwrap().to_str().unwrap().to_owned();
        let mut bytes = vec![];
        entry.read_to_end(&mut bytes).unwrap();
        (name, bytes)
    });
    entries.collect()
}

fn table() -> BTreeMap<String, Right> {
    let text = std::fs::read_to_string(folder().join("zoo.tsv")).unwrap();
    let row = |line: &str| {
        let columns: Vec<&str> = line.split('\t').collect();
        let [name, _, right, size, mean, grid, ..] = columns[..] else {
            panic!("{line}")
        };
        let right = match right.strip_prefix("refused: ") {
            Some(reason) => Right::Refused(reason.to_owned()),
            None => {
                let (width, height) = size.split_once('x').unwrap();
                let mean: Vec<f64> = mean.split(',').map(|v| v.parse().unwrap()).collect();
                let hex = |i: usize| u8::from_str_radix(&grid[i..i + 2], 16).unwrap();
                Right::Seen(Seen {
                    width: width.parse().unwrap(),
                    height: height.parse().unwrap(),
                    mean: mean.try_into().unwrap(),
                    grid: (0..grid.len()).step_by(2).map(hex).collect(),
                })
            }
        };
        (name.to_owned(), right)
    };
    text.lines().filter(|l| !l.starts_with('#')).map(row).collect()
}

/// How far a value may be from the table's: decoders round lossy files, and five bits, in different ways; nothing else.
fn tolerance(name: &str) -> u8 {
    let has = |words: &[&str]| words.iter().any(|w| name.contains(w));
    if name.ends_with(".jpg") || has(&["lossy", "jpeg", "ycc"]) {
        2
    } else {
        u8::from(has(&["masks_16_", "plain_16.bmp"]))
    }
}

/// What is wrong with a picture, if anything.
fn fault(name: &str, image: &Image, seen: &Seen) -> Option<String> {
    if (image.width, image.height) != (seen.width, seen.height) {
        return Some(format!(
            "{}×{} instead of {}×{}",
            image.width, image.height, seen.width, seen.height
        ));
    }
    let pixels = image.pixels.len() as f64 / 3.0;
    let mean = |c: usize| image.pixels.iter().skip(c).step_by(3).map(|&v| f64::from(v)).sum::<f64>() / pixels;
    let mean = [0, 1, 2].map(mean);
    let near = f64::from(tolerance(name)) * 0.6 + 0.001;
    let mut wrong = (0..3).any(|c| (mean[c] - seen.mean[c]).abs() > near);
    let side = ((seen.grid.len() / 3) as f64).sqrt() as usize;
    let place = |i: usize, n: u32| (i as f64 * f64::from(n - 1) / (side - 1) as f64).round_ties_even() as usize;
    for row in 0..side {
        for column in 0..side {
            let at = 3 * (place(row, image.height) * image.width as usize + place(column, image.width));
            let wanted = &seen.grid[3 * (row * side + column)..][..3];
            wrong |= image.pixels[at..at + 3]
                .iter()
                .zip(wanted)
                .any(|(a, b)| a.abs_diff(*b) > tolerance(name));
        }
    }
    wrong.then(|| format!("mean {mean:.2?} instead of {:.2?}", seen.mean))
}

#[test]
fn every_picture_has_the_colours_and_the_orientation_of_the_table() {
    let (pictures, table) = (pictures(), table());
    assert!(
        pictures.keys().eq(table.keys()),
        "zoo.tar.gz and zoo.tsv are of one run of make_zoo.py"
    );
    assert!(table.len() > 400);
    let mut decoder = Decoder::new(Limits::default());
    let mut image = Image::default();
    let mut faults = vec![];
    for (name, bytes) in &pictures {
        let decoded = catch_unwind(AssertUnwindSafe(|| decoder.decode(bytes, &mut image)));
        let Ok(decoded) = decoded else {
            faults.push(format!("{name}: panic"));
            continue;
        };
        let fault = match (&table[name], decoded) {
            (Right::Seen(seen), Ok(())) => {
                assert_eq!(header(bytes).unwrap().upright(), (image.width, image.height), "{name}");
                fault(name, &image, seen)
            }
            (Right::Refused(reason), Err(e)) if e.reason() == reason => None,
            (Right::Refused(reason), Err(e)) => Some(format!("refused as {} instead of {reason}: {e}", e.reason())),
            (Right::Refused(reason), Ok(())) => Some(format!("read instead of refused as {reason}")),
            (Right::Seen(_), Err(e)) => Some(e.to_string()),
        };
        faults.extend(fault.map(|f| format!("{name}: {f}")));
    }
    assert!(faults.is_empty(), "{} of {}\n{}", faults.len(), table.len(), faults.join("\n"));
}

/// Training decodes crops, `pack` whole pictures: the same pixels, whatever the format, the colours and the orientation.
#[test]
fn a_crop_is_what_the_whole_picture_has_there() {
    let table = table();
    let mut decoder = Decoder::new(Limits::default());
    let mut image = Image::default();
    let mut compared = 0;
    for (name, bytes) in pictures() {
        let Right::Seen(_) = table[&name] else { continue };
        decoder.decode(&bytes, &mut image).unwrap_or_else(|e| panic!("{name}: {e}"));
        let header = decoder.header(&bytes).unwrap();
        let (width, height) = header.upright();
        for (x, y, w, h) in [
            (0, 0, 7, 9),
            (width - 8, height - 5, 8, 5),
            (11, 6, 13, 17),
            (9, 10, 1, 1),
            (0, 3, width, 4),
        ] {
            let upright = Rect {
                x: x.into(),
                y: y.into(),
                width: w.into(),
                height: h.into(),
            };
            let stored = header.orientation.stored(upright, header.width, header.height);
            let window = decoder.window(&bytes, &header, stored, 1).unwrap();
            let (start, step_x, step_y) = header.orientation.walk(header.width as usize, header.height as usize);
            for row in y..y + h {
                for column in x..x + w {
                    let at = (start + column as isize * step_x + row as isize * step_y) as u32;
                    let ours = window
                        .pixel(at % header.width, at / header.width)
                        .unwrap_or_else(|| panic!("{name}"));
                    let whole = &image.pixels[3 * (row * width + column) as usize..][..3];
                    assert_eq!(ours, whole, "{name}: crop {x},{y} {w}×{h} at {column},{row}");
                }
            }
        }
        compared += 1;
    }
    assert!(compared > 350, "{compared}");
}
