//! Samples, shards and places that are broken: replaced, counted, named, and never an endless loop.

use crate::stream_support::*;
use splitmask_pipeline::config::OnShardError;
use splitmask_pipeline::cursor::Cursor;
use splitmask_pipeline::error::{PipelineError, ShardError};
use splitmask_pipeline::metrics::{PipelineMetrics, Progress, Scheme};
use splitmask_pipeline::run::{Dataset, Order};
use splitmask_pipeline::types::{Batch, SampleId};

fn batches(dataset: &Dataset, order: Order, batch: usize, count: usize) -> Vec<Batch> {
    let mut stream = dataset.batches(spec(order, batch), hashing).unwrap();
    (0..count).map_while(|_| stream.next()).map(Result::unwrap).collect()
}

/// Shards of which every `every`-th image is bad.
fn with_bad(folder: &std::path::Path, samples: u32, every: u32) {
    let mut builder = tar::Builder::new(vec![]);
    for n in 0..samples {
        let data = if n % every == 3 {
            b"BAD".to_vec()
        } else {
            content(&n.to_string(), 50)
        };
        let mut header = tar::Header::new_gnu();
        header.set_size(data.len() as u64);
        builder.append_data(&mut header, format!("k{n}.jpg"), data.as_slice()).unwrap();
    }
    std::fs::write(folder.join("bad.tar"), builder.into_inner().unwrap()).unwrap();
}

#[test]
fn bad_samples_are_replaced_so_batches_stay_full_and_each_is_counted() {
    let folder = tempfile::tempdir().unwrap();
    with_bad(folder.path(), 1000, 200);
    let metrics = PipelineMetrics::default();
    let dataset = Dataset::open(folder.path().to_str().unwrap(), &data(100), &pipeline(4, 1), metrics.clone()).unwrap();
    let mut stream = dataset.batches(spec(Order::Sequential, 5), hashing).unwrap();
    let mut seen = 0;
    while let Some(batch) = stream.next() {
        let batch = batch.unwrap();
        assert_eq!(batch.len, 5);
        assert!(batch.ids.iter().all(|i| i.member % 200 != 3));
        seen += batch.len;
        stream.recycle(batch);
    }
    assert_eq!(seen, 995);
    assert_eq!(metrics.samples.of(Progress::Read).get(), 1000);
    assert_eq!(metrics.samples.of(Progress::Consumed).get(), 995);
    let registry = prometheus::Registry::new();
    let registered = PipelineMetrics::register(&registry).unwrap();
    let dataset = Dataset::open(folder.path().to_str().unwrap(), &data(100), &pipeline(4, 1), registered).unwrap();
    assert_eq!(batches(&dataset, Order::Sequential, 5, usize::MAX).len(), 199);
    let text = prometheus::TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
    assert!(
        text.contains("splitmask_pipeline_sample_errors_total{reason=\"corrupt\"} 5"),
        "{text}"
    );
}

#[test]
fn past_the_failure_budget_the_stream_ends_with_examples() {
    let folder = tempfile::tempdir().unwrap();
    with_bad(folder.path(), 1000, 20);
    let dataset = open(folder.path().to_str().unwrap(), &data(100), &pipeline(4, 1));
    let mut stream = dataset.batches(spec(shuffled(Cursor::default()), 5), hashing).unwrap();
    let error = std::iter::from_fn(|| stream.next()).find_map(Result::err).unwrap();
    let PipelineError::FailureBudget {
        failed, seen, examples, ..
    } = &error
    else {
        panic!("{error}")
    };
    assert!(*seen >= 200 && *failed as f64 > 0.01 * *seen as f64, "{error}");
    assert!(
        examples.contains("bad.tar:k") && examples.matches("(corrupt)").count() == 5,
        "{examples}"
    );
    assert!(stream.next().is_none(), "nothing comes behind an error");
}

