//! Object stores that misbehave (rows 12-16, 18 and 21 of the fault matrix): the stream must equal an undisturbed one, or say what is wrong.

use std::time::{Duration, Instant};

use crate::fault_server::{Ability, Fault, FaultServer, Request};
use crate::remote::*;
use crate::stream_support::*;
use splitmask_pipeline::config::{OnShardError, PipelineConfig};
use splitmask_pipeline::cursor::Cursor;
use splitmask_pipeline::error::{PipelineError, ShardError};
use splitmask_pipeline::metrics::{PipelineMetrics, RetryReason, Scheme};
use splitmask_pipeline::run::{Dataset, Order};
use splitmask_pipeline::seed::mix;
use splitmask_pipeline::types::SampleId;

#[test]
fn throttling_of_a_third_of_the_requests_changes_nothing() {
    let (_, metrics) = same_stream(Ability::All, |r| match mix(r.number ^ hash(r.key.as_bytes())) % 10 {
        0..3 => Fault::Status(503),
        _ => Fault::None,
    });
    assert!(metrics.fetch_retries.of(RetryReason::Throttled).get() > 0);
}

#[test]
fn a_retry_after_is_waited_for() {
    let start = Instant::now();
    let (_, metrics) = same_stream(Ability::All, |r| {
        if is_get(r) && r.key.ends_with("001.tar") && r.number == 0 {
            Fault::SlowDown(1)
        } else {
            Fault::None
        }
    });
    assert_eq!(metrics.fetch_retries.of(RetryReason::Throttled).get(), 1);
    assert!(start.elapsed() >= Duration::from_secs(1));
}

#[test]
fn single_server_errors_are_retried() {
    for code in [500, 502, 429, 408] {
        let (_, metrics) = same_stream(Ability::All, move |r| {
            if is_get(r) && r.number == 1 {
                Fault::Status(code)
            } else {
                Fault::None
            }
        });
        let reason = if code == 429 { RetryReason::Throttled } else { RetryReason::Server };
        assert!(metrics.fetch_retries.of(reason).get() > 0, "{code}");
    }
}

#[test]
fn a_broken_connection_is_resumed_at_its_byte() {
    let (server, metrics) = same_stream(Ability::All, |r| match (is_get(r), r.number % 2) {
        // Inside the shortest part, so that it breaks whichever part the request is for.
        (true, 0) => Fault::Reset(50_000 + (mix(r.number) % 400_000) as usize),
        _ => Fault::None,
    });
    assert!(metrics.fetch_retries.of(RetryReason::Connection).get() > 3);
    assert!(metrics.store_resumed_reads.get() > 3);
    // What was received is never asked for again; what lay in the sockets of a broken connection may be.
    assert!(
        server.sent() as f64 <= 1.05 * total_bytes() as f64,
        "{} of {}",
        server.sent(),
        total_bytes()
    );
}

#[test]
fn a_body_that_ends_early_without_an_error_is_noticed_by_count() {
    let (server, metrics) = same_stream(Ability::All, |r| {
        if is_get(r) && r.number % 3 == 0 {
            Fault::EndEarly(70_000)
        } else {
            Fault::None
        }
    });
    assert!(metrics.fetch_retries.of(RetryReason::EarlyEnd).get() >= u64::from(SHARDS));
    assert_eq!(server.sent(), total_bytes());
}

#[test]
fn a_stalled_connection_is_given_up_and_resumed() {
    let start = Instant::now();
    let (_, metrics) = same_stream(Ability::All, |r| {
        if is_get(r) && r.key.ends_with("002.tar") && r.number == 0 {
            Fault::Stall(1000)
        } else {
            Fault::None
        }
    });
    assert_eq!(metrics.fetch_retries.of(RetryReason::Timeout).get(), 1);
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
}

