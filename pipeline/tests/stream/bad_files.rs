//! Bad files among good ones (rows 1-3, 5 and 6 of the fault matrix), through the real decoder: each is dropped for its reason, none is missed.

use std::sync::Arc;
use std::time::Duration;

use crate::stream_support::bad_files::{KINDS, good, spoil};
use crate::stream_support::*;
use splitmask_pipeline::decode::Limits;
use splitmask_pipeline::error::SampleError;
use splitmask_pipeline::metrics::PipelineMetrics;
use splitmask_pipeline::request::{IMAGE, SampleRequest, ViewRequest};
use splitmask_pipeline::run::{BatchSpec, Dataset, Order, Worker};
use splitmask_pipeline::sample::{SampleMaker, ViewMode};

const PER_KIND: usize = 20;

/// A tar with `PER_KIND` files of each bad kind, each among nine good ones.
fn shard() -> Vec<u8> {
    let mut builder = tar::Builder::new(vec![]);
    let mut add = |name: String, data: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_size(data.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, data).unwrap();
    };
    for n in 0..PER_KIND * KINDS.len() {
        for m in 0..9 {
            add(format!("good-{n:05}-{m}.jpg"), &good((n * 9 + m) as u64));
        }
        let (extension, data) = spoil(KINDS[n % KINDS.len()].0, n as u64);
        add(format!("spoilt-{n:05}.{extension}"), &data);
    }
    builder.into_inner().unwrap()
}

fn request() -> Arc<SampleRequest> {
    Arc::new(SampleRequest::of_views(vec![ViewRequest::new(IMAGE, 16)]))
}

fn worker(limits: Limits) -> impl Fn() -> Worker {
    move || {
        let mut maker = SampleMaker::new(request(), ViewMode::Train, 3, limits, None).unwrap();
        Box::new(move |raw, out| maker.make(raw, out))
    }
}

/// Reads the shard; answers samples delivered, and the counts of dropped ones by reason.
fn pass(limits: Limits) -> (usize, Vec<(&'static str, u64)>, PipelineMetrics) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("s.tar"), shard()).unwrap();
    let registry = prometheus::Registry::new();
    let metrics = PipelineMetrics::register(&registry).unwrap();
    let mut settings = data(64);
    settings.failure_budget = 1.0;
    let dataset = Dataset::open(folder.path().to_str().unwrap(), &settings, &pipeline(2, 1), metrics.clone()).unwrap();
    let spec = BatchSpec {
        order: Order::Sequential,
        request: request(),
        batch: 10,
        last_partial: true,
    };
    let mut stream = dataset.batches(spec, worker(limits)).unwrap();
    let mut lens = vec![];
    while let Some(batch) = stream.next() {
        lens.push(batch.unwrap().len);
    }
    assert!(lens[..lens.len() - 1].iter().all(|l| *l == 10), "replacements keep batches full");
    let text = prometheus::TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
    let count = |reason: &str| -> u64 {
        let line = format!("splitmask_pipeline_sample_errors_total{{reason=\"{reason}\"}} ");
        text.lines().find_map(|l| l.strip_prefix(&line)).unwrap().parse().unwrap()
    };
    let counts = SampleError::REASONS.iter().map(|r| (*r, count(r))).collect();
    (lens.iter().sum(), counts, metrics)
}

#[test]
fn every_bad_file_is_dropped_for_its_reason_and_batches_stay_full() {
    let (delivered, counts, _) = pass(Limits::default());
    assert_eq!(delivered, 9 * PER_KIND * KINDS.len());
    for (reason, count) in counts {
        let kinds = KINDS.iter().filter(|k| k.1 == reason).count();
        assert_eq!(count, (kinds * PER_KIND) as u64, "{reason}");
    }
}

#[test]
fn truncated_jpegs_can_be_kept_and_are_counted_apart() {
    let (_, dropped, _) = pass(Limits::default());
    let (delivered, kept, metrics) = pass(Limits {
        keep_truncated: true,
        ..Limits::default()
    });
    let truncated = KINDS.iter().filter(|k| k.1 == "truncated").count() * PER_KIND;
    assert!(truncated > 0);
    assert_eq!(metrics.truncated_kept.get(), truncated as u64);
    assert_eq!(delivered, 9 * PER_KIND * KINDS.len() + truncated);
    for ((reason, before), (_, after)) in dropped.into_iter().zip(kept) {
        assert_eq!(after, if reason == "truncated" { 0 } else { before }, "{reason}");
    }
}

#[test]
fn a_slow_sample_is_reported_and_kept() {
    let folder = tempfile::tempdir().unwrap();
    write_shards(folder.path(), &[40], 60);
    let mut machine = pipeline(2, 1);
    machine.slow_sample_s = 0.05;
    let metrics = PipelineMetrics::default();
    let dataset = Dataset::open(folder.path().to_str().unwrap(), &data(8), &machine, metrics.clone()).unwrap();
    let make = || -> Worker {
        let mut inner = hashing();
        Box::new(move |raw, out| {
            if raw.id.member % 20 == 7 {
                std::thread::sleep(Duration::from_millis(80));
            }
            inner(raw, out)
        })
    };
    let mut stream = dataset.batches(spec(Order::Sequential, 10), make).unwrap();
    let mut count = 0;
    while let Some(batch) = stream.next() {
        count += batch.unwrap().len;
    }
    assert_eq!((count, metrics.slow_samples.get()), (40, 2));
}
