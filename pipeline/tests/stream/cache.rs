//! Shards described by a manifest on a plain web server, and local copies of them.

use crate::fault_server::{Fault, FaultServer, Request};
use crate::remote::*;
use crate::stream_support::*;
use sha2::Digest;
use splitmask_pipeline::config::PipelineConfig;
use splitmask_pipeline::run::{Dataset, Order};
use splitmask_pipeline::types::Batch;

fn pass(dataset: &Dataset) -> Vec<Batch> {
    let mut stream = dataset.batches(spec(Order::Sequential, 10), hashing).unwrap();
    std::iter::from_fn(|| stream.next()).map(Result::unwrap).collect()
}

/// The objects with a manifest that tells the truth about them.
fn with_manifest() -> Vec<(String, Vec<u8>)> {
    let mut all = objects();
    let sum = |bytes: &[u8]| -> String { sha2::Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect() };
    let entries: Vec<String> = all
        .iter()
        .map(|(key, bytes)| {
            let (path, sum) = (&key[2..], sum(bytes));
            format!(
                r#"{{"path": "{path}", "bytes": {}, "samples": {SAMPLES}, "sha256": "{sum}"}}"#,
                bytes.len()
            )
        })
        .collect();
    let statistics = r#"{"images": 1, "mean": [0, 0, 0], "std": [1, 1, 1], "mean_width": 1, "mean_height": 1}"#;
    let manifest = format!(
        r#"{{"format": "splitmask-shards/1", "shards": [{}], "classes": [], "label_counts": [], "statistics": {statistics}, "provenance": ""}}"#,
        entries.join(", ")
    );
    all.push(("d/manifest.json".into(), manifest.into_bytes()));
    all
}

#[test]
fn a_manifest_on_a_plain_web_server_names_the_shards() {
    let failing_once = |r: &Request| {
        if r.key.ends_with("json") && r.number == 0 {
            Fault::Status(500)
        } else {
            Fault::None
        }
    };
    let server = FaultServer::start(with_manifest(), failing_once);
    let dataset = open(&format!("{}/d", server.url()), &data(16), &pipeline(1, 1));
    assert_eq!(dataset.manifest().unwrap().samples(), u64::from(SHARDS * SAMPLES));
    assert_eq!(dataset.shards()[1].samples, Some(SAMPLES));
    let seen = dataset.samples(Order::Sequential).unwrap().map(Result::unwrap).count();
    assert_eq!(seen as u32, SHARDS * SAMPLES);
    assert!(server.requests() >= u64::from(3 * SHARDS));
}

#[test]
fn shards_are_fetched_once_when_copies_are_kept_and_two_datasets_may_share_them() {
    let folder = tempfile::tempdir().unwrap();
    let server = FaultServer::start(with_manifest(), |r| if r.number == 1 { Fault::Reset(300_000) } else { Fault::None });
    let machine = PipelineConfig {
        cache_dir: folder.path().join("cache").to_str().unwrap().to_owned(),
        cache_gib: 0.1,
        ..pipeline(2, 4)
    };
    let url = format!("{}/d", server.url());
    let local = tempfile::tempdir().unwrap();
    write_shards(local.path(), &[SAMPLES; SHARDS as usize], 100 << 10);
    let expected = pass(&open(local.path().to_str().unwrap(), &data(16), &pipeline(1, 1)));
    let datasets: Vec<Dataset> = (0..2).map(|_| open(&url, &data(16), &machine)).collect();
    // Both at once: each fetches for itself, and neither harms the other's copies.
    std::thread::scope(|scope| {
        for dataset in &datasets {
            scope.spawn(|| assert!(pass(dataset) == expected));
        }
    });
    let names: Vec<String> = std::fs::read_dir(&machine.cache_dir)
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(names.len() as u32, SHARDS, "{names:?}");
    let fetched = server.sent();
    assert!(pass(&datasets[0]) == expected);
    assert!(pass(&open(&url, &data(16), &machine)) == expected);
    let manifest = with_manifest().pop().unwrap().1.len() as u64;
    assert_eq!(server.sent(), fetched + manifest, "only the manifest is fetched again");
}
