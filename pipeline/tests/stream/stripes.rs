//! `data.stripes`: each of several processes reads a part of the shards, and all of them together have the order that one process has.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::stream_support::*;
use splitmask_pipeline::bucket::manifest::{ImageStatistics, Manifest, ShardEntry};
use splitmask_pipeline::config::{DataConfig, SourceConfig};
use splitmask_pipeline::cursor::Cursor;
use splitmask_pipeline::error::PipelineError;
use splitmask_pipeline::file::sha256;
use splitmask_pipeline::metrics::{PipelineMetrics, Scheme};
use splitmask_pipeline::run::{Dataset, Order, SampleStream};
use splitmask_pipeline::setting::Findings;
use splitmask_pipeline::types::SampleId;

const COUNTS: [u32; 7] = [30, 7, 1, 44, 20, 31, 12];
const STRIPES: u32 = 4;

fn total() -> usize {
    COUNTS.iter().sum::<u32>() as usize
}

/// Shards of so many samples, and a manifest that says so.
fn write(folder: &Path, counts: &[u32]) {
    let entry = |(n, samples): (usize, &u32)| {
        let (path, bytes) = (format!("s-{n:03}.tar"), tar(n as u32, *samples, 60));
        fs::write(folder.join(&path), &bytes).unwrap();
        ShardEntry {
            path,
            bytes: bytes.len() as u64,
            samples: *samples,
            sha256: sha256(&bytes),
        }
    };
    let manifest = Manifest {
        format: Manifest::FORMAT.into(),
        shards: counts.iter().enumerate().map(entry).collect(),
        classes: vec![],
        label_counts: vec![],
        maps: None,
        objects: None,
        statistics: ImageStatistics::default(),
        provenance: String::new(),
    };
    fs::write(folder.join("manifest.json"), serde_json::to_vec(&manifest).unwrap()).unwrap();
}

fn striped(stripes: u32, window: u32) -> DataConfig {
    DataConfig { stripes, ..data(window) }
}

fn stream(dataset: &Dataset, start: Cursor, rank: u32, world: u32) -> Result<SampleStream, PipelineError> {
    dataset.samples(Order::Shuffled {
        seed: 11,
        start,
        rank,
        world,
    })
}

/// Ids, and the cursor behind each.
fn take(dataset: &Dataset, start: Cursor, rank: u32, world: u32, count: usize) -> Vec<(SampleId, Cursor)> {
    let mut stream = stream(dataset, start, rank, world).unwrap();
    let mut one = || Some((stream.next()?.unwrap().id, stream.cursor()));
    (0..count).map_while(|_| one()).collect()
}

#[test]
fn any_number_of_ranks_has_one_order_and_goes_on_from_any_others_place() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), &COUNTS);
    let url = folder.path().to_str().unwrap();
    for window in [1, 32, 1000] {
        let dataset = open(url, &striped(STRIPES, window), &pipeline(2, 3));
        let count = 3 * total() / 4 * 4;
        let one = take(&dataset, Cursor::default(), 0, 1, count);
        let global: Vec<SampleId> = one.iter().map(|s| s.0).collect();
        for epoch in 0..2 {
            let of: Vec<SampleId> = global.iter().copied().filter(|id| id.epoch == epoch).collect();
            assert_eq!(of.len(), total(), "each sample once in epoch {epoch}");
            assert_eq!(of.iter().collect::<BTreeSet<_>>().len(), total());
        }
        for world in [2, 4] {
            let each = count / world as usize;
            let ranks: Vec<_> = (0..world)
                .map(|rank| take(&dataset, Cursor::default(), rank, world, each))
                .collect();
            let joined: Vec<SampleId> = (0..each).flat_map(|n| ranks.iter().map(move |r| r[n].0)).collect();
            assert_eq!(joined, global, "{world} ranks, window {window}");
            for n in [0, 3, 40, each / 2, each - 25] {
                let (done, at) = ((n + 1) * world as usize, ranks[1][n].1);
                assert_eq!(at.samples(), done as u64);
                assert_eq!(at, ranks[0][n].1, "the ranks agree on a place");
                for then in [1, 2, 4] {
                    let rest: Vec<_> = (0..then).map(|rank| take(&dataset, at, rank, then, 6)).collect();
                    let rest: Vec<SampleId> = (0..6).flat_map(|n| rest.iter().map(move |r| r[n].0)).collect();
                    let want = &global[done..];
                    assert_eq!(
                        rest[..want.len().min(rest.len())],
                        want[..rest.len().min(want.len())],
                        "{world} to {then} behind {done}"
                    );
                }
            }
        }
        // Readers, as everywhere, change nothing.
        let other = open(url, &striped(STRIPES, window), &pipeline(1, 16));
        assert_eq!(take(&other, Cursor::default(), 0, 1, 100), one[..100]);
    }
}

#[test]
fn the_order_is_shuffled_over_all_shards() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), &[40; 8]);
    let dataset = open(folder.path().to_str().unwrap(), &striped(4, 64), &pipeline(1, 2));
    let ids: Vec<SampleId> = take(&dataset, Cursor::default(), 0, 1, 320).into_iter().map(|s| s.0).collect();
    let shards = |ids: &[SampleId]| ids.iter().map(|id| id.shard).collect::<BTreeSet<_>>().len();
    assert!(
        ids.chunks(32).all(|batch| shards(batch) >= 4),
        "a batch has images of four places at least"
    );
    let followed = ids
        .windows(5)
        .filter(|w| w[0].shard == w[4].shard && w[4].member == w[0].member + 1)
        .count();
    assert!(followed < 60, "{followed} samples of a stripe follow each other as in their shard");
}

