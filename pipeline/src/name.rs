//! Names as tars and folders hold them: bytes. Text is made of them only to show them.

use std::fmt;

use icu_normalizer::ComposingNormalizer;

/// The name of a sample or a file: compared, hashed and sorted as the bytes that it is written with, in whatever encoding.
///
/// `Display` shows it by [`shown`].
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Name(Box<[u8]>);

impl Name {
    /// The bytes as written.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl From<&[u8]> for Name {
    fn from(bytes: &[u8]) -> Self {
        Self(bytes.into())
    }
}

impl From<&str> for Name {
    fn from(text: &str) -> Self {
        text.as_bytes().into()
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&shown(&self.0))
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

/// Bytes of a name as one line of readable text; two different names never give the same text.
///
/// UTF-8 stays as it is. Escaped are bytes of other encodings (`\xe9`), what does not print (`\n`, `\0`, `\u{200b}`) and the backslash; and
/// all that is not ASCII of a name that is not in Unicode's form NFC (macOS writes `é` as `e` and an accent), which would look like the name
/// that is.
///
/// [`crate::printable::printable`] is another rule, for names that are kept in files: manifests in the world hold class names by it, and evaluations
/// match the classes of two sets by these names. Were it this rule, a folder whose name macOS wrote would be another class in a set packed
/// today than in one packed last year. This one serves eyes and logs only, and may change.
#[must_use]
pub fn shown(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        let text = chunk.valid();
        let composed = text.is_ascii() || ComposingNormalizer::new_nfc().is_normalized(text);
        for c in text.chars() {
            match c {
                '\\' => out.push_str("\\\\"),
                ' '..='~' => out.push(c),
                _ if composed => out.extend(format!("a{c}").escape_debug().skip(1)),
                _ => out.extend(c.escape_default()),
            }
        }
        out.extend(chunk.invalid().iter().map(|byte| format!("\\x{byte:02x}")));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_are_readable_and_what_cannot_be_read_is_escaped() {
        for (name, text) in [
            (&b"d/it's \"x\".jpg"[..], "d/it's \"x\".jpg"),
            ("größe-ไทยที่-नि".as_bytes(), "größe-ไทยที่-नि"),
            (b"caf\xe9", "caf\\xe9"),
            (b"a\nb\0\x1b[31m\\xe9", "a\\nb\\0\\u{1b}[31m\\\\xe9"),
            ("e\u{301}te\u{301}".as_bytes(), "e\\u{301}te\\u{301}"),
            ("a\u{200b}b".as_bytes(), "a\\u{200b}b"),
        ] {
            assert_eq!(shown(name), text);
        }
        assert_eq!(format!("{0} {0:?}", Name::from("k\n")), "k\\n \"k\\n\"");
    }

    proptest! {
        #[test]
        fn two_names_never_look_alike(a in names(), b in names()) {
            prop_assert_eq!(a == b, shown(&a) == shown(&b), "{} {}", shown(&a), shown(&b));
            prop_assert!(!shown(&a).contains(char::is_control));
        }
    }

    /// Bytes in which everything that is escaped, and its escapes, come close together.
    fn names() -> impl Strategy<Value = Vec<u8>> {
        let pieces = [
            "\\", "x", "e", "9", "\n", "n", "\0", "0", "é", "e\u{301}", "\u{301}", "u{301}", "Å", "\u{212b}",
        ]
        .map(|p| p.as_bytes().to_vec());
        let piece = prop_oneof![4 => proptest::sample::select(pieces.to_vec()), 1 => proptest::collection::vec(any::<u8>(), 1)];
        proptest::collection::vec(piece, 0..4).prop_map(|p| p.concat())
    }
}
