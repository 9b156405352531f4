//! Stores that throttle or are slow in places (rows 12 and 17 of the fault matrix): the stream stays the same, and nearly as fast.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::fault_server::{Fault, FaultServer, Request};
use crate::stream_support::*;
use splitmask_pipeline::config::PipelineConfig;
use splitmask_pipeline::metrics::{PipelineMetrics, RetryReason};
use splitmask_pipeline::run::{Dataset, Order};
use splitmask_pipeline::seed::mix;
use splitmask_pipeline::types::Batch;

const SHARDS: u32 = 12;
/// 60 samples of 100 KiB: six ranged reads of 1 MiB.
const SAMPLES: u32 = 60;
/// 1 MiB in 30 pieces, one each 10 ms.
const PIECE: usize = (1 << 20) / 30;

fn objects() -> Vec<(String, Vec<u8>)> {
    (0..SHARDS)
        .map(|n| (format!("d/s-{n:03}.tar"), tar(n, SAMPLES, 100 << 10)))
        .collect()
}

/// What the trainer takes for a batch: about half of what the undisturbed store could deliver in that time.
const STEP: Duration = Duration::from_millis(60);

fn machine() -> PipelineConfig {
    PipelineConfig {
        fetch_ahead: 4,
        read_timeout_s: 30.0,
        ..pipeline(2, 4)
    }
}

/// Reads everything; answers the batches and the seconds from the first request on.
fn timed(
    machine: &PipelineConfig,
    metrics: &PipelineMetrics,
    script: impl Fn(&Request) -> Fault + Send + Sync + 'static,
) -> (Vec<Batch>, f64) {
    let server = FaultServer::start(objects(), script);
    let place = format!("{}/d/s-{{000..{:03}}}.tar", server.url(), SHARDS - 1);
    let dataset = Dataset::open(&place, &data(16), machine, metrics.clone()).unwrap();
    let start = Instant::now();
    let mut stream = dataset.batches(spec(Order::Sequential, 10), hashing).unwrap();
    let mut batches = vec![];
    while let Some(batch) = stream.next() {
        batches.push(batch.unwrap());
        std::thread::sleep(STEP);
    }
    (batches, start.elapsed().as_secs_f64())
}

#[test]
fn a_throttling_store_gives_the_same_stream_at_two_thirds_of_the_speed_and_recovers() {
    let _turn = crate::turn();
    let (clean, clean_s) = timed(&machine(), &PipelineMetrics::default(), |_| Fault::Trickle(PIECE));
    let metrics = PipelineMetrics::default();
    let lowest = Arc::new(AtomicU64::new(u64::MAX));
    let (seen, limit) = (Arc::clone(&lowest), metrics.store_request_limit.clone());
    let served = AtomicU64::new(0);
    let (throttled, throttled_s) = timed(&machine(), &metrics, move |r| {
        let number = served.fetch_add(1, Ordering::SeqCst);
        if r.method == "GET" {
            seen.fetch_min(limit.get() as u64, Ordering::SeqCst);
        }
        // Behind 60 of the 72 reads the store has recovered.
        match mix(r.number ^ hash(r.key.as_bytes())) % 10 {
            0..3 if number < 75 && r.method == "GET" => Fault::Status(503),
            _ => Fault::Trickle(PIECE),
        }
    });
    assert!(throttled == clean, "the stream differs from the undisturbed one");
    let retries = metrics.fetch_retries.of(RetryReason::Throttled).get();
    let share = clean_s / throttled_s;
    println!("clean {clean_s:.2} s, throttled {throttled_s:.2} s: {share:.2} of the speed, {retries} retries");
    assert!(retries >= 10, "{retries}");
    assert!(share >= 0.65, "{clean_s:.2} s became {throttled_s:.2} s");
    let lowest = lowest.load(Ordering::SeqCst);
    assert!(
        (4..16).contains(&lowest),
        "the requests in flight were reduced, but not to a crawl: {lowest}"
    );
    assert!(
        metrics.store_request_limit.get() > 14.0,
        "{} at the end",
        metrics.store_request_limit.get()
    );
}

#[test]
fn a_store_that_is_overwhelmed_is_asked_for_less() {
    let _turn = crate::turn();
    // Refuses whatever comes while two requests are under way, as a rate limit would.
    let flying = Arc::new(AtomicU64::new(0));
    let metrics = PipelineMetrics::default();
    let refused = AtomicU64::new(0);
    let lowest = Arc::new(AtomicU64::new(u64::MAX));
    let (seen, limit) = (Arc::clone(&lowest), metrics.store_request_limit.clone());
    let (batches, _) = timed(&machine(), &metrics, move |r| {
        if r.method == "GET" {
            seen.fetch_min(limit.get() as u64, Ordering::SeqCst);
        }
        // By number and not by time, which a loaded machine may spend without asking.
        if flying.fetch_add(1, Ordering::SeqCst) >= 2 && refused.fetch_add(1, Ordering::SeqCst) < 60 {
            flying.fetch_sub(1, Ordering::SeqCst);
            return Fault::Status(429);
        }
        std::thread::sleep(Duration::from_millis(20));
        flying.fetch_sub(1, Ordering::SeqCst);
        Fault::None
    });
    assert_eq!(batches.iter().map(|b| b.len).sum::<usize>() as u32, SHARDS * SAMPLES);
    assert!(metrics.fetch_retries.of(RetryReason::Throttled).get() > 0);
    let lowest = lowest.load(Ordering::SeqCst);
    assert!(lowest < 12, "{lowest} of 16 requests at once were still allowed");
}

#[test]
fn reads_that_crawl_are_asked_for_a_second_time() {
    let _turn = crate::turn();
    let machine = PipelineConfig { hedge_s: 0.2, ..machine() };
    let (clean, clean_s) = timed(&machine, &PipelineMetrics::default(), |_| Fault::Trickle(PIECE));
    let metrics = PipelineMetrics::default();
    // 10 KB/s for one read in twenty: 105 s for a MiB. The second request is served as usual.
    let asked = Mutex::new(std::collections::BTreeSet::new());
    let (crawled, crawled_s) = timed(&machine, &metrics, move |r| {
        let Some((from, _)) = r.range else { return Fault::None };
        let first = asked.lock().unwrap().insert((r.key.clone(), from));
        match mix(from ^ hash(r.key.as_bytes())) % 20 {
            0 if first => Fault::Trickle(100),
            _ => Fault::Trickle(PIECE),
        }
    });
    let hedged = metrics.store_hedged_reads.get();
    println!("clean {clean_s:.2} s, with crawling reads {crawled_s:.2} s, {hedged} asked twice");
    assert!(crawled == clean, "the stream differs from the undisturbed one");
    assert!((1..=12).contains(&hedged), "{hedged}");
    assert!(crawled_s < 2.0 * clean_s + 1.0, "{clean_s:.2} s became {crawled_s:.2} s");
    assert_eq!(metrics.fetch_retries.of(RetryReason::Timeout).get(), 0);
}