#[test]
fn a_slow_server_is_not_given_up_while_bytes_come() {
    // 20 KB each 10 ms: a range takes half a second, longer than the time-out below allows between two bytes.
    let server = FaultServer::start(objects(), |_| Fault::Trickle(20_000));
    let metrics = PipelineMetrics::default();
    let mut machine = pipeline(2, 4);
    machine.read_timeout_s = 0.4;
    assert!(read(&server, &data(16), &machine, &metrics).unwrap() == clean());
    assert_eq!(metrics.fetch_retries.of(RetryReason::Timeout).get(), 0);
}

#[test]
fn an_object_that_changes_while_it_is_read_is_never_mixed() {
    // HEAD of the probe is request 0 of the first key only.
    let server = FaultServer::start(objects(), |r| match (is_get(r), r.key.ends_with("001.tar"), r.range) {
        (true, true, Some((from, _))) if from >= 2 << 20 => Fault::Replace,
        _ => Fault::None,
    });
    let mut settings = data(16);
    settings.on_shard_error = OnShardError::Stop;
    let error = read(&server, &settings, &pipeline(2, 1), &PipelineMetrics::default()).unwrap_err();
    says_that_it_changed(&error);
}

#[test]
fn a_missing_shard_is_skipped_or_stops_by_policy() {
    let missing = |r: &Request| {
        if r.key.ends_with("001.tar") {
            Fault::Status(404)
        } else {
            Fault::None
        }
    };
    let server = FaultServer::start(objects(), missing);
    let batches = read(&server, &data(16), &pipeline(2, 2), &PipelineMetrics::default()).unwrap();
    let ids: Vec<SampleId> = batches.iter().flat_map(|b| b.ids.clone()).collect();
    assert_eq!(ids.len() as u32, (SHARDS - 1) * SAMPLES);
    assert!(ids.iter().all(|i| i.shard != 1));
    let mut settings = data(16);
    settings.on_shard_error = OnShardError::Stop;
    let error = read(&server, &settings, &pipeline(2, 2), &PipelineMetrics::default()).unwrap_err();
    assert!(
        matches!(&error, PipelineError::Shard(ShardError::NotFound { shard }) if shard == "d/s-001.tar"),
        "{error}"
    );
}

#[test]
fn a_spent_retry_budget_names_shard_byte_and_cause() {
    let server = FaultServer::start(objects(), |r| match r.range {
        Some((from, _)) if r.key.ends_with("000.tar") && from >= 1 << 20 => Fault::Status(500),
        _ => Fault::None,
    });
    let mut settings = data(16);
    settings.on_shard_error = OnShardError::Stop;
    let mut machine = pipeline(1, 1);
    machine.retry_budget_s = 0.5;
    let error = read(&server, &settings, &machine, &PipelineMetrics::default()).unwrap_err();
    let PipelineError::Shard(ShardError::Unreachable {
        shard,
        offset,
        attempts,
        detail,
        ..
    }) = &error
    else {
        panic!("{error}")
    };
    assert_eq!((shard.as_str(), *offset), ("d/s-000.tar", 1 << 20));
    assert!(*attempts >= 2 && detail.contains("500"), "{error}");
}

#[test]
fn an_empty_object_is_a_truncated_shard_and_not_a_hang() {
    let mut all = objects();
    all[1].1.clear();
    let server = FaultServer::start(all, |_| Fault::None);
    let batches = read(&server, &data(16), &pipeline(2, 2), &PipelineMetrics::default()).unwrap();
    assert_eq!(batches.iter().map(|b| b.len).sum::<usize>() as u32, (SHARDS - 1) * SAMPLES);
}

#[test]
fn a_consumer_that_pauses_costs_no_retry() {
    let server = FaultServer::start(objects(), |_| Fault::None);
    let metrics = PipelineMetrics::default();
    let mut machine = pipeline(1, 2);
    machine.read_timeout_s = 0.3;
    machine.queue_batches = 1;
    let dataset = Dataset::open(&place(&server), &data(4), &machine, metrics.clone()).unwrap();
    let mut stream = dataset.batches(spec(Order::Sequential, 2), hashing).unwrap();
    let mut seen = vec![];
    while let Some(batch) = stream.next() {
        seen.extend(contents(&batch.unwrap()));
        if seen.len() % 30 == 0 {
            // Three time-outs long: every read in flight must have ended by itself before.
            std::thread::sleep(Duration::from_millis(1000));
        }
    }
    assert_eq!(seen, clean().iter().flat_map(contents).collect::<Vec<_>>());
    for reason in [RetryReason::Timeout, RetryReason::Connection, RetryReason::EarlyEnd] {
        assert_eq!(metrics.fetch_retries.of(reason).get(), 0, "{reason:?}");
    }
}

