//! `splitmask bench step`: a row for each batch size, measured by the trainer itself, without the config's data.

use crate::ground::{Ground, splitmask};

#[test]
fn each_batch_size_has_a_row_and_one_that_cannot_be_is_told_in_its_place() {
    let ground = Ground::new();
    let mut command = splitmask();
    command
        .args(["bench", "step", "--batch", "4,6", "--seconds", "0.3", "--json"])
        .arg(ground.config());
    // No data is needed, and an accumulation that 6 cannot be divided by costs only that row.
    command.args(["--set", "data.train=/nowhere", "--set", "train.accumulate=4"]);
    let output = command.output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}");
    let found: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let rows = found["steps"].as_array().unwrap();
    assert_eq!((rows.len(), &rows[0]["batch"], &rows[1]["batch"]), (2, &4.into(), &6.into()));
    let number = |key: &str| rows[0][key].as_f64().unwrap();
    assert!(number("images_per_second") > 0.0 && number("peak_memory_mb") > 10.0, "{found:#}");
    assert!((number("ms") - 4000.0 / number("images_per_second")).abs() < 1e-6);
    let shares: f64 = rows[0]["program_time"]
        .as_object()
        .unwrap()
        .values()
        .filter_map(|v| v.as_f64())
        .sum();
    assert!((shares - 1.0).abs() < 1e-9, "{found:#}");
    assert!(rows[1]["error"].as_str().unwrap().contains("train.accumulate"), "{found:#}");
}

/// Nothing else would say how large the head is: a row without it would be one of a head of one class.
#[test]
fn an_objective_whose_classes_only_the_data_knows_asks_for_their_number() {
    let ground = Ground::new();
    let text = ground.config_text().replace("\"splitmask\"", "\"supervised\"");
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with("mask = ")).collect();
    std::fs::write(ground.config(), lines.join("\n")).unwrap();
    let run = |more: &[&str]| {
        let mut command = splitmask();
        command.args(["bench", "step", "--batch", "4", "--seconds", "0.2", "--json"]);
        command.arg(ground.config()).args(more).output().unwrap()
    };
    let output = run(&[]);
    assert_eq!(output.status.code(), Some(64));
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        told.contains("objective.classes = 0") && told.contains("--set objective.classes=1000"),
        "{told}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let output = run(&["--set", "objective.classes=7"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// What costs nothing on a CPU leaves a GPU idle: a number that is asked for, or a shape that depends on values, inside a step.
#[test]
fn no_host_waits_for_a_step_of_any_objective() {
    let ground = Ground::new();
    let text = ground.config_text();
    let lines: Vec<&str> = text
        .lines()
        .filter(|line| {
            !["mask = ", "drop_path = ", "kind = \"splitmask\""]
                .iter()
                .any(|key| line.starts_with(key))
        })
        .collect();
    let dinov2 = [
        "objective.ibot_weight=1.0",
        "objective.koleo_weight=0.1",
        "objective.centring=sinkhorn",
    ];
    let variants = splitmask::objective::OBJECTIVES.iter().map(|objective| (objective.name, &[][..]));
    let on_device = ["codebook.where=device"];
    for (kind, sets) in variants.chain([("dino", &dinov2[..]), ("splitmask", &on_device[..])]) {
        let lines = lines.join("\n").replace("[objective]", &format!("[objective]\nkind = \"{kind}\""));
        std::fs::write(ground.config(), lines).unwrap();
        let mut command = splitmask();
        command.args(["bench", "step", "--batch", "8", "--seconds", "0.1", "--calls", "--json"]);
        command.arg(ground.config());
        let learns_classes = splitmask::objective::ObjectiveConfig::default_of(splitmask::objective::kind(kind).unwrap()).classes();
        let classes = learns_classes.map(|_| "objective.classes=7");
        // A detector for photographs takes seconds a step.
        let slim = ["channels=16", "box_width=32", "mask_width=16", "regions=24"].map(|set| format!("objective.{set}"));
        if kind == "detect" {
            command.args(slim.iter().flat_map(|set| ["--set", set]));
        }
        for set in sets.iter().copied().chain(classes) {
            command.args(["--set", set]);
        }
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let found: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let row = &found["steps"][0];
        assert!(row["calls"].as_f64().is_some_and(|calls| calls > 100.0), "{kind}: {found:#}");
        // Words on the device: which patches are close to two words is asked once a batch, beside the step and for the batch behind it.
        let waits = if sets == on_device { 1.0 } else { 0.0 };
        assert_eq!(row["host_waits"].as_f64(), Some(waits), "{kind} {sets:?}: {row:#}");
    }
}

/// An objective without words needs no codebook to measure its pipeline by.
#[test]
fn a_pipeline_without_words_is_measured_by_its_config() {
    let ground = Ground::new();
    let text = ground.config_text().replace("\"splitmask\"", "\"mae\"");
    let words = ["mask = ", "drop_path = ", "path = ", "[codebook]"];
    let lines: Vec<&str> = text.lines().filter(|line| !words.iter().any(|key| line.starts_with(key))).collect();
    std::fs::write(ground.config(), lines.join("\n")).unwrap();
    let mut command = splitmask();
    command.args(["bench", "pipeline", "--images", "16", "--level", "batch", "--json"]);
    let output = command.arg(ground.config()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let found: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(found["ips"].as_f64().is_some_and(|ips| ips > 0.0), "{found:#}");
}

#[test]
fn without_any_row_there_is_no_answer() {
    let ground = Ground::new();
    let mut command = splitmask();
    command
        .args(["bench", "step", "--batch", "6"])
        .arg(ground.config())
        .args(["--set", "train.accumulate=4"]);
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(64));
    assert!(String::from_utf8_lossy(&output.stdout).contains("train.accumulate"));
}

/// Half a minute answers how long a run takes, and how much memory, before anybody waits for it.
#[test]
fn check_config_tells_time_and_memory_of_a_run_when_it_may_take_steps() {
    let ground = Ground::new();
    let run = |more: &[&str]| {
        let mut command = splitmask();
        command.arg("check-config").arg(ground.config()).arg("--measure").args(more);
        command.output().unwrap()
    };
    let output = run(&["--set", "train.accumulate=2"]);
    let told = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}");
    assert!(
        told.contains(" ms a step in 2 parts on Cpu in f32, so 120 steps take ") && told.contains("memory of a step: "),
        "{told}"
    );
    // A step that cannot be taken is the answer, and not a missing line.
    let output = run(&["--set", "train.device=cuda:0"]);
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(64), "{told}");
    assert!(
        told.contains("time and memory cannot be estimated") && told.contains("cuda"),
        "{told}"
    );
}
