//! What was found: a list in COCO's form.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::Deserialize;
use splitmask_pipeline::coco::{CocoError, Segmentation, read_json, spelt};

use super::annotations::{Truth, box_of, mask_of};
use super::overlap::{Shape, ShapeKind};

/// An object that was found, or taken for one.
#[derive(Debug, Clone, PartialEq)]
pub struct Detection {
    /// In which picture.
    pub picture: u64,
    /// Its class.
    pub category: u64,
    /// Its box or mask. Told apart by size by its area: that of the mask where masks are compared. (COCO's own program takes the box's where results
    /// name both.)
    pub shape: Shape,
    /// How sure it is; only the order counts.
    pub score: f64,
}

/// All that was found.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Detections {
    /// In the order of the file.
    pub found: Vec<Detection>,
}

#[derive(Deserialize)]
struct Row {
    #[serde(deserialize_with = "spelt::whole")]
    image_id: u64,
    #[serde(deserialize_with = "spelt::whole")]
    category_id: u64,
    #[serde(default, deserialize_with = "spelt::sides")]
    bbox: Option<[f64; 4]>,
    segmentation: Option<Segmentation>,
    score: f64,
}

/// Reads a list of `{"image_id", "category_id", "bbox" or "segmentation", "score"}` for the pictures and classes of `truth`.
///
/// # Errors
/// No such file; a place in it with a picture or class that `truth` does not know, no number as score, a shape that is none.
pub fn read_detections(path: &Path, truth: &Truth, kind: ShapeKind) -> Result<Detections, CocoError> {
    let rows: Vec<Row> = read_json(path)?;
    let pictures: BTreeMap<u64, (u32, u32)> = truth.pictures.iter().map(|i| (i.id, (i.height, i.width))).collect();
    let categories: BTreeSet<u64> = truth.categories.iter().map(|c| c.id).collect();
    let found = rows.into_iter().enumerate().map(|(n, row)| {
        let fail = |detail: String| CocoError {
            file: path.display().to_string(),
            place: format!("[{n}]"),
            detail,
        };
        let Some(&(height, width)) = pictures.get(&row.image_id) else {
            return Err(fail(format!("image_id {} is no picture of the annotations", row.image_id)));
        };
        if !categories.contains(&row.category_id) {
            return Err(fail(format!("category_id {} is no class of the annotations", row.category_id)));
        }
        if !row.score.is_finite() {
            return Err(fail(format!("score {}: a number", row.score)));
        }
        let shape = match kind {
            ShapeKind::Box => box_of(row.bbox),
            ShapeKind::Mask => mask_of(row.segmentation.as_ref(), height, width),
        };
        Ok(Detection {
            picture: row.image_id,
            category: row.category_id,
            shape: shape.map_err(fail)?,
            score: row.score,
        })
    });
    Ok(Detections {
        found: found.collect::<Result<_, _>>()?,
    })
}