#[test]
fn an_outage_is_waited_out() {
    let start = Instant::now();
    let (_, metrics) = same_stream(Ability::All, move |r| {
        if is_get(r) && start.elapsed() < Duration::from_secs(2) {
            Fault::Reset(0)
        } else {
            Fault::None
        }
    });
    assert!(metrics.fetch_retries.of(RetryReason::Connection).get() > 2);
}

#[test]
fn stopping_does_not_wait_for_a_dead_server() {
    let server = FaultServer::start(objects(), |r| if is_get(r) { Fault::Stall(1000) } else { Fault::None });
    let mut machine = pipeline(2, 4);
    machine.read_timeout_s = 15.0;
    let dataset = Dataset::open(&place(&server), &data(16), &machine, PipelineMetrics::default()).unwrap();
    let stream = dataset.batches(spec(shuffled(Cursor::default()), 2), hashing).unwrap();
    std::thread::sleep(Duration::from_millis(200));
    let start = Instant::now();
    stream.stop();
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
}

#[test]
fn places_that_cannot_be_had_say_so_soon() {
    let fails = |url: &str| {
        Dataset::open(
            url,
            &data(16),
            &PipelineConfig {
                retry_budget_s: 0.5,
                ..pipeline(1, 1)
            },
            PipelineMetrics::default(),
        )
        .unwrap_err()
    };
    let server = FaultServer::start(objects(), |_| Fault::None);
    let error = fails(&format!("{}/d", server.url()));
    assert!(
        matches!(error, PipelineError::Empty { .. }) && error.to_string().contains("cannot be listed"),
        "{error}"
    );
    let error = fails(&format!("{}/none-{{0..9}}.tar", server.url()));
    assert!(
        matches!(error, PipelineError::Empty { .. }) && error.to_string().contains("none-0.tar is not there"),
        "{error}"
    );
    let gone = server.url();
    drop(server);
    let error = fails(&format!("{gone}/d/s-{{000..003}}.tar"));
    assert!(
        matches!(error, PipelineError::Unreachable { .. }) && error.hint().unwrap().contains("endpoint"),
        "{error}"
    );
}

#[test]
fn shards_of_other_sizes_than_those_before_them_are_read_whole() {
    // Sizes that nobody tells: each shard is taken to be as large as the last one, which is too much, too little, and beyond an empty one.
    let counts = [25, 1, 40, 0];
    let objects: Vec<_> = (0..SHARDS)
        .map(|n| (format!("d/s-{n:03}.tar"), tar(n, counts[n as usize], 100 << 10)))
        .collect();
    for readers in [1, 3] {
        let server = FaultServer::start(objects.clone(), |_| Fault::None);
        let metrics = PipelineMetrics::default();
        let batches = read(&server, &data(16), &pipeline(2, readers), &metrics).unwrap();
        let members: Vec<(u32, u32)> = batches.iter().flat_map(|b| &b.ids).map(|id| (id.shard, id.member)).collect();
        let want: Vec<(u32, u32)> = (0..SHARDS).flat_map(|s| (0..counts[s as usize]).map(move |m| (s, m))).collect();
        assert_eq!(members, want, "{readers} readers");
        assert_eq!(metrics.shards_finished.of(Scheme::Http).get(), u64::from(SHARDS));
        let bytes: usize = objects.iter().map(|o| o.1.len()).sum();
        assert_eq!(server.sent(), bytes as u64, "what lies behind an end is asked for, but is no byte");
    }
}
