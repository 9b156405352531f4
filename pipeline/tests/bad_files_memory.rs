//! What bad files cost in memory and time (rows 1, 5 and 6 of the fault matrix). One test in its own process: it looks at the process's memory.
#![expect(clippy::print_stdout, reason = "a measurement that is read with --nocapture")]

mod stream_support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use splitmask_pipeline::decode::Limits;
use splitmask_pipeline::request::{IMAGE, SampleRequest, ViewRequest};
use splitmask_pipeline::sample::{SampleMaker, ViewMode};
use splitmask_pipeline::types::{RawSample, Sample, SampleId};
use stream_support::bad_files::{KINDS, spoil};

/// Resident bytes of this process.
fn resident() -> i64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    text.split(' ').nth(1).unwrap().parse::<i64>().unwrap() * 4096
}

fn raw(bytes: Vec<u8>, member: u32) -> RawSample {
    RawSample {
        id: SampleId {
            epoch: 0,
            shard: 0,
            member,
        },
        shard: "s".into(),
        key: "k".into(),
        image: bytes.into(),
        extension: "jpg".into(),
        label: None,
        map: None,
        objects: None,
    }
}

#[test]
fn bad_files_leak_nothing_and_bombs_cost_no_time() {
    let request = Arc::new(SampleRequest::of_views(vec![ViewRequest::new(IMAGE, 16)]));
    let mut maker = SampleMaker::new(request, ViewMode::Train, 1, Limits::default(), None).unwrap();
    let mut out = Sample::default();

    // 60,000 × 60,000 pixels: 10 GB if anyone believed it.
    let before = resident();
    for kind in ["jpeg bomb", "png bomb"] {
        let sample = raw(spoil(kind, 1).1, 0);
        let mut times: Vec<Duration> = (0..200)
            .map(|_| {
                let start = Instant::now();
                assert_eq!(maker.make(&sample, &mut out).unwrap_err().reason(), "too_large");
                start.elapsed()
            })
            .collect();
        times.sort_unstable();
        assert!(times[100] < Duration::from_millis(1), "{kind}: {:?}", times[100]);
    }
    assert!(resident() - before <= 32 << 20, "{} bytes", resident() - before);

    let decoded: Vec<(&str, RawSample)> = KINDS
        .iter()
        .filter(|k| k.0 != "no image")
        .map(|(kind, reason)| (*reason, raw(spoil(kind, 2).1, 1)))
        .collect();
    let mut rounds = |files: usize| {
        for n in 0..files {
            let (reason, sample) = &decoded[n % decoded.len()];
            let start = Instant::now();
            assert_eq!(maker.make(sample, &mut out).unwrap_err().reason(), *reason);
            assert!(start.elapsed() < Duration::from_secs(2), "{reason} took {:?}", start.elapsed());
        }
    };
    rounds(2_000);
    let before = resident();
    rounds(20_000);
    let growth = resident() - before;
    println!("20,000 bad files: {growth} bytes more resident");
    assert!(growth < 2 << 20, "{growth} bytes for 20,000 bad files; at most 1 MiB per 10,000");
}
