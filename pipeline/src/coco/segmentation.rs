//! What an annotation says of an object's place: a box, outlines, or runs of pixels.

use serde::{Deserialize, Serialize};

use super::polygon::rasterise;
use super::run_length::RunLength;

/// Longest outline, pixels along the longer side of each of its lines: as many points of a grid five times as fine are held while it is drawn. One around
/// every second row of a picture of 1,000 × 1,000 pixels is shorter.
const LONGEST: f64 = 1e6;

/// An object's outline or pixels.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Segmentation {
    /// Outlines as corners x, y, x, y … in pixels; the object is what lies in any of them.
    Polygons(Vec<Vec<f64>>),
    /// A mask of the whole picture.
    Runs {
        /// Rows and columns of the picture.
        size: [u32; 2],
        /// The runs.
        counts: Counts,
    },
    /// Something else, which is no mask.
    Other(serde_json::Value),
}

/// Runs of a mask, as numbers or as COCO's compressed text.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Counts {
    /// How many pixels of background, object, background … follow each other down the columns.
    Numbers(Vec<u32>),
    /// The same, compressed.
    Text(String),
}

impl Segmentation {
    /// Runs of a mask, compressed.
    #[must_use]
    pub fn of(mask: &RunLength) -> Self {
        Self::Runs {
            size: [mask.height(), mask.width()],
            counts: Counts::Text(mask.text()),
        }
    }

    /// Whether it is an empty list, by which files of boxes alone say that there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        matches!(self, Self::Polygons(none) if none.is_empty())
    }

    /// The mask in a picture of `height` × `width`.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn mask(&self, height: u32, width: u32) -> Result<RunLength, String> {
        if u64::from(height) * u64::from(width) > u32::MAX.into() {
            return Err(format!("a picture of {width}×{height} pixels is too large for masks"));
        }
        match self {
            Self::Polygons(polygons) => {
                let near = |corners: &Vec<f64>| corners.iter().all(|c| c.abs() < LONGEST) && length(corners) < LONGEST;
                let bad = |corners: &Vec<f64>| corners.len() < 6 || !corners.len().is_multiple_of(2) || !near(corners);
                if polygons.is_empty() || polygons.iter().any(bad) {
                    return Err(format!(
                        "segmentation: {} polygons, of which each needs three corners or more, x, y, x, y … in pixels, in or near the picture",
                        polygons.len()
                    ));
                }
                let parts = polygons.iter().map(|outline| rasterise(outline, height, width));
                Ok(parts.reduce(|a, b| a.united(&b)).expect("one at least"))
            }
            Self::Runs { size, .. } if *size != [height, width] => {
                Err(format!("segmentation.size {size:?}, where the picture has [{height}, {width}]"))
            }
            Self::Runs { counts, .. } => match counts {
                Counts::Numbers(runs) => RunLength::of_runs(height, width, runs.clone()),
                Counts::Text(text) => RunLength::of_text(height, width, text),
            }
            .map_err(|e| format!("segmentation.counts: {e}")),
            Self::Other(value) => {
                let mut value = value.to_string();
                value.truncate(value.char_indices().nth(60).map_or(value.len(), |(at, _)| at));
                Err(format!(
                    "segmentation: {value} is neither polygons (lists of x, y, x, y …) nor runs ({{\"size\": [rows, columns], \"counts\"}})"
                ))
            }
        }
    }
}

/// How many pixels the lines of an outline pass, along the longer side of each.
fn length(corners: &[f64]) -> f64 {
    let points = || corners.chunks_exact(2);
    let lines = points().zip(points().cycle().skip(1));
    lines.map(|(a, b)| (a[0] - b[0]).abs().max((a[1] - b[1]).abs())).sum()
}

/// A box as left, top, width, height in pixels.
///
/// # Errors
/// What is wrong with it, in words.
pub fn box_of(bbox: Option<[f64; 4]>) -> Result<[f64; 4], String> {
    let sides = bbox.ok_or("bbox is missing: [left, top, width, height] in pixels")?;
    if sides.iter().all(|v| v.is_finite()) && sides[2] >= 0.0 && sides[3] >= 0.0 {
        Ok(sides)
    } else {
        Err(format!("bbox {sides:?}: [left, top, width, height] in pixels"))
    }
}
