//! Promise: a pipeline takes the memory that its settings say, not more, and they say no more than about what it takes.
#![cfg(target_os = "linux")]

mod stream_support;

use std::path::Path;

use splitmask_pipeline::config::PipelineConfig;
use splitmask_pipeline::cursor::Cursor;
use splitmask_pipeline::metrics::PipelineMetrics;
use splitmask_pipeline::run::Dataset;
use splitmask_pipeline::run::footprint::{Footprint, Images};
use stream_support::*;

const BYTES: usize = 60_000;
const BATCH: usize = 8;

/// Resident memory now, bytes.
fn resident() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).unwrap();
    1024.0 * line.trim().trim_end_matches("kB").trim().parse::<f64>().unwrap()
}

/// Largest growth of memory while two epochs are read, and what the settings say.
fn measured(folder: &Path, window: u32, settings: &PipelineConfig) -> (f64, f64) {
    let before = resident();
    let dataset = Dataset::open(&folder.display().to_string(), &data(window), settings, PipelineMetrics::default()).unwrap();
    let spec = spec(shuffled(Cursor::default()), BATCH);
    let images = Images {
        bytes: (BYTES + 2048) as f64,
        pixels: 0.0,
        objects: 0.0,
        masked: 0.0,
        remote: false,
    };
    let said = Footprint::of(&data(window), settings, &spec.request, BATCH, images).total();
    let mut stream = dataset.batches(spec, hashing).unwrap();
    let mut most = before;
    for _ in 0..2 * 3000 / BATCH {
        let batch = stream.next().unwrap().unwrap();
        stream.recycle(batch);
        most = resident().max(most);
    }
    (most - before, said)
}

#[test]
fn memory_is_what_the_settings_say() {
    let root = tempfile::tempdir().unwrap();
    write_shards(root.path(), &[250; 12], BYTES);
    for (window, readers) in [(200, 1), (1500, 2)] {
        let (took, said) = measured(root.path(), window, &pipeline(2, readers));
        assert!(
            took < 1.2 * said + 8e6,
            "window {window}: took {:.0} MB of {:.0}",
            took / 1e6,
            said / 1e6
        );
        assert!(
            took > 0.5 * said,
            "window {window}: took only {:.0} MB of {:.0}",
            took / 1e6,
            said / 1e6
        );
    }
}
