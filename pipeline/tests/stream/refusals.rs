//! Stores that refuse (rows 20 and 21 of the fault matrix): refused everywhere the credentials are no good, refused alone a shard is missing.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::fault_server::{Fault, FaultServer, Request};
use crate::remote::*;
use crate::stream_support::*;
use splitmask_pipeline::config::OnShardError;
use splitmask_pipeline::error::{PipelineError, ShardError};
use splitmask_pipeline::metrics::{PipelineMetrics, RetryReason, Scheme};
use splitmask_pipeline::run::{Dataset, Order};
use splitmask_pipeline::types::SampleId;

#[test]
fn credentials_refused_everywhere_are_tried_twice_and_then_named() {
    // The one look whether the place exists is a HEAD.
    let server = FaultServer::start(objects(), |r| if is_get(r) { Fault::Status(403) } else { Fault::None });
    let metrics = PipelineMetrics::default();
    // Whatever the policy for missing shards is: going on would pass over everything.
    let error = read(&server, &data(16), &pipeline(1, 1), &metrics).unwrap_err();
    assert!(
        matches!(&error, PipelineError::Shard(ShardError::Denied { shard, .. }) if shard == "d/s-000.tar"),
        "{error}"
    );
    assert!(error.hint().unwrap().contains("credentials"));
    assert_eq!(metrics.fetch_retries.of(RetryReason::Denied).get(), 1);
}

#[test]
fn credentials_that_are_revoked_in_the_middle_end_the_stream_behind_what_was_read() {
    let gets = AtomicU64::new(0);
    let server = FaultServer::start(objects(), move |r| match is_get(r) && gets.fetch_add(1, Ordering::SeqCst) >= 5 {
        true => Fault::Status(403),
        false => Fault::None,
    });
    let dataset = Dataset::open(&place(&server), &data(16), &pipeline(1, 1), PipelineMetrics::default()).unwrap();
    let mut stream = dataset.batches(spec(Order::Sequential, 5), hashing).unwrap();
    let all: Vec<_> = std::iter::from_fn(|| stream.next()).collect();
    let (last, before) = all.split_last().unwrap();
    assert!(matches!(last, Err(PipelineError::Shard(ShardError::Denied { .. }))), "{last:?}");
    assert!(
        (5..10).contains(&before.len()) && before.iter().all(Result::is_ok),
        "{}",
        before.len()
    );
}

/// As a bucket that may not be listed: what is not there is refused, GET and HEAD.
fn unlisted(missing: &'static [&'static str]) -> impl Fn(&Request) -> Fault + Send + Sync + 'static {
    move |r| match missing.iter().any(|m| r.key.ends_with(m)) {
        true => Fault::Status(403),
        false => Fault::None,
    }
}

#[test]
fn a_shard_refused_alone_is_skipped_or_stops_as_a_missing_one() {
    // Also the first one, which is looked at whether the place exists, and when others are still unread.
    for missing in [&["002.tar"][..], &["000.tar"], &["000.tar", "001.tar", "002.tar"]] {
        let server = FaultServer::start(objects(), unlisted(missing));
        let metrics = PipelineMetrics::default();
        let batches = read(&server, &data(16), &pipeline(2, 2), &metrics).unwrap();
        let ids: Vec<SampleId> = batches.iter().flat_map(|b| b.ids.clone()).collect();
        assert_eq!(ids.len() as u32, (SHARDS - missing.len() as u32) * SAMPLES);
        let name = |i: &SampleId| format!("{:03}.tar", i.shard);
        assert!(ids.iter().all(|i| !missing.contains(&name(i).as_str())));
        assert_eq!(
            metrics.shards_finished.of(Scheme::Http).get() as usize,
            SHARDS as usize - missing.len()
        );

        let mut settings = data(16);
        settings.on_shard_error = OnShardError::Stop;
        let error = read(&server, &settings, &pipeline(2, 2), &PipelineMetrics::default()).unwrap_err();
        let PipelineError::Shard(refused @ ShardError::Refused { shard, .. }) = &error else {
            panic!("{error}")
        };
        assert_eq!(
            (shard.as_str(), refused.reason()),
            (format!("d/s-{}", missing[0]).as_str(), "not_found")
        );
        assert!(
            error.to_string().contains("403") && error.hint().unwrap().contains("skip"),
            "{error}"
        );
    }
}

#[test]
fn a_refusal_while_the_store_is_away_is_judged_when_it_is_back() {
    let others = AtomicU64::new(0);
    let server = FaultServer::start(objects(), move |r| {
        let other = is_get(r) && !r.key.ends_with("000.tar");
        match (is_get(r), other) {
            (true, false) => Fault::Status(403),
            // Nobody else answers at first.
            (true, true) if others.fetch_add(1, Ordering::SeqCst) < 4 => Fault::Reset(0),
            _ => Fault::None,
        }
    });
    let batches = read(&server, &data(16), &pipeline(2, 1), &PipelineMetrics::default()).unwrap();
    assert_eq!(batches.iter().map(|b| b.len).sum::<usize>() as u32, (SHARDS - 1) * SAMPLES);
}

#[test]
fn a_token_that_was_renewed_in_time_costs_one_retry() {
    let server = FaultServer::start(objects(), |r| match is_get(r) && r.number == 1 {
        true => Fault::Status(403),
        false => Fault::None,
    });
    let metrics = PipelineMetrics::default();
    let batches = read(&server, &data(16), &pipeline(2, 2), &metrics).unwrap();
    let undisturbed = FaultServer::start(objects(), |_| Fault::None);
    let clean = read(&undisturbed, &data(16), &pipeline(2, 2), &PipelineMetrics::default()).unwrap();
    assert!(batches == clean, "the stream differs from the undisturbed one");
    assert_eq!(metrics.shards_finished.of(Scheme::Http).get(), u64::from(SHARDS));
}
