//! What the tests of the stream share: shards made on the spot, and a worker that hashes instead of decoding.
#![allow(dead_code, reason = "each test binary uses a part")]

pub(crate) mod bad_files;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use splitmask_pipeline::config::{DataConfig, PipelineConfig};
use splitmask_pipeline::cursor::Cursor;
use splitmask_pipeline::error::SampleError;
use splitmask_pipeline::metrics::PipelineMetrics;
use splitmask_pipeline::request::{IMAGE, SampleRequest, ViewRequest};
use splitmask_pipeline::run::{BatchSpec, Dataset, Order, Worker};
use splitmask_pipeline::seed::mix;
use splitmask_pipeline::types::{Batch, RawSample, Sample, SampleId, StageTimes};

/// A tar of `samples` samples `SHARD-NNNN.jpg` + `.cls`; the content is a function of the key.
pub(crate) fn tar(shard: u32, samples: u32, bytes: usize) -> Vec<u8> {
    let mut builder = tar::Builder::new(vec![]);
    for n in 0..samples {
        let key = format!("{shard:03}-{n:04}");
        for (extension, data) in [("jpg", content(&key, bytes)), ("cls", format!("{}", n % 7).into_bytes())] {
            let mut header = tar::Header::new_gnu();
            header.set_size(data.len() as u64);
            header.set_mode(0o644);
            builder
                .append_data(&mut header, format!("{key}.{extension}"), data.as_slice())
                .unwrap();
        }
    }
    builder.into_inner().unwrap()
}

/// Bytes that nothing else would produce by accident.
pub(crate) fn content(key: &str, bytes: usize) -> Vec<u8> {
    let mut state = key.bytes().fold(1, |h, b| mix(h ^ u64::from(b)));
    (0..bytes)
        .map(|_| {
            state = mix(state);
            state as u8
        })
        .collect()
}

pub(crate) fn write_shards(folder: &Path, sizes: &[u32], bytes: usize) {
    for (shard, samples) in sizes.iter().enumerate() {
        std::fs::write(folder.join(format!("s-{shard:03}.tar")), tar(shard as u32, *samples, bytes)).unwrap();
    }
}

pub(crate) fn data(window: u32) -> DataConfig {
    DataConfig {
        shuffle_window: window,
        ..DataConfig::default()
    }
}

pub(crate) fn pipeline(workers: usize, readers: usize) -> PipelineConfig {
    PipelineConfig {
        workers,
        readers,
        fetch_mib: 1,
        fetch_ahead: 2,
        read_timeout_s: 2.0,
        retry_budget_s: 20.0,
        hedge_s: 0.0,
        ..PipelineConfig::default()
    }
}

pub(crate) fn open(url: &str, data: &DataConfig, pipeline: &PipelineConfig) -> Dataset {
    Dataset::open(url, data, pipeline, PipelineMetrics::default()).unwrap()
}

pub(crate) fn request() -> Arc<SampleRequest> {
    Arc::new(SampleRequest::of_views(vec![ViewRequest::new(IMAGE, 2)]))
}

pub(crate) fn shuffled(start: Cursor) -> Order {
    Order::Shuffled {
        seed: 11,
        start,
        rank: 0,
        world: 1,
    }
}

pub(crate) fn spec(order: Order, batch: usize) -> BatchSpec {
    BatchSpec {
        order,
        request: request(),
        batch,
        last_partial: true,
    }
}

/// The view is a hash of the whole image member; works a little, for a time that depends on the sample.
pub(crate) fn hashing() -> Worker {
    Box::new(|raw: &RawSample, out: &mut Sample| {
        if raw.image.starts_with(b"BAD") {
            return Err(SampleError::Corrupt { detail: "planted".into() });
        }
        let hash = hash(&raw.image);
        if hash.is_multiple_of(8) {
            std::thread::sleep(Duration::from_micros(hash % 500));
        }
        let mut view = vec![0; 12];
        view[..8].copy_from_slice(&hash.to_le_bytes());
        out.views = vec![view];
        Ok(StageTimes::default())
    })
}

pub(crate) fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(bytes.len() as u64, |h, b| mix(h ^ u64::from(*b)))
}

/// What a batch holds, per sample: id, label, hash of its bytes.
pub(crate) fn contents(batch: &Batch) -> Vec<(SampleId, i64, u64)> {
    (0..batch.len)
        .map(|n| {
            let view = batch.views[0].picture(n);
            (batch.ids[n], batch.labels[n], u64::from_le_bytes(view[..8].try_into().unwrap()))
        })
        .collect()
}
