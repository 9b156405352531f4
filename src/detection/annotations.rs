//! What is to be found: a file in COCO's form.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use super::DetectionError;
use super::overlap::{Shape, ShapeKind};
use super::polygon::rasterise;
use super::run_length::RunLength;

/// A class of objects.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Category {
    /// By which objects and detections name it.
    pub id: u64,
    /// Its name.
    pub name: String,
}

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

#[derive(Deserialize)]
struct File {
    images: Vec<Picture>,
    annotations: Vec<Annotation>,
    categories: Vec<Category>,
}

#[derive(Deserialize)]
struct Picture {
    id: u64,
    height: u32,
    width: u32,
}

#[derive(Deserialize)]
struct Annotation {
    id: u64,
    image_id: u64,
    category_id: u64,
    bbox: Option<[f64; 4]>,
    segmentation: Option<Value>,
    area: Option<f64>,
    #[serde(default)]
    iscrowd: u8,
}

/// Refuses a number that names two things.
fn unique(file: &str, list: &str, ids: impl Iterator<Item = u64>) -> Result<(), DetectionError> {
    let mut seen = BTreeSet::new();
    for (n, id) in ids.enumerate() {
        if !seen.insert(id) {
            return Err(DetectionError {
                file: file.into(),
                place: format!("{list}[{n}]"),
                detail: format!("id {id} was there before; ids are unique"),
            });
        }
    }
    Ok(())
}

/// Reads a file, and says of a broken one where it breaks.
pub(super) fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T, DetectionError> {
    let file = path.display().to_string();
    let fail = |place: String, detail: String| DetectionError {
        file: file.clone(),
        place,
        detail,
    };
    let opened = std::fs::File::open(path).map_err(|e| fail("it cannot be read".into(), e.to_string()))?;
    serde_json::from_reader(std::io::BufReader::new(opened))
        .map_err(|e| fail(format!("line {}, column {}", e.line(), e.column()), e.to_string()))
}

/// Reads a file of objects in COCO's form: `images`, `annotations`, `categories`. Areas are taken from the file, as COCO's own program takes them.
///
/// # Errors
/// No such file; a place in it that names what is not there, twice the same id, numbers that are no box, a mask of another size, no object at all.
pub fn read_truth(path: &Path, kind: ShapeKind) -> Result<Truth, DetectionError> {
    let name = path.display().to_string();
    let file: File = read_json(path)?;
    unique(&name, "images", file.images.iter().map(|i| i.id))?;
    unique(&name, "categories", file.categories.iter().map(|c| c.id))?;
    unique(&name, "annotations", file.annotations.iter().map(|a| a.id))?;
    let mut categories = file.categories;
    categories.sort_by_key(|c| c.id);
    let known: BTreeSet<u64> = categories.iter().map(|c| c.id).collect();
    let empty = |i: &Picture| Annotated {
        id: i.id,
        height: i.height,
        width: i.width,
        objects: vec![],
    };
    let mut pictures: BTreeMap<u64, Annotated> = file.images.iter().map(|i| (i.id, empty(i))).collect();
    let mut remarks = Vec::new();
    let mut outside = 0usize;
    for (n, a) in file.annotations.iter().enumerate() {
        let fail = |detail: String| DetectionError {
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
        return Err(DetectionError {
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
    let sides = bbox.ok_or("bbox is missing: [left, top, width, height] in pixels")?;
    if sides.iter().all(|v| v.is_finite()) && sides[2] >= 0.0 && sides[3] >= 0.0 {
        Ok(Shape::Box(sides))
    } else {
        Err(format!("bbox {sides:?}: [left, top, width, height] in pixels"))
    }
}

/// A mask of polygons or of runs; what is wrong with it otherwise.
pub(super) fn mask_of(segmentation: Option<&Value>, height: u32, width: u32) -> Result<Shape, String> {
    let value = segmentation.ok_or("segmentation is missing: polygons, or runs as {\"size\", \"counts\"}")?;
    if value.is_array() {
        let polygons: Vec<Vec<f64>> =
            serde_json::from_value(value.clone()).map_err(|e| format!("segmentation: {e}; polygons are lists of x, y, x, y …"))?;
        if polygons.is_empty() || polygons.iter().any(|p| p.len() < 6 || !p.len().is_multiple_of(2)) {
            return Err(format!(
                "segmentation: {} polygons, of which each needs three corners or more",
                polygons.len()
            ));
        }
        let parts = polygons.iter().map(|outline| rasterise(outline, height, width));
        return Ok(Shape::Mask(parts.reduce(|a, b| a.united(&b)).expect("one at least")));
    }
    let size: [u32; 2] = serde_json::from_value(value["size"].clone()).map_err(|e| format!("segmentation.size: {e}"))?;
    if size != [height, width] {
        return Err(format!("segmentation.size {size:?}, where the picture has [{height}, {width}]"));
    }
    let runs = match &value["counts"] {
        Value::String(text) => RunLength::of_text(height, width, text).map_err(|e| e.to_string()),
        list => serde_json::from_value(list.clone())
            .map_err(|e| e.to_string())
            .and_then(|runs| RunLength::of_runs(height, width, runs).map_err(|e| e.to_string())),
    };
    runs.map(Shape::Mask).map_err(|e| format!("segmentation.counts: {e}"))
}
