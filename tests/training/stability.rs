//! What bad steps lead to: a skip, a rollback past the data, the end with a replay folder. Faults are injected by `debug.inject`.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Output;

use serde_json::Value;
use tch::Tensor;

use crate::ground::{Daemon, Ground, splitmask};
use crate::resume::config_of;

fn set(key: &str, value: &str) -> [String; 2] {
    ["--set".into(), format!("{key}={value}")]
}

/// A run of its own folder with an injected fault.
fn train(ground: &Ground, run: &str, inject: &str, more: &[[String; 2]]) -> Output {
    let own = [
        set("run.dir", &format!("\"{}\"", ground.path(run).display())),
        set("debug.inject", &format!("\"{inject}\"")),
    ];
    let arguments: Vec<&str> = own.iter().chain(more).flatten().map(String::as_str).collect();
    ground.train(&arguments).output().unwrap()
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn rollbacks(trace: &[Value]) -> Vec<Value> {
    trace
        .iter()
        .filter(|l| l["rollback"].is_object())
        .map(|l| l["rollback"].clone())
        .collect()
}

fn tensors(folder: &Path, file: &str) -> BTreeMap<String, Tensor> {
    Tensor::read_safetensors(folder.join(file)).unwrap().into_iter().collect()
}

#[test]
fn a_nan_at_one_step_changes_no_weight_and_the_run_goes_on() {
    let ground = Ground::new();
    // Checkpoints on both sides of step 16, which is the one that is struck.
    let more = [
        set("checkpoint.every_steps", "1"),
        set("checkpoint.keep", "100"),
        set("optim.total_steps", "24"),
    ];
    let output = train(&ground, "nan", "nan@16", &more);
    assert!(output.status.success(), "{}", text(&output));
    assert!(text(&output).contains("the step was skipped"), "{}", text(&output));
    let folder = |step: u64| ground.path(&format!("nan/checkpoints/step-{step:08}"));
    for file in ["model.safetensors", "optimizer.safetensors"] {
        let (before, after, later) = (tensors(&folder(15), file), tensors(&folder(16), file), tensors(&folder(17), file));
        assert_eq!(before, after, "{file}: a skipped step changes nothing");
        assert_ne!(after, later, "{file}: the next one does");
    }
    let trace = ground.trace("nan");
    assert_eq!(trace.last().unwrap()["step"], 24);
    assert!(rollbacks(&trace).is_empty());
    assert!(
        trace.iter().any(|l| l["total"].is_null()),
        "the log line of the interval shows it: {trace:?}"
    );
}

#[test]
fn a_nan_over_a_span_rolls_back_and_leaves_that_data_out() {
    let ground = Ground::new();
    let more = [set("optim.total_steps", "60")];
    // Six bad steps from 33 on; the newest checkpoint before them is that of step 30, the look after the fifth is at step 40.
    let output = train(&ground, "span", "nan@33-38", &more);
    assert!(output.status.success(), "{}", text(&output));
    let trace = ground.trace("span");
    assert_eq!(trace.last().unwrap()["step"], 60);
    let told = rollbacks(&trace);
    assert_eq!(told.len(), 1, "{trace:?}");
    assert_eq!(
        (&told[0]["from_step"], &told[0]["to_step"], &told[0]["first_bad_step"]),
        (&40.into(), &30.into(), &33.into())
    );
    let at = |key: &str| told[0][key]["before"].as_u64().unwrap() + told[0][key]["taken"].as_u64().unwrap();
    assert_eq!((at("skipped_from"), at("skipped_to")), (30 * 16, 40 * 16), "in images");
    // 60 steps and the 10 that were undone.
    assert_eq!(trace.last().unwrap()["images"], 70 * 16);
    let journal = fs::read_to_string(ground.path("span/journal.jsonl")).unwrap();
    assert!(
        journal.contains("\"event\":\"rollback\"") && journal.contains("images 480 to 640 are left out"),
        "{journal}"
    );

    // Until the bad step it is the undisturbed run; killed around the rollback it is the same disturbed run.
    let clean = train(&ground, "clean", "", &more);
    assert!(clean.status.success(), "{}", text(&clean));
    let upto = |trace: &[Value], step: u64| {
        trace
            .iter()
            .filter(|l| l["step"].as_u64() <= Some(step) && l["rollback"].is_null())
            .cloned()
            .collect::<Vec<_>>()
    };
    assert_eq!(upto(&trace, 28), upto(&ground.trace("clean"), 28));
    assert_ne!(upto(&trace, 60), upto(&ground.trace("clean"), 60));
    let arguments: Vec<String> = [
        set("run.dir", &format!("\"{}\"", ground.path("killed").display())),
        set("debug.inject", "\"nan@33-38\""),
        set("optim.total_steps", "60"),
    ]
    .concat();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    for step in [31u64, 36, 39, 43] {
        let mut daemon = Daemon::start(ground.train(&arguments), &ground.path("killed.log"));
        daemon.until("the step of the kill", |d| d.status()["step"].as_u64().is_some_and(|s| s >= step));
        daemon.signal("KILL");
        assert!(!daemon.end().success());
    }
    let last = ground.train(&arguments).output().unwrap();
    assert!(last.status.success(), "{}", text(&last));
    let have = ground.trace("killed");
    assert_eq!(have.len(), trace.len());
    for (a, b) in trace.iter().zip(&have) {
        assert_eq!(a, b, "the resumed run differs at step {}", a["step"]);
    }
}

/// A teacher, its centre, and the running statistics of BatchNorm go back with the weights: a process that reads the checkpoint comes to the same end as the
/// one that went back to it.
#[test]
fn a_rollback_brings_back_what_an_objective_keeps_beside_its_weights() {
    let ground = Ground::new();
    for kind in ["dino", "moco-v3"] {
        let kind = splitmask::objective::kind(kind).unwrap();
        fs::write(ground.config(), config_of(&ground, kind, "")).unwrap();
        let total = set("optim.total_steps", "60");
        let through = format!("{}-through", kind.name);
        let output = train(&ground, &through, "nan@33-38,slow@42", std::slice::from_ref(&total));
        assert!(output.status.success(), "{}", text(&output));
        assert_eq!(rollbacks(&ground.trace(&through)).len(), 1, "{}", text(&output));

        let killed = format!("{}-killed", kind.name);
        let dir = set("run.dir", &format!("\"{}\"", ground.path(&killed).display()));
        let arguments = [dir, set("debug.inject", "\"nan@33-38,slow@42\""), total].concat();
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let mut daemon = Daemon::start(ground.train(&arguments), &ground.path("killed.log"));
        // The step behind the next one takes long.
        daemon.until("the rollback", |d| d.log().contains("rollback: training goes on"));
        daemon.signal("KILL");
        assert!(!daemon.end().success());
        let last = ground.train(&arguments).output().unwrap();
        assert!(last.status.success(), "{}", text(&last));
        assert_eq!(ground.trace(&through), ground.trace(&killed), "{}", kind.name);
        let weights = |run: &str| tensors(&ground.path(run).join("checkpoints/step-00000060"), "model.safetensors");
        assert!(weights(&through) == weights(&killed), "{}: other weights", kind.name);
    }
}

#[test]
fn without_a_checkpoint_it_goes_back_to_the_start() {
    let ground = Ground::new();
    let output = train(&ground, "early", "nan@3-8", &[set("optim.total_steps", "20")]);
    assert!(output.status.success(), "{}", text(&output));
    let told = rollbacks(&ground.trace("early"));
    assert_eq!((told.len(), &told[0]["to_step"]), (1, &0.into()));
    assert_eq!(ground.trace("early").last().unwrap()["step"], 20);
}

#[test]
fn a_nan_for_ever_ends_with_76_and_a_replay_folder() {
    let ground = Ground::new();
    let output = train(&ground, "ever", "nan@20-", &[]);
    let message = text(&output);
    assert_eq!(output.status.code(), Some(76), "{message}");
    assert!(
        message.contains("5 steps in a row") && message.contains("splitmask replay"),
        "{message}"
    );
    assert_eq!(rollbacks(&ground.trace("ever")).len(), 2, "the third one is the end");
    let folders: Vec<_> = fs::read_dir(ground.path("ever/replay"))
        .unwrap()
        .flatten()
        .map(|e| e.path())
        .collect();
    assert_eq!(folders.len(), 1);
    let facts: Value = serde_json::from_str(&fs::read_to_string(folders[0].join("replay.json")).unwrap()).unwrap();
    assert_eq!((&facts["exact"], facts["samples"].as_array().unwrap().len()), (&true.into(), 16));
    let replay = |more: &[&str]| {
        let output = splitmask().arg("replay").arg(&folders[0]).args(more).output().unwrap();
        assert!(output.status.success(), "{}", text(&output));
        String::from_utf8(output.stdout).unwrap()
    };
    let answer = replay(&[]);
    assert!(answer.contains("first not finite: input view 0"), "{answer}");
    let all = replay(&["--all"]);
    for name in [
        "weight blocks.0.attn.qkv.weight",
        "blocks.1 ",
        "decoder.blocks.0",
        "loss inpaint",
        "gradient pos_embed",
    ] {
        assert!(all.contains(name), "{name}: {all}");
    }
    let cured = replay(&["--set", "debug.inject=\"\""]);
    assert!(cured.contains("is finite this time"), "{cured}");
}

/// Each gradient is finite, the sum of their squares is not.
#[test]
fn a_norm_that_overflows_is_what_a_replay_names() {
    let ground = Ground::new();
    let output = train(&ground, "norm", "overflow@1-", &[set("picture.every_steps", "0")]);
    assert_eq!(output.status.code(), Some(76), "{}", text(&output));
    let folder = fs::read_dir(ground.path("norm/replay")).unwrap().flatten().next().unwrap().path();
    let replayed = splitmask().arg("replay").arg(folder).output().unwrap();
    let answer = String::from_utf8_lossy(&replayed.stdout);
    assert!(answer.contains("first not finite: norm of all gradients"), "{answer}");
}

#[test]
fn a_loss_spike_is_told_and_undone_if_asked() {
    let ground = Ground::new();
    let more = |action: &str| {
        [
            set("stability.window", "40"),
            set("optim.total_steps", "60"),
            set("optim.clip", "0"),
            set("stability.spike_action", &format!("\"{action}\"")),
        ]
    };
    let output = train(&ground, "warn", "spike@50", &more("warn"));
    assert!(output.status.success() && text(&output).contains("loss spike"), "{}", text(&output));
    assert!(rollbacks(&ground.trace("warn")).is_empty());
    let output = train(&ground, "undone", "spike@50", &more("rollback"));
    assert!(output.status.success(), "{}", text(&output));
    let told = rollbacks(&ground.trace("undone"));
    assert_eq!(
        (told.len(), &told[0]["first_bad_step"], &told[0]["to_step"]),
        (1, &50.into(), &45.into())
    );
    let output = train(&ground, "calm", "", &more("rollback"));
    assert!(
        output.status.success() && !text(&output).contains("loss spike"),
        "{}",
        text(&output)
    );
}

#[test]
fn a_hung_step_is_told_with_all_threads() {
    let ground = Ground::new();
    let arguments = [
        "--set",
        "debug.inject=\"hang@6\"",
        "--set",
        "admin.watchdog_s=1",
        "--set",
        "admin.grace_s=0.5",
    ];
    let mut daemon = Daemon::start(ground.train(&arguments), &ground.path("log"));
    daemon.until("the watchdog fires", |d| {
        d.ask("GET", "/-/healthy").is_some_and(|(code, _)| code == 503)
    });
    let (_, reason) = daemon.ask("GET", "/-/healthy").unwrap();
    assert!(reason.contains("no progress since step 5"), "{reason}");
    let file = ground.path("run/hang-step-00000005.txt");
    daemon.until("the threads are written", |_| file.exists());
    let text = fs::read_to_string(&file).unwrap();
    for word in ["no progress since step 5", "\"queue_batches\"", "\"trainer\": state S", "\"admin\""] {
        assert!(text.contains(word), "{word}: {text}");
    }
    daemon.signal("TERM");
    assert_eq!(daemon.end().code(), Some(75));
}
