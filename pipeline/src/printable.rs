//! Names of files and folders as manifests, reports and packed samples keep them: text from which the bytes can be had again.

/// A name as text that can be printed, put into JSON and compared: equal if and only if the bytes are.
///
/// Bytes that are no UTF-8 and control characters become `\x` and two hexadecimal digits each; so does a backslash before an `x`, and
/// everything else stays as it is. What stands in manifests must be read for ever, so this rule never changes; what people are shown of names
/// follows [`crate::name::shown`], which also tells apart what merely looks alike. `b"K\xe4se"` (Latin-1) becomes `K\xe4se`, and a folder that is really called so becomes `K\x5cxe4se`.
#[must_use]
pub fn printable(name: &[u8]) -> String {
    use std::fmt::Write;
    let mut text = String::with_capacity(name.len());
    let escape = |text: &mut String, bytes: &[u8]| {
        for byte in bytes {
            let _ = write!(text, "\\x{byte:02x}");
        }
    };
    for chunk in name.utf8_chunks() {
        let mut characters = chunk.valid().chars().peekable();
        while let Some(c) = characters.next() {
            if c.is_control() || c == '\\' && characters.peek() == Some(&'x') {
                escape(&mut text, c.encode_utf8(&mut [0; 4]).as_bytes());
            } else {
                text.push(c);
            }
        }
        escape(&mut text, chunk.invalid());
    }
    text
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ordinary_names_stay_and_others_can_be_told_apart() {
        for (name, text) in [
            (&b"animals/birds"[..], "animals/birds"),
            ("Käse 鳥".as_bytes(), "Käse 鳥"),
            (b"K\xe4se", r"K\xe4se"),
            (br"K\xe4se", r"K\x5cxe4se"),
            (br"back\slash\", r"back\slash\"),
            (b"two\nlines\x1b[31m", r"two\x0alines\x1b[31m"),
            (b"\xe2\x82", r"\xe2\x82"),
        ] {
            assert_eq!(printable(name), text);
        }
    }

    /// What [`printable`] escaped, unescaped: there is one name for each text.
    fn bytes_of(text: &str) -> Vec<u8> {
        let mut bytes = vec![];
        let mut rest = text.as_bytes();
        while let Some((&first, tail)) = rest.split_first() {
            if rest.starts_with(br"\x") {
                bytes.push(u8::from_str_radix(std::str::from_utf8(&rest[2..4]).unwrap(), 16).unwrap());
                rest = &rest[4..];
            } else {
                bytes.push(first);
                rest = tail;
            }
        }
        bytes
    }

    proptest! {
        #[test]
        fn no_two_names_look_alike(names in proptest::collection::vec(proptest::collection::vec(prop_oneof![Just(b'\\'), Just(b'x'), Just(b'5'), Just(b'c'), any::<u8>()], 0..8), 1..50)) {
            let mut seen: HashMap<String, Vec<u8>> = HashMap::new();
            for name in names {
                let text = printable(&name);
                prop_assert_eq!(&bytes_of(&text), &name);
                prop_assert!(!text.chars().any(char::is_control));
                prop_assert_eq!(seen.entry(text).or_insert_with(|| name.clone()), &name);
            }
        }
    }
}
