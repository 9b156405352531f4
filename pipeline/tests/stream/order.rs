//! Promises of the stream on local shards: order, resume, split over ranks, back-pressure, clean ends.

use std::collections::BTreeSet;
use std::task::Poll;
use std::time::{Duration, Instant};

use crate::alone::alone;
use crate::stream_support::*;
use splitmask_pipeline::cursor::Cursor;
use splitmask_pipeline::metrics::{PipelineMetrics, Scheme};
use splitmask_pipeline::run::{Dataset, Order};
use splitmask_pipeline::seed::mix;
use splitmask_pipeline::types::{Batch, SampleId};

const SIZES: [u32; 6] = [30, 7, 1, 44, 20, 31];

fn total() -> usize {
    SIZES.iter().sum::<u32>() as usize
}

fn batches(dataset: &Dataset, order: Order, batch: usize, count: usize) -> Vec<Batch> {
    let mut stream = dataset.batches(spec(order, batch), hashing).unwrap();
    (0..count).map_while(|_| stream.next()).map(Result::unwrap).collect()
}

#[test]
fn two_epochs_come_out_the_same_for_any_number_of_workers_and_readers() {
    let folder = tempfile::tempdir().unwrap();
    write_shards(folder.path(), &SIZES, 300);
    let url = folder.path().to_str().unwrap();
    let run = |workers, readers| {
        batches(
            &open(url, &data(40), &pipeline(workers, readers)),
            shuffled(Cursor::default()),
            8,
            2 * total() / 8,
        )
    };
    let reference = run(1, 1);
    let ids: Vec<SampleId> = reference.iter().flat_map(|b| b.ids.clone()).collect();
    for epoch in 0..2 {
        let of_epoch: BTreeSet<SampleId> = ids.iter().copied().filter(|i| i.epoch == epoch).collect();
        let expected = if epoch == 0 { total() } else { ids.len() - total() };
        assert_eq!(of_epoch.len(), expected, "each sample once in epoch {epoch}");
    }
    assert!(
        ids.windows(2)
            .filter(|w| w[0].shard == w[1].shard && w[1].member == w[0].member + 1)
            .count()
            < 30,
        "it is shuffled"
    );
    for (workers, readers) in [(2, 1), (8, 4), (1, 4), (8, 16)] {
        assert_eq!(run(workers, readers), reference, "{workers} workers, {readers} readers");
    }
    for (id, label, hash) in reference.iter().flat_map(contents) {
        assert_eq!(label, i64::from(id.member % 7));
        assert_eq!(
            hash,
            crate::stream_support::hash(&content(&format!("{:03}-{:04}", id.shard, id.member), 300))
        );
    }
}

#[test]
fn a_resume_at_any_batch_goes_on_as_if_nothing_had_happened() {
    let folder = tempfile::tempdir().unwrap();
    write_shards(folder.path(), &SIZES, 60);
    let dataset = open(folder.path().to_str().unwrap(), &data(32), &pipeline(2, 3));
    let count = 3 * total() / 5;
    let reference = batches(&dataset, shuffled(Cursor::default()), 5, count);
    for n in 0..20u64 {
        let at = (mix(n) % (count as u64 - 1)) as usize;
        let resumed = batches(&dataset, shuffled(reference[at].cursor), 5, (count - at - 1).min(50));
        assert_eq!(resumed, reference[at + 1..][..resumed.len()], "resumed behind batch {at}");
        assert_eq!(reference[at].cursor.samples(), 5 * (at as u64 + 1));
    }
}

#[test]
fn a_resume_opens_only_the_shards_from_the_cursor_on() {
    let folder = tempfile::tempdir().unwrap();
    write_shards(folder.path(), &[10; 40], 60);
    let url = folder.path().to_str().unwrap();
    let dataset = open(url, &data(20), &pipeline(1, 1));
    let reference = batches(&dataset, shuffled(Cursor::default()), 10, 40);
    let late = reference[36].cursor;
    assert!(late.plan_position >= 34);
    let metrics = PipelineMetrics::default();
    let dataset = Dataset::open(url, &data(20), &pipeline(1, 1), metrics.clone()).unwrap();
    let resumed = batches(&dataset, shuffled(late), 10, 3);
    assert_eq!(resumed, reference[37..]);
    // 4 shards to the epoch's end, and what the look-ahead of 1¼ windows and one reader opens of the next epoch.
    let opened = metrics.shards_opened.of(Scheme::File).get();
    assert!(opened <= 12, "{opened} shards opened for 3 of 40");
}

