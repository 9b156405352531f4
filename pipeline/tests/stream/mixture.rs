//! Several datasets mixed by weight: exact shares, exact resume, sources that end begin again.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::stream_support::*;
use splitmask_pipeline::config::{DataConfig, SourceConfig};
use splitmask_pipeline::cursor::Cursor;
use splitmask_pipeline::metrics::PipelineMetrics;
use splitmask_pipeline::run::{Dataset, Order};
use splitmask_pipeline::seed::mix;
use splitmask_pipeline::types::{Batch, SampleId};

/// Shards of `a`; those of `b` have the numbers behind them.
const A: [u32; 3] = [40, 25, 60];
const B: [u32; 2] = [30, 20];

fn place(root: &Path) {
    for (name, sizes) in [("a", &A[..]), ("b", &B[..])] {
        let folder = root.join(name);
        std::fs::create_dir(&folder).unwrap();
        write_shards(&folder, sizes, 40);
    }
}

fn settings(root: &Path, weights: &[(&str, f64)]) -> DataConfig {
    let sources = weights.iter().map(|(name, weight)| SourceConfig {
        name: (*name).into(),
        url: root.join(name).display().to_string(),
        weight: *weight,
    });
    DataConfig {
        sources: sources.collect(),
        ..data(16)
    }
}

fn mixed(root: &Path, weights: &[(&str, f64)], workers: usize, readers: usize) -> Dataset {
    Dataset::open_training(&settings(root, weights), &pipeline(workers, readers), &PipelineMetrics::default()).unwrap()
}

fn batches(dataset: &Dataset, start: Cursor, count: usize) -> Vec<Batch> {
    let mut stream = dataset.batches(spec(shuffled(start), 8), hashing).unwrap();
    (0..count).map(|_| stream.next().unwrap().unwrap()).collect()
}

fn of_a(id: &SampleId) -> bool {
    id.shard < A.len() as u32
}

#[test]
fn shares_follow_the_weights_exactly_and_every_source_is_a_whole_shuffled_stream() {
    let root = tempfile::tempdir().unwrap();
    place(root.path());
    let dataset = mixed(root.path(), &[("a", 3.0), ("b", 1.0)], 2, 2);
    let ids: Vec<SampleId> = batches(&dataset, Cursor::default(), 256)
        .iter()
        .flat_map(|b| b.ids.clone())
        .collect();
    for block in ids.chunks_exact(1024) {
        assert_eq!(block.iter().filter(|i| of_a(i)).count(), 768, "3 : 1 in every 1,024");
    }
    // Each epoch of each source holds each of its samples once, in another order than the epoch before.
    for (first, total) in [(true, A.iter().sum::<u32>()), (false, B.iter().sum::<u32>())] {
        let own: Vec<SampleId> = ids.iter().copied().filter(|i| of_a(i) == first).collect();
        let mut orders = BTreeSet::new();
        for (n, epoch) in own.chunks_exact(total as usize).enumerate() {
            let order: Vec<(u32, u32)> = epoch.iter().map(|i| (i.shard, i.member)).collect();
            assert!(
                epoch.iter().all(|i| i.epoch == n as u32),
                "a source that ends begins its next epoch"
            );
            assert_eq!(order.iter().collect::<BTreeSet<_>>().len(), total as usize);
            assert!(orders.insert(order), "shuffled anew");
        }
        assert!(orders.len() > 5);
    }
}

#[test]
fn the_order_is_the_same_for_any_threads_and_a_resume_is_exact() {
    let root = tempfile::tempdir().unwrap();
    place(root.path());
    let weights = [("a", 2.0), ("b", 0.7)];
    let reference = batches(&mixed(root.path(), &weights, 1, 1), Cursor::default(), 60);
    let dataset = mixed(root.path(), &weights, 4, 5);
    assert_eq!(batches(&dataset, Cursor::default(), 60), reference);
    for n in 0..20u64 {
        let at = (mix(n) % 55) as usize;
        // As a checkpoint would keep it.
        let kept: Cursor = serde_json::from_str(&serde_json::to_string(&reference[at].cursor).unwrap()).unwrap();
        assert_eq!(kept, reference[at].cursor);
        assert_eq!(kept.samples(), 8 * (at as u64 + 1));
        assert_eq!(batches(&dataset, kept, 4), reference[at + 1..at + 5], "behind batch {at}");
    }
}

