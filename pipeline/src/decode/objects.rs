//! The objects of a picture, as a member of a shard holds them: annotations in COCO's form.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::coco::{RunLength, Segmentation, box_of, spelt};
use crate::error::SampleError;
use crate::types::RawSample;

use super::header::{Header, Lies};
use super::orientation::Orientation;
use super::region::Rect;

/// Objects of one picture at most.
const MOST: usize = 10_000;

/// How members with objects are read: by `[data]` and the manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectReading {
    /// Extension of the member, for messages.
    pub member: Arc<str>,
    /// How many classes there are; none where it is not known.
    pub classes: Option<u32>,
    /// The number by which COCO's files call each class; empty where a `category_id` is the index of the class itself.
    pub ids: Arc<[u64]>,
}

impl Default for ObjectReading {
    fn default() -> Self {
        Self {
            member: "objects.json".into(),
            classes: None,
            ids: [].into(),
        }
    }
}

/// A member: what `splitmask pack` writes of a picture, and what is read of it. Other keys are passed over.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ObjectMember {
    /// Columns of the picture that the objects were marked in; none where that is not said.
    #[serde(default, deserialize_with = "spelt::whole_or_none", skip_serializing_if = "Option::is_none")]
    pub width: Option<u32>,
    /// Rows of it.
    #[serde(default, deserialize_with = "spelt::whole_or_none", skip_serializing_if = "Option::is_none")]
    pub height: Option<u32>,
    /// Number of the picture in the file that it was packed with.
    #[serde(default, deserialize_with = "spelt::whole_or_none", skip_serializing_if = "Option::is_none")]
    pub image_id: Option<u64>,
    /// The objects.
    pub annotations: Vec<MemberObject>,
}

/// An object of a member.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MemberObject {
    /// Index of its class in the manifest.
    #[serde(default, deserialize_with = "spelt::whole_or_none", skip_serializing_if = "Option::is_none")]
    pub category: Option<u32>,
    /// The number by which COCO's file calls the class; looked at where there is no index.
    #[serde(default, deserialize_with = "spelt::whole_or_none", skip_serializing_if = "Option::is_none")]
    pub category_id: Option<u64>,
    /// Left, top, width, height in pixels; without it that of the mask.
    #[serde(default, deserialize_with = "spelt::sides", skip_serializing_if = "Option::is_none")]
    pub bbox: Option<[f64; 4]>,
    /// Its outline or pixels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub segmentation: Option<Segmentation>,
    /// Pixels of it, for people and other programs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub area: Option<f64>,
    /// 1 where it stands for many.
    #[serde(default, deserialize_with = "spelt::flag")]
    pub iscrowd: u8,
}

/// An object in the picture that it was marked in.
#[derive(Debug, Clone, PartialEq)]
pub struct MarkedObject {
    /// Index of its class.
    pub class: u32,
    /// Its box, which may reach beyond the picture.
    pub area: Rect,
    /// Whether it stands for many.
    pub crowd: bool,
    /// Its pixels.
    pub mask: Option<RunLength>,
}

/// The objects of a picture, as they were marked.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Objects {
    /// Columns of the picture that they were marked in.
    pub width: u32,
    /// Rows of it.
    pub height: u32,
    /// In the order of the member.
    pub marked: Vec<MarkedObject>,
}

impl Objects {
    /// Reads a member; where it names no size, the picture is of `size` (columns, rows).
    ///
    /// # Errors
    /// `BadObjects` for what is no JSON, has no annotations, a class that is not known, a box or mask that is none, no size at all.
    pub fn read(bytes: &[u8], reading: &ObjectReading, size: Option<(u32, u32)>) -> Result<Self, SampleError> {
        let bad = |detail: String| SampleError::BadObjects { detail };
        let member: ObjectMember = serde_json::from_slice(bytes).map_err(|e| bad(e.to_string()))?;
        let size = member.width.zip(member.height).or(size);
        let (width, height) = size.ok_or_else(|| {
            bad("width and height are missing, and the picture's file turns it (EXIF): nothing says whether the objects were marked before or after".into())
        })?;
        let number = member.annotations.len();
        if number > MOST {
            return Err(bad(format!("{number} annotations: at most {MOST}")));
        }
        let marked = member.annotations.into_iter().enumerate().map(|(n, annotation)| {
            let told = |detail: String| bad(format!("annotations[{n}]: {detail}"));
            marked(&annotation, reading, (width, height)).map_err(told)
        });
        Ok(Self {
            width,
            height,
            marked: marked.collect::<Result<_, _>>()?,
        })
    }

