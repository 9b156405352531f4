//! A store 50 ms away at 200 MB/s against the local disk. Takes time and wants the machine for itself:
//! `cargo test --workspace --test stream_speed latency -- --ignored --nocapture`

use std::sync::Arc;
use std::time::Instant;

use crate::fault_server::{Fault, FaultServer};
use crate::stream_support::*;
use image::{ExtendedColorType, ImageEncoder};
use splitmask_pipeline::config::PipelineConfig;
use splitmask_pipeline::cursor::Cursor;
use splitmask_pipeline::decode::Limits;
use splitmask_pipeline::metrics::PipelineMetrics;
use splitmask_pipeline::request::{IMAGE, SampleRequest, ViewRequest};
use splitmask_pipeline::run::{BatchSpec, Dataset, Worker};
use splitmask_pipeline::sample::{SampleMaker, ViewMode};
use splitmask_pipeline::seed::mix;

const SHARDS: u32 = 16;
const IMAGES: u32 = 250;

/// A picture of 512 × 512 pixels whose JPEG has about the size of a photo's.
fn photo(seed: u64) -> Vec<u8> {
    let pixels: Vec<u8> = (0..512 * 512 * 3u64)
        .map(|n| {
            let (x, y) = ((n / 3) % 512, n / 3 / 512);
            let smooth = ((x + seed % 97) / 3 + y / 2) as u8;
            smooth.wrapping_add((mix(n ^ seed << 32) % 24) as u8)
        })
        .collect();
    let mut out = vec![];
    image::codecs::jpeg::JpegEncoder::new_with_quality(&mut out, 80)
        .write_image(&pixels, 512, 512, ExtendedColorType::Rgb8)
        .unwrap();
    out
}

fn shard(number: u32, photos: &[Vec<u8>]) -> Vec<u8> {
    let mut builder = tar::Builder::new(vec![]);
    for n in 0..IMAGES {
        let data = &photos[(number * IMAGES + n) as usize % photos.len()];
        let mut header = tar::Header::new_gnu();
        header.set_size(data.len() as u64);
        builder
            .append_data(&mut header, format!("{number:03}-{n:04}.jpg"), data.as_slice())
            .unwrap();
    }
    builder.into_inner().unwrap()
}

/// Images per second from the first batch on.
fn speed(url: &str, workers: usize) -> f64 {
    let request = Arc::new(SampleRequest::of_views(vec![ViewRequest::new(IMAGE, 224)]));
    let settings = PipelineConfig {
        workers,
        ..PipelineConfig::default()
    };
    let dataset = Dataset::open(url, &data(1024), &settings, PipelineMetrics::default()).unwrap();
    let of = Arc::clone(&request);
    let worker = move || -> Worker {
        let mut maker = SampleMaker::new(Arc::clone(&of), ViewMode::Train, 3, Limits::default(), None).unwrap();
        Box::new(move |raw, out| maker.make(raw, out))
    };
    let spec = BatchSpec {
        order: shuffled(Cursor::default()),
        request,
        batch: 50,
        last_partial: false,
    };
    let mut stream = dataset.batches(spec, worker).unwrap();
    let batch = stream.next().unwrap().unwrap();
    stream.recycle(batch);
    let (start, mut count) = (Instant::now(), 0);
    while count < SHARDS * IMAGES {
        let batch = stream.next().unwrap().unwrap();
        count += batch.len as u32;
        stream.recycle(batch);
    }
    f64::from(count) / start.elapsed().as_secs_f64()
}

#[test]
#[ignore = "a measurement: it wants the machine for itself"]
fn fifty_milliseconds_away_costs_less_than_a_tenth() {
    let _turn = crate::turn();
    let photos: Vec<Vec<u8>> = (0..40).map(photo).collect();
    let bytes = photos.iter().map(Vec::len).sum::<usize>() / photos.len();
    let folder = tempfile::tempdir().unwrap();
    let mut objects = vec![];
    for n in 0..SHARDS {
        let bytes = shard(n, &photos);
        std::fs::write(folder.path().join(format!("s-{n:03}.tar")), &bytes).unwrap();
        objects.push((format!("d/s-{n:03}.tar"), bytes));
    }
    let server = FaultServer::start(objects, |_| Fault::Link {
        latency_ms: 50,
        megabytes_per_s: 200,
    });
    let place = format!("{}/d/s-{{000..{:03}}}.tar", server.url(), SHARDS - 1);
    let median = |mut all: Vec<f64>| {
        all.sort_unstable_by(f64::total_cmp);
        all[all.len() / 2]
    };
    // The store needs processor time too, which it takes from threads that decode unless a core is left to it.
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    for workers in [cores, (cores - 1).max(1)] {
        // Interleaved, so that a machine that changes its mind changes both.
        let runs: Vec<(f64, f64)> = (0..5)
            .map(|_| (speed(folder.path().to_str().unwrap(), workers), speed(&place, workers)))
            .collect();
        let (local, remote) = (
            median(runs.iter().map(|r| r.0).collect()),
            median(runs.iter().map(|r| r.1).collect()),
        );
        println!(
            "{workers} decoding threads on {cores} cores, {bytes} bytes an image; local {local:.0} images/s, 50 ms and 200 MB/s away {remote:.0} images/s: \
             {:.1} % ({runs:.0?})",
            100.0 * remote / local
        );
        assert!(workers == cores || remote >= 0.9 * local);
    }
}
