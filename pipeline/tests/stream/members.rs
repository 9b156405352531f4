//! What tars hold beside samples, through the whole stream: counted by reason, and never a picture that nobody chose.

use std::path::Path;

use crate::stream_support::*;
use splitmask_pipeline::config::{DataConfig, ImageExtensions};
use splitmask_pipeline::cursor::Cursor;
use splitmask_pipeline::error::PipelineError;
use splitmask_pipeline::metrics::{PassedOver, PipelineMetrics};
use splitmask_pipeline::run::{Dataset, Order};
use splitmask_pipeline::types::Batch;

fn add(builder: &mut tar::Builder<Vec<u8>>, kind: tar::EntryType, name: &str, data: &[u8]) {
    let mut header = tar::Header::new_gnu();
    header.set_size(data.len() as u64);
    header.set_entry_type(kind);
    if kind.is_hard_link() || kind.is_symlink() {
        header.set_link_name("k0.jpg").unwrap();
    }
    builder.append_data(&mut header, name, data).unwrap();
}

/// A shard of `samples` pictures, and what `more` adds to it.
fn shard(folder: &Path, samples: u32, more: impl Fn(&mut tar::Builder<Vec<u8>>)) {
    let mut builder = tar::Builder::new(vec![]);
    for n in 0..samples {
        add(
            &mut builder,
            tar::EntryType::Regular,
            &format!("k{n}.jpg"),
            &content(&n.to_string(), 50),
        );
    }
    more(&mut builder);
    std::fs::write(folder.join("s.tar"), builder.into_inner().unwrap()).unwrap();
}

fn url(folder: &tempfile::TempDir) -> &str {
    folder.path().to_str().unwrap()
}

fn read(dataset: &Dataset, order: Order, count: usize) -> Result<Vec<Batch>, PipelineError> {
    let mut stream = dataset.batches(spec(order, 4), hashing).unwrap();
    (0..count).map_while(|_| stream.next()).collect()
}

#[test]
fn what_is_passed_over_is_counted_by_reason_and_costs_no_sample() {
    let folder = tempfile::tempdir().unwrap();
    shard(folder.path(), 8, |builder| {
        add(builder, tar::EntryType::Link, "l.jpg", b"");
        add(builder, tar::EntryType::Link, "m.jpg", b"");
        add(builder, tar::EntryType::Symlink, "s.jpg", b"");
        add(builder, tar::EntryType::Regular, ".thumbnails/a.jpg", b"x");
        add(builder, tar::EntryType::Regular, "k7.cls", b"-1");
        add(builder, tar::EntryType::Regular, "k0.cls", b"1");
        add(builder, tar::EntryType::Regular, "README.md", b"x");
    });
    let metrics = PipelineMetrics::default();
    let mut settings = data(16);
    settings.failure_budget = 0.0;
    let dataset = Dataset::open(url(&folder), &settings, &pipeline(2, 1), metrics.clone()).unwrap();
    let batches = read(&dataset, Order::Sequential, usize::MAX).unwrap();
    assert_eq!(batches.iter().map(|b| b.len).sum::<usize>(), 8);
    for (reason, count) in [
        (PassedOver::HardLink, 2),
        (PassedOver::SymbolicLink, 1),
        (PassedOver::Hidden, 1),
        (PassedOver::BadLabel, 1),
        (PassedOver::Scattered, 1),
        (PassedOver::UnknownExtension, 1),
        (PassedOver::Duplicate, 0),
    ] {
        assert_eq!(metrics.passed_over.of(reason).get(), count, "{reason:?}");
    }
}

/// Pictures, their masks, and a third of the keys with one picture only.
fn masked(folder: &Path) {
    shard(folder, 0, |builder| {
        for n in 0..30 {
            add(
                builder,
                tar::EntryType::Regular,
                &format!("{n:02}.input.png"),
                &content(&n.to_string(), 50),
            );
            if n % 3 != 0 {
                add(builder, tar::EntryType::Regular, &format!("{n:02}.mask.png"), b"mask");
            }
        }
    });
}

fn choosing(images: &[&str]) -> DataConfig {
    DataConfig {
        image: ImageExtensions::of(&images.iter().map(|i| (*i).to_owned()).collect::<Vec<_>>()),
        ..data(8)
    }
}

