//! The small-data recipe's safeguards: a bound on epochs, a warning of over-fitting, the best checkpoint kept.

use std::fs;

use crate::ground::{Ground, splitmask};

#[test]
fn the_best_checkpoint_outlives_the_newer_ones_and_a_worse_loss_is_warned_of_once() {
    let ground = Ground::new();
    let loss = [
        "--set",
        "eval.watch=\"loss\"",
        "--set",
        "eval.every_steps=10",
        "--set",
        "eval.patience=2",
    ];
    let first = ground.train(&loss).args(["--set", "optim.total_steps=20"]).output().unwrap();
    let log = String::from_utf8_lossy(&first.stderr).into_owned();
    assert!(first.status.success() && log.contains("validation loss"), "{log}");
    assert!(
        log.contains("(32 images; the last 3 make no whole batch and were left out)"),
        "{log}"
    );
    assert!(!log.contains("over-fitting"), "{log}");
    let best = ground.path("run/checkpoints/best");
    let of = |path: &std::path::Path| fs::canonicalize(path).unwrap().file_name().unwrap().to_string_lossy().into_owned();
    assert_eq!(of(&best), "step-00000020", "20 steps of learning are better than 10");
    // The verb measures what the run measured, on the weights of that step.
    let run = ground.path("run").display().to_string();
    let said = splitmask().args(["eval", "loss", &run, "--json"]).output().unwrap();
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    let said: serde_json::Value = serde_json::from_slice(&said.stdout).unwrap();
    let at_20 = ground
        .trace("run")
        .into_iter()
        .find(|l| l["step"] == 20 && l["val_loss"].is_f64())
        .unwrap();
    assert_eq!(said["loss"]["total"], at_20["val_loss"], "{said}");

    // Steps far too long leave nothing of what was learnt. The watch's state came with the checkpoint.
    let more = [
        "--set",
        "optim.total_steps=80",
        "--set",
        "optim.lr=0.3",
        "--set",
        "optim.min_lr=0.3",
    ];
    let second = ground.train(&loss).args(more).output().unwrap();
    let log = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(second.status.success(), "{log}");
    assert_eq!(log.matches("over-fitting").count(), 1, "{log}");
    assert_eq!(of(&best), "step-00000020");
    let mut left: Vec<String> = fs::read_dir(ground.path("run/checkpoints"))
        .unwrap()
        .map(|e| e.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    left.sort();
    assert_eq!(
        left,
        ["best", "step-00000020", "step-00000075", "step-00000080"],
        "the newest two and the best"
    );
    let losses: Vec<(u64, f64)> = ground
        .trace("run")
        .iter()
        .filter_map(|l| Some((l["step"].as_u64()?, l["val_loss"].as_f64()?)))
        .collect();
    assert_eq!(losses.len(), 8, "{losses:?}");
    assert!(
        losses[1].1 < losses[0].1 && losses[2..].iter().all(|(_, loss)| *loss > losses[1].1),
        "{losses:?}"
    );
    // The link is a checkpoint like any other.
    let again = format!("run.init_from=\"{}\"", best.display());
    let run = format!("run.dir=\"{}\"", ground.path("again").display());
    let third = ground
        .train(&["--set", &again, "--set", &run, "--set", "optim.total_steps=10"])
        .output()
        .unwrap();
    let log = String::from_utf8_lossy(&third.stderr).into_owned();
    assert!(third.status.success() && log.contains("initialised from weights"), "{log}");
}

#[test]
fn a_loss_by_other_settings_begins_its_best_anew() {
    let ground = Ground::new();
    let loss = |steps: u32, more: &str| {
        let steps = format!("optim.total_steps={steps}");
        let sets = ["eval.watch=\"loss\"", "eval.every_steps=10", "eval.patience=2", &steps, more];
        let arguments: Vec<&str> = sets.iter().flat_map(|set| ["--set", *set]).collect();
        let done = ground.train(&arguments).output().unwrap();
        let log = String::from_utf8_lossy(&done.stderr).into_owned();
        assert!(done.status.success(), "{log}");
        log
    };
    loss(20, "log.every_steps=4");
    // Ten times the weight is ten times the loss, and says nothing of the images.
    let log = loss(60, "objective.inpaint_weight=10");
    assert!(
        log.contains("the best is looked for anew") && !log.contains("over-fitting"),
        "{log}"
    );
    let best = fs::canonicalize(ground.path("run/checkpoints/best")).unwrap();
    assert_ne!(best.file_name().unwrap(), "step-00000020");
}

#[test]
fn the_loss_of_a_moving_teacher_is_not_watched() {
    let ground = Ground::new();
    let text = ground.config_text();
    let (before, rest) = text.split_once("[objective]").unwrap();
    let (_, after) = rest.split_once("[optim]").unwrap();
    let dino = "[objective]\nkind = \"dino\"\nlocal_crops = 0\nprototypes = 32\nhidden = 16\nbottleneck = 8\n";
    fs::write(ground.config(), format!("{before}{dino}[optim]{after}")).unwrap();
    let watched = ["--set", "eval.watch=\"loss\"", "--set", "eval.every_steps=5"];
    let checked = splitmask().arg("check-config").arg(ground.config()).args(watched).output().unwrap();
    for refused in [checked, ground.train(&watched).output().unwrap()] {
        let log = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(64), "{log}");
        assert!(
            log.contains("eval.watch = \"loss\"") && log.contains("does not compare") && log.contains("eval.spread_every_steps"),
            "{log}"
        );
    }
    // By itself it can be asked for.
    let run = ground.path("run").display().to_string();
    let done = ground.train(&["--set", "optim.total_steps=12"]).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let asked = splitmask().args(["eval", "loss", &run]).output().unwrap();
    assert!(asked.status.success(), "{}", String::from_utf8_lossy(&asked.stderr));
}

#[test]
fn max_epochs_cuts_the_schedule_and_check_config_says_so() {
    let ground = Ground::new();
    let three = ["--set", "optim.max_epochs=3"];
    let checked = splitmask().arg("check-config").arg(ground.config()).args(three).output().unwrap();
    let text = String::from_utf8_lossy(&checked.stdout).into_owned();
    assert!(
        text.contains("23 steps × 16 images = 368 images = 2.9 epochs of 125; cut from 120 steps"),
        "{text}"
    );
    let run = ground.train(&three).output().unwrap();
    let log = String::from_utf8_lossy(&run.stderr).into_owned();
    assert!(run.status.success() && log.contains("23 steps of 16 images, 2.9 epochs"), "{log}");
    let trace = ground.trace("run");
    assert_eq!(trace.last().unwrap()["step"], 23);
    let rates: Vec<f64> = trace.iter().map(|l| l["learning_rate"].as_f64().unwrap()).collect();
    assert!(
        rates[0] > 0.9e-3 && rates[rates.len() - 1] < 0.1e-3,
        "warm-up and cosine are cut too: {rates:?}"
    );

    fs::remove_file(ground.path("data/train/manifest.json")).unwrap();
    let other = format!("run.dir={:?}", ground.path("other"));
    let unknown = ground.train(&three).args(["--set", &other]).output().unwrap();
    let log = String::from_utf8_lossy(&unknown.stderr).into_owned();
    assert_eq!(unknown.status.code(), Some(64), "{log}");
    assert!(log.contains("optim.max_epochs = 3") && log.contains("manifest.json"), "{log}");
}
