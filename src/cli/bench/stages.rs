//! What the stages of a run did, and which of them limits.

use serde_json::{Value, json};
use splitmask_pipeline::metrics::Stage;

use super::level::Measured;
use crate::telemetry::limiting_stage;

/// In the order of the data.
const STAGES: [(Stage, &str); 7] = [
    (Stage::Fetch, "fetch"),
    (Stage::Read, "read"),
    (Stage::Decode, "decode"),
    (Stage::Augment, "augment"),
    (Stage::Tokenize, "tokenize"),
    (Stage::Batch, "batch"),
    (Stage::Consume, "consume"),
];

/// Busy seconds of the workers ÷ their time.
fn occupancy(run: &Measured, threads: usize) -> f64 {
    let busy: f64 = [Stage::Decode, Stage::Augment, Stage::Tokenize]
        .map(|s| run.times(s)[0])
        .iter()
        .sum();
    busy / (run.wall.as_secs_f64() * threads as f64)
}

/// One line a stage.
pub(super) fn table(run: &Measured, threads: usize) -> String {
    let mut text = "stage     busy s  of all work  ms an image  waits for input s  waits for the next stage s\n".to_owned();
    let all: f64 = STAGES.iter().map(|(s, _)| run.times(*s)[0]).sum();
    for (stage, name) in STAGES {
        let [busy, get, put] = run.times(stage);
        let each = 1e3 * busy / run.images as f64;
        let share = if all > 0.0 { 100.0 * busy / all } else { 0.0 };
        text += &format!("{name:<9} {busy:>6.2} {share:>11.1}% {each:>12.3} {get:>18.2} {put:>27.2}\n");
    }
    text + &format!(
        "workers busy {:.0} % of their time; decode waits for all three worker stages\n",
        100.0 * occupancy(run, threads)
    )
}

/// The same as data.
pub(super) fn as_json(run: &Measured, threads: usize) -> Value {
    let stage = |(stage, name): (Stage, &str)| {
        let [busy, get, put] = run.times(stage);
        json!({"stage": name, "busy_s": busy, "blocked_get_s": get, "blocked_put_s": put})
    };
    json!({"worker_occupancy": occupancy(run, threads), "by_stage": STAGES.map(stage)})
}

/// Which stage limits, and what to do about it.
pub(super) fn limit(run: &Measured, threads: usize) -> (String, String) {
    let limit = limiting_stage::of_pipeline(|stage| run.times(stage), run.wall.as_secs_f64(), threads);
    (limit.what, limit.remedy)
}
