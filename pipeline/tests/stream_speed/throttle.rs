//! A store that answers 503 to three requests in ten (row 12 of the fault matrix), asked as fast as it can be: how much of its speed is left.
//!
//! The store is what limits, not this machine: as a large one does, it takes 30 ms to answer, with a refusal too, and then 120 ms for a part.
//! Parts are a sixteenth of the default 8 MiB, and shards of 32 of them stand for such of 256 MiB.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::fault_server::{Fault, FaultServer, Request};
use crate::stream_support::*;
use splitmask_pipeline::bucket::Bucket;
use splitmask_pipeline::bucket::object::FetchOptions;
use splitmask_pipeline::bucket::pace::MOST_AHEAD;
use splitmask_pipeline::cursor::Cursor;
use splitmask_pipeline::metrics::{PipelineMetrics, RetryReason};
use splitmask_pipeline::seed::mix;
use splitmask_pipeline::shard::samples::LabelMember;
use splitmask_pipeline::shard::window::{PositionedStream, WindowOptions};
use splitmask_pipeline::stage::Stop;
use splitmask_pipeline::types::SampleId;

const LATENCY: Duration = Duration::from_millis(30);
const STORE: Fault = Fault::Far {
    latency_ms: LATENCY.as_millis() as u64,
    kilobytes_per_s: 4_370,
};
const SHARDS: u32 = 6;
const SAMPLES: u32 = 126;
const BYTES: usize = 128 << 10;
/// A sample in its shard: two headers, the image, and a block for the label.
const STRIDE: usize = 512 + BYTES + 1024;
const PART: u64 = 512 << 10;
const READERS: usize = 4;

fn window() -> WindowOptions {
    WindowOptions {
        order: shuffled(Cursor::default()),
        window: 64,
        readers: READERS,
        fraction: 1.0,
        images: [].into(),
        map: LabelMember::unread(""),
        objects: LabelMember::unread(""),
        refuse_two_images: true,
        max_member_bytes: 1 << 20,
        stop_on_shard_error: true,
    }
}

/// A stream from a store, checked byte by byte as it comes.
struct Reader {
    stream: PositionedStream,
    shards: Vec<Vec<u8>>,
    seen: Vec<SampleId>,
    metrics: PipelineMetrics,
    _server: FaultServer,
}

impl Reader {
    fn start(script: impl Fn(&Request) -> Fault + Send + Sync + 'static) -> Self {
        let shards: Vec<Vec<u8>> = (0..SHARDS).map(|n| tar(n, SAMPLES, BYTES)).collect();
        let objects = shards.iter().enumerate().map(|(n, s)| (format!("d/s-{n:03}.tar"), s.clone()));
        let server = FaultServer::start(objects.collect(), script);
        let metrics = PipelineMetrics::default();
        let fetch = FetchOptions {
            part: PART,
            ahead: 0,
            read_timeout: Duration::from_secs(30),
            retry_budget: Duration::from_secs(60),
            most: READERS * MOST_AHEAD,
            hedge: Duration::from_secs(1),
        };
        let place = format!("{}/d/s-{{000..{:03}}}.tar", server.url(), SHARDS - 1);
        let bucket = Bucket::open(&place, "", fetch, metrics.clone()).unwrap();
        Self {
            stream: PositionedStream::start(Arc::new(bucket), &window(), Stop::default()).unwrap(),
            shards,
            seen: vec![],
            metrics,
            _server: server,
        }
    }

    fn take(&mut self) {
        let sample = self.stream.next().unwrap().unwrap().sample.unwrap();
        let id = sample.id;
        let there = &self.shards[id.shard as usize][id.member as usize * STRIDE + 512..][..BYTES];
        assert!(sample.image[..] == *there, "{id:?} has other bytes");
        self.seen.push(id);
    }

    /// Takes samples for this long; answers MB/s.
    fn speed(&mut self, time: Duration) -> f64 {
        let (start, before) = (Instant::now(), self.seen.len());
        while start.elapsed() < time {
            self.take();
        }
        ((self.seen.len() - before) * BYTES) as f64 / 1e6 / start.elapsed().as_secs_f64()
    }

