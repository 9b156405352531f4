//! What a member's name says: key and extension, and whether a subset holds the key.

use crate::seed::{Purpose, derive, mix};

/// Whether a subset of `fraction` holds the sample with this key. The same in every run, and a smaller subset lies inside a larger one;
/// classes keep their shares within the spread of a fair draw.
#[must_use]
pub fn in_subset(key: &str, fraction: f64) -> bool {
    if fraction >= 1.0 {
        return true;
    }
    let hash = key.as_bytes().chunks(8).fold(key.len() as u64, |hash, chunk| {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        mix(hash ^ u64::from_le_bytes(word))
    });
    // 53 bits, exact in f64.
    ((derive(0, Purpose::Subset, hash, 0, 0) >> 11) as f64) < fraction * (1u64 << 53) as f64
}

/// Key and extension of a member: the path is cut at the first dot of its file name. `None` for names without either.
#[must_use]
pub fn split_name(path: &str) -> Option<(&str, &str)> {
    let file = path.rfind('/').map_or(0, |slash| slash + 1);
    let dot = file + path[file..].find('.')?;
    let (key, extension) = (&path[..dot], &path[dot + 1..]);
    (dot > file && !extension.is_empty()).then_some((key, extension))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_cut_at_the_first_dot_of_the_file_name() {
        assert_eq!(split_name("a.b/c.seg.png"), Some(("a.b/c", "seg.png")));
        assert_eq!(split_name("c.JPG"), Some(("c", "JPG")));
        for name in ["no_dot", "a.b/none", ".hidden.jpg", "a/.x", "x."] {
            assert_eq!(split_name(name), None, "{name}");
        }
    }
}