    /// The objects of a sample whose picture has this header, and how they are turned upright.
    ///
    /// # Errors
    /// `NoObjects`, `ObjectsSize`, those of [`Objects::read`].
    pub fn of_sample(raw: &RawSample, header: &Header, reading: &ObjectReading) -> Result<(Self, Orientation), SampleError> {
        let bytes = raw.objects.as_ref().ok_or_else(|| SampleError::NoObjects {
            member: reading.member.to_string(),
        })?;
        let size = header.orientation.is_upright().then_some((header.width, header.height));
        let objects = Self::read(bytes, reading, size)?;
        let orientation = lying((objects.width, objects.height), header)?;
        Ok((objects, orientation))
    }
}

/// How objects that were marked in a picture of `size` are turned so that they lie on the upright picture of this header.
///
/// # Errors
/// `ObjectsSize` for a picture of another size, and where nothing tells.
pub fn lying(size: (u32, u32), header: &Header) -> Result<Orientation, SampleError> {
    let (width, height) = header.upright();
    let refused = |detail: &'static str| {
        Err(SampleError::ObjectsSize {
            objects_width: size.0,
            objects_height: size.1,
            width,
            height,
            detail,
        })
    };
    match header.lies(size) {
        Lies::By(orientation) => Ok(orientation),
        Lies::OtherSize => refused(""),
        Lies::Unknown => refused(
            ": the picture's file turns it (EXIF), and nothing says whether the objects were marked in the turned picture; store the picture upright",
        ),
    }
}