#[test]
fn ranks_share_every_epoch_without_loss_or_overlap_and_may_change_in_number() {
    let folder = tempfile::tempdir().unwrap();
    write_shards(folder.path(), &SIZES, 60);
    let dataset = open(folder.path().to_str().unwrap(), &data(32), &pipeline(1, 2));
    let take = |start, rank, world, count: usize| -> Vec<(SampleId, Cursor)> {
        let order = Order::Shuffled {
            seed: 11,
            start,
            rank,
            world,
        };
        let mut stream = dataset.samples(order).unwrap();
        (0..count)
            .map(|_| {
                let id = stream.next().unwrap().unwrap().id;
                (id, stream.cursor())
            })
            .collect()
    };
    let global: Vec<SampleId> = take(Cursor::default(), 0, 1, 3 * total()).into_iter().map(|s| s.0).collect();
    for world in [2u32, 3, 5] {
        let each = 3 * total() / world as usize;
        let ranks: Vec<_> = (0..world).map(|rank| take(Cursor::default(), rank, world, each)).collect();
        let joined: Vec<SampleId> = (0..each).flat_map(|n| ranks.iter().map(move |r| r[n].0)).collect();
        assert_eq!(
            joined,
            global[..joined.len()],
            "the ranks of {world} interleave to the global order"
        );
        // Any rank's cursor after n steps serves all, in a world of any size.
        for n in [3, 40, each / 2, each - 2] {
            for rank in &ranks {
                let done = (n + 1) * world as usize;
                let rest = take(rank[n].1, 0, 1, 20.min(global.len() - done));
                let rest: Vec<SampleId> = rest.into_iter().map(|s| s.0).collect();
                assert_eq!(rest, global[done..done + rest.len()]);
                assert_eq!(rank[n].1.samples(), done as u64);
            }
        }
    }
}

#[test]
fn a_sequential_pass_gives_every_sample_in_order_and_ends() {
    let folder = tempfile::tempdir().unwrap();
    write_shards(folder.path(), &SIZES, 60);
    let dataset = open(folder.path().to_str().unwrap(), &data(32), &pipeline(3, 2));
    let all = batches(&dataset, Order::Sequential, 16, usize::MAX);
    let ids: Vec<SampleId> = all.iter().flat_map(|b| b.ids.clone()).collect();
    let mut sorted = ids.clone();
    sorted.sort();
    assert_eq!(ids, sorted);
    assert_eq!(ids.len(), total());
    assert_eq!(all.last().unwrap().len, total() % 16, "the last batch is short");
    let mut whole = dataset
        .batches(
            splitmask_pipeline::run::BatchSpec {
                last_partial: false,
                ..spec(Order::Sequential, 16)
            },
            hashing,
        )
        .unwrap();
    let mut count = 0;
    while let Some(batch) = whole.next() {
        assert_eq!(batch.unwrap().len, 16);
        count += 1;
    }
    assert_eq!(count, total() / 16);
    assert!(whole.next().is_none());
}

#[test]
fn a_subset_is_the_same_samples_in_every_epoch() {
    let folder = tempfile::tempdir().unwrap();
    write_shards(folder.path(), &[200; 4], 20);
    let mut settings = data(64);
    settings.fraction = 0.25;
    let dataset = open(folder.path().to_str().unwrap(), &settings, &pipeline(2, 2));
    let pass = batches(&dataset, Order::Sequential, 10, usize::MAX);
    let kept: BTreeSet<(u32, u32)> = pass.iter().flat_map(|b| &b.ids).map(|i| (i.shard, i.member)).collect();
    // Binomial: 200 ± 12; five standard deviations.
    assert!((140..=260).contains(&kept.len()), "{}", kept.len());
    let shuffled = batches(&dataset, shuffled(Cursor::default()), 1, 2 * kept.len());
    for epoch in 0..2 {
        let ids = shuffled.iter().flat_map(|b| &b.ids).filter(|i| i.epoch == epoch);
        assert_eq!(ids.map(|i| (i.shard, i.member)).collect::<BTreeSet<_>>(), kept);
    }
}

#[test]
fn folder_glob_range_and_file_url_find_the_same_shards() {
    let folder = tempfile::tempdir().unwrap();
    write_shards(folder.path(), &[3, 3, 3], 20);
    std::fs::write(folder.path().join("notes.txt"), "x").unwrap();
    let base = folder.path().to_str().unwrap();
    for url in [
        base.to_owned(),
        format!("{base}/"),
        format!("file://{base}"),
        format!("{base}/s-*.tar"),
        format!("{base}/s-{{000..002}}.tar"),
    ] {
        let dataset = open(&url, &data(16), &pipeline(1, 1));
        let names: Vec<&str> = dataset.shards().iter().map(|s| s.path.rsplit('/').next().unwrap()).collect();
        assert_eq!(names, ["s-000.tar", "s-001.tar", "s-002.tar"], "{url}");
    }
}

