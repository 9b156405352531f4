//! Full, failing and read-only disks, and kills, at every place where a run changes a file: nothing is lost, and nothing half-written is taken for whole.
#![expect(clippy::print_stdout, reason = "what was injected is read with --nocapture")]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;

use serde_json::Value;

use crate::ground::{Daemon, Ground};
use crate::preload::{Faults, changes, met};

/// How often each moment of each place is tried: one moment of each once, or all of them `SPLITMASK_KILL_ROUNDS` times.
fn rounds() -> Option<u32> {
    let rounds = std::env::var("SPLITMASK_KILL_ROUNDS").ok()?;
    Some(rounds.parse().expect("SPLITMASK_KILL_ROUNDS is a number"))
}

/// Steps of a run: enough checkpoints for a fault at each place, and more than the killed one takes on its way.
fn steps() -> u32 {
    300 + 900 * rounds().unwrap_or(0)
}

/// A small model whose checkpoints are often.
fn train(ground: &Ground, run: &str) -> Command {
    let sets = [
        format!("run.dir=\"{}\"", ground.path(run).display()),
        format!("optim.total_steps={}", steps()),
        "model.width=16".to_owned(),
        "model.depth=1".to_owned(),
        "train.batch=4".to_owned(),
        "checkpoint.every_steps=5".to_owned(),
        "log.every_steps=5".to_owned(),
        "picture.every_steps=0".to_owned(),
    ];
    let mut command = ground.train(&[]);
    for set in &sets {
        command.args(["--set", set]);
    }
    command
}

/// A place where a run changes a file: the operation, and a pattern of its path.
type Place = (String, String);

/// The place of a call: what differs from call to call (process, step, random letters) is left out.
fn place((op, path): &(String, String)) -> Place {
    let number = |text: &str| {
        text.split('-')
            .map(|part| if part.parse::<u64>().is_ok() { "*" } else { part })
            .collect::<Vec<_>>()
            .join("-")
    };
    let parts = path.split('/').map(|name| {
        // `.last-good.toml.AbC123.tmp` of a file that appears whole or not at all.
        let hidden = name
            .strip_suffix(".tmp")
            .filter(|_| name.starts_with('.') && name.matches('.').count() > 3);
        match hidden.and_then(|rest| rest.rsplit_once('.')) {
            Some((rest, _)) => format!("{rest}.*.tmp"),
            None => number(name),
        }
    });
    (op.clone(), parts.collect::<Vec<_>>().join("/"))
}

/// When in a run a place is come by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum When {
    /// With each checkpoint, or each line.
    Often,
    /// Once a start.
    Start,
    /// Behind the last checkpoint.
    End,
}

/// The undisturbed run: its trace, its last weights, and the places by when they are come by.
struct Undisturbed {
    trace: Vec<Value>,
    weights: Vec<u8>,
    places: Vec<(When, Place)>,
}

impl Undisturbed {
    fn of(ground: &Ground) -> Self {
        let log = ground.path("calls");
        let faults = Faults::below(&ground.path("clean")).logged(&log);
        let output = faults.preload(&mut train(ground, "clean")).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let calls: Vec<Place> = changes(&log).iter().map(place).collect();
        let last = calls
            .iter()
            .rposition(|(op, path)| op == "rename" && path == "checkpoints/step-*")
            .unwrap();
        // (calls, the first of them)
        let mut places: BTreeMap<&Place, (usize, usize)> = BTreeMap::new();
        for (n, call) in calls.iter().enumerate() {
            places.entry(call).or_insert((0, n)).0 += 1;
        }
        let mut places: Vec<(When, Place)> = places
            .into_iter()
            .map(|(place, (calls, first))| match (calls, first) {
                (_, first) if first > last => (When::End, place.clone()),
                (1..=4, _) => (When::Start, place.clone()),
                _ => (When::Often, place.clone()),
            })
            .collect();
        places.sort();
        Self {
            trace: ground.trace("clean"),
            weights: weights(ground, "clean"),
            places,
        }
    }

