//! What is to be found: a file in COCO's form.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

pub use splitmask_pipeline::coco::Category;
use splitmask_pipeline::coco::{AnnotatedPicture, CocoError, CocoFile, Segmentation};

use super::overlap::{Shape, ShapeKind};

/// An object in a picture.
#[derive(Debug, Clone, PartialEq)]
pub struct Object {
    /// Its class.
    pub category: u64,
    /// Its box or mask.
    pub shape: Shape,
    /// Its area in pixels, as the file says; else that of its shape. Objects are told apart by size by it.
    pub area: f64,
    /// Whether it stands for many, and need not be found.
    pub crowd: bool,
}

/// A picture with its objects.
#[derive(Debug, Clone, PartialEq)]
pub struct Annotated {
    /// By which objects and detections name it.
    pub id: u64,
    /// In pixels.
    pub height: u32,
    /// In pixels.
    pub width: u32,
    /// In the order of the file.
    pub objects: Vec<Object>,
}

/// All that is to be found.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Truth {
    /// In the order of their ids.
    pub categories: Vec<Category>,
    /// In the order of their ids.
    pub pictures: Vec<Annotated>,
    /// What is odd about the file, in words, and does not hinder.
    pub remarks: Vec<String>,
}

/// Reads a file of objects in COCO's form: `images`, `annotations`, `categories`. Areas are taken from the file, as COCO's own program takes them.
///
/// # Errors
/// No such file; a place in it that names what is not there, twice the same id, numbers that are no box, a mask of another size, no object at all.
pub fn read_truth(path: &Path, kind: ShapeKind) -> Result<Truth, CocoError> {
    let name = path.display().to_string();
    let file = CocoFile::read(path)?;
    let categories = file.sorted_categories();
    let known: BTreeSet<u64> = categories.iter().map(|c| c.id).collect();
    let empty = |i: &AnnotatedPicture| Annotated {
        id: i.id,
        height: i.height,
        width: i.width,
        objects: vec![],
    };
    let mut pictures: BTreeMap<u64, Annotated> = file.images.iter().map(|i| (i.id, empty(i))).collect();
    let mut remarks = Vec::new();
    let mut outside = 0usize;
    for (n, a) in file.annotations.iter().enumerate() {
        let fail = |detail: String| CocoError {
            file: name.clone(),
            place: format!("annotations[{n}] (id {})", a.id),
            detail,
        };
        if !known.contains(&a.category_id) {
            return Err(fail(format!("category_id {} is none of categories", a.category_id)));
        }
        let Some(picture) = pictures.get_mut(&a.image_id) else {
            return Err(fail(format!("image_id {} is none of images", a.image_id)));
        };
        if a.iscrowd > 1 {
            return Err(fail(format!("iscrowd {}: 0 or 1", a.iscrowd)));
        }
        let shape = match kind {
            ShapeKind::Box => box_of(a.bbox),
            ShapeKind::Mask => mask_of(a.segmentation.as_ref(), picture.height, picture.width),
        }
        .map_err(fail)?;
        if let Some([x, y, w, h]) = a.bbox {
            outside += usize::from(x < 0.0 || y < 0.0 || x + w > f64::from(picture.width) || y + h > f64::from(picture.height));
        }
        let area = a.area.unwrap_or_else(|| shape.area());
        if !(area >= 0.0) {
            return Err(fail(format!("area {area}: 0 or more")));
        }
        picture.objects.push(Object {
            category: a.category_id,
            shape,
            area,
            crowd: a.iscrowd == 1,
        });
    }
    if file.annotations.is_empty() {
        return Err(CocoError {
            file: name,
            place: "annotations".into(),
            detail: "there is no object to be found".into(),
        });
    }
    if file.annotations.iter().any(|a| a.id == 0) {
        remarks.push(
            "an annotation has the id 0, which pycocotools takes for \"not found\": its numbers for this file are too low, these are not"
                .into(),
        );
    }
    if outside > 0 {
        remarks.push(format!("{outside} boxes reach beyond their pictures"));
    }
    Ok(Truth {
        categories,
        pictures: pictures.into_values().collect(),
        remarks,
    })
}

/// A box; what is wrong with it otherwise.
pub(super) fn box_of(bbox: Option<[f64; 4]>) -> Result<Shape, String> {
    splitmask_pipeline::coco::box_of(bbox).map(Shape::Box)
}

/// A mask of polygons or of runs; what is wrong with it otherwise.
pub(super) fn mask_of(segmentation: Option<&Segmentation>, height: u32, width: u32) -> Result<Shape, String> {
    let segmentation = segmentation.ok_or("segmentation is missing: polygons, or runs as {\"size\", \"counts\"}")?;
    segmentation.mask(height, width).map(Shape::Mask)
}
