//! A bit that flips in a file of a run folder is noticed and told, or changes nothing that is trained.
#![expect(clippy::print_stdout, reason = "what was tried is read with --nocapture")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::Value;

use crate::ground::{Ground, splitmask};

/// Flips tried in each file: the middle byte, and as many more at random places as `SPLITMASK_FLIPS` says.
fn more() -> usize {
    std::env::var("SPLITMASK_FLIPS").map_or(0, |text| text.parse().expect("SPLITMASK_FLIPS is a number"))
}

/// All files below a folder, relative to it.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(at) = folders.pop() {
        for entry in fs::read_dir(&at).unwrap().flatten() {
            // `best` is a link to a folder that is looked at under its name.
            match entry.file_type().unwrap() {
                kind if kind.is_dir() => folders.push(entry.path()),
                kind if kind.is_file() => found.push(entry.path().strip_prefix(folder).unwrap().to_owned()),
                _ => {}
            }
        }
    }
    found.sort();
    found
}

fn copy(from: &Path, to: &Path) {
    let _ = fs::remove_dir_all(to);
    for file in files(from) {
        let place = to.join(&file);
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        fs::copy(from.join(&file), place).unwrap();
    }
}

/// Training of `run` to step 45.
fn training(ground: &Ground, run: &str) -> Command {
    let dir = format!("run.dir=\"{}\"", ground.path(run).display());
    let sets = [
        "optim.total_steps=45",
        "eval.every_steps=15",
        "picture.every_steps=15",
        "log.tensorboard=true",
        &dir,
    ];
    ground.train(sets.map(|set| ["--set", set]).as_flattened())
}

