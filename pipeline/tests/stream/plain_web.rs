//! Web servers that are made for pages: no ranges, no lengths, no HEAD, other addresses. The stream equals that of a full-grown store.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::fault_server::{Ability, Fault, FaultServer};
use crate::remote::*;
use crate::stream_support::*;
use splitmask_pipeline::config::OnShardError;
use splitmask_pipeline::cursor::Cursor;
use splitmask_pipeline::error::{PipelineError, ShardError};
use splitmask_pipeline::metrics::{PipelineMetrics, RetryReason};
use splitmask_pipeline::run::Dataset;
use splitmask_pipeline::types::Batch;

#[test]
fn shards_of_a_server_without_ranges_are_read_whole() {
    for ability in [Ability::Whole, Ability::Chunked] {
        let (server, metrics) = same_stream(ability, |_| Fault::None);
        assert_eq!(metrics.fetch_retries.of(RetryReason::Other).get(), 0);
        // The two shards that are opened first find out; each of their first requests is answered with bytes that nobody takes.
        assert!(
            server.requests() <= u64::from(SHARDS) + 2 * 3 + 2,
            "{ability:?}: {} requests",
            server.requests()
        );
    }
}

#[test]
fn a_whole_body_that_breaks_is_read_again_and_nothing_comes_twice() {
    for ability in [Ability::Whole, Ability::Chunked] {
        let (server, metrics) = same_stream(ability, |r| match (is_get(r) && r.range.is_none(), r.number % 3) {
            (true, 0) => Fault::Reset(900_000),
            (true, 1) => Fault::Reset(1_700_000),
            _ => Fault::None,
        });
        assert!(metrics.fetch_retries.of(RetryReason::Connection).get() > 0, "{ability:?}");
        assert!(server.sent() > total_bytes());
    }
}

#[test]
fn a_whole_body_that_stalls_or_is_refused_for_a_while_is_read_again() {
    // Requests for ranges, by which the server is found out, count too; so these are counted here.
    let (stalls, refusals) = (AtomicU64::new(0), AtomicU64::new(0));
    let (_, metrics) = same_stream(Ability::Whole, move |r| {
        let whole = is_get(r) && r.range.is_none();
        if whole && r.key.ends_with("001.tar") && stalls.fetch_add(1, Ordering::SeqCst) == 0 {
            Fault::Stall(500_000)
        } else if whole && r.key.ends_with("002.tar") && refusals.fetch_add(1, Ordering::SeqCst) == 0 {
            Fault::Status(503)
        } else {
            Fault::None
        }
    });
    assert_eq!(metrics.fetch_retries.of(RetryReason::Timeout).get(), 1);
    assert_eq!(metrics.fetch_retries.of(RetryReason::Throttled).get(), 1);
}

#[test]
fn an_object_that_changes_between_two_whole_reads_is_never_mixed() {
    // Shard 0 finds out that there are no ranges; the next ones are asked for whole at once.
    let server = FaultServer::start(objects(), |r| {
        match (is_get(r) && r.range.is_none(), r.key.ends_with("001.tar"), r.number) {
            (true, true, 0) => Fault::Reset(700_000),
            (true, true, 1) => Fault::Replace,
            _ => Fault::None,
        }
    });
    server.limit(Ability::Whole);
    let mut settings = data(16);
    settings.on_shard_error = OnShardError::Stop;
    let error = read(&server, &settings, &pipeline(1, 1), &PipelineMetrics::default()).unwrap_err();
    says_that_it_changed(&error);
}

#[test]
fn redirections_are_followed() {
    for code in [301, 302, 307, 308] {
        let (_, metrics) = same_stream(Ability::All, move |_| Fault::Redirect(code));
        assert_eq!(metrics.fetch_retries.of(RetryReason::Connection).get(), 0, "{code}");
    }
    same_stream(Ability::Whole, |_| Fault::Redirect(302));
}

#[test]
fn head_not_allowed_does_not_mean_not_there() {
    for code in [405, 501] {
        same_stream(
            Ability::All,
            move |r| if r.method == "HEAD" { Fault::Status(code) } else { Fault::None },
        );
    }
    // What is not there is still noticed.
    let server = FaultServer::start(vec![], |r| if r.method == "HEAD" { Fault::Status(405) } else { Fault::None });
    let error = Dataset::open(&place(&server), &data(16), &pipeline(1, 1), PipelineMetrics::default()).unwrap_err();
    assert!(
        matches!(error, PipelineError::Empty { .. }) && error.to_string().contains("d/s-000.tar is not there"),
        "{error}"
    );
}

#[test]
fn missing_shards_of_a_plain_server_are_named_as_such() {
    let server = FaultServer::start(objects(), |r| {
        if r.key.ends_with("002.tar") {
            Fault::Status(404)
        } else {
            Fault::None
        }
    });
    server.limit(Ability::Chunked);
    let mut settings = data(16);
    let metrics = PipelineMetrics::default();
    let batches = read(&server, &settings, &pipeline(1, 1), &metrics).unwrap();
    assert_eq!(batches.iter().map(|b| b.len).sum::<usize>() as u32, (SHARDS - 1) * SAMPLES);
    settings.on_shard_error = OnShardError::Stop;
    let error = read(&server, &settings, &pipeline(1, 1), &PipelineMetrics::default()).unwrap_err();
    assert!(
        matches!(&error, PipelineError::Shard(ShardError::NotFound { shard }) if shard == "d/s-002.tar"),
        "{error}"
    );
}

#[test]
fn a_stream_of_whole_shards_stops_at_once_and_goes_on_where_it_was() {
    let server = FaultServer::start(objects(), |_| Fault::None);
    server.limit(Ability::Whole);
    let dataset = open(&place(&server), &data(16), &pipeline(2, 2));
    let mut stream = dataset.batches(spec(shuffled(Cursor::default()), 10), hashing).unwrap();
    let all: Vec<Batch> = (0..12).map(|_| stream.next().unwrap().unwrap()).collect();
    stream.stop();
    let mut resumed = dataset.batches(spec(shuffled(all[6].cursor), 10), hashing).unwrap();
    assert!(resumed.next().unwrap().unwrap() == all[7]);
}