fn marked(annotation: &MemberObject, reading: &ObjectReading, (width, height): (u32, u32)) -> Result<MarkedObject, String> {
    let class = match (annotation.category, annotation.category_id) {
        (Some(class), _) => class,
        (None, Some(id)) if reading.ids.is_empty() => u32::try_from(id).map_err(|_| format!("category_id {id} is no index of a class"))?,
        (None, Some(id)) => reading
            .ids
            .iter()
            .position(|known| *known == id)
            .ok_or_else(|| format!("category_id {id} is none of manifest.json"))? as u32,
        (None, None) => return Err("category is missing: the index of its class".into()),
    };
    if let Some(classes) = reading.classes.filter(|classes| class >= *classes) {
        return Err(format!("category {class}, where there are {classes} classes"));
    }
    if annotation.iscrowd > 1 {
        return Err(format!("iscrowd {}: 0 or 1", annotation.iscrowd));
    }
    let mask = annotation
        .segmentation
        .as_ref()
        .filter(|s| !s.is_empty())
        .map(|s| s.mask(height, width))
        .transpose()?;
    let [x, y, width, height] = match (annotation.bbox, &mask) {
        (None, Some(mask)) => mask.bounds(),
        (bbox, _) => box_of(bbox)?,
    };
    Ok(MarkedObject {
        class,
        area: Rect { x, y, width, height },
        crowd: annotation.iscrowd == 1,
        mask,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(annotation: &serde_json::Value) -> Result<MarkedObject, SampleError> {
        let reading = ObjectReading {
            classes: Some(3),
            ids: [0, 7, 90].into(),
            ..ObjectReading::default()
        };
        let member = json!({ "width": 6, "height": 4, "license": "none", "annotations": [annotation] });
        Objects::read(member.to_string().as_bytes(), &reading, None).map(|mut objects| objects.marked.remove(0))
    }

    #[test]
    fn boxes_outlines_and_runs_are_read_and_classes_by_index_or_number() {
        let by_index =
            read(&json!({ "category": 2, "bbox": [1, 1, 3, 2], "segmentation": [[1, 1, 4, 1, 4, 3, 1, 3]], "iscrowd": 1 })).unwrap();
        let by_number = read(&json!({ "category_id": 90, "segmentation": { "size": [4, 6], "counts": [5, 2, 2, 2, 2, 2, 9] } })).unwrap();
        assert_eq!((by_index.class, by_index.crowd), (2, true));
        assert_eq!((by_number.class, by_number.crowd), (2, false));
        assert_eq!(by_index.mask, by_number.mask);
        assert_eq!(by_index.area, by_number.area, "a box that is not named is that of the mask");
        assert_eq!(read(&json!({ "category_id": 0, "bbox": [0, 0, 1, 1] })).unwrap().mask, None);
        let as_tools_spell_it = read(&json!({ "category": 2.0, "category_id": null, "bbox": [0, 0, 1, 1], "iscrowd": false })).unwrap();
        assert_eq!((as_tools_spell_it.class, as_tools_spell_it.crowd), (2, false));
    }

    #[test]
    fn what_is_no_object_is_refused_with_place_and_value() {
        for (annotation, words) in [
            (
                json!({ "category": 3, "bbox": [0, 0, 1, 1] }),
                "annotations[0]: category 3, where there are 3 classes",
            ),
            (
                json!({ "category_id": 1, "bbox": [0, 0, 1, 1] }),
                "category_id 1 is none of manifest.json",
            ),
            (json!({ "bbox": [0, 0, 1, 1] }), "category is missing"),
            (json!({ "category": 0 }), "bbox is missing"),
            (json!({ "category": 0, "bbox": [0, 0, -1, 1] }), "bbox [0.0, 0.0, -1.0, 1.0]"),
            (
                json!({ "category": 0, "bbox": [0, 0, 1] }),
                "annotations[0]: bbox [0.0, 0.0, 1.0, NaN]",
            ),
            (json!({ "category": 0.5, "bbox": [0, 0, 1, 1] }), "0.5 is no whole number"),
            (json!({ "category": 0, "bbox": [0, 0, 1, 1], "iscrowd": 2 }), "iscrowd 2"),
            (json!({ "category": 0, "segmentation": [[0, 0, 1, 1]] }), "three corners"),
            (
                json!({ "category": 0, "segmentation": [[0, 0, 1e9, 0, 3, 3]] }),
                "in or near the picture",
            ),
            (
                json!({ "category": 0, "segmentation": { "size": [6, 4], "counts": [24] } }),
                "the picture has [4, 6]",
            ),
            (
                json!({ "category": 0, "segmentation": { "size": [4, 6], "counts": [23] } }),
                "runs of 23 pixels",
            ),
            (
                json!({ "category": 0, "segmentation": "mask.png" }),
                "\"mask.png\" is neither polygons",
            ),
        ] {
            let error = read(&annotation).unwrap_err();
            assert!(
                error.reason() == "bad_objects" && error.to_string().contains(words),
                "{words}: {error}"
            );
        }
        let reading = ObjectReading::default();
        let no_list = Objects::read(br#"{"caption": "a dog", "width": 3}"#, &reading, None).unwrap_err();
        assert!(no_list.to_string().contains("missing field `annotations`"), "{no_list}");
        let no_size = Objects::read(br#"{"annotations": []}"#, &reading, None).unwrap_err();
        assert!(no_size.to_string().contains("width and height are missing"), "{no_size}");
        let many = json!({ "annotations": vec![json!({ "category": 0, "bbox": [0, 0, 1, 1] }); MOST + 1] });
        let many = Objects::read(many.to_string().as_bytes(), &reading, Some((6, 4))).unwrap_err();
        assert!(many.to_string().contains("10001 annotations: at most 10000"), "{many}");
    }
}
