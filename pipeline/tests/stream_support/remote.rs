//! Four shards on the fault server, and one pass over them.

use splitmask_pipeline::config::{DataConfig, PipelineConfig};
use splitmask_pipeline::error::{PipelineError, ShardError};
use splitmask_pipeline::metrics::{PipelineMetrics, Scheme};
use splitmask_pipeline::run::{Dataset, Order};
use splitmask_pipeline::types::Batch;

use crate::fault_server::{Ability, Fault, FaultServer, Request};
use crate::stream_support::{data, hashing, pipeline, spec, tar};

pub(crate) const SHARDS: u32 = 4;
/// 25 samples of 100 KiB: 2.5 MB, three ranged reads of 1 MiB.
pub(crate) const SAMPLES: u32 = 25;

pub(crate) fn objects() -> Vec<(String, Vec<u8>)> {
    (0..SHARDS)
        .map(|n| (format!("d/s-{n:03}.tar"), tar(n, SAMPLES, 100 << 10)))
        .collect()
}

pub(crate) fn place(server: &FaultServer) -> String {
    format!("{}/d/s-{{000..{:03}}}.tar", server.url(), SHARDS - 1)
}

pub(crate) fn read(
    server: &FaultServer,
    settings: &DataConfig,
    machine: &PipelineConfig,
    metrics: &PipelineMetrics,
) -> Result<Vec<Batch>, PipelineError> {
    let dataset = Dataset::open(&place(server), settings, machine, metrics.clone())?;
    let mut stream = dataset.batches(spec(Order::Sequential, 10), hashing)?;
    std::iter::from_fn(|| stream.next()).collect()
}

pub(crate) fn total_bytes() -> u64 {
    objects().iter().map(|o| o.1.len() as u64).sum()
}

/// The stream of a server that does everything right.
pub(crate) fn clean() -> Vec<Batch> {
    let server = FaultServer::start(objects(), |_| Fault::None);
    let batches = read(&server, &data(16), &pipeline(2, 2), &PipelineMetrics::default()).unwrap();
    assert_eq!(batches.iter().map(|b| b.len).sum::<usize>() as u32, SHARDS * SAMPLES);
    assert_eq!(server.sent(), total_bytes(), "an undisturbed pass reads every byte once");
    assert_eq!(
        server.requests(),
        u64::from(3 * SHARDS + 1),
        "three ranges a shard, and one look whether the place exists"
    );
    batches
}

/// Reads with faults from a server that can do so much, and expects the undisturbed stream.
pub(crate) fn same_stream(ability: Ability, script: impl Fn(&Request) -> Fault + Send + Sync + 'static) -> (FaultServer, PipelineMetrics) {
    let server = FaultServer::start(objects(), script);
    server.limit(ability);
    let metrics = PipelineMetrics::default();
    let batches = read(&server, &data(16), &pipeline(2, 2), &metrics).unwrap();
    assert!(batches == clean(), "the stream differs from the undisturbed one");
    assert_eq!(metrics.shards_finished.of(Scheme::Http).get(), u64::from(SHARDS));
    (server, metrics)
}

pub(crate) fn is_get(request: &Request) -> bool {
    request.method == "GET"
}

/// Asserts that an error names the second shard with what it was and what it became.
pub(crate) fn says_that_it_changed(error: &PipelineError) {
    let PipelineError::Shard(ShardError::Changed { shard, before, after }) = error else {
        panic!("{error}")
    };
    assert_eq!(
        (shard.as_str(), before.as_str(), after.as_str()),
        ("d/s-001.tar", "\"v1\"", "\"v2\"")
    );
}