#[test]
fn the_queue_holds_what_it_may_and_a_pause_of_the_consumer_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    write_shards(folder.path(), &SIZES, 60);
    let mut machine = pipeline(2, 2);
    machine.queue_batches = 3;
    let dataset = open(folder.path().to_str().unwrap(), &data(32), &machine);
    let mut stream = dataset.batches(spec(shuffled(Cursor::default()), 4), hashing).unwrap();
    std::thread::sleep(Duration::from_millis(300));
    let (waiting, bytes) = stream.queue_level();
    assert_eq!((waiting, bytes), (3, 3 * 4 * request().sample_bytes()));
    let reference = batches(&dataset, shuffled(Cursor::default()), 4, 30);
    for expected in &reference {
        let batch = loop {
            match stream.next_timeout(Duration::from_millis(200)) {
                Poll::Ready(batch) => break batch.unwrap().unwrap(),
                Poll::Pending => {}
            }
        };
        assert_eq!(&batch, expected);
        stream.recycle(batch);
    }
}

#[test]
fn stopping_is_prompt_and_leaves_no_thread() {
    // Threads are counted in a process of its own, where no other test starts any.
    if !alone("order::stopping_is_prompt_and_leaves_no_thread", &[], &[]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    write_shards(folder.path(), &[200; 6], 2000);
    let dataset = open(folder.path().to_str().unwrap(), &data(500), &pipeline(4, 4));
    let threads = || std::fs::read_dir("/proc/self/task").unwrap().count();
    let before = threads();
    for taken in [0, 1, 7] {
        let mut stream = dataset.batches(spec(shuffled(Cursor::default()), 4), hashing).unwrap();
        for _ in 0..taken {
            stream.next().unwrap().unwrap();
        }
        assert!(threads() >= before + 6, "four workers, the window's and the batches' thread run");
        let start = Instant::now();
        stream.stop();
        assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
        // The kernel may list a joined thread for a moment longer.
        while threads() > before {
            assert!(start.elapsed() < Duration::from_secs(2), "{} threads left", threads() - before);
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

#[test]
fn a_cursor_of_another_place_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    write_shards(folder.path(), &[5, 5], 60);
    let dataset = open(folder.path().to_str().unwrap(), &data(8), &pipeline(1, 1));
    let start = Cursor {
        plan_position: 2,
        ..Cursor::default()
    };
    let error = dataset.samples(shuffled(start)).err().unwrap();
    assert!(error.to_string().contains("cursor.plan_position = 2"), "{error}");
    let order = Order::Shuffled {
        seed: 1,
        start: Cursor::default(),
        rank: 2,
        world: 2,
    };
    assert!(dataset.samples(order).is_err());
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig { cases: 24, ..Default::default() })]
    #[test]
    fn any_shards_window_world_and_place_resume_to_the_same_global_order(
        sizes in proptest::collection::vec(0u32..9, 1..6),
        window in 1u32..20,
        world in 1u32..5,
        steps in 0usize..12,
        seed: u64,
    ) {
        proptest::prop_assume!(sizes.iter().sum::<u32>() > 0);
        let folder = tempfile::tempdir().unwrap();
        write_shards(folder.path(), &sizes, 8);
        let dataset = open(folder.path().to_str().unwrap(), &data(window), &pipeline(1, 2));
        let take = |start, rank, world, count: usize| -> (Vec<SampleId>, Cursor) {
            let mut stream = dataset.samples(Order::Shuffled { seed, start, rank, world }).unwrap();
            let ids = (0..count).map(|_| stream.next().unwrap().unwrap().id).collect();
            (ids, stream.cursor())
        };
        let done = steps * world as usize;
        let (global, _) = take(Cursor::default(), 0, 1, done + 30);
        // Every epoch holds every sample once.
        let total = sizes.iter().sum::<u32>() as usize;
        for epoch in global.chunks_exact(total) {
            proptest::prop_assert_eq!(epoch.iter().collect::<BTreeSet<_>>().len(), total);
            proptest::prop_assert!(epoch.iter().all(|i| i.epoch == epoch[0].epoch));
        }
        for rank in 0..world {
            let (ids, cursor) = take(Cursor::default(), rank, world, steps);
            let expected: Vec<SampleId> = global[..done].iter().copied().skip(rank as usize).step_by(world as usize).collect();
            proptest::prop_assert_eq!(ids, expected);
            proptest::prop_assert_eq!(cursor.samples(), done as u64);
            let (rest, _) = take(cursor, 0, 1, 30);
            proptest::prop_assert_eq!(&rest[..], &global[done..]);
        }
    }
}
