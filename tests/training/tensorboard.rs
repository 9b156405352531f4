//! `log.tensorboard`: what TensorBoard reads of a run is what `metrics.jsonl` says, once, also after a kill.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use crate::ground::{Daemon, Ground};

/// Prints the steps and values of each scalar, and the steps of each picture, as TensorBoard's own reader has them.
const READER: &str = "
import json, sys
from tensorboard.backend.event_processing import event_accumulator as e
a = e.EventAccumulator(sys.argv[1], size_guidance={e.SCALARS: 0, e.IMAGES: 0}); a.Reload()
print(json.dumps({'scalars': {t: [[s.step, s.value] for s in a.Scalars(t)] for t in a.Tags()['scalars']},
                  'pictures': {t: [s.step for s in a.Images(t)] for t in a.Tags()['images']}}))
";

fn read(ground: &Ground) -> Value {
    let cache = std::env::var_os("SPLITMASK_CACHE").map_or_else(
        || {
            let home = || PathBuf::from(std::env::var_os("HOME").expect("HOME")).join(".cache");
            std::env::var_os("XDG_CACHE_HOME")
                .map_or_else(home, PathBuf::from)
                .join("splitmask")
        },
        PathBuf::from,
    );
    let package = cache.join("tensorboard");
    assert!(
        package.join("tensorboard").is_dir(),
        "the Python package tensorboard is missing; `make setup` fetches it"
    );
    let output = Command::new("python3")
        .args(["-c", READER])
        .arg(ground.path("run/tensorboard"))
        .env("PYTHONPATH", &package)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn tensorboard_shows_the_run_as_metrics_jsonl_does_also_after_a_kill() {
    let ground = Ground::new();
    let dir = format!("run.dir=\"{}\"", ground.path("run").display());
    let sets = [
        "log.tensorboard=true",
        "optim.total_steps=60",
        "picture.every_steps=20",
        "log.every_steps=2",
        &dir,
    ];
    let arguments: Vec<&str> = sets.iter().flat_map(|set| ["--set", *set]).collect();
    let mut daemon = Daemon::start(ground.train(&arguments), &ground.path("log"));
    daemon.until("steps behind a checkpoint", |d| {
        d.status()["step"].as_u64().is_some_and(|s| s >= 25)
    });
    daemon.signal("KILL");
    assert!(!daemon.end().success());
    let output = ground.train(&arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    let mut lines: BTreeMap<&str, Vec<(u64, f64)>> = BTreeMap::new();
    let trace = ground.trace("run");
    for line in &trace {
        let step = line["step"].as_u64().unwrap();
        for (name, value) in line.as_object().unwrap() {
            if let (Some(value), false) = (value.as_f64(), ["step", "time"].contains(&name.as_str())) {
                lines.entry(name.as_str()).or_default().push((step, value));
            }
        }
    }
    let shown = read(&ground);
    assert!(lines.contains_key("total") && lines["total"].len() == 30, "{lines:?}");
    for (name, values) in lines {
        let scalars = shown["scalars"][name]
            .as_array()
            .unwrap_or_else(|| panic!("{name} is not shown: {shown}"));
        let scalars: Vec<(u64, f64)> = scalars.iter().map(|s| (s[0].as_u64().unwrap(), s[1].as_f64().unwrap())).collect();
        assert_eq!(scalars.len(), values.len(), "{name}");
        for ((step, shown), (wanted_step, wanted)) in scalars.into_iter().zip(values) {
            // Kept as f32.
            assert!(
                step == wanted_step && (shown - wanted).abs() <= 1e-6 * wanted.abs(),
                "{name} at {step}: {shown}, {wanted}"
            );
        }
    }
    for name in ["features", "attention", "neighbours", "inpaint"] {
        assert_eq!(shown["pictures"][name], serde_json::json!([20, 40, 60]), "{name}: {shown}");
    }
}