#[test]
fn a_cut_tar_gives_its_whole_samples_and_the_stream_goes_on_or_stops_by_policy() {
    let folder = tempfile::tempdir().unwrap();
    write_shards(folder.path(), &[10, 10, 10], 60);
    let path = folder.path().join("s-001.tar");
    let whole = std::fs::read(&path).unwrap();
    // A sample is 4 blocks; this cuts the sixth in the middle of its image.
    std::fs::write(&path, &whole[..5 * 2048 + 530]).unwrap();
    let url = folder.path().to_str().unwrap();
    let metrics = PipelineMetrics::default();
    let dataset = Dataset::open(url, &data(16), &pipeline(2, 2), metrics.clone()).unwrap();
    let ids: Vec<SampleId> = batches(&dataset, Order::Sequential, 4, usize::MAX)
        .iter()
        .flat_map(|b| b.ids.clone())
        .collect();
    assert_eq!(ids.iter().filter(|i| i.shard == 1).count(), 5);
    assert_eq!(ids.len(), 25);
    assert_eq!(metrics.shards_finished.of(Scheme::File).get(), 2);
    let mut settings = data(16);
    settings.on_shard_error = OnShardError::Stop;
    let dataset = open(url, &settings, &pipeline(2, 2));
    let mut stream = dataset.batches(spec(Order::Sequential, 4), hashing).unwrap();
    let error = std::iter::from_fn(|| stream.next()).find_map(Result::err).unwrap();
    assert!(
        matches!(&error, PipelineError::Shard(ShardError::Truncated { shard, samples: 5 }) if shard.ends_with("s-001.tar")),
        "{error}"
    );
}

#[test]
fn an_epoch_of_broken_shards_is_an_error_and_not_an_endless_loop() {
    let folder = tempfile::tempdir().unwrap();
    for n in 0..3 {
        std::fs::write(folder.path().join(format!("{n}.tar")), [b'x'; 2000]).unwrap();
    }
    let dataset = open(folder.path().to_str().unwrap(), &data(16), &pipeline(1, 2));
    let mut stream = dataset.batches(spec(shuffled(Cursor::default()), 4), hashing).unwrap();
    let error = stream.next().unwrap().unwrap_err();
    assert!(
        matches!(
            error,
            PipelineError::NoSample {
                last: Some(ShardError::Malformed { .. }),
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn places_without_shards_say_what_was_looked_for() {
    let folder = tempfile::tempdir().unwrap();
    let base = folder.path().to_str().unwrap();
    let fails = |url: &str| Dataset::open(url, &data(16), &pipeline(1, 1), PipelineMetrics::default()).unwrap_err();
    for (url, reason) in [
        (base.to_owned(), "neither manifest.json nor *.tar"),
        (format!("{base}/none"), "no such file or folder"),
        (format!("{base}/*.tar"), "nothing matches"),
        (format!("{base}/{{000..003}}.tar"), "none of the 4 named files"),
    ] {
        let error = fails(&url);
        assert!(
            matches!(error, PipelineError::Empty { .. }) && error.to_string().contains(reason) && error.to_string().contains(base),
            "{error}"
        );
        assert!(error.hint().is_some());
    }
    std::fs::write(folder.path().join("manifest.json"), "{\"format\": 3}").unwrap();
    let error = fails(base);
    assert!(
        matches!(error, PipelineError::BadManifest { .. }) && error.to_string().contains("line 1"),
        "{error}"
    );
}

#[test]
fn a_panicking_worker_ends_the_stream_with_its_words() {
    let folder = tempfile::tempdir().unwrap();
    write_shards(folder.path(), &[50], 60);
    let dataset = open(folder.path().to_str().unwrap(), &data(8), &pipeline(2, 1));
    let worker = || -> splitmask_pipeline::run::Worker { Box::new(|raw, _| panic!("cannot do {}", raw.key)) };
    let mut stream = dataset.batches(spec(Order::Sequential, 4), worker).unwrap();
    let error = stream.next().unwrap().unwrap_err();
    assert!(
        matches!(&error, PipelineError::Panicked { detail, .. } if detail.contains("cannot do 000-0000")),
        "{error}"
    );
}