#[test]
fn ranks_interleave_to_the_global_order_and_their_number_may_change() {
    let root = tempfile::tempdir().unwrap();
    place(root.path());
    let dataset = mixed(root.path(), &[("a", 2.0), ("b", 1.0)], 1, 2);
    let take = |start, rank, world, count: usize| -> Vec<(SampleId, Cursor)> {
        let mut stream = dataset
            .samples(Order::Shuffled {
                seed: 5,
                start,
                rank,
                world,
            })
            .unwrap();
        (0..count).map(|_| (stream.next().unwrap().unwrap().id, stream.cursor())).collect()
    };
    let global: Vec<SampleId> = take(Cursor::default(), 0, 1, 600).into_iter().map(|s| s.0).collect();
    for world in [2u32, 3] {
        let each = 600 / world as usize;
        let ranks: Vec<_> = (0..world).map(|rank| take(Cursor::default(), rank, world, each)).collect();
        let joined: Vec<SampleId> = (0..each).flat_map(|n| ranks.iter().map(move |r| r[n].0)).collect();
        assert_eq!(joined, global[..joined.len()]);
        for n in [2, 77, each - 20] {
            for rank in &ranks {
                let done = (n + 1) * world as usize;
                let rest: Vec<SampleId> = take(rank[n].1, 0, 1, 30.min(600 - done)).into_iter().map(|s| s.0).collect();
                assert_eq!(rest, global[done..done + rest.len()], "world {world}, behind {n}");
            }
        }
    }
}

#[test]
fn other_weights_and_sources_keep_each_sources_place() {
    let root = tempfile::tempdir().unwrap();
    place(root.path());
    let before = batches(&mixed(root.path(), &[("a", 1.0), ("b", 1.0)], 1, 2), Cursor::default(), 10);
    let cursor = before.last().unwrap().cursor;
    let after = batches(&mixed(root.path(), &[("a", 3.0), ("b", 1.0)], 1, 2), cursor, 20);
    let mut seen: BTreeMap<(bool, u32), BTreeSet<(u32, u32)>> = BTreeMap::new();
    for id in before.iter().chain(&after).flat_map(|b| &b.ids) {
        let new = seen.entry((of_a(id), id.epoch)).or_default().insert((id.shard, id.member));
        assert!(new, "{id:?} came twice in an epoch of its source");
    }
    assert_eq!(after.last().unwrap().cursor.samples(), 240);
    // A source that is taken out leaves the others where they are.
    let alone = batches(&mixed(root.path(), &[("a", 1.0)], 1, 2), cursor, 3);
    for id in alone.iter().flat_map(|b| &b.ids) {
        let new = before.iter().flat_map(|b| &b.ids).all(|i| i != id);
        assert!(new, "{id:?} was seen before");
    }
}

#[test]
fn what_cannot_be_mixed_is_refused_by_key() {
    let root = tempfile::tempdir().unwrap();
    place(root.path());
    let fails = |change: &dyn Fn(&mut DataConfig)| {
        let mut settings = settings(root.path(), &[("a", 1.0), ("b", 1.0)]);
        change(&mut settings);
        Dataset::open_training(&settings, &pipeline(1, 1), &PipelineMetrics::default())
            .unwrap_err()
            .to_string()
    };
    for (error, words) in [
        (fails(&|s| s.sources[1].weight = 0.0), "data.sources[1].weight = 0: above 0"),
        (fails(&|s| s.sources[1].name = "a".into()), "data.sources[1].name = a"),
        (fails(&|s| s.sources[0].url.clear()), "data.sources[0].url"),
        (fails(&|s| s.train = "x".into()), "data.train = x"),
        (fails(&|s| s.sources[1].url += "/none"), "no shards found"),
    ] {
        assert!(error.contains(words), "{error}");
    }
    let single = mixed(root.path(), &[("a", 1.0), ("b", 1.0)], 1, 1)
        .samples(Order::Sequential)
        .err()
        .unwrap();
    assert!(single.to_string().contains("data.sources"), "{single}");
}
