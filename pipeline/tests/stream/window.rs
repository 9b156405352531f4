//! `data.shuffle_window` changed by a reload, also in the middle of a window: each sample of an epoch still comes exactly once.

use std::collections::BTreeSet;

use crate::stream_support::*;
use splitmask_pipeline::config::SourceConfig;
use splitmask_pipeline::cursor::Cursor;
use splitmask_pipeline::metrics::PipelineMetrics;
use splitmask_pipeline::run::{Dataset, Order};
use splitmask_pipeline::types::SampleId;

const SIZES: [u32; 6] = [30, 7, 1, 44, 20, 31];
const BATCH: usize = 5;
/// A size of the window and the batches for which it is the configured one: up, down, by one, in a window's middle, at its end, beyond an
/// epoch, and twice within one window.
const CHANGES: [(u32, usize); 9] = [(40, 3), (7, 4), (90, 9), (13, 1), (200, 1), (50, 20), (49, 2), (1, 5), (64, 30)];

fn total() -> usize {
    SIZES.iter().sum::<u32>() as usize
}

/// What a run journals of its samples: id, label, hash of the bytes.
type Journal = Vec<(SampleId, i64, u64)>;

/// As a checkpoint would keep it.
fn kept(cursor: Cursor) -> Cursor {
    serde_json::from_str(&serde_json::to_string(&cursor).unwrap()).unwrap()
}

/// The journal of a run in which the window's size changes; within each size the stream is cut every `cut` batches and resumed.
fn journal(url: &str, changes: &[(u32, usize)], workers: usize, readers: usize, cut: usize) -> Journal {
    let (mut seen, mut cursor) = (vec![], Cursor::default());
    for &(window, batches) in changes {
        let mut left = batches;
        while left > 0 {
            let dataset = open(url, &data(window), &pipeline(workers, readers));
            let mut stream = dataset.batches(spec(shuffled(cursor), BATCH), hashing).unwrap();
            for _ in 0..left.min(cut) {
                let batch = stream.next().unwrap().unwrap();
                seen.extend(contents(&batch));
                cursor = kept(batch.cursor);
            }
            left -= left.min(cut);
        }
        assert_eq!(cursor.samples(), seen.len() as u64);
    }
    seen
}

fn each_once(ids: &[SampleId], total: usize) {
    for (n, epoch) in ids.chunks(total).enumerate() {
        let distinct: BTreeSet<&SampleId> = epoch.iter().collect();
        assert_eq!(distinct.len(), epoch.len(), "a sample of epoch {n} came twice");
        assert!(epoch.iter().all(|i| i.epoch == n as u32), "epoch {n} was not over");
    }
}

#[test]
fn a_window_under_way_keeps_its_size_and_each_sample_comes_once() {
    let folder = tempfile::tempdir().unwrap();
    write_shards(folder.path(), &SIZES, 60);
    let url = folder.path().to_str().unwrap();
    let reference = journal(url, &CHANGES, 1, 1, usize::MAX);
    let ids: Vec<SampleId> = reference.iter().map(|s| s.0).collect();
    assert!(ids.len() > 2 * total(), "two whole epochs and a part");
    each_once(&ids, total());
    for (id, label, found) in &reference {
        assert_eq!(*label, i64::from(id.member % 7));
        assert_eq!(*found, hash(&content(&format!("{:03}-{:04}", id.shard, id.member), 60)));
    }
    for (workers, readers) in [(2, 1), (4, 3), (8, 8)] {
        assert!(
            journal(url, &CHANGES, workers, readers, usize::MAX) == reference,
            "{workers} workers, {readers} readers"
        );
    }
    // Killed behind every batch, and behind every third, with the size as it is then.
    for cut in [1, 3] {
        assert!(journal(url, &CHANGES, 2, 2, cut) == reference, "resumed every {cut} batches");
    }
    // It does change something.
    let steady: usize = CHANGES.iter().map(|c| c.1).sum();
    assert!(journal(url, &[(40, steady)], 2, 2, usize::MAX) != reference);
}

#[test]
fn the_new_size_holds_from_the_next_window_on() {
    let folder = tempfile::tempdir().unwrap();
    write_shards(folder.path(), &[400], 20);
    let url = folder.path().to_str().unwrap();
    // 20 samples into a window of 50; then windows of 10.
    let seen = journal(url, &[(50, 4), (10, 30)], 1, 1, usize::MAX);
    let ranges = |part: &[(SampleId, i64, u64)]| -> BTreeSet<u32> { part.iter().map(|s| s.0.member).collect() };
    assert_eq!(ranges(&seen[..50]), (0..50).collect(), "the window under way keeps its 50");
    for n in 0..12 {
        let first = 50 + 10 * n;
        assert_eq!(ranges(&seen[first..first + 10]), (first as u32..first as u32 + 10).collect());
    }
}

