//! Damaged images, of which each rank meets its own.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use serde_json::Value;

use super::EACH;
use super::company::{Company, images, progress_at};
use crate::ground::Ground;

const STEPS: u64 = 48;

/// Damages some of the packed training images, headers and tar structure kept; answers how many, and how many images there are.
fn damage(ground: &Ground) -> (usize, u64) {
    let train = ground.path("data/train");
    let mut shards: Vec<_> = fs::read_dir(&train).unwrap().flatten().map(|entry| entry.path()).collect();
    shards.retain(|path| path.extension().is_some_and(|extension| extension == "tar"));
    shards.sort();
    let (mut found, mut damaged) = (0, 0);
    for shard in &shards {
        let mut bytes = fs::read(shard).unwrap();
        let starts: Vec<usize> = bytes
            .windows(4)
            .enumerate()
            .filter(|(_, w)| w == b"IDAT")
            .map(|(at, _)| at)
            .collect();
        for at in starts {
            if found % 25 == 7 {
                bytes[at + 4..at + 24].iter_mut().for_each(|byte| *byte ^= 0x5a);
                damaged += 1;
            }
            found += 1;
        }
        fs::write(shard, bytes).unwrap();
    }
    let manifest: Value = serde_json::from_str(&fs::read_to_string(train.join("manifest.json")).unwrap()).unwrap();
    let samples = manifest["shards"]
        .as_array()
        .unwrap()
        .iter()
        .map(|shard| shard["samples"].as_u64().unwrap());
    (damaged, samples.sum())
}

/// How far the ranks of a checkpoint have come in the data, samples over all ranks.
fn places(ground: &Ground, run: &str, step: u64) -> Vec<u64> {
    let cursors = progress_at(ground, run, step)["cursors"].clone();
    let samples = |cursor: &Value| cursor["before"].as_u64().unwrap() + cursor["taken"].as_u64().unwrap();
    cursors.as_array().unwrap().iter().map(samples).collect()
}

/// Samples that the rank which has come farthest is ahead.
fn apart(places: &[u64]) -> u64 {
    places.iter().max().unwrap() - places.iter().min().unwrap()
}

/// The images of the whole log of a rank.
fn of_rank(log: &str) -> Vec<String> {
    images(log).into_values().flatten().collect()
}

/// Epoch of an image as it is logged.
fn epoch(image: &str) -> u32 {
    image.split(',').next().unwrap().parse().unwrap()
}

/// A rank that passes over a damaged image takes its next one, so the ranks come apart. As many go on where each was, bit for bit; another number at the
/// lowest place: no image is lost, and those that come again are told.
#[test]
fn ranks_that_met_damaged_images_go_on_where_each_was_and_another_number_at_the_lowest_place() {
    let ground = Ground::new();
    let (damaged, packed) = damage(&ground);
    assert!(damaged >= 4, "{damaged} of {packed}");
    let total = format!("optim.total_steps={STEPS}");
    let sets = |faults: &str| {
        let inject = format!("debug.inject=\"{faults}\"");
        let own = [
            total.as_str(),
            EACH,
            "checkpoint.every_steps=3",
            "checkpoint.keep=100",
            "data.failure_budget=0.2",
            "log.filter=\"info,splitmask::images=trace\"",
            &inject,
        ];
        Vec::from(own.map(str::to_owned))
    };
    let start = |run: &str, world: usize, faults: &str| Company::start_each(&ground, run, world, &|_| sets(faults));
    start("undisturbed", 2, "").finish();
    let steps = splitmask::checkpoint::steps(&ground.path("undisturbed/checkpoints"));
    let gap = |step: u64| apart(&places(&ground, "undisturbed", step));
    let uneven: Vec<u64> = steps.into_iter().filter(|step| *step < STEPS && gap(*step) > 0).collect();
    let [first, .., last] = uneven.as_slice() else {
        panic!("the ranks are apart at {uneven:?} alone");
    };

    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    let mut count = |logs: &[String]| {
        for image in logs.iter().flat_map(|log| of_rank(log)) {
            *seen.entry(image).or_default() += 1;
        }
    };
    for stop in [*first, *last] {
        let mut company = start("stopped", 2, &format!("starve@{}", stop + 1));
        company.until_it_waits(stop);
        count(&company.stop(0, stop));
        assert_eq!(places(&ground, "stopped", stop), places(&ground, "undisturbed", stop));
        let (want, have) = (ground.trace("undisturbed"), ground.trace("stopped"));
        assert_eq!(want[..stop as usize], have, "the same ranks at step {stop}");
    }
    start("stopped", 4, "").finish();
    let logs = [0, 1, 2, 3].map(|rank| fs::read_to_string(ground.path(&format!("stopped-{rank}.log"))).unwrap());
    count(&logs);
    let again = gap(*last);
    for log in &logs {
        let told = format!("data goes on at the lowest row; at most {again} images that some of them have seen come again");
        assert!(log.contains(&told), "{told}: {log}");
    }
    assert_eq!(seen.values().sum::<usize>() as u64, 16 * STEPS);
    let twice: Vec<_> = seen.iter().filter(|(_, times)| **times > 1).collect();
    assert!(
        (1..=again).contains(&(twice.len() as u64)) && twice.iter().all(|(_, times)| **times == 2),
        "{again}: {twice:?}"
    );
    // Epochs that all ranks are through.
    let through = logs.iter().map(|log| epoch(of_rank(log).last().unwrap())).min().unwrap();
    assert!(through >= 3, "{through}");
    let of_epoch = |number: u32| -> BTreeSet<&str> {
        let images = seen.keys().filter(|image| epoch(image) == number);
        images.map(|image| image.split_once(", ").unwrap().1).collect()
    };
    for number in 0..through {
        assert_eq!(of_epoch(number).len() as u64, packed - damaged as u64, "epoch {number}");
        assert_eq!(of_epoch(number), of_epoch(0), "epoch {number}");
    }
}
