//! The values that a setting can choose from, asked of its type.

use std::fmt::{self, Display};

use serde::de::{Deserialize, DeserializeOwned, Deserializer, Error, Visitor};
use serde::forward_to_deserialize_any;

/// The names that a configuration may write for an enumeration `T`, in the order of their declaration; none where `T` is no enumeration.
#[must_use]
pub fn choices<T: DeserializeOwned>() -> &'static [&'static str] {
    match Deserialize::deserialize(Question) {
        Ok(value) => {
            let _: T = value;
            &[]
        }
        Err(Answer(names)) => names,
    }
}

/// A value that holds nothing: a type that wants to read an enumeration from it tells its names.
struct Question;

/// The names, carried as an error because that is the only way out of serde's call.
#[derive(Debug)]
struct Answer(&'static [&'static str]);

impl Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

impl std::error::Error for Answer {}

impl Error for Answer {
    fn custom<T: Display>(_: T) -> Self {
        Self(&[])
    }
}

impl<'de> Deserializer<'de> for Question {
    type Error = Answer;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Answer> {
        Err(Answer(&[]))
    }

    fn deserialize_enum<V: Visitor<'de>>(self, _: &'static str, names: &'static [&'static str], _: V) -> Result<V::Value, Answer> {
        Err(Answer(names))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct newtype_struct seq tuple
        tuple_struct map struct identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Deserialize)]
    #[serde(rename_all = "kebab-case")]
    enum Colour {
        Red,
        DarkGreen,
    }

    #[test]
    fn an_enumeration_tells_its_names_and_nothing_else_does() {
        assert_eq!(choices::<Colour>(), ["red", "dark-green"]);
        assert_eq!(choices::<u32>(), [""; 0]);
        assert_eq!(choices::<String>(), [""; 0]);
        assert_eq!(choices::<[f64; 3]>(), [""; 0]);
        assert_eq!(choices::<Vec<Colour>>(), [""; 0]);
    }
}