#[test]
fn ranks_go_through_the_same_change_as_one_process() {
    let folder = tempfile::tempdir().unwrap();
    write_shards(folder.path(), &SIZES, 30);
    let take = |window, start, rank, world, count: usize| -> (Vec<SampleId>, Cursor) {
        let dataset = open(folder.path().to_str().unwrap(), &data(window), &pipeline(1, 2));
        let order = Order::Shuffled {
            seed: 11,
            start,
            rank,
            world,
        };
        let mut stream = dataset.samples(order).unwrap();
        let ids = (0..count).map(|_| stream.next().unwrap().unwrap().id).collect();
        (ids, kept(stream.cursor()))
    };
    for world in [2u32, 3, 5] {
        let (mut alone, mut at, mut all, mut cursor) = (vec![], Cursor::default(), vec![], Cursor::default());
        // Rows of `world` samples that end in the middle of windows, and across their ends.
        for (window, rows) in [(16u32, 7usize), (9, 4), (30, 1), (8, 23), (21, 11), (9, 30)] {
            let (ids, next) = take(window, at, 0, 1, rows * world as usize);
            alone.extend(ids);
            at = next;
            let parts: Vec<_> = (0..world).map(|rank| take(window, cursor, rank, world, rows)).collect();
            all.extend((0..rows).flat_map(|n| parts.iter().map(move |p| p.0[n])));
            // Any rank's cursor serves all, also where the row ends in another window than it began in.
            cursor = parts[rows % world as usize].1;
            assert!(parts.iter().all(|p| p.1.samples() == all.len() as u64));
        }
        assert_eq!(all, alone, "{world} ranks");
        each_once(&alone, total());
    }
}

#[test]
fn each_source_of_a_mixture_keeps_the_window_it_is_in() {
    let root = tempfile::tempdir().unwrap();
    let (a, b) = ([40, 25, 60], [30, 20]);
    for (name, sizes) in [("a", &a[..]), ("b", &b[..])] {
        let folder = root.path().join(name);
        std::fs::create_dir(&folder).unwrap();
        write_shards(&folder, sizes, 40);
    }
    let run = |workers, readers, cut: usize| {
        let (mut seen, mut cursor): (Vec<SampleId>, _) = (vec![], Cursor::default());
        for (window, batches) in CHANGES {
            let mut settings = data(window);
            for (name, weight) in [("a", 3.0), ("b", 1.0)] {
                settings.sources.push(SourceConfig {
                    name: name.into(),
                    url: root.path().join(name).display().to_string(),
                    weight,
                });
            }
            let mut left = batches;
            while left > 0 {
                let dataset = Dataset::open_training(&settings, &pipeline(workers, readers), &PipelineMetrics::default()).unwrap();
                let mut stream = dataset.batches(spec(shuffled(cursor), BATCH), hashing).unwrap();
                for _ in 0..left.min(cut) {
                    let batch = stream.next().unwrap().unwrap();
                    seen.extend(&batch.ids);
                    cursor = kept(batch.cursor);
                }
                left -= left.min(cut);
            }
        }
        seen
    };
    let reference = run(1, 1, usize::MAX);
    let (of_a, of_b): (Vec<SampleId>, Vec<SampleId>) = reference.iter().partition(|i| i.shard < a.len() as u32);
    each_once(&of_a, a.iter().sum::<u32>() as usize);
    each_once(&of_b, b.iter().sum::<u32>() as usize);
    assert!(run(4, 4, usize::MAX) == reference && run(2, 2, 1) == reference);
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig { cases: 24, ..Default::default() })]
    #[test]
    fn any_changes_at_any_places_lose_nothing_and_repeat_nothing(
        sizes in proptest::collection::vec(1u32..9, 1..6),
        changes in proptest::collection::vec((1u32..25, 0usize..12), 1..6),
        seed: u64,
    ) {
        let folder = tempfile::tempdir().unwrap();
        write_shards(folder.path(), &sizes, 8);
        let (mut ids, mut cursor) = (vec![], Cursor::default());
        for (window, count) in changes {
            let dataset = open(folder.path().to_str().unwrap(), &data(window), &pipeline(1, 2));
            let mut stream = dataset.samples(Order::Shuffled { seed, start: cursor, rank: 0, world: 1 }).unwrap();
            ids.extend((0..count).map(|_| stream.next().unwrap().unwrap().id));
            cursor = kept(stream.cursor());
        }
        proptest::prop_assert_eq!(cursor.samples(), ids.len() as u64);
        each_once(&ids, sizes.iter().sum::<u32>() as usize);
    }
}
