//! Numbers of COCO's files as tools spell them: whole numbers as `64.0`, flags as `false`, boxes of another number of sides.

use serde::de::Error;
use serde::{Deserialize, Deserializer};

/// A whole number, also where it is spelt with a point.
#[derive(Deserialize)]
#[serde(untagged)]
enum Number {
    Whole(u64),
    Real(f64),
}

fn whole<E: Error>(number: &Number) -> Result<u64, E> {
    match *number {
        Number::Whole(whole) => Ok(whole),
        // 2^53: beyond it a real number no longer stands for one whole number.
        Number::Real(real) if (0.0..=9_007_199_254_740_992.0).contains(&real) && real.fract() == 0.0 => Ok(real as u64),
        Number::Real(real) => Err(E::custom(format_args!("{real} is no whole number from 0"))),
    }
}

/// An id.
pub(super) fn id<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    whole(&Number::deserialize(from)?)
}

/// A number of pixels.
pub(super) fn pixels<'de, D: Deserializer<'de>>(from: D) -> Result<u32, D::Error> {
    let number = whole(&Number::deserialize(from)?)?;
    u32::try_from(number).map_err(|_| D::Error::custom(format_args!("{number} pixels are too many")))
}

/// 0 or 1, also as `false` or `true`.
pub(super) fn flag<'de, D: Deserializer<'de>>(from: D) -> Result<u8, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Flag {
        Bool(bool),
        Number(Number),
    }
    match Flag::deserialize(from)? {
        Flag::Bool(set) => Ok(set.into()),
        Flag::Number(number) => {
            let number = whole(&number)?;
            u8::try_from(number).map_err(|_| D::Error::custom(format_args!("iscrowd {number}: 0 or 1")))
        }
    }
}

/// The sides of a box. Those that are missing are no numbers, so that the annotation is left out as one with a bad box, and the file is read on; so is the last
/// side of one that has more than four.
pub(super) fn sides<'de, D: Deserializer<'de>>(from: D) -> Result<Option<[f64; 4]>, D::Error> {
    let Some(given) = Option::<Vec<f64>>::deserialize(from)? else {
        return Ok(None);
    };
    let mut sides = [f64::NAN; 4];
    for (side, number) in sides.iter_mut().zip(&given) {
        *side = *number;
    }
    if given.len() > 4 {
        sides[3] = f64::NAN;
    }
    Ok(Some(sides))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::coco::{AnnotatedPicture, Annotation};

    fn annotation(more: &serde_json::Value) -> Result<Annotation, String> {
        let mut all = json!({ "id": 1, "image_id": 2, "category_id": 3 });
        all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        serde_json::from_value(all).map_err(|e| e.to_string())
    }

    #[test]
    fn whole_numbers_may_have_a_point_and_flags_be_words() {
        let picture: AnnotatedPicture = serde_json::from_value(json!({ "id": 4.0, "height": 64.0, "width": 96 })).unwrap();
        assert_eq!((picture.id, picture.height, picture.width), (4, 64, 96));
        let read = annotation(&json!({ "iscrowd": false })).unwrap();
        assert_eq!((read.iscrowd, read.bbox), (0, None));
        assert_eq!(annotation(&json!({ "iscrowd": true })).unwrap().iscrowd, 1);
        assert_eq!(annotation(&json!({ "iscrowd": 1.0 })).unwrap().iscrowd, 1);
        for (wrong, told) in [
            (json!({ "id": 1.5 }), "1.5 is no whole number"),
            (json!({ "id": -1 }), "-1 is no whole number"),
            (json!({ "iscrowd": 300 }), "iscrowd 300"),
        ] {
            let error = annotation(&wrong).unwrap_err();
            assert!(error.contains(told), "{error}");
        }
    }

    #[test]
    fn a_box_of_other_than_four_sides_is_no_box_and_no_end_of_the_file() {
        let read = |sides: serde_json::Value| annotation(&json!({ "bbox": sides })).unwrap().bbox;
        assert_eq!(read(json!([1, 2, 3, 4])), Some([1.0, 2.0, 3.0, 4.0]));
        assert_eq!(read(json!(null)), None);
        let three = read(json!([1, 2, 3])).unwrap();
        assert!(three[..3] == [1.0, 2.0, 3.0] && three[3].is_nan());
        assert!(read(json!([1, 2, 3, 4, 5])).unwrap()[3].is_nan());
        assert!(crate::coco::box_of(read(json!([]))).is_err());
    }
}
