//! Numbers of COCO's files as tools spell them: whole numbers as `64.0`, flags as `false`, boxes of another number of sides.

use std::fmt;

use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer};

/// Beyond it a real number no longer stands for one whole number.
const LARGEST: f64 = (1u64 << 53) as f64;

/// A whole number from 0, also where it is spelt with a point.
struct Whole;

impl Visitor<'_> for Whole {
    type Value = u64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a whole number from 0")
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<u64, E> {
        Ok(number)
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<u64, E> {
        u64::try_from(number).map_err(|_| E::custom(format_args!("{number} is no whole number from 0")))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<u64, E> {
        if (0.0..=LARGEST).contains(&number) && number.fract() == 0.0 {
            return Ok(number as u64);
        }
        Err(E::custom(format_args!("{number} is no whole number from 0")))
    }
}

/// 0 or 1, also as `false` or `true`.
struct Flag;

impl Visitor<'_> for Flag {
    type Value = u8;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("0 or 1")
    }

    fn visit_bool<E: Error>(self, set: bool) -> Result<u8, E> {
        Ok(set.into())
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<u8, E> {
        u8::try_from(number).map_err(|_| E::custom(format_args!("iscrowd {number}: 0 or 1")))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<u8, E> {
        self.visit_u64(Whole.visit_f64(number)?)
    }
}

/// A whole number from 0: an id, an index, a number of pixels.
///
/// # Errors
/// What is none, and what the field's type does not hold.
pub fn whole<'de, D: Deserializer<'de>, N: TryFrom<u64>>(from: D) -> Result<N, D::Error> {
    let number = from.deserialize_any(Whole)?;
    N::try_from(number).map_err(|_| D::Error::custom(format_args!("{number} is too large")))
}

/// The same, where it may be missing or `null`.
///
/// # Errors
/// As [`whole`].
pub fn whole_or_none<'de, D: Deserializer<'de>, N: TryFrom<u64>>(from: D) -> Result<Option<N>, D::Error> {
    #[derive(Deserialize)]
    #[serde(bound = "N: TryFrom<u64>")]
    struct Given<N>(#[serde(deserialize_with = "whole")] N);
    Ok(Option::<Given<N>>::deserialize(from)?.map(|Given(number)| number))
}

/// 0 or 1.
///
/// # Errors
/// A number above 255, and what is neither a number nor `false` or `true`; 2 to 255 are the reader's to refuse, who knows the object.
pub fn flag<'de, D: Deserializer<'de>>(from: D) -> Result<u8, D::Error> {
    from.deserialize_any(Flag)
}

/// The sides of a box. Those that are missing are no numbers, so that the annotation is left out as one with a bad box, and the file is read on; so is the last
/// side of one that has more than four.
///
/// # Errors
/// What is no list of numbers.
pub fn sides<'de, D: Deserializer<'de>>(from: D) -> Result<Option<[f64; 4]>, D::Error> {
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
            (json!({ "id": "7" }), "string \"7\", expected a whole number"),
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
