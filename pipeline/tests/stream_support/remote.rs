//! Four shards on the fault server, and one pass over them.

use splitmask_pipeline::config::{DataConfig, PipelineConfig};
use splitmask_pipeline::error::PipelineError;
use splitmask_pipeline::metrics::PipelineMetrics;
use splitmask_pipeline::run::{Dataset, Order};
use splitmask_pipeline::types::Batch;

use crate::fault_server::{FaultServer, Request};
use crate::stream_support::{hashing, spec, tar};

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

pub(crate) fn is_get(request: &Request) -> bool {
    request.method == "GET"
}