/// Goes on with `run` to step 45; code, log.
fn go_on(ground: &Ground, run: &str) -> (Option<i32>, String) {
    let output = training(ground, run).output().unwrap();
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// The losses that training itself logged, by step.
fn losses(trace: &[Value]) -> Vec<(u64, String)> {
    let of = |line: &Value| Some((line["step"].as_u64()?, line.get("total")?.to_string()));
    trace.iter().filter_map(of).collect()
}

#[test]
fn a_flipped_bit_in_any_file_of_a_run_folder_is_told_or_does_no_harm() {
    let ground = Ground::new();
    let (code, said) = go_on(&ground, "clean");
    assert_eq!(code, Some(0), "{said}");
    let want = losses(&ground.trace("clean"));
    let weights = |run: &str| fs::read(ground.path(run).join("checkpoints/step-00000045/model.safetensors")).unwrap();
    let last = weights("clean");
    // The run as it was at step 30, and then killed.
    let faults = crate::preload::Faults::below(&ground.path("base")).meet("sync", "checkpoints", 2, "after");
    let output = faults.preload(&mut training(&ground, "base")).output().unwrap();
    assert!(!output.status.success(), "it was killed behind the checkpoint of step 30");
    assert_eq!(splitmask::checkpoint::steps(&ground.path("base/checkpoints")), [15, 30]);
    let mut all = files(&ground.path("base"));
    if more() == 0 {
        // Earlier pictures are alike: one of each kind is enough of them.
        all.retain(|file| !file.starts_with("pictures") || file.ends_with("step-00000015.png"));
    }
    for wanted in [
        "journal.jsonl",
        "metrics.jsonl",
        "last-good.toml",
        "daemon.lock",
        "checkpoints/step-00000030/complete.json",
    ] {
        assert!(all.iter().any(|f| f == Path::new(wanted)), "no {wanted} among {all:?}");
    }
    let mut random = StdRng::seed_from_u64(7);
    for file in &all {
        let bytes = fs::read(ground.path("base").join(file)).unwrap();
        if bytes.is_empty() {
            continue;
        }
        let drawn: Vec<usize> = (0..more()).map(|_| random.random_range(0..bytes.len())).collect();
        let middle = bytes.len() / 2;
        let quote = bytes[middle..].iter().position(|byte| *byte == b'"').map_or(middle, |n| middle + n);
        for (n, at) in [quote].into_iter().chain(drawn).enumerate() {
            // A quote that is a letter makes text unreadable; others may leave it plausible.
            let bit = if n == 0 { 6 } else { random.random_range(0..8) };
            copy(&ground.path("base"), &ground.path("run"));
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << bit;
            fs::write(ground.path("run").join(file), flipped).unwrap();
            let what = format!("bit {bit} of byte {at} of {}", file.display());
            let (code, said) = go_on(&ground, "run");
            assert_eq!(code, Some(0), "{what}: {said}");
            let newest = file.starts_with("checkpoints/step-00000030");
            let blank = newest
                && file.ends_with("complete.json")
                && serde_json::from_slice::<Value>(&fs::read(ground.path("run").join(file)).unwrap_or_default()).is_ok();
            if newest && !blank {
                assert!(
                    said.contains("a checkpoint is damaged") && said.contains("damaged-00000030-0"),
                    "{what} went unnoticed: {said}"
                );
            }
            // Whatever it was, training is what it would have been.
            let have = losses(&ground.trace("run"));
            assert!(weights("run") == last, "{what}: other weights");
            if file == Path::new("metrics.jsonl") && n == 0 {
                assert!(
                    said.contains("the file was damaged") && said.contains("metrics.damaged-1.jsonl"),
                    "{what}: {said}"
                );
            } else if file != Path::new("metrics.jsonl") {
                assert_eq!(have, want, "{what}");
            }
            println!("{what}: {}", if said.contains("damaged") { "told" } else { "no harm" });
        }
    }
}

/// Of a checkpoint every byte counts, and so it does of the files that a run is made from.
#[test]
fn a_flipped_bit_in_a_codebook_a_manifest_or_a_shard_is_told() {
    let ground = Ground::new();
    let flip = |path: &Path, at: usize, bit: u8| {
        let mut bytes = fs::read(path).unwrap();
        bytes[at] ^= 1 << bit;
        fs::write(path, bytes).unwrap();
    };
    let mut random = StdRng::seed_from_u64(9);
    let train = |run: &str| {
        let dir = format!("run.dir=\"{}\"", ground.path(run).display());
        let output = ground.train(&["--set", "optim.total_steps=12", "--set", &dir]).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let words = ground.path("words.safetensors");
    let length = fs::metadata(&words).unwrap().len() as usize;
    let bytes = fs::read(&words).unwrap();
    // The head is JSON in JSON; where the codebook came from is told there too, and decides nothing.
    let patch = "patch\\\":";
    let patch = bytes.windows(patch.len()).position(|w| w == patch.as_bytes()).unwrap() + patch.len();
    let vectors = 64 * 48 * 4;
    for (what, at) in [("a size", 1), ("its patch", patch), ("a vector", length - vectors / 2)] {
        flip(&words, at, 5);
        let (code, said) = train("codebook");
        assert_eq!(code, Some(64), "{what}: {said}");
        assert!(said.contains("words.safetensors"), "{what}: {said}");
        flip(&words, at, 5);
    }
    // The manifest: another size, another name of a shard, or no JSON.
    let manifest = ground.path("data/train/manifest.json");
    let text = fs::read_to_string(&manifest).unwrap();
    let told = |said: &str| said.contains("manifest");
    for needle in ["\"bytes\":", "\"shards\"", ".tar"] {
        let Some(at) = text.find(needle) else {
            panic!("{needle} is not in {text}")
        };
        flip(&manifest, at + 1, 6);
        let (_, said) = train("manifest");
        assert!(told(&said), "{needle}: {said}");
        flip(&manifest, at + 1, 6);
        let _ = fs::remove_dir_all(ground.path("manifest"));
    }
    // A shard: the head of a member, and the bytes of a picture.
    let shard = fs::read_dir(ground.path("data/train"))
        .unwrap()
        .map(|e| e.unwrap().path())
        .find(|p| p.extension().is_some_and(|e| e == "tar"))
        .unwrap();
    let bytes = fs::read(&shard).unwrap();
    let picture = bytes.windows(4).position(|w| w == b"IDAT").unwrap() + 30;
    for (what, at) in [("a head", 3), ("a picture", picture)] {
        flip(&shard, at, random.random_range(0..8));
        let inspected = splitmask().arg("inspect").arg(ground.path("data/train")).output().unwrap();
        let said = format!(
            "{}{}",
            String::from_utf8_lossy(&inspected.stdout),
            String::from_utf8_lossy(&inspected.stderr)
        );
        let (code, log) = train(&format!("shard {what}").replace(' ', "-"));
        println!("{what}: {code:?}");
        assert!(
            log.contains("WARN") || log.contains("ERROR") || code != Some(0),
            "{what}: nobody was told: {log}\n{said}"
        );
        fs::write(&shard, &bytes).unwrap();
    }
}
