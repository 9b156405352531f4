//! What the name of a tar's member says: which sample it belongs to, and what it is of it.

pub use crate::decode::EXTENSIONS as IMAGE_EXTENSIONS;

/// How a member's name reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemberName<'a> {
    /// Of a sample, by WebDataset's rule: the path is cut at the first dot of its file name.
    Of {
        /// Path up to the dot: members with the same key are one sample.
        key: &'a [u8],
        /// What is behind the dot, as written.
        extension: &'a [u8],
    },
    /// A file or folder whose name begins with a dot, or macOS's `__MACOSX`: what file managers leave behind.
    Hidden,
    /// Without a dot, or with nothing behind it.
    NoExtension,
}

impl<'a> MemberName<'a> {
    /// Reads a path with `/` between its parts.
    #[must_use]
    pub fn parse(path: &'a [u8]) -> Self {
        let hidden = |part: &[u8]| part == b"__MACOSX" || part.starts_with(b".") && part != b"." && part != b"..";
        if path.split(|b| *b == b'/').any(hidden) {
            return Self::Hidden;
        }
        let file = path.iter().rposition(|b| *b == b'/').map_or(0, |slash| slash + 1);
        match path[file..].iter().position(|b| *b == b'.') {
            Some(dot) if dot > 0 && file + dot + 1 < path.len() => Self::Of {
                key: &path[..file + dot],
                extension: &path[file + dot + 1..],
            },
            _ => Self::NoExtension,
        }
    }
}

/// What a member is of its sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// A picture that may be the sample's image; of several, the one with the lowest number.
    Image(usize),
    /// A picture that is not what `data.image` asks for.
    OtherImage,
    /// The classes of its pixels, as a picture of numbers.
    Map,
    /// Its objects, as JSON.
    Objects,
    /// The index of its class, as text.
    Label,
    /// What `splitmask pack` knows about it, as JSON.
    About,
    /// Anything else.
    Other,
}

impl Role {
    /// By extension. `images` are the extensions of `data.image` in order of preference; without any, every picture may be the image, told by
    /// what is behind the last dot, but for one of the extension `map` (`data.map`), which is never the image unless `images` names it. `objects` is the extension of
    /// `data.objects`.
    #[must_use]
    pub fn of(extension: &[u8], images: &[String], map: &str, objects: &str) -> Self {
        let extension = extension.to_ascii_lowercase();
        let chosen = |image: &String| image.as_bytes().eq_ignore_ascii_case(&extension);
        if let Some(place) = images.iter().position(chosen) {
            return Self::Image(place);
        }
        if map.as_bytes().eq_ignore_ascii_case(&extension) {
            return Self::Map;
        }
        if objects.as_bytes().eq_ignore_ascii_case(&extension) {
            return Self::Objects;
        }
        let last = extension.rsplit(|b| *b == b'.').next().unwrap_or_default();
        if IMAGE_EXTENSIONS.iter().any(|e| e.as_bytes() == last) {
            return if images.is_empty() { Self::Image(0) } else { Self::OtherImage };
        }
        match extension.as_slice() {
            b"cls" => Self::Label,
            b"json" => Self::About,
            _ => Self::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of<'a>(key: &'a str, extension: &'a str) -> MemberName<'a> {
        MemberName::Of {
            key: key.as_bytes(),
            extension: extension.as_bytes(),
        }
    }

    #[test]
    fn names_are_cut_at_the_first_dot_of_the_file_name() {
        for (name, wanted) in [
            ("a.b/c.seg.png", of("a.b/c", "seg.png")),
            ("c.JPG", of("c", "JPG")),
            ("./../c.jpg", of("./../c", "jpg")),
            ("no_dot", MemberName::NoExtension),
            ("a.b/none", MemberName::NoExtension),
            ("x.", MemberName::NoExtension),
            ("", MemberName::NoExtension),
            (".hidden.jpg", MemberName::Hidden),
            ("a/.x", MemberName::Hidden),
            ("a/.thumbnails/b.jpg", MemberName::Hidden),
            ("__MACOSX/b.jpg", MemberName::Hidden),
            ("a/._b.jpg", MemberName::Hidden),
        ] {
            assert_eq!(MemberName::parse(name.as_bytes()), wanted, "{name}");
        }
        let latin = MemberName::parse(b"caf\xe9.png");
        assert!(matches!(
            latin,
            MemberName::Of {
                key: b"caf\xe9",
                extension: b"png"
            }
        ));
    }

    #[test]
    fn the_image_is_the_picture_or_what_was_chosen() {
        let chosen = ["input.png".to_owned(), "PNG".to_owned()];
        for (extension, any, of_chosen) in [
            ("png", Role::Image(0), Role::Image(1)),
            ("INPUT.png", Role::Image(0), Role::Image(0)),
            ("mask.png", Role::Image(0), Role::OtherImage),
            ("cls", Role::Label, Role::Label),
            ("fine.cls", Role::Other, Role::Other),
            ("json", Role::About, Role::About),
            ("heic", Role::Other, Role::Other),
            ("Seg.png", Role::Map, Role::Map),
            ("objects.JSON", Role::Objects, Role::Objects),
        ] {
            assert_eq!(
                (
                    Role::of(extension.as_bytes(), &[], "seg.png", "objects.json"),
                    Role::of(extension.as_bytes(), &chosen, "seg.png", "objects.json")
                ),
                (any, of_chosen),
                "{extension}"
            );
        }
        assert_eq!(Role::of(b"heic", &["heic".to_owned()], "", ""), Role::Image(0));
        assert_eq!(Role::of(b"seg.png", &["seg.png".to_owned()], "seg.png", ""), Role::Image(0));
        assert_eq!(Role::of(b"json", &[], "", "json"), Role::Objects, "data.objects = \"json\"");
        assert_eq!(Role::of(b"objects.json", &[], "", ""), Role::Other);
        assert_eq!(Role::of(b"seg.png", &[], "mask.png", ""), Role::Image(0));
    }
}