    /// The places that a run comes by again and again.
    fn often(&self) -> Vec<&Place> {
        let often = self.places.iter().filter(|(when, _)| *when == When::Often);
        often.map(|(_, place)| place).collect()
    }
}

fn weights(ground: &Ground, run: &str) -> Vec<u8> {
    let step = steps();
    fs::read(ground.path(run).join(format!("checkpoints/step-{step:08}/model.safetensors"))).unwrap()
}

/// Every checkpoint that stands under its name is whole.
fn all_whole(ground: &Ground, run: &str, when: &str) {
    let root = ground.path(run).join("checkpoints");
    for (_, folder) in splitmask::checkpoint::list(&root).unwrap() {
        splitmask::checkpoint::read(&folder).unwrap_or_else(|e| panic!("{when}: {e}"));
    }
}

#[test]
fn kills_before_within_and_behind_every_change_of_a_file_lose_nothing() {
    let ground = Ground::new();
    let clean = Undisturbed::of(&ground);
    for (op, path) in [
        ("write", "checkpoints/.tmp-*-*/model.safetensors"),
        ("sync", "checkpoints/.tmp-*-*/complete.json"),
        ("rename", "checkpoints/step-*"),
        ("sync", "checkpoints"),
        ("remove", "checkpoints/.tmp-*-step-*/complete.json"),
        ("write", "metrics.jsonl"),
        ("sync", "journal.jsonl"),
    ] {
        let found = clean.places.iter().any(|(_, place)| *place == (op.to_owned(), path.to_owned()));
        assert!(found, "{op} {path} is not among {:#?}", clean.places);
    }
    assert!(clean.often().len() >= 14, "{:#?}", clean.places);
    let mut kills = 0;
    for round in 0..rounds().unwrap_or(1) {
        for (n, (when, (op, pattern))) in clean.places.iter().enumerate() {
            // Behind the last checkpoint there are only pictures, of which one in four is enough, and they come last.
            let passed_over = match rounds() {
                Some(all) => round + 1 < all,
                None => n % 4 != 0,
            };
            if *when == When::End && passed_over {
                continue;
            }
            let moments: &[&str] = if op == "write" {
                &["before", "within", "after"]
            } else {
                &["before", "after"]
            };
            let chosen = match rounds() {
                Some(_) => moments,
                None => &moments[n % moments.len()..][..1],
            };
            for how in chosen {
                // Where a process comes by often, the second time or later: in between it gets on.
                let nth = if *when == When::Often { 2 + round % 3 } else { 1 };
                let faults = Faults::below(&ground.path("killed")).meet(op, pattern, nth, how);
                let output = faults.preload(&mut train(&ground, "killed")).output().unwrap();
                let what = format!("{when:?}: {how} {op} {pattern}");
                let said = String::from_utf8_lossy(&output.stderr);
                if output.status.success() && *when != When::Often {
                    // What only the very first start makes (the folder), or what is not made twice at the end.
                    println!("{what}: not come by");
                    continue;
                }
                assert_eq!(output.status.signal(), Some(9), "{what}: {said}");
                assert!(!said.contains("damaged"), "{what}: {said}");
                all_whole(&ground, "killed", &what);
                kills += 1;
            }
        }
    }
    println!("{} places, {kills} kills", clean.places.len());
    assert!(kills >= 28, "only {kills}");
    let output = train(&ground, "killed").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(ground.trace("killed"), clean.trace);
    assert!(weights(&ground, "killed") == clean.weights, "other weights");
}

