//! Numbers that must come back bit for bit, as JSON can hold them.
//!
//! JSON has no NaN and no infinity (serde_json writes `null`, which is no number when it is read), and serde_json rounds what it reads in the last bit.
//! So such a number is written as a string in Rust's shortest form, which reads back exactly: `"0.1"`, `"-0.0"`, `"inf"`, `"NaN"`. A NaN of other
//! bits than [`f64::NAN`]'s carries them: `"NaN:fff8000000000000"`. Use it with `#[serde(with = "crate::exact")]`.

use std::collections::{BTreeMap, VecDeque};

use serde::de::{DeserializeOwned, Error};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// One number in its written form.
#[derive(Debug, Clone, Copy)]
pub struct Written(f64);

impl Serialize for Written {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let text = if self.0.is_nan() && self.0.to_bits() != f64::NAN.to_bits() {
            format!("NaN:{:016x}", self.0.to_bits())
        } else {
            format!("{:?}", self.0)
        };
        serializer.serialize_str(&text)
    }
}

/// What may stand in a file: the string, or what older versions wrote (a number, or `null` for one that is not finite).
#[derive(Deserialize)]
#[serde(untagged)]
enum Found {
    Text(String),
    Number(f64),
    Null,
}

impl<'de> Deserialize<'de> for Written {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = match Found::deserialize(deserializer)? {
            Found::Number(number) => Some(number),
            Found::Null => Some(f64::NAN),
            Found::Text(text) => match text.strip_prefix("NaN:") {
                Some(bits) => u64::from_str_radix(bits, 16).ok().map(f64::from_bits).filter(|n| n.is_nan()),
                None => text.parse().ok(),
            },
        };
        number
            .map(Self)
            .ok_or_else(|| D::Error::custom("expected a number in quotes, such as \"0.1\", \"inf\" or \"NaN\""))
    }
}

/// Data whose floats are written exactly.
pub trait Exact: Sized {
    /// Its form in a file.
    type Form: Serialize + DeserializeOwned;
    /// To that form.
    fn form(&self) -> Self::Form;
    /// Back from it.
    fn of(form: Self::Form) -> Self;
}

impl Exact for f64 {
    type Form = Written;
    fn form(&self) -> Written {
        Written(*self)
    }
    fn of(form: Written) -> Self {
        form.0
    }
}

impl Exact for u64 {
    type Form = Self;
    fn form(&self) -> Self {
        *self
    }
    fn of(form: Self) -> Self {
        form
    }
}

impl<A: Exact, B: Exact> Exact for (A, B) {
    type Form = (A::Form, B::Form);
    fn form(&self) -> Self::Form {
        (self.0.form(), self.1.form())
    }
    fn of(form: Self::Form) -> Self {
        (A::of(form.0), B::of(form.1))
    }
}

impl<T: Exact> Exact for Option<T> {
    type Form = Option<T::Form>;
    fn form(&self) -> Self::Form {
        self.as_ref().map(T::form)
    }
    fn of(form: Self::Form) -> Self {
        form.map(T::of)
    }
}

impl<T: Exact> Exact for VecDeque<T> {
    type Form = Vec<T::Form>;
    fn form(&self) -> Self::Form {
        self.iter().map(T::form).collect()
    }
    fn of(form: Self::Form) -> Self {
        form.into_iter().map(T::of).collect()
    }
}

impl<T: Exact> Exact for BTreeMap<String, T> {
    type Form = BTreeMap<String, T::Form>;
    fn form(&self) -> Self::Form {
        self.iter().map(|(name, value)| (name.clone(), value.form())).collect()
    }
    fn of(form: Self::Form) -> Self {
        form.into_iter().map(|(name, value)| (name, T::of(value))).collect()
    }
}

/// For `#[serde(with = "crate::exact")]`.
///
/// # Errors
/// The serializer's.
pub fn serialize<T: Exact, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
    value.form().serialize(serializer)
}

/// For `#[serde(with = "crate::exact")]`.
///
/// # Errors
/// A string that is no number.
pub fn deserialize<'de, T: Exact, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    T::Form::deserialize(deserializer).map(T::of)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Serialize, Deserialize)]
    struct Holder {
        #[serde(with = "crate::exact")]
        all: VecDeque<Option<(f64, u64)>>,
    }

    fn there_and_back(value: f64) -> f64 {
        let holder = Holder {
            all: [Some((value, 3)), None].into(),
        };
        let text = serde_json::to_string(&holder).unwrap();
        let back: Holder = serde_json::from_str(&text).unwrap();
        assert!(back.all[1].is_none(), "{text}");
        back.all[0].unwrap().0
    }

    proptest! {
        #[test]
        fn every_bit_pattern_comes_back(bits: u64) {
            prop_assert_eq!(there_and_back(f64::from_bits(bits)).to_bits(), bits);
        }
    }

    #[test]
    fn what_json_cannot_hold_comes_back_too() {
        for value in [f64::NAN, -f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -0.0, f64::MIN_POSITIVE / 8.0] {
            assert_eq!(there_and_back(value).to_bits(), value.to_bits(), "{value}");
        }
        // serde_json alone reads a neighbour of this one.
        assert_eq!(
            there_and_back(8.178_466_796_875e-307).to_bits(),
            8.178_466_796_875e-307f64.to_bits()
        );
    }

    #[test]
    fn numbers_and_nulls_of_older_files_are_read_and_other_text_is_refused() {
        let read = |text: &str| serde_json::from_str::<Written>(text).map(|w| w.0);
        assert_eq!(read("1.5").unwrap(), 1.5);
        assert!(read("null").unwrap().is_nan());
        for bad in ["\"one\"", "\"NaN:0\"", "\"NaN:xyz\"", "\"\"", "true", "[]"] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