#[test]
fn two_images_under_one_key_end_a_start_until_one_is_chosen() {
    let folder = tempfile::tempdir().unwrap();
    masked(folder.path());
    let dataset = open(url(&folder), &choosing(&[]), &pipeline(2, 1));
    for order in [Order::Sequential, shuffled(Cursor::default())] {
        let error = read(&dataset, order, usize::MAX).unwrap_err();
        let PipelineError::TwoImages {
            shard, key, images, seen, ..
        } = &error
        else {
            panic!("{error}")
        };
        assert!(
            shard.ends_with("s.tar") && key == "01" && images == "input.png, mask.png",
            "{error}"
        );
        assert!(seen.contains(" input.png") && seen.contains(" mask.png"), "{seen}");
        assert!(error.hint().unwrap().contains("data.image = \"input.png\""));
    }
    assert!(matches!(dataset.probe(8), Err(PipelineError::TwoImages { .. })));
    let dataset = open(url(&folder), &choosing(&["input.png"]), &pipeline(2, 1));
    let batches = read(&dataset, Order::Sequential, usize::MAX).unwrap();
    let pictures: Vec<u64> = batches.iter().flat_map(contents).map(|c| c.2).collect();
    assert_eq!(pictures, (0..30).map(|n| hash(&content(&n.to_string(), 50))).collect::<Vec<_>>());
    assert_eq!(dataset.probe(30).unwrap().counts(), "20 second_image");
    let dataset = open(url(&folder), &choosing(&["mask.png", "input.png"]), &pipeline(2, 1));
    let first = contents(&read(&dataset, Order::Sequential, 1).unwrap()[0]);
    assert_eq!(
        first[..2].iter().map(|c| c.2).collect::<Vec<_>>(),
        [hash(&content("0", 50)), hash(b"mask")]
    );
}

/// A run that is under way does not end for one key: its sample is dropped as any bad one.
#[test]
fn two_images_later_on_are_a_dropped_sample() {
    let folder = tempfile::tempdir().unwrap();
    shard(folder.path(), 400, |builder| {
        add(builder, tar::EntryType::Regular, "odd.png", b"1");
        add(builder, tar::EntryType::Regular, "odd.tif", b"2");
    });
    let registry = prometheus::Registry::new();
    let metrics = PipelineMetrics::register(&registry).unwrap();
    let dataset = Dataset::open(url(&folder), &data(100), &pipeline(2, 1), metrics).unwrap();
    // Its window is the last of the epoch; the batch behind it can only come once it was passed.
    let batches = read(&dataset, shuffled(Cursor::default()), 101).unwrap();
    assert_eq!(batches.len(), 101);
    let text = prometheus::TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
    assert!(
        text.contains("splitmask_pipeline_sample_errors_total{reason=\"two_images\"} 1\n"),
        "{text}"
    );
    // And going on from there, in the window that holds it.
    let last = batches[99].cursor;
    assert!(last.samples() > 0);
    assert!(read(&dataset, shuffled(last), 100).is_ok());
}

#[test]
fn a_place_without_a_sample_says_what_is_there_instead() {
    let folder = tempfile::tempdir().unwrap();
    let fails = |settings: &DataConfig, parts: &[&str]| {
        let dataset = open(url(&folder), settings, &pipeline(1, 1));
        for order in [Order::Sequential, shuffled(Cursor::default())] {
            let error = read(&dataset, order, 1).unwrap_err();
            assert!(matches!(error, PipelineError::NoSample { last: None, .. }), "{error}");
            for part in parts {
                assert!(error.to_string().contains(part), "{part:?} is missing: {error}");
            }
            assert!(!error.hint().unwrap_or_default().contains("on_shard_error"));
        }
        assert!(matches!(dataset.probe(1), Err(PipelineError::NoSample { .. })));
    };
    shard(folder.path(), 0, |builder| add(builder, tar::EntryType::Link, "q.jpg", b""));
    fails(&data(8), &["s.tar", "passed over 1 hard_link", "q.jpg"]);
    shard(folder.path(), 0, |builder| {
        add(builder, tar::EntryType::Regular, "a.heic", b"x");
        add(builder, tar::EntryType::Regular, "a.cls", b"1");
    });
    fails(&data(8), &["1 cls, 1 heic", "1 unknown_extension", "1 no_image"]);
    shard(folder.path(), 3, |_| {});
    let few = DataConfig { fraction: 1e-9, ..data(8) };
    fails(&few, &["3 members lie outside data.fraction"]);
    shard(folder.path(), 0, |_| {});
    fails(&data(8), &["they are empty"]);
}

#[test]
fn a_compressed_shard_is_named_as_such() {
    let folder = tempfile::tempdir().unwrap();
    let mut gzip = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0];
    gzip.extend(content("x", 3000));
    std::fs::write(folder.path().join("s.tar"), gzip).unwrap();
    let dataset = open(url(&folder), &data(8), &pipeline(1, 1));
    let error = read(&dataset, Order::Sequential, 1).unwrap_err();
    let hint = error.hint().unwrap();
    assert!(
        error.to_string().contains("compressed with gzip") && hint.contains("gzip -dc") && !hint.contains("skip"),
        "{error} {hint}"
    );
}
