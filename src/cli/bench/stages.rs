//! What the stages of a run did, and which of them limits.

use serde_json::{Value, json};
use splitmask_pipeline::metrics::Stage;

use super::level::Measured;

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
    let wall = run.wall.as_secs_f64();
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let occupancy = occupancy(run, threads);
    let starved = run.times(Stage::Decode)[1] / (wall * threads as f64);
    let batch = run.times(Stage::Batch)[0] / wall;
    if batch > 0.8 {
        return (
            format!(
                "Copying into batches limits: its one thread is busy {:.0} % of the time.",
                100.0 * batch
            ),
            "Smaller views or fewer of them help; more workers do not.".into(),
        );
    }
    if starved > 0.25 && starved > 1.0 - occupancy - 0.1 {
        let read = run.times(Stage::Read)[0];
        let fetch = run.times(Stage::Fetch)[0];
        let hint = if fetch > read {
            "Raise pipeline.readers and pipeline.fetch_ahead (requests in flight), or keep a copy with pipeline.cache_dir."
        } else {
            "Raise pipeline.readers, and look at the disk."
        };
        return (
            format!("Reading limits: workers wait for input {:.0} % of the time.", 100.0 * starved),
            hint.into(),
        );
    }
    let (stage, name) = [
        (Stage::Decode, "decode"),
        (Stage::Augment, "augment"),
        (Stage::Tokenize, "tokenize"),
    ]
    .into_iter()
    .max_by(|a, b| run.times(a.0)[0].total_cmp(&run.times(b.0)[0]))
    .expect("three stages");
    let share = run.times(stage)[0] / (occupancy * wall * threads as f64).max(f64::MIN_POSITIVE);
    let hint = match (threads < cores, name) {
        (true, _) => format!("Raise pipeline.workers (there are {cores} cores)."),
        (false, "decode") => {
            "Every core decodes: `splitmask pack --longest-side` stores smaller images, the only gain without more cores.".into()
        }
        (false, "augment") => "Number and size of the views cost most, then what changes them: blur, colour jitter, RandAugment (keys of [augment] and [objective]).".into(),
        (false, _) => "Every core is busy: a codebook of fewer words is faster.".into(),
    };
    (
        format!(
            "The workers limit ({:.0} % busy), of their time {name} takes {:.0} %.",
            100.0 * occupancy,
            100.0 * share
        ),
        hint,
    )
}
