//! Shares have floors: training is never empty, no class is left without a training image, and an empty validation set is told.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use splitmask_pipeline::pack::ValFrom;
use tempfile::TempDir;

use super::{ImageFormat, PackOptions, PackReport, bytes, picture, put, run, tree};

fn image(number: u32) -> Vec<u8> {
    bytes(&picture(16, 16, number), ImageFormat::Png)
}

fn packed(input: &Path, output: &Path, change: impl FnOnce(&mut PackOptions)) -> PackReport {
    let mut options = PackOptions::new(input, output);
    change(&mut options);
    run(&options).unwrap()
}

#[test]
fn whatever_the_share_every_class_keeps_a_training_image() {
    let (input, out) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let sizes = [("one", 1), ("two", 2), ("ten", 10)];
    for (class, size) in sizes {
        for n in 0..size {
            put(input.path(), &format!("{class}/{n}.png"), &image(n * 16 + size));
        }
    }
    for share in [0.01, 0.1, 0.5, 0.9, 0.999_999] {
        let report = packed(input.path(), &out.path().join(share.to_string()), |o| o.val_share = share);
        assert_eq!(report.packed(), 13, "nothing is lost at {share}");
        assert!(
            report.train.label_counts.iter().all(|n| *n > 0),
            "{share}: {:?}",
            report.train.label_counts
        );
        let val = report.val.as_ref().map_or(0, |v| v.samples());
        assert!(share < 0.9 || val == 10, "{share}: {val}");
        let told = report.notes().iter().any(|n| n.contains("no val set") && n.contains("--val-share"));
        assert_eq!(told, val == 0, "{share}: {:?}", report.notes());
    }
}

#[test]
fn unlabelled_images_leave_one_for_training() {
    let (input, out) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    put(input.path(), "0.png", &image(1));
    let report = packed(input.path(), &out.path().join("o"), |o| o.val_share = 0.999);
    assert_eq!((report.train.samples(), report.val.is_none()), (1, true));
    assert!(report.notes()[0].contains("0 images"), "{:?}", report.notes());
}

/// Which images become unreadable is known only when they are decoded, in whatever order that is.
#[test]
fn a_floor_holds_where_training_images_turn_out_to_be_bad() {
    let (input, out) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    for n in 0..40 {
        put(input.path(), &format!("c/{n}.png"), &image(n));
    }
    // What the share leaves in training, read from a first pack.
    let first = packed(input.path(), &out.path().join("first"), |o| o.val_share = 0.5);
    assert!(first.moved_to_train == 0 && first.train.samples() > 10);
    let mut spoilt = 0;
    for (name, data) in super::members(&out.path().join("first/train")) {
        if name.ends_with(".json") {
            let about: serde_json::Value = serde_json::from_slice(&data).unwrap();
            fs::write(input.path().join(about["path"].as_str().unwrap()), b"spoilt").unwrap();
            spoilt += 1;
        }
    }
    let report = packed(input.path(), &out.path().join("second"), |o| o.val_share = 0.5);
    assert_eq!(report.packed(), 40 - spoilt);
    assert!(report.train.samples() >= 1 && report.moved_to_train == report.train.samples());
    assert!(report.notes().iter().any(|n| n.contains("went to train")), "{:?}", report.notes());
    assert!(out.path().join("second/train/000000.tar").exists());
    // At any number of threads.
    let again = packed(input.path(), &out.path().join("third"), |o| (o.val_share, o.threads) = (0.5, 7));
    assert_eq!(again.train.shards, report.train.shards);
    assert_eq!(again.val, report.val);
    assert!(tree(&out.path().join("second")) == tree(&out.path().join("third")));
}

