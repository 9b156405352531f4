//! Trees that hold a training and a validation set side by side, as `train/cat/…` and `val/cat/…`: the layout that ImageNet made common.

use std::collections::{BTreeMap, BTreeSet};

use crate::printable::printable;

/// Names that such folders have, in any case of letters.
const TRAIN: [&str; 2] = ["train", "training"];
const VAL: [&str; 3] = ["val", "valid", "validation"];
const TEST: [&str; 2] = ["test", "testing"];

/// The folders of a tree's sets, by their names as written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SetFolders {
    pub(super) train: Vec<u8>,
    /// The validation images; of a tree without such a folder, the test images.
    pub(super) val: Vec<u8>,
    /// Test images beside validation images: of neither set.
    pub(super) test: Option<Vec<u8>>,
}

/// A tree that looks like two sets, but was taken for classes.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Resembled {
    /// The folder called as training images are.
    pub train: String,
    /// That of validation images, or of test images where there is none.
    pub val: String,
    /// Why it was not taken for sets.
    pub why: String,
}

/// Finds the sets of a tree from the paths of its images, if it is one: every image lies in a folder called `train`, `val` or `test` (or a
/// longer form), there are `train` and another one, and the two share the name of a class folder. A tree of classes that happens to have one
/// called `train` is none.
pub(super) fn recognise<'a>(paths: impl Iterator<Item = &'a [u8]>) -> Option<SetFolders> {
    let mut classes: BTreeMap<&[u8], BTreeSet<&[u8]>> = BTreeMap::new();
    for path in paths {
        let (top, below) = cut(path)?;
        let class = cut(below).map(|(class, _)| class);
        classes.entry(top).or_default().extend(class);
    }
    let called = |names: &[&str]| -> Option<Option<&[u8]>> {
        let mut found = classes
            .keys()
            .filter(|top| names.iter().any(|n| top.eq_ignore_ascii_case(n.as_bytes())));
        // Two of one kind (`val` and `validation`): not for a program to say which is meant.
        let first = found.next().copied();
        found.next().is_none().then_some(first)
    };
    let (train, val, test) = (called(&TRAIN)??, called(&VAL)?, called(&TEST)?);
    let known = 1 + usize::from(val.is_some()) + usize::from(test.is_some());
    let (val, test) = match val {
        Some(val) => (val, test),
        None => (test?, None),
    };
    let shared = !classes[train].is_disjoint(&classes[val]);
    (known == classes.len() && shared).then(|| SetFolders {
        train: train.to_vec(),
        val: val.to_vec(),
        test: test.map(<[u8]>::to_vec),
    })
}

/// The folders that are called as training and validation (or test) images are, in a tree that [`recognise`] does not take for sets, and why it does
/// not. Somebody should look: validation images in the training set make every evaluation too good.
pub(super) fn resembled<'a>(paths: impl Iterator<Item = &'a [u8]>) -> Option<Resembled> {
    let mut tops: BTreeMap<&[u8], BTreeSet<&[u8]>> = BTreeMap::new();
    let mut loose = 0u64;
    for path in paths {
        match cut(path) {
            Some((top, below)) => tops.entry(top).or_default().extend(cut(below).map(|(class, _)| class)),
            None => loose += 1,
        }
    }
    let first = |names: &[&str]| {
        let is = |top: &&[u8]| names.iter().any(|n| top.eq_ignore_ascii_case(n.as_bytes()));
        tops.keys().copied().find(is)
    };
    let (train, val) = (first(&TRAIN)?, first(&VAL).or_else(|| first(&TEST))?);
    let known = [&TRAIN[..], &VAL, &TEST].concat();
    let other = tops
        .keys()
        .find(|top| !known.iter().any(|n| top.eq_ignore_ascii_case(n.as_bytes())));
    let why = if loose > 0 {
        format!("{loose} images lie beside them")
    } else if let Some(other) = other {
        format!("there is {}/ too", printable(other))
    } else if tops[train].is_disjoint(&tops[val]) {
        "they have no class folder in common".into()
    } else {
        "there is more than one of a kind".into()
    };
    Some(Resembled {
        train: printable(train),
        val: printable(val),
        why,
    })
}

/// First folder of a path, and the rest; none for a file in the root.
pub(super) fn cut(path: &[u8]) -> Option<(&[u8], &[u8])> {
    let slash = path.iter().position(|b| *b == b'/')?;
    Some((&path[..slash], &path[slash + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(paths: &[&str]) -> Option<(String, String, Option<String>)> {
        let text = |b: Vec<u8>| String::from_utf8(b).unwrap();
        recognise(paths.iter().map(|p| p.as_bytes())).map(|s| (text(s.train), text(s.val), s.test.map(text)))
    }

    #[test]
    fn image_folder_trees_are_recognised_and_others_are_not() {
        let owned = |a: &str, b: &str, c: Option<&str>| Some((a.to_owned(), b.to_owned(), c.map(str::to_owned)));
        assert_eq!(found(&["train/a/1.png", "val/a/2.png"]), owned("train", "val", None));
        assert_eq!(
            found(&["Training/a/1.png", "Training/b/1.png", "VALID/b/2.png", "test/x.png"]),
            owned("Training", "VALID", Some("test"))
        );
        assert_eq!(found(&["train/a/b/1.png", "test/a/2.png"]), owned("train", "test", None));
        for none in [
            &["train/1.png", "val/2.png"][..],                  // no classes
            &["train/a/1.png", "val/b/2.png"],                  // none that both have
            &["train/a/1.png", "val/a/2.png", "loose.png"],     // an image of neither
            &["train/a/1.png", "bus/a/2.png", "val/a/2.png"],   // vehicles
            &["train/a/1.png"],                                 // one set
            &["train/a/1.png", "val/a/1.png", "valid/a/1.png"], // which one?
            &[],
        ] {
            assert_eq!(found(none), None, "{none:?}");
        }
    }

    #[test]
    fn trees_that_look_like_sets_are_told_with_the_reason_why_they_are_none() {
        let told = |paths: &[&str]| resembled(paths.iter().map(|p| p.as_bytes())).map(|r| format!("{} {}: {}", r.train, r.val, r.why));
        for (paths, expected) in [
            (
                &["train/a/1.png", "val/a/2.png", "loose.png"][..],
                Some("train val: 1 images lie beside them"),
            ),
            (
                &["Train/a/1.png", "bus/a/2.png", "Test/a/2.png"],
                Some("Train Test: there is bus/ too"),
            ),
            (
                &["train/1.png", "val/2.png"],
                Some("train val: they have no class folder in common"),
            ),
            (
                &["train/a/1.png", "val/a/1.png", "valid/a/1.png"],
                Some("train val: there is more than one of a kind"),
            ),
            (&["train/1.png", "bus/2.png"], None),
            (&["validation/1.png"], None),
        ] {
            assert_eq!(told(paths).as_deref(), expected, "{paths:?}");
        }
    }
}