#[test]
fn a_disk_that_refuses_each_change_of_a_file_once_costs_a_checkpoint_and_no_more() {
    let ground = Ground::new();
    let clean = Undisturbed::of(&ground);
    // A start that cannot make or lock its folder is another test's.
    let places = clean.often();
    let errors = ["ENOSPC", "EIO", "EROFS", "short"];
    // Each place meets one of the errors, or all in turn.
    for turn in 0..if rounds().is_some() { errors.len() } else { 1 } {
        let (run, log) = (format!("turn-{turn}"), ground.path(&format!("{turn}.calls")));
        let mut faults = Faults::below(&ground.path(&run)).logged(&log);
        for (n, (op, pattern)) in places.iter().enumerate() {
            // A checkpoint that fails is left at once, so that each meets but one fault.
            faults = faults.meet(op, pattern, 2, errors[(n + turn) % errors.len()]);
        }
        let output = faults.preload(&mut train(&ground, &run)).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{said}");
        let met = met(&log);
        assert_eq!(met.len(), places.len(), "each is met once: {met:#?}");
        // Whatever was refused in the making of a checkpoint was told, an fsync that failed too.
        let making = |line: &&String| line.contains(" checkpoints") && !line.contains("-step-") && !line.contains(" remove ");
        let failed = met.iter().filter(making).count();
        let told =
            said.matches("a checkpoint could not be written; training goes on").count() + said.matches("the oldest made way").count();
        assert!(
            failed >= 14 && told >= failed,
            "{failed} failures, {told} of them told: {met:#?}\n{said}"
        );
        assert_eq!(ground.trace(&run), clean.trace, "{said}");
        assert!(weights(&ground, &run) == clean.weights, "other weights");
        all_whole(&ground, &run, "at the end");
        let root = ground.path(&run).join("checkpoints");
        let left = fs::read_dir(root).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
        let left: Vec<String> = left.filter(|name| name.starts_with('.')).collect();
        assert!(left.is_empty(), "what could not be deleted at first is deleted later: {left:?}");
    }
}

#[test]
fn a_disk_that_turns_read_only_for_a_while_is_waited_out() {
    let ground = Ground::new();
    let clean = Undisturbed::of(&ground);
    let flag = ground.path("read-only");
    let faults = Faults::below(&ground.path("run"))
        .meet("openw", "*", 0, "EROFS")
        .meet("[!o]*", "*", 0, "EROFS")
        .only_while(&flag);
    let mut command = train(&ground, "run");
    faults.preload(&mut command);
    let mut daemon = Daemon::start(command, &ground.path("log"));
    daemon.until("the first checkpoint", |d| {
        d.status()["last_checkpoint_step"].as_u64().is_some_and(|s| s >= 5)
    });
    fs::write(&flag, "").unwrap();
    let failures = |d: &Daemon| {
        let (_, text) = d.ask("GET", "/metrics").unwrap_or_default();
        let value = text
            .lines()
            .find_map(|l| l.strip_prefix("splitmask_checkpoint_failures_total{reason=\"read_only\"} "));
        value.map_or(0.0, |v| v.parse::<f64>().unwrap())
    };
    daemon.until("three checkpoints that fail", |d| failures(d) >= 3.0);
    let step = daemon.status()["step"].as_u64().unwrap();
    daemon.until("training goes on", |d| d.status()["step"].as_u64().is_some_and(|s| s > step));
    assert_eq!(daemon.ask("GET", "/-/healthy").unwrap().0, 200);
    let log = daemon.log();
    assert!(
        log.contains("Read-only file system") && log.contains("a line could not be written; it waits in memory"),
        "{log}"
    );
    // A start on such a disk says what is wrong with it, and that it is no fault of the config.
    let other = ground.path("other");
    let mut refused = train(&ground, "other");
    Faults::below(&other)
        .meet("[!o]*", "*", 0, "EROFS")
        .meet("openw", "*", 0, "EROFS")
        .preload(&mut refused);
    let output = refused.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(74), "{said}");
    assert!(said.contains("Read-only file system") && said.contains("run.dir"), "{said}");
    fs::remove_file(&flag).unwrap();
    let status = daemon.child.wait().unwrap();
    assert_eq!(status.code(), Some(0), "{}", daemon.log());
    assert_eq!(ground.trace("run"), clean.trace);
    assert!(weights(&ground, "run") == clean.weights, "other weights");
}