/// Every image is the same, the first one packed is for validation, and duplicates are dropped.
#[test]
fn dropping_duplicates_never_empties_training() {
    for n in 0..8 {
        let (input, out) = (TempDir::new().unwrap(), TempDir::new().unwrap());
        for i in 0..6 {
            put(input.path(), &format!("{n}-{i}.png"), &image(1));
        }
        let report = packed(input.path(), &out.path().join("o"), |o| {
            (o.val_share, o.drop_duplicates) = (0.5, true);
        });
        assert_eq!((report.train.samples(), report.packed(), report.val.is_none()), (1, 1, true));
        assert_eq!(report.refused["duplicate"].files, 5);
        assert!(out.path().join("o/train/000000.tar").exists() && !out.path().join("o/val").exists());
        assert!(report.notes().iter().any(|n| n.contains("no val set")), "{:?}", report.notes());
    }
}

#[test]
fn a_folder_of_validation_images_is_used_as_it_is_and_shares_the_list_of_classes() {
    let (input, out) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    for (n, path) in ["t/a/1.png", "t/b/1.png", "t/c/1.png", "v/b/1.png", "v/c/2.png", "v/d/1.png"]
        .iter()
        .enumerate()
    {
        put(input.path(), path, &image(n as u32));
    }
    let report = packed(&input.path().join("t"), &out.path().join("o"), |o| {
        o.val = Some(input.path().join("v"));
    });
    let val = report.val.as_ref().unwrap();
    assert_eq!(report.train.classes, ["a", "b", "c", "d"]);
    assert_eq!(val.classes, report.train.classes);
    assert_eq!(
        (&report.train.label_counts[..], &val.label_counts[..]),
        (&[1, 1, 1, 0][..], &[0, 1, 1, 1][..])
    );
    assert!(
        report
            .notes()
            .iter()
            .any(|n| n.contains("in val but not in train") && n.ends_with(": d")),
        "{:?}",
        report.notes()
    );
    assert_eq!(report.val_from, ValFrom::Folder);
    // Also where it lies inside the other.
    let whole = packed(input.path(), &out.path().join("p"), |o| o.val = Some(input.path().join("v")));
    assert_eq!((whole.train.samples(), whole.val.unwrap().samples()), (3, 3));
    let both = PackOptions {
        val: Some(input.path().join("v")),
        val_share: 0.1,
        ..PackOptions::new(input.path(), out.path().join("q"))
    };
    assert!(run(&both).unwrap_err().to_string().contains("share of val"));
    let none = PackOptions {
        val: Some(input.path().join("none")),
        ..PackOptions::new(input.path(), out.path().join("q"))
    };
    assert!(run(&none).unwrap_err().to_string().contains("no such folder"));
}

#[test]
fn a_tree_of_train_and_val_is_recognised_and_its_classes_are_those_below() {
    let (input, out) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    for (n, path) in ["train/a/1.png", "train/b/1.png", "val/a/1.png", "test/x/1.png"].iter().enumerate() {
        put(input.path(), path, &image(n as u32));
    }
    let report = packed(input.path(), &out.path().join("o"), |_| {});
    assert_eq!(report.train.classes, ["a", "b"]);
    assert_eq!((report.train.samples(), report.val.as_ref().unwrap().samples()), (2, 1));
    assert_eq!(report.val_from, ValFrom::Sets("train".into(), "val".into()));
    assert_eq!(report.passed_over["test_set"].examples, ["test/x/1.png"]);
    assert!(report.notes()[0].contains("--class path"), "{:?}", report.notes());
    // Asked for classes, it gives them, and says what it saw; so it does for a share.
    type Change = fn(&mut PackOptions);
    let changes: BTreeMap<&str, Change> = BTreeMap::from([
        ("class", (|o| o.recognise_sets = false) as Change),
        ("share", |o| o.val_share = 0.3),
    ]);
    for (name, change) in changes {
        let report = packed(input.path(), &out.path().join(name), change);
        assert_eq!(report.train.classes, ["test/x", "train/a", "train/b", "val/a"]);
        assert_eq!(report.packed(), 4);
        assert!(report.notes().iter().any(|n| n.contains("--val val/")), "{:?}", report.notes());
    }
}