    /// Whether the samples so far are those of the same shards in a folder.
    fn assert_same_stream(&self) {
        let folder = tempfile::tempdir().unwrap();
        write_shards(folder.path(), &[SAMPLES; SHARDS as usize], 10);
        let dataset = open(folder.path().to_str().unwrap(), &data(64), &pipeline(1, 1));
        let undisturbed = dataset.samples(shuffled(Cursor::default())).unwrap();
        assert!(
            undisturbed.map(|s| s.unwrap().id).zip(&self.seen).all(|(a, b)| a == *b),
            "the stream differs from the undisturbed one"
        );
    }
}

#[test]
fn three_refusals_in_ten_leave_two_thirds_of_the_speed_which_comes_back_at_once() {
    let _turn = crate::turn();
    let (throttling, served) = (Arc::new(AtomicBool::new(false)), AtomicU64::new(0));
    let now = Arc::clone(&throttling);
    let mut reader = Reader::start(move |r| {
        let number = served.fetch_add(1, Ordering::SeqCst);
        if r.method == "GET" && now.load(Ordering::SeqCst) && mix(number) % 10 < 3 {
            std::thread::sleep(LATENCY);
            return Fault::Status(503);
        }
        STORE
    });
    reader.speed(Duration::from_secs(1));
    // In turns, so that a machine that changes its mind changes both.
    let (mut clean, mut faulty, mut recovery) = (vec![], vec![], vec![]);
    for _ in 0..2 {
        clean.push(reader.speed(Duration::from_secs(3)));
        throttling.store(true, Ordering::SeqCst);
        reader.speed(Duration::from_secs(1));
        faulty.push(reader.speed(Duration::from_secs(4)));
        throttling.store(false, Ordering::SeqCst);
        let over = Instant::now();
        while reader.speed(Duration::from_secs(1)) < 0.95 * clean.last().unwrap() {
            assert!(over.elapsed() < Duration::from_secs(30), "not recovered: {clean:.1?}");
        }
        recovery.push(over.elapsed().as_secs_f64());
    }
    let share = faulty.iter().sum::<f64>() / clean.iter().sum::<f64>();
    let retries = reader.metrics.store_retries.of(RetryReason::Throttled).get();
    println!("clean {clean:.1?} MB/s, throttled {faulty:.1?}: {share:.2} of it; {retries} retries; recovered after {recovery:.1?} s");
    assert!(retries > 100, "{retries}");
    assert!(share >= 0.65, "{faulty:.1?} of {clean:.1?} MB/s");
    reader.assert_same_stream();
}

#[test]
fn no_request_comes_back_before_the_time_that_the_store_named() {
    let _turn = crate::turn();
    let served = AtomicU64::new(0);
    let refused: Mutex<BTreeMap<(String, u64), Instant>> = Mutex::default();
    let shortest = Arc::new(Mutex::new(Duration::MAX));
    let found = Arc::clone(&shortest);
    let mut reader = Reader::start(move |r| {
        let Some((from, _)) = r.range else { return STORE };
        let key = (r.key.clone(), from);
        let mut refused = refused.lock().unwrap();
        if let Some(when) = refused.remove(&key) {
            let mut found = found.lock().unwrap();
            *found = when.elapsed().min(*found);
        }
        if mix(served.fetch_add(1, Ordering::SeqCst)).is_multiple_of(10) {
            refused.insert(key, Instant::now());
            return Fault::SlowDown(1);
        }
        STORE
    });
    reader.speed(Duration::from_secs(4));
    let (retries, shortest) = (
        reader.metrics.store_retries.of(RetryReason::Throttled).get(),
        *shortest.lock().unwrap(),
    );
    println!("{retries} retries, the soonest after {shortest:?}");
    assert!(
        retries > 3 && shortest >= Duration::from_secs(1) && shortest < Duration::MAX,
        "{retries} {shortest:?}"
    );
    reader.assert_same_stream();
}
