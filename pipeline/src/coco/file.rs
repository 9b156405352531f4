//! A file of annotations in COCO's form: `images`, `annotations`, `categories`.

use std::collections::BTreeSet;
use std::path::Path;

use serde::Deserialize;

use super::segmentation::Segmentation;
use super::spelt;

/// Why a file of annotations or results cannot be used: file, place in it, what stands there, what is expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}: {place}: {detail}")]
pub struct CocoError {
    /// The file.
    pub file: String,
    /// Where in it: `annotations[3] (id 17)`, or `top level`.
    pub place: String,
    /// What is wrong, with the value.
    pub detail: String,
}

/// A class of objects.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Category {
    /// By which annotations name it.
    #[serde(deserialize_with = "spelt::whole")]
    pub id: u64,
    /// Its name.
    pub name: String,
}

/// A picture.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct AnnotatedPicture {
    /// By which annotations name it.
    #[serde(deserialize_with = "spelt::whole")]
    pub id: u64,
    /// Rows, pixels.
    #[serde(deserialize_with = "spelt::whole")]
    pub height: u32,
    /// Columns, pixels.
    #[serde(deserialize_with = "spelt::whole")]
    pub width: u32,
    /// Its path below the folder of the pictures; empty where the file does not say.
    #[serde(default)]
    pub file_name: String,
}

/// An object in a picture.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Annotation {
    /// Its own number.
    #[serde(deserialize_with = "spelt::whole")]
    pub id: u64,
    /// The picture.
    #[serde(deserialize_with = "spelt::whole")]
    pub image_id: u64,
    /// The class.
    #[serde(deserialize_with = "spelt::whole")]
    pub category_id: u64,
    /// Left, top, width, height in pixels; sides that the file does not give are no numbers.
    #[serde(default, deserialize_with = "spelt::sides")]
    pub bbox: Option<[f64; 4]>,
    /// Its outline or its pixels.
    pub segmentation: Option<Segmentation>,
    /// Pixels of it.
    pub area: Option<f64>,
    /// 1 where it stands for many.
    #[serde(default, deserialize_with = "spelt::flag")]
    pub iscrowd: u8,
}

/// All that a file says.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct CocoFile {
    /// The pictures, in the order of the file.
    pub images: Vec<AnnotatedPicture>,
    /// The objects in them, in the order of the file.
    pub annotations: Vec<Annotation>,
    /// The classes, in the order of the file.
    pub categories: Vec<Category>,
}

impl CocoFile {
    /// Reads a file whose ids are unique.
    ///
    /// # Errors
    /// No such file; JSON that is no such file, with line and column; an id that stands twice.
    pub fn read(path: &Path) -> Result<Self, CocoError> {
        let file: Self = read_json(path)?;
        unique(path, "images", file.images.iter().map(|picture| picture.id))?;
        unique(path, "categories", file.categories.iter().map(|category| category.id))?;
        unique(path, "annotations", file.annotations.iter().map(|annotation| annotation.id))?;
        Ok(file)
    }

    /// The classes in the order of their ids.
    #[must_use]
    pub fn sorted_categories(&self) -> Vec<Category> {
        let mut categories = self.categories.clone();
        categories.sort_by_key(|category| category.id);
        categories
    }
}

/// Refuses a number that names two things.
fn unique(file: &Path, list: &str, ids: impl Iterator<Item = u64>) -> Result<(), CocoError> {
    let mut seen = BTreeSet::new();
    for (n, id) in ids.enumerate() {
        if !seen.insert(id) {
            return Err(CocoError {
                file: file.display().to_string(),
                place: format!("{list}[{n}]"),
                detail: format!("id {id} was there before; ids are unique"),
            });
        }
    }
    Ok(())
}

/// Reads a file of JSON, and says of a broken one where it breaks.
///
/// # Errors
/// The file cannot be read, or is not what is asked for: with line and column.
pub fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T, CocoError> {
    let fail = |place: String, detail: String| CocoError {
        file: path.display().to_string(),
        place,
        detail,
    };
    let opened = std::fs::File::open(path).map_err(|e| fail("it cannot be read".into(), e.to_string()))?;
    serde_json::from_reader(std::io::BufReader::new(opened)).map_err(|e| {
        let (place, said) = (format!("line {}, column {}", e.line(), e.column()), e.to_string());
        // The place is told once.
        let detail = said
            .strip_suffix(&format!(" at line {} column {}", e.line(), e.column()))
            .unwrap_or(&said);
        fail(place, detail.to_owned())
    })
}
