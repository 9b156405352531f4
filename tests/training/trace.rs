//! The loss trace of short f32 runs, kept: a change that is meant to leave numbers alone must leave these.
//!
//! `tests/fixtures/traces.json` holds total loss and gradient norm of each of 20 steps, and the machine they were made on. On a machine of that kind
//! (processor and libtorch) they must be equal bit for bit, on any other near: another instruction set sums in another order.
//!
//! `SPLITMASK_UPDATE_TRACES=1` writes the file anew, for a change that is meant to change numbers. `SPLITMASK_PROGRAM=FILE` takes the traces with
//! another build of the program, to compare two builds on one machine.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::{Deserialize, Serialize};

use super::ground::Ground;

const STEPS: usize = 20;
/// Relative difference that another machine may show after [`STEPS`] steps.
const NEAR: f64 = 2e-3;

#[derive(Debug, Serialize, Deserialize)]
struct Traces {
    /// Processor and libtorch that made them.
    machine: String,
    /// (total loss, gradient norm) by step, as text that reads back to the same bits.
    runs: BTreeMap<String, Vec<(String, String)>>,
}

/// What is set beside the ground's config, by run.
const RUNS: [(&str, &[&str]); 3] = [
    (
        "splitmask",
        &["objective.mask={ kind = \"blockwise-split\", min_block = 2, max_block = 6 }"],
    ),
    (
        "splitmask in parts, without a split, all negatives",
        &[
            "objective.mask={ kind = \"uniform-split\", keep = 0.5 }",
            "objective.split=false",
            "objective.both_branch_negatives=true",
            "objective.inpaint_weight=0.7",
            "objective.match_weight=1.3",
            "train.accumulate=4",
        ],
    ),
    (
        "beit",
        &[
            "objective.kind=beit",
            "objective.mask={ kind = \"blockwise-mask\", count = 6, min_block = 2, max_block = 4 }",
        ],
    ),
];

fn file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/traces.json")
}

/// Processor by its numbers and the instructions that libtorch chooses its kernels by; a virtual machine's model name tells neither.
fn machine() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |name: &str| {
        let of_line = |line: &str| Some(line.split_once(':').filter(|(key, _)| key.trim() == name)?.1.trim().to_owned());
        text.lines().find_map(of_line).unwrap_or_default()
    };
    let flags = field("flags");
    let has = |flag: &&str| flags.split(' ').any(|f| f == *flag);
    let wide: Vec<&str> = ["fma", "avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_tile"]
        .into_iter()
        .filter(has)
        .collect();
    let numbers = ["model name", "cpu family", "model"].map(field).join("/");
    format!("{numbers} {}, libtorch {}", wide.join(" "), torch_ext::version())
}

fn program() -> Command {
    let program = std::env::var_os("SPLITMASK_PROGRAM").unwrap_or_else(|| env!("CARGO_BIN_EXE_splitmask").into());
    Command::new(program)
}

fn trace(ground: &Ground, name: &str, sets: &[&str]) -> Vec<(String, String)> {
    let text = ground.config_text();
    // The mask of the ground is one of SplitMask's; each run names its own.
    let text = text.replace("kind = \"splitmask\"\nmask = { kind = \"uniform-split\", keep = 0.5 }\n", "");
    assert!(!text.contains("uniform-split"));
    let config = ground.path("trace.toml");
    std::fs::write(&config, text).unwrap();
    let mut command = program();
    command.arg("train").arg("--config").arg(&config);
    let folder = ground.path(name);
    let common = [
        format!("run.dir=\"{}\"", folder.display()),
        "run.seed=0".into(),
        format!("optim.total_steps={STEPS}"),
        "log.every_steps=1".into(),
    ];
    for set in common.iter().map(String::as_str).chain(sets.iter().copied()) {
        command.arg("--set").arg(set);
    }
    let done = command.output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let lines = std::fs::read_to_string(folder.join("metrics.jsonl")).unwrap();
    // Numbers are kept as their text, which loses no bit on the way.
    let number = |line: &str, key: &str| {
        let (_, rest) = line.split_once(&format!("\"{key}\":"))?;
        rest.split([',', '}']).next().map(str::to_owned)
    };
    let both = |line: &str| Some((number(line, "total")?, number(line, "grad_norm")?));
    lines.lines().filter_map(both).collect()
}

#[test]
fn the_loss_traces_are_those_that_were_kept() {
    let ground = Ground::new();
    let runs = RUNS.map(|(name, sets)| (name.to_owned(), trace(&ground, name, sets)));
    let made = Traces {
        machine: machine(),
        runs: runs.into(),
    };
    if std::env::var_os("SPLITMASK_UPDATE_TRACES").is_some() {
        std::fs::write(file(), format!("{}\n", serde_json::to_string_pretty(&made).unwrap())).unwrap();
    }
    let kept: Traces = serde_json::from_str(&std::fs::read_to_string(file()).unwrap()).unwrap();
    assert_eq!(kept.runs.keys().collect::<Vec<_>>(), made.runs.keys().collect::<Vec<_>>());
    for (name, kept_run) in &kept.runs {
        let run = &made.runs[name];
        assert_eq!((run.len(), kept_run.len()), (STEPS, STEPS), "{name}");
        for (step, (have, want)) in run.iter().zip(kept_run).enumerate() {
            for (have, want) in [(&have.0, &want.0), (&have.1, &want.1)] {
                if kept.machine == made.machine {
                    assert_eq!(have, want, "{name}, step {}", step + 1);
                } else {
                    let (have, want): (f64, f64) = (have.parse().unwrap(), want.parse().unwrap());
                    assert!(
                        (have - want).abs() <= NEAR * want.abs(),
                        "{name}, step {}: {have} is far from {want}",
                        step + 1
                    );
                }
            }
        }
    }
}
