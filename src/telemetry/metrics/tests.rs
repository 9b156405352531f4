use std::collections::BTreeMap;
use std::time::Duration;

use prometheus::proto::MetricType;

use super::evaluation::MOST_LAYERS;
use super::*;

fn fresh() -> (Registry, TrainMetrics) {
    let registry = Registry::new();
    let metrics = TrainMetrics::new(&registry).expect("no name is taken");
    metrics.set_build_info("2.11.0", "cpu");
    (registry, metrics)
}

/// Lines of the exposition, comments left out: series with its value.
fn series(registry: &Registry) -> Vec<(String, f64)> {
    let text = render(registry).expect("encodes");
    let lines = text.lines().filter(|l| !l.starts_with('#'));
    lines
        .map(|l| {
            let (name, value) = l.rsplit_once(' ').expect("a value");
            (name.to_owned(), value.parse().expect("a number"))
        })
        .collect()
}

#[test]
fn every_label_value_is_there_from_the_start_and_zero() {
    let (registry, _metrics) = fresh();
    let all: BTreeMap<_, _> = series(&registry).into_iter().collect();
    let mut expected = Vec::new();
    for phase in Phase::ALL {
        expected.push(format!("splitmask_train_phase_seconds_total{{phase=\"{}\"}}", phase.label()));
    }
    expected.push("splitmask_train_loss{term=\"total\"}".to_owned());
    for outcome in ["applied", "unchanged", "invalid", "frozen", "failed", "busy"] {
        expected.push(format!("splitmask_config_reloads_total{{outcome=\"{outcome}\"}}"));
    }
    for reason in ["failure_budget", "denied", "disk"] {
        expected.push(format!("splitmask_train_paused{{reason=\"{reason}\"}}"));
    }
    for task in ["knn", "linear"] {
        expected.push(format!("splitmask_eval_accuracy_ratio{{task=\"{task}\"}}"));
    }
    for kind in ["allocated", "reserved", "total"] {
        expected.push(format!("splitmask_device_memory_bytes{{kind=\"{kind}\"}}"));
    }
    expected.extend(
        [
            "splitmask_train_step_duration_seconds_count",
            "splitmask_train_step_duration_seconds_bucket{le=\"+Inf\"}",
        ]
        .map(str::to_owned),
    );
    for name in expected {
        assert_eq!(all.get(&name), Some(&0.0), "{name}");
    }
    let nonzero: Vec<_> = all
        .iter()
        .filter(|(name, value)| **value != 0.0 && !name.starts_with("process_"))
        .map(|(name, _)| name.as_str())
        .collect();
    assert_eq!(
        nonzero.len(),
        3,
        "only build_info, the start's successful load and the number of ranks are not 0: {nonzero:?}"
    );
}

#[test]
fn names_follow_the_conventions() {
    let (registry, _metrics) = fresh();
    // Prometheus: base units only, `_total` for counters and for nothing else.
    let banned = [
        "_ms",
        "_milliseconds",
        "_minutes",
        "_mib",
        "_megabytes",
        "_percent",
        "_count",
        "_sum",
        "_bucket",
    ];
    for family in registry.gather() {
        let name = family.name();
        let kind = family.get_field_type();
        assert_eq!(name.ends_with("_total"), kind == MetricType::COUNTER, "{name} is a {kind:?}");
        assert!(kind != MetricType::HISTOGRAM || name.ends_with("_duration_seconds"), "{name}");
        assert!(!banned.iter().any(|b| name.ends_with(b)), "{name}");
        assert!(name.starts_with("splitmask_") || name.starts_with("process_"), "{name}");
        assert!(
            family.help().ends_with('.') && family.help().len() > 10,
            "help of {name}: {:?}",
            family.help()
        );
        let unit = [("_seconds", "second"), ("_bytes", "byte"), ("_nats", "nats")]
            .into_iter()
            .find(|(suffix, _)| name.trim_end_matches("_total").ends_with(suffix));
        if let (Some((_, word)), true) = (unit, name.starts_with("splitmask_")) {
            let spoken = family.help().contains(word) || name.ends_with("_per_second") && family.help().contains("per second");
            assert!(spoken, "help of {name} names no unit: {:?}", family.help());
        }
    }
}

#[test]
fn the_inventory_leaves_room_for_the_pipeline() {
    let (registry, _metrics) = fresh();
    let count = series(&registry).len();
    assert!((60..160).contains(&count), "{count} series");
}

#[test]
fn names_lists_histograms_by_their_series() {
    let names = TrainMetrics::names().expect("consistent");
    for name in [
        "splitmask_build_info",
        "splitmask_train_steps_total",
        "splitmask_train_step_duration_seconds_bucket",
        "process_resident_memory_bytes",
    ] {
        assert!(names.contains(name), "{name}");
    }
    assert!(!names.contains("splitmask_train_step_duration_seconds"));
}

#[test]
fn run_counters_survive_a_restart() {
    let (_, before) = fresh();
    before.steps.inc_by(1000);
    before.images.inc_by(128_000);
    before.phase(Phase::Forward).inc_by(12.5);
    before.phase(Phase::DataWait).inc_by(0.25);
    before.nonfinite_steps.inc();
    let saved = before.snapshot();
    assert_eq!(saved.len(), 7 + Phase::ALL.len());
    // As it goes through a checkpoint's JSON.
    let saved: BTreeMap<String, f64> = serde_json::from_str(&serde_json::to_string(&saved).expect("json")).expect("json");

    let (_, after) = fresh();
    after.restore(&saved);
    assert_eq!(after.snapshot(), saved);
    after.restore(&saved);
    assert_eq!(after.snapshot(), saved, "restoring twice adds nothing");
    after.steps.inc();
    assert_eq!(after.steps.get(), 1001);
}

