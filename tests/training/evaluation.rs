//! Probes of a trained encoder, within the run and after it, and its way out and back in.

use std::collections::BTreeMap;
use std::fs;

use serde_json::Value;

use crate::ground::{Ground, splitmask};

fn answer(arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = splitmask().args(arguments).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn a_run_is_probed_exported_imported_and_started_from() {
    let ground = Ground::new();
    let mut arguments = vec!["--set", "optim.total_steps=12", "--set", "eval.linear_every_steps=6"];
    arguments.extend(["--set", "eval.probe_layers=\"all\""]);
    let output = ground.train(&arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(String::from_utf8_lossy(&output.stderr).contains("best of 2 layers"));
    let layered: Vec<Value> = ground.trace("run").into_iter().filter(|l| l["linear_layers"].is_array()).collect();
    let probed: Vec<Value> = ground.trace("run").into_iter().filter(|l| l["linear_accuracy"].is_f64()).collect();
    assert_eq!(probed.iter().map(|l| l["step"].as_u64().unwrap()).collect::<Vec<_>>(), [6, 12]);

    // The command finds for each layer what the run found at its end; 4 classes of drawn shapes are no riddle.
    let run = ground.path("run").display().to_string();
    let (code, out, err) = answer(&["eval", "linear", &run, "--pool", "mean,both", "--json"]);
    assert_eq!(code, Some(0), "{err}");
    let json: Value = serde_json::from_str(&out).unwrap();
    let probes = json["linear"]["probes"].as_array().unwrap();
    assert_eq!(probes.len(), 4, "{out}");
    assert_eq!(probes[2]["top1"], probed[1]["linear_accuracy"], "{out}");
    assert_eq!((layered.len(), &layered[1]["step"]), (2, &probed[1]["step"]));
    assert_eq!(
        layered[1]["linear_layers"],
        serde_json::json!([probes[0]["top1"], probes[2]["top1"]]),
        "{out}"
    );
    assert_eq!(json["linear"]["classes"], 4);
    assert!(json["linear"]["best"]["top1"].as_f64().unwrap() > 0.4, "{out}");
    let (_, table, _) = answer(&["eval", "linear", &run, "--layers", "1"]);
    assert!(table.contains("weight decay") && table.contains("best"), "{table}");
    let (code, _, err) = answer(&["eval", "linear", &run, "--layers", "3"]);
    assert!(code == Some(64) && err.contains("1 to 2"), "{err}");

    for format in ["timm", "hf-vit", "hf-beit", "safetensors"] {
        let out = ground.path(format).display().to_string();
        let (code, said, err) = answer(&["export", &run, "--format", format, "--out", &out, "--verify"]);
        assert_eq!(code, Some(0), "{format}: {err}");
        assert!(said.contains("verified"), "{format}: {said}");
        let card = fs::read_to_string(ground.path(format).join("README.md")).unwrap();
        assert!(card.contains("linear probe") && card.contains("12 of batch 16"), "{card}");
        // The pictures of the last step, behind which the last checkpoint was written.
        for name in ["inpaint", "features", "attention", "neighbours"] {
            let drawn = fs::read(ground.path("run").join(format!("{name}.png"))).unwrap();
            assert!(card.contains(&format!("![{name}]({name}.png)\n\n{name}, step 12: ")), "{card}");
            let shown = fs::read(ground.path(format).join(format!("{name}.png"))).unwrap();
            assert!(shown == drawn, "{format}: {name}");
        }
    }
    // Another export takes them away with the one before.
    let timm = ground.path("timm").display().to_string();
    let (code, _, err) = answer(&["export", &run, "--format", "timm", "--out", &timm, "--force", "--no-pictures"]);
    assert_eq!(code, Some(0), "{err}");
    let card = fs::read_to_string(ground.path("timm/README.md")).unwrap();
    assert!(
        !card.contains("## Pictures") && !ground.path("timm/features.png").exists(),
        "{card}"
    );
    let (code, _, err) = answer(&[
        "export",
        &run,
        "--format",
        "timm",
        "--out",
        &ground.path("ema").display().to_string(),
        "--weights",
        "ema",
    ]);
    assert!(code == Some(64) && err.contains("ema.*") && !ground.path("ema").exists(), "{err}");

    let start = ground.path("start.safetensors").display().to_string();
    let file = ground.path("hf-vit").join("model.safetensors").display().to_string();
    let (code, _, err) = answer(&[
        "import",
        &file,
        "--format",
        "hf-vit",
        "--out",
        &start,
        "--config",
        &ground.config().display().to_string(),
    ]);
    assert_eq!(code, Some(0), "{err}");
    let again = ground.path("again").display().to_string();
    let output = ground
        .train(&[
            "--set",
            "optim.total_steps=10",
            "--run-dir",
            &again,
            "--set",
            &format!("run.init_from={start}"),
        ])
        .output()
        .unwrap();
    let log = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{log}");
    // cls_token, pos_embed, patch (2), norm (2), 12 a block.
    assert!(log.contains("tensors=30"), "{log}");
}

#[test]
fn a_probe_over_its_budget_is_given_up_and_training_goes_on() {
    let ground = Ground::new();
    for layers in ["last", "all"] {
        let (run, probe) = (
            format!("run.dir=\"{}\"", ground.path(layers).display()),
            format!("eval.probe_layers=\"{layers}\""),
        );
        let sets = [
            "optim.total_steps=12",
            "eval.linear_every_steps=6",
            "eval.linear_budget_s=0.001",
            "checkpoint.every_steps=6",
            &probe,
            &run,
        ];
        let arguments: Vec<&str> = sets.iter().flat_map(|set| ["--set", *set]).collect();
        let output = ground.train(&arguments).output().unwrap();
        let log = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{log}");
        assert!(log.contains("eval.linear_budget_s"), "{log}");
        // What was due at the step of the failure is done all the same.
        let checkpoints = ground.path(layers).join("checkpoints");
        assert_eq!(splitmask::checkpoint::steps(&checkpoints), [6, 12], "{log}");
        let trace = ground.trace(layers);
        assert!(
            trace
                .iter()
                .all(|l| !l["linear_accuracy"].is_f64() && !l["linear_layers"].is_array())
        );
    }
}

#[test]
fn the_spread_of_the_features_is_told_beside_the_accuracy_and_by_command() {
    let ground = Ground::new();
    let sets = ["optim.total_steps=12", "eval.every_steps=6"];
    let arguments: Vec<&str> = sets.iter().flat_map(|set| ["--set", *set]).collect();
    let output = ground.train(&arguments).output().unwrap();
    let log = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && log.contains("features: effective rank"), "{log}");
    // Between the accuracy and the spread no set is opened: the encoder has seen data.val once for both.
    let of_interest: Vec<&str> = ["opened", "k-NN", "features:"]
        .into_iter()
        .flat_map(|word| log.match_indices(word))
        .collect::<BTreeMap<usize, &str>>()
        .into_values()
        .collect();
    let told: Vec<usize> = (0..of_interest.len()).filter(|n| of_interest[*n] == "features:").collect();
    assert!(told.len() == 2 && told.iter().all(|n| of_interest[n - 1] == "k-NN"), "{log}");
    let told: Vec<Value> = ground.trace("run").into_iter().filter(|l| l["feature_rank"].is_f64()).collect();
    assert_eq!(told.iter().map(|l| l["step"].as_u64().unwrap()).collect::<Vec<_>>(), [6, 12]);

    let run = ground.path("run").display().to_string();
    let spread = |more: &[&str]| -> Value {
        let arguments = [&["eval", "spread", &run, "--json"], more].concat();
        let (code, out, err) = answer(&arguments);
        assert_eq!(code, Some(0), "{err}");
        serde_json::from_str::<Value>(&out).unwrap()["spread"].clone()
    };
    let trained = spread(&[]);
    for (name, key) in [
        ("rank", "feature_rank"),
        ("cosine", "feature_cosine"),
        ("deviation", "feature_deviation"),
    ] {
        // The run has one thread, the command one for each core: sums differ in their last digits.
        let (alone, during) = (trained[name].as_f64().unwrap(), told[1][key].as_f64().unwrap());
        assert!((alone - during).abs() < 1e-6 * during, "{name}: {trained} {told:?}");
    }
    assert_eq!(trained["most"], 32, "the width, for there are more images");
    assert_ne!(spread(&["--random-init"])["rank"], trained["rank"]);
    // Of other tokens these are other features; `both` has the numbers of both.
    let rank = |pool: &str| spread(&["--pool", pool])["rank"].as_f64().unwrap();
    let of_run = trained["rank"].as_f64().unwrap();
    assert!((rank("mean") - of_run).abs() < 1e-6 * of_run && (rank("cls") - of_run).abs() > 1e-3 * of_run);
    assert!(spread(&["--pool", "both"])["most"].as_u64() > Some(32));
    let (code, out, err) = answer(&["eval", "knn", &run, "--pool", "cls", "--json"]);
    let found: Value = serde_json::from_str(&out).unwrap();
    assert!(code == Some(0) && found["pool"] == "cls", "{out}{err}");
    let (_, table, _) = answer(&["eval", "spread", &run]);
    assert!(table.contains("effective rank") && table.contains("all alike"), "{table}");
}
