//! Who makes the features of an evaluation.

use std::collections::BTreeSet;
use std::fs;

use serde_json::Value;

use super::company::{Company, folders};
use super::trace;
use crate::ground::Ground;

/// Sets of which a rank made features, each with the number of images that it read for them, in the order in which it was asked.
fn shares(log: &str) -> Vec<(String, u64)> {
    let of = |line: &str| {
        let (_, told) = line.split_once("made the features of this process's share set=\"")?;
        let (set, told) = told.split_once("\" images=")?;
        Some((set.to_owned(), told.split(' ').next()?.parse().ok()?))
    };
    log.lines().filter_map(of).collect()
}

/// Images in a packed set.
fn packed(ground: &Ground, set: &str) -> u64 {
    let text = fs::read_to_string(ground.path(&format!("data/{set}/manifest.json"))).unwrap();
    let manifest: Value = serde_json::from_str(&text).unwrap();
    let samples = |shard: &Value| shard["samples"].as_u64().unwrap();
    manifest["shards"].as_array().unwrap().iter().map(samples).sum()
}

/// k-NN, probes and the spread of the features: each rank makes those of its share of the images, also where only the first images of a set count.
#[test]
fn evaluations_are_made_by_all_ranks_and_have_one_ranks_numbers() {
    let ground = Ground::new();
    let sets = [
        "eval.every_steps=10",
        "eval.linear_every_steps=10",
        "eval.probe_layers=\"all\"",
        "eval.max_reference=101",
        "eval.min_class=1",
        "ema.decay=0.9",
        "eval.weights=\"ema\"",
        "log.filter=\"info,splitmask::eval=debug\"",
    ];
    let (want, have) = (trace(&ground, "one", 1, &sets), trace(&ground, "four", 4, &sets));
    let numbers = |lines: &[Value], name: &str| -> Vec<f64> { lines.iter().filter_map(|line| line[name].as_f64()).collect() };
    for (name, within) in [
        ("knn_accuracy", 0.04),
        ("linear_accuracy", 0.04),
        ("feature_rank", 1e-3),
        ("feature_cosine", 1e-4),
    ] {
        let (one, all) = (numbers(&want, name), numbers(&have, name));
        assert_eq!((one.len(), all.len()), (2, 2), "{name}");
        for (one, all) in one.iter().zip(&all) {
            // Weights differ by rounding, which may turn the class of an image.
            assert!(
                (one - all).abs() <= within * one.abs().max(1.0),
                "{name}: {all}, one rank has {one}"
            );
        }
    }
    let layers = |lines: &[Value]| lines.iter().filter(|line| line["linear_layers"].is_array()).count();
    assert_eq!((layers(&want), layers(&have)), (2, 2));

    let shares = [0, 1, 2, 3].map(|rank| shares(&fs::read_to_string(ground.path(&format!("four-{rank}.log"))).unwrap()));
    let (train, val) = (packed(&ground, "train"), packed(&ground, "val"));
    assert!(train > 101, "{train} images");
    for (asked, (set, _)) in shares[0].iter().enumerate() {
        let each: Vec<u64> = shares
            .iter()
            .map(|of_rank| {
                assert_eq!(of_rank.len(), shares[0].len(), "{shares:?}");
                assert_eq!(of_rank[asked].0, *set, "{shares:?}");
                of_rank[asked].1
            })
            .collect();
        let whole: u64 = each.iter().sum();
        assert!(
            if set == "train" {
                [101, train].contains(&whole)
            } else {
                whole == val
            },
            "{set}: {each:?}"
        );
        assert!(each.iter().max().unwrap() - each.iter().min().unwrap() <= 1, "{set}: {each:?}");
    }
    let made: BTreeSet<&str> = shares[0].iter().map(|(set, _)| set.as_str()).collect();
    assert_eq!(made, BTreeSet::from(["train", "val"]));
}

/// A rank reads its share of a set by itself: where it cannot, that evaluation fails with its words, and nothing else does.
#[test]
fn a_rank_that_cannot_make_its_share_fails_the_evaluation_alone() {
    let ground = Ground::new();
    let folders = folders(&ground, 2);
    fs::remove_dir_all(folders[1].join("data/val")).unwrap();
    let sets = ["optim.total_steps=12", "log.every_steps=4", "eval.every_steps=6"];
    Company::in_folders(&ground, "run", &folders, &sets).finish();
    let log = |rank: usize| fs::read_to_string(ground.path(&format!("run-{rank}.log"))).unwrap();
    let (first, second) = (log(0), log(1));
    let told = |line: &str| line.contains("training goes on") && line.contains("rank 1 on host") && line.contains("data/val");
    assert!(first.lines().any(told), "{first}");
    assert!(
        second.contains("this rank's share of an evaluation failed") && second.contains("data/val"),
        "{second}"
    );
    let lines = ground.trace("run");
    let steps: Vec<_> = lines
        .iter()
        .filter(|line| line["total"].is_f64())
        .map(|line| line["step"].as_u64())
        .collect();
    assert_eq!(steps, [Some(4), Some(8), Some(12)]);
    assert!(lines.iter().all(|line| line["knn_accuracy"].is_null()), "{lines:?}");
}
