//! The map of one image: read, checked against the image, and changed as the image was.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::MapOptions;
use crate::decode::{Header, LabelMap, Limits};
use crate::pack::became::Became;
use crate::pack::report::Refusal;
use crate::types::UNLABELLED;

/// A map ready for the shard.
pub(in crate::pack) struct PreparedMap {
    /// A PNG.
    pub(in crate::pack) bytes: Vec<u8>,
    /// Pixels of each class that it holds.
    pub(in crate::pack) counts: BTreeMap<i16, u64>,
    /// Where it was read.
    pub(in crate::pack) file: PathBuf,
}

/// Reads the map of an image with this header and changes it as the image was.
pub(in crate::pack) fn prepare(
    path: &Path,
    limits: Limits,
    of: &MapOptions,
    head: &Header,
    became: &Became,
) -> Result<PreparedMap, Refusal> {
    let bytes = std::fs::read(path).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => Refusal::NoMap {
            path: path.display().to_string(),
        },
        _ => Refusal::Unreadable {
            detail: format!("{}: {e}", path.display()),
        },
    })?;
    let map = LabelMap::read(&bytes, &of.reading(), limits)?;
    let orientation = map.lies(head)?;
    let map = match became.as_it_was {
        true => map,
        false => {
            let map = resized(&map.upright(orientation), became.shrunk);
            became.square.map(|side| centred(&map, side)).unwrap_or(map)
        }
    };
    let mut counts = BTreeMap::new();
    for class in &map.classes {
        *counts.entry(*class).or_default() += 1;
    }
    Ok(PreparedMap {
        bytes: if became.as_it_was { bytes } else { map.to_png(of.ignore) },
        counts,
        file: path.to_owned(),
    })
}

/// Shrunk: each pixel takes the class of the pixel of `map` in which its middle lies.
fn resized(map: &LabelMap, (width, height): (u32, u32)) -> LabelMap {
    let nearest = |i: u32, from: u32, to: u32| ((u64::from(2 * i + 1) * u64::from(from) / u64::from(2 * to)) as u32).min(from - 1);
    let pixels = (0..height).flat_map(|y| (0..width).map(move |x| (x, y)));
    let classes = pixels.map(|(x, y)| {
        let (x, y) = (nearest(x, map.width, width), nearest(y, map.height, height));
        map.classes[(y * map.width + x) as usize]
    });
    LabelMap::new(width, height, classes.collect())
}

/// In the middle of a square about which nothing is said.
fn centred(map: &LabelMap, side: u32) -> LabelMap {
    let mut classes = vec![UNLABELLED; (side * side) as usize];
    let (left, top) = ((side - map.width) / 2, (side - map.height) / 2);
    for (y, row) in map.classes.chunks_exact(map.width as usize).enumerate() {
        let at = ((top + y as u32) * side + left) as usize;
        classes[at..at + row.len()].copy_from_slice(row);
    }
    LabelMap::new(side, side, classes)
}
