//! `data.stripes`: each rank reads its own part of the shards, and the run is that of one rank.

use std::collections::BTreeMap;

use super::company::{Company, close, images};
use crate::ground::Ground;

const SETS: [&str; 4] = [
    "optim.total_steps=60",
    "log.every_steps=1",
    "data.stripes=4",
    "log.filter=\"info,splitmask::images=trace\"",
];

/// The images of each step over all ranks, in the order of the whole batch.
fn joined(logs: &[String]) -> BTreeMap<u64, Vec<String>> {
    let ranks: Vec<_> = logs.iter().map(|log| images(log)).collect();
    let row = |step: u64, n: usize| ranks.iter().map(move |of| of[&step][n].clone());
    ranks[0]
        .iter()
        .map(|(step, first)| (*step, (0..first.len()).flat_map(|n| row(*step, n)).collect()))
        .collect()
}

#[test]
fn stripes_are_one_order_for_any_number_of_ranks() {
    let ground = Ground::new();
    let logs = |run: &str, world: usize| -> Vec<String> {
        let log = |rank| std::fs::read_to_string(ground.path(&format!("{run}-{rank}.log"))).unwrap();
        (0..world).map(log).collect()
    };
    let sets = |run: &str, world: usize| {
        Company::start(&ground, run, world, &SETS).finish();
        (ground.trace(run), joined(&logs(run, world)))
    };
    let (want, of_one) = sets("one", 1);
    assert!(of_one.len() == 60 && of_one.values().all(|images| images.len() == 16));
    for world in [2, 4] {
        let (have, images) = sets(&format!("of-{world}"), world);
        assert_eq!(images, of_one, "{world} ranks");
        close(&want, &have, 1e-4);
    }

    let mut company = Company::start(&ground, "many", 4, &SETS);
    company.until_step(4);
    company.rank(2).signal("TERM");
    let ended: Vec<String> = (0..4)
        .map(|rank| {
            let (code, log) = company.end_of(rank);
            assert_eq!(code, Some(75), "rank {rank}: {log}");
            log
        })
        .collect();
    let mut have = joined(&ended);

    // What cannot be changed any more.
    for (set, named) in [
        ("data.stripes=2", "data.stripes"),
        ("data.shuffle_window=32", "data.shuffle_window = 32"),
    ] {
        let mut company = Company::start(&ground, "many", 1, &[SETS[0], SETS[1], SETS[2], set]);
        let (code, log) = company.end_of(0);
        assert!(code == Some(64) && log.contains(named), "{set}: {code:?} {log}");
    }

    Company::start(&ground, "many", 2, &SETS).finish();
    have.extend(joined(&logs("many", 2)));
    assert_eq!(have, of_one, "4 ranks, then 2");
    close(&want, &ground.trace("many"), 1e-4);
}