/// What the ranks read together is the set, and not the set times their number.
#[test]
fn all_ranks_together_read_the_shards_about_once() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), &[10; 64]);
    let url = folder.path().to_str().unwrap();
    let opened = |stripes: u32| -> Vec<u64> {
        let rank = |rank| {
            let metrics = PipelineMetrics::default();
            let dataset = Dataset::open(url, &striped(stripes, 64), &pipeline(1, 1), metrics.clone()).unwrap();
            let taken = take(&dataset, Cursor::default(), rank, 4, 150);
            assert_eq!(taken.len(), 150);
            metrics.shards_opened.of(Scheme::File).get()
        };
        (0..4).map(rank).collect()
    };
    let (whole, cut) = (opened(1), opened(4));
    assert!(whole.iter().all(|n| *n >= 60), "without stripes each opens all: {whole:?}");
    assert!(
        cut.iter().all(|n| (15..=20).contains(n)),
        "with them each opens a quarter, and looks ahead: {cut:?}"
    );
}

#[test]
fn a_shard_that_ends_early_or_is_missing_costs_its_samples_alone() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), &[20; 8]);
    let url = folder.path().to_str().unwrap();
    let dataset = open(url, &striped(4, 40), &pipeline(1, 2));
    let whole = take(&dataset, Cursor::default(), 0, 1, 160);
    // Shard 5 is there with half of its samples and the bytes that the manifest says, and shard 2 cannot be read.
    let half = tar(5, 10, 60);
    let mut cut = fs::read(folder.path().join("s-005.tar")).unwrap();
    let end = half.len() - 1024;
    cut[end..].fill(0);
    fs::write(folder.path().join("s-005.tar"), &cut).unwrap();
    fs::write(
        folder.path().join("s-002.tar"),
        vec![7; fs::metadata(folder.path().join("s-002.tar")).unwrap().len() as usize],
    )
    .unwrap();
    let lost = |id: &SampleId| id.shard == 2 || (id.shard == 5 && id.member >= 10);
    let want: Vec<SampleId> = whole.iter().map(|s| s.0).filter(|id| !lost(id)).collect();
    let dataset = open(url, &striped(4, 40), &pipeline(1, 2));
    let have = take(&dataset, Cursor::default(), 0, 1, want.len());
    assert_eq!(have.iter().map(|s| s.0).collect::<Vec<_>>(), want);
    // Places still are those of the set as the manifest has it: a cursor of the whole one goes on at the same sample.
    let rest: Vec<SampleId> = take(&dataset, whole[99].1, 0, 1, 20).into_iter().map(|s| s.0).collect();
    let after: Vec<SampleId> = whole[100..].iter().map(|s| s.0).filter(|id| !lost(id)).take(20).collect();
    assert_eq!(rest, after);
    assert!(
        dataset.differences().iter().any(|d| d.to_string().contains("s-005.tar")),
        "{:?}",
        dataset.differences()
    );
}

#[test]
fn what_cannot_be_cut_is_refused_by_key_and_value() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), &COUNTS);
    let url = folder.path().to_str().unwrap();
    let dataset = open(url, &striped(4, 32), &pipeline(1, 1));
    let refused = |dataset: &Dataset, start, world| stream(dataset, start, 0, world).err().unwrap().to_string();
    let text = refused(&dataset, Cursor::default(), 3);
    assert!(
        text.contains("data.stripes = 4") && text.contains("3 ranks") && text.contains("1, 2, 4"),
        "{text}"
    );
    let place = take(&dataset, Cursor::default(), 0, 1, 5)[4].1;
    let text = refused(&open(url, &striped(4, 48), &pipeline(1, 1)), place, 1);
    assert!(text.contains("data.shuffle_window = 48") && text.contains("= 32"), "{text}");
    let text = refused(&open(url, &striped(1000, 32), &pipeline(1, 1)), Cursor::default(), 1);
    assert!(text.contains("data.stripes = 1000") && text.contains("145 samples"), "{text}");
    fs::remove_file(folder.path().join("manifest.json")).unwrap();
    let text = refused(&open(url, &striped(4, 32), &pipeline(1, 1)), Cursor::default(), 1);
    assert!(text.contains("data.stripes = 4") && text.contains("manifest.json"), "{text}");

    let settings = |change: &dyn Fn(&mut DataConfig)| {
        let (mut data, mut found) = (striped(4, 32), Findings::default());
        change(&mut data);
        data.check(&mut found);
        found.first().err().map(|e| e.to_string()).unwrap_or_default()
    };
    assert_eq!(settings(&|_| ()), "");
    assert!(settings(&|data| data.fraction = 0.5).contains("data.stripes = 4"));
    assert!(settings(&|data| data.stripes = 0).contains("data.stripes = 0"));
    let source = SourceConfig {
        name: "a".into(),
        url: "b".into(),
        weight: 1.0,
    };
    assert!(settings(&|data| data.sources = vec![source.clone()]).contains("data.stripes = 4"));
}
