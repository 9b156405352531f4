//! The dashboard against the daemon itself: a real run on a tiny set of images.

use std::collections::BTreeMap;
use std::time::Instant;

use splitmask::telemetry::metrics::Phase;

use crate::ground::{Daemon, Ground};
use crate::prometheus::get;
use crate::{Need, queries_without_data};

/// Values of `/metrics` by series.
fn series(address: &str) -> BTreeMap<String, f64> {
    let text = get(address, "/metrics").expect("/metrics answers");
    let samples = text
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.rsplit_once(' '));
    samples
        .map(|(name, value)| (name.to_owned(), value.parse().expect("a number")))
        .collect()
}

fn wall_seconds(series: &BTreeMap<String, f64>) -> f64 {
    Phase::ALL
        .iter()
        .map(|phase| series[&format!("splitmask_train_phase_seconds_total{{phase=\"{}\"}}", phase.label())])
        .sum()
}

#[test]
fn a_real_prometheus_finds_data_in_a_real_run() {
    let ground = Ground::new();
    let endless = ["optim.total_steps=1000000", "eval.every_steps=60", "eval.linear_every_steps=60"].map(|set| ["--set", set]);
    let mut daemon = Daemon::start(ground.train(endless.as_flattened()), &ground.path("log"));
    daemon.until("a step and a checkpoint", |d| {
        d.status()["last_checkpoint_step"].as_u64().is_some_and(|step| step > 0)
    });

    let (before, begin) = (series(&daemon.address), Instant::now());
    assert_eq!(
        queries_without_data(&daemon.address, Need::Run),
        Vec::<String>::new(),
        "{}",
        daemon.log()
    );
    let (after, wall) = (series(&daemon.address), begin.elapsed().as_secs_f64());

    assert!(after.len() < 450, "{} series", after.len());
    let booked = wall_seconds(&after) - wall_seconds(&before);
    assert!((booked - wall).abs() < 0.1 * wall + 0.5, "the phases sum to {booked} s in {wall} s");
    for name in [
        "splitmask_train_steps_total",
        "splitmask_pipeline_samples_total{stage=\"consumed\"}",
        "splitmask_train_step_duration_seconds_count",
    ] {
        assert!(after[name] > before[name], "{name} stands still at {}", after[name]);
    }
    let step = after["splitmask_train_last_step_timestamp_seconds"];
    assert!(splitmask::telemetry::metrics::unix_seconds() - step < 60.0, "last step at {step}");
    assert!(after["splitmask_checkpoint_last_success_timestamp_seconds"] > 1.6e9);
    assert!(after["splitmask_train_loss{term=\"inpaint\"}"] > 0.0);
    assert!(
        after["splitmask_checkpoint_disk_size_bytes"] > 0.0,
        "the run folder's disk is never measured"
    );
}
