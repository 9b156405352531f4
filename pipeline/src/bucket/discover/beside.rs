//! What lies beside the shards of a place: its name says whether it is a shard, or looks like one to people and is none to the stream.

use crate::bucket::differences::Difference;
use crate::bucket::manifest::MANIFEST_NAME;

/// Endings of compressed tars and of other archives, which cannot be read from any place in them.
const COMPRESSED: [&str; 14] = [
    ".tar.gz",
    ".tar.bz2",
    ".tar.xz",
    ".tar.zst",
    ".tar.lz4",
    ".tar.lzma",
    ".tgz",
    ".tbz",
    ".tbz2",
    ".txz",
    ".tzst",
    ".zip",
    ".7z",
    ".rar",
];
/// Names of one kind that an error lists.
const NAMED: usize = 3;

fn ends_with(name: &[u8], ending: &str) -> bool {
    let from = name.len().checked_sub(ending.len());
    from.is_some_and(|from| name[from..].eq_ignore_ascii_case(ending.as_bytes()))
}

/// Whether a file of this name is a shard: `*.tar` in any case of letters.
pub(super) fn is_shard(name: &[u8]) -> bool {
    ends_with(name, ".tar")
}

/// Whether a folder that holds a file of this name directly in it is a place of shards.
pub(super) fn makes_a_place(name: &[u8]) -> bool {
    is_shard(name) || name == MANIFEST_NAME.as_bytes()
}

/// What is told of a file of this name that is read neither as a shard nor as anything else.
pub(super) fn compressed(name: &[u8], shown: impl FnOnce() -> String) -> Option<Difference> {
    let compressed = COMPRESSED.iter().any(|ending| ends_with(name, ending));
    compressed.then(|| Difference::Compressed { file: shown() })
}

/// What to add to the words that a place has no shards.
pub(super) fn instead(beside: &[Difference]) -> String {
    let list = |names: Vec<&str>| {
        let more = names.len().saturating_sub(NAMED);
        let shown = names.into_iter().take(NAMED).collect::<Vec<_>>().join(", ");
        (!shown.is_empty()).then(|| match more {
            0 => shown,
            more => format!("{shown} and {more} more"),
        })
    };
    let folders = list(
        beside
            .iter()
            .filter_map(|d| match d {
                Difference::Folder { folder } => Some(folder.as_str()),
                _ => None,
            })
            .collect(),
    );
    let files = list(
        beside
            .iter()
            .filter_map(|d| match d {
                Difference::Compressed { file } => Some(file.as_str()),
                _ => None,
            })
            .collect(),
    );
    let mut text = String::new();
    if let Some(folders) = folders {
        text.push_str(&format!("; there are shards one folder further: did you mean {folders}?"));
    }
    if let Some(files) = files {
        text.push_str(&format!(
            "; there is {files}, but compressed archives are not read: decompress them"
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_shards_and_of_what_people_take_for_shards() {
        for shard in ["a.tar", "A.TAR", ".tar", "a.tar.gz.tar"] {
            assert!(
                is_shard(shard.as_bytes()) && compressed(shard.as_bytes(), String::new).is_none(),
                "{shard}"
            );
        }
        for archive in ["a.tar.gz", "a.TGZ", "a.tar.zst", "b.zip"] {
            let told = compressed(archive.as_bytes(), || archive.into());
            assert!(!is_shard(archive.as_bytes()) && told.is_some(), "{archive}");
        }
        for other in ["tar", "words.safetensors", "a.tart", "gz", ""] {
            assert!(
                !is_shard(other.as_bytes()) && compressed(other.as_bytes(), String::new).is_none(),
                "{other}"
            );
        }
        assert!(makes_a_place(b"manifest.json") && !makes_a_place(b"a.json"));
    }

    #[test]
    fn an_empty_place_names_what_is_there_instead() {
        let folder = |n: usize| Difference::Folder { folder: format!("d/{n}") };
        let file = Difference::Compressed { file: "d/a.tgz".into() };
        assert_eq!(instead(&[]), "");
        let text = instead(&[folder(0), folder(1), folder(2), folder(3), file]);
        assert!(
            text.contains("did you mean d/0, d/1, d/2 and 1 more?") && text.contains("there is d/a.tgz"),
            "{text}"
        );
    }
}