#[test]
fn a_snapshot_of_another_version_does_no_harm() {
    let (_, metrics) = fresh();
    let odd = [
        ("splitmask_train_gone_total", 5.0),
        ("splitmask_train_steps_total", f64::NAN),
        ("splitmask_train_images_total", -3.0),
    ];
    metrics.restore(&odd.map(|(name, value)| (name.to_owned(), value)).into());
    assert!(metrics.snapshot().values().all(|v| *v == 0.0));
}

#[test]
fn reload_outcomes_move_the_gauges() {
    let (_, metrics) = fresh();
    metrics.record_reload(ReloadOutcome::Applied, 2);
    assert_eq!(metrics.config_last_reload_successful.get(), 1.0);
    let loaded_at = metrics.config_last_reload_success_timestamp.get();
    assert!(loaded_at > 1.6e9);
    for outcome in [ReloadOutcome::Invalid, ReloadOutcome::Frozen, ReloadOutcome::Failed] {
        metrics.config_last_reload_successful.set(1.0);
        metrics.record_reload(outcome, 2);
        assert_eq!(metrics.config_last_reload_successful.get(), 0.0, "{outcome:?}");
        metrics.record_reload(ReloadOutcome::Busy, 2);
        assert_eq!(
            metrics.config_last_reload_successful.get(),
            0.0,
            "busy tells nothing about the file"
        );
    }
    assert_eq!(metrics.config_last_reload_success_timestamp.get(), loaded_at);
    assert_eq!(metrics.config_reloads.of(ReloadOutcome::Busy).get(), 3);
    assert_eq!(metrics.config_generation.get(), 2.0);
    metrics.record_reload(ReloadOutcome::Unchanged, 2);
    assert_eq!(
        metrics.config_last_reload_successful.get(),
        1.0,
        "the file equals the config in force again"
    );
}

#[test]
fn phases_sum_to_wall_time() {
    let (_, metrics) = fresh();
    let begin = std::time::Instant::now();
    let mut clock = PhaseClock::start(metrics.clone(), Phase::Other);
    for round in 0..20 {
        for &phase in Phase::ALL {
            clock.switch(phase);
            std::thread::sleep(Duration::from_micros(50 * (round % 3)));
        }
    }
    let (last, seconds) = clock.switch(Phase::Other);
    let wall = begin.elapsed().as_secs_f64();
    assert_eq!(last, Phase::Other);
    assert!(seconds >= 0.0);
    let booked: f64 = Phase::ALL.iter().map(|&p| metrics.phase(p).get()).sum();
    assert!((wall - booked).abs() < 1e-3, "wall {wall} s, booked {booked} s");
}

#[test]
fn a_phase_that_turns_out_to_be_another_is_booked_there() {
    let (_, metrics) = fresh();
    let mut clock = PhaseClock::start(metrics.clone(), Phase::Ranks);
    std::thread::sleep(Duration::from_millis(2));
    clock.rename(Phase::DataWait);
    clock.switch(Phase::Other);
    assert!(metrics.phase(Phase::DataWait).get() >= 0.002);
    assert_eq!(metrics.phase(Phase::Ranks).get(), 0.0);
}

#[test]
fn one_build_info_series_even_after_a_change() {
    let (registry, metrics) = fresh();
    metrics.set_build_info("2.11.0", "cuda:0");
    let infos: Vec<_> = series(&registry)
        .into_iter()
        .filter(|(name, _)| name.starts_with("splitmask_build_info"))
        .collect();
    assert_eq!(infos.len(), 1, "{infos:?}");
    assert!(infos[0].0.contains("device=\"cuda:0\"") && infos[0].1 == 1.0);
}

#[test]
fn a_second_inventory_in_one_registry_is_an_error() {
    let (registry, _metrics) = fresh();
    assert!(TrainMetrics::new(&registry).is_err());
}

#[test]
fn the_disk_of_a_folder_is_measured_and_a_missing_folder_is_an_error() {
    let (_, metrics) = fresh();
    let dir = tempfile::tempdir().expect("a folder");
    metrics.measure_disk(dir.path()).expect("a file system");
    let (free, size) = (metrics.checkpoint_disk_free.get(), metrics.checkpoint_disk_size.get());
    assert!(size > 1e6 && (0.0..=size).contains(&free), "{free} of {size}");
    assert!(metrics.measure_disk(&dir.path().join("absent")).is_err());
    assert_eq!(metrics.checkpoint_disk_size.get(), size);
}

#[test]
fn layers_are_as_many_as_the_encoder_has_and_bounded() {
    let (registry, metrics) = fresh();
    let layers = || {
        series(&registry)
            .into_iter()
            .filter(|(name, _)| name.contains("{layer="))
            .collect::<Vec<_>>()
    };
    assert!(layers().is_empty());
    metrics.eval.set_layers(3);
    metrics.eval.set_layer_accuracy(2, 0.5);
    // A trainer that is built anew keeps what was measured.
    metrics.eval.set_layers(3);
    let values: Vec<f64> = layers().iter().map(|(_, value)| *value).collect();
    assert_eq!(values, [0.0, 0.5, 0.0]);
    metrics.eval.set_layers(1000);
    metrics.eval.set_layer_accuracy(1000, 0.5);
    assert_eq!(layers().len(), MOST_LAYERS);
}
