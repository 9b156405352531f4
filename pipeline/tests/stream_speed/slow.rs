//! A store where one shard in twenty lies on a server that gives 10 KB/s (row 17 of the fault matrix): a trainer hardly notices.
//!
//! Times are those of a small machine: steps of 40 ms, and `pipeline.hedge_s` of 0.2 s where the default is 1 s; the 10 KB/s are not scaled.
//! As behind a balancer, the second request for the same bytes reaches another server; where all of them crawl, no reader can help.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::fault_server::{Fault, FaultServer, Request};
use crate::stream_support::*;
use splitmask_pipeline::config::PipelineConfig;
use splitmask_pipeline::cursor::Cursor;
use splitmask_pipeline::metrics::{PipelineMetrics, RetryReason};
use splitmask_pipeline::run::Dataset;
use splitmask_pipeline::types::SampleId;

const SHARDS: u32 = 20;
/// 96 samples of 64 KiB: six ranged reads of 1 MiB.
const SAMPLES: u32 = 96;
const BATCH: usize = 12;
const STEP: Duration = Duration::from_millis(40);
/// Two epochs.
const STEPS: usize = 2 * (SHARDS * SAMPLES) as usize / BATCH;
const LINK: Fault = Fault::Link {
    latency_ms: 30,
    megabytes_per_s: 100,
};
/// 100 bytes each 10 ms: 10 KB/s.
const CRAWL: Fault = Fault::Trickle(100);

/// What a steady trainer sees: the samples, and how long each step takes, its wait for the batch included.
fn steps(
    objects: &[(String, Vec<u8>)],
    script: impl Fn(&Request) -> Fault + Send + Sync + 'static,
) -> (Vec<(SampleId, i64, u64)>, Vec<f64>, PipelineMetrics) {
    let server = FaultServer::start(objects.to_vec(), script);
    let place = format!("{}/d/s-{{000..{:03}}}.tar", server.url(), SHARDS - 1);
    let machine = PipelineConfig {
        fetch_ahead: 0,
        hedge_s: 0.2,
        ..pipeline(2, 4)
    };
    let metrics = PipelineMetrics::default();
    let dataset = Dataset::open(&place, &data(64), &machine, metrics.clone()).unwrap();
    let mut stream = dataset.batches(spec(shuffled(Cursor::default()), BATCH), hashing).unwrap();
    let (mut seen, mut times) = (vec![], vec![]);
    // A run's first batch waits for the store; what is asked is how steady it is from then on.
    seen.extend(contents(&stream.next().unwrap().unwrap()));
    for _ in 1..STEPS {
        let start = Instant::now();
        let batch = stream.next().unwrap().unwrap();
        std::thread::sleep(STEP);
        times.push(start.elapsed().as_secs_f64());
        seen.extend(contents(&batch));
        stream.recycle(batch);
    }
    (seen, times, metrics)
}

fn p99(times: &[f64]) -> f64 {
    let mut times = times.to_vec();
    times.sort_unstable_by(f64::total_cmp);
    times[(times.len() * 99).div_ceil(100) - 1]
}

#[test]
fn a_shard_in_twenty_that_crawls_does_not_double_the_slowest_steps() {
    let _turn = crate::turn();
    let objects: Vec<_> = (0..SHARDS)
        .map(|n| (format!("d/s-{n:03}.tar"), tar(n, SAMPLES, 64 << 10)))
        .collect();
    let (clean, clean_times, _) = steps(&objects, |_| LINK);
    // The slow server is asked first in each epoch.
    let asked: Mutex<BTreeSet<(String, u64)>> = Mutex::default();
    let (slow, slow_times, metrics) = steps(&objects, move |r| match r.range {
        Some((from, _)) if r.key.ends_with("007.tar") => {
            let mut asked = asked.lock().unwrap();
            let key = (r.key.clone(), from);
            // The third request for a range is the first of the next epoch.
            if asked.remove(&key) {
                LINK
            } else {
                asked.insert(key);
                CRAWL
            }
        }
        _ => LINK,
    });
    let (before, after) = (p99(&clean_times), p99(&slow_times));
    let hedged = metrics.store_hedged_reads.get();
    println!(
        "steps of {STEP:?}, {} each: p99 {:.1} ms clean, {:.1} ms with a crawling shard, slowest {:.1} and {:.1} ms; {hedged} asked twice",
        STEPS - 1,
        1e3 * before,
        1e3 * after,
        1e3 * clean_times.iter().fold(0.0, |a: f64, b| a.max(*b)),
        1e3 * slow_times.iter().fold(0.0, |a: f64, b| a.max(*b)),
    );
    assert!(slow == clean, "the stream differs from the undisturbed one");
    assert!((10..=30).contains(&hedged), "six parts in each of two epochs: {hedged}");
    assert_eq!(metrics.fetch_retries.of(RetryReason::Timeout).get(), 0);
    assert!(after <= 2.0 * before, "p99 {before:.3} s became {after:.3} s");
}
