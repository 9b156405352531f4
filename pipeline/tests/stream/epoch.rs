//! One epoch as a hash: the same for any threads, for kills at any place, for any ranks; and its middle is near.
#![expect(clippy::print_stdout, reason = "a measurement that is read with --nocapture")]

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::fault_server::{Fault, FaultServer};
use crate::stream_support::*;
use sha2::{Digest, Sha256};
use splitmask_pipeline::cursor::Cursor;
use splitmask_pipeline::decode::Limits;
use splitmask_pipeline::metrics::{PipelineMetrics, Scheme};
use splitmask_pipeline::request::{ColourConfig, CropConfig, HiddenRequest, MaskRequest, MaskSpec, SampleRequest, ViewRequest};
use splitmask_pipeline::run::{BatchSpec, Dataset, Order, Worker};
use splitmask_pipeline::sample::{SampleMaker, ViewMode};
use splitmask_pipeline::seed::mix;
use splitmask_pipeline::types::{Batch, RawSample, Sample, SampleId};

const SIZES: [u32; 7] = [31, 90, 2, 57, 64, 33, 43];
const BATCH: usize = 8;

fn steps() -> usize {
    SIZES.iter().sum::<u32>() as usize / BATCH
}

/// Hash of the ids, labels and contents of consecutive batches.
#[derive(Clone, Default)]
struct OrderHash(Sha256);

impl OrderHash {
    fn add(&mut self, batch: &Batch) {
        for (id, label, content) in contents(batch) {
            self.0
                .update(format!("{} {} {} {label} {content}\n", id.epoch, id.shard, id.member));
        }
    }
}

#[test]
fn an_epoch_has_one_hash_for_any_threads_and_for_twenty_kills() {
    let folder = tempfile::tempdir().unwrap();
    write_shards(folder.path(), &SIZES, 200);
    let url = folder.path().to_str().unwrap();
    let run = |workers, readers| {
        let dataset = open(url, &data(50), &pipeline(workers, readers));
        let mut stream = dataset.batches(spec(shuffled(Cursor::default()), BATCH), hashing).unwrap();
        let mut hash = OrderHash::default();
        (0..steps()).for_each(|_| hash.add(&stream.next().unwrap().unwrap()));
        hash.0.finalize()
    };
    let reference = run(1, 1);
    for (workers, readers) in [(1, 2), (1, 8), (2, 1), (2, 8), (8, 1), (8, 2), (8, 8)] {
        assert_eq!(run(workers, readers), reference, "{workers} workers, {readers} readers");
    }

    // Killed at twenty places one after the other, each time with batches in the queue and other threads before.
    let kills: BTreeSet<usize> = (0..)
        .map(|n| (mix(n) % steps() as u64) as usize)
        .scan(BTreeSet::new(), |seen, at| (seen.len() < 20).then(|| seen.insert(at).then_some(at)))
        .flatten()
        .collect();
    assert_eq!(kills.len(), 20);
    let (mut hash, mut cursor, mut done) = (OrderHash::default(), Cursor::default(), 0);
    for (n, end) in kills.into_iter().chain([steps()]).enumerate() {
        let dataset = open(url, &data(50), &pipeline(1 + n % 4, 1 + n % 5));
        let mut stream = dataset.batches(spec(shuffled(cursor), BATCH), hashing).unwrap();
        while done < end {
            let batch = stream.next().unwrap().unwrap();
            hash.add(&batch);
            (cursor, done) = (batch.cursor, done + 1);
        }
    }
    assert_eq!(hash.0.finalize(), reference);
}

#[test]
fn ranks_that_change_in_number_lose_nothing_and_repeat_nothing_up_to_the_end_of_the_epoch() {
    let folder = tempfile::tempdir().unwrap();
    write_shards(folder.path(), &SIZES, 40);
    let dataset = open(folder.path().to_str().unwrap(), &data(50), &pipeline(1, 2));
    let total = SIZES.iter().sum::<u32>() as usize;
    let take = |start, rank, world, count: usize| -> (Vec<SampleId>, Cursor) {
        let mut stream = dataset
            .samples(Order::Shuffled {
                seed: 11,
                start,
                rank,
                world,
            })
            .unwrap();
        let ids = (0..count).map(|_| stream.next().unwrap().unwrap().id).collect();
        (ids, stream.cursor())
    };
    let (global, _) = take(Cursor::default(), 0, 1, total + 40);
    // 4 ranks, then 3, then 1, then 7, across the end of the epoch.
    let (mut all, mut cursor) = (vec![], Cursor::default());
    for (world, rows) in [(4u32, 25), (3, 30), (1, 41), (7, 17)] {
        let parts: Vec<_> = (0..world).map(|rank| take(cursor, rank, world, rows)).collect();
        let joined: Vec<SampleId> = (0..rows).flat_map(|n| parts.iter().map(move |p| p.0[n])).collect();
        assert_eq!(joined, global[all.len()..all.len() + joined.len()], "world {world}");
        all.extend(joined);
        assert!(
            parts.iter().all(|p| p.1 == parts[0].1 && p.1.samples() == all.len() as u64),
            "all ranks are at one place"
        );
        cursor = parts[0].1;
    }
    let epoch: BTreeSet<SampleId> = all.iter().copied().filter(|i| i.epoch == 0).collect();
    assert_eq!(epoch.len(), total, "the whole epoch, once");
}

#[test]
fn the_middle_of_a_million_samples_is_reached_in_two_seconds_and_by_reading_only_there() {
    // 1,000 shards of 1,000 samples, described by a manifest. All have the same bytes: the store hands out one tar under every name.
    const SHARDS: u32 = 1000;
    let bytes = tar(0, 1000, 64);
    let sum: String = Sha256::digest(&bytes).iter().map(|b| format!("{b:02x}")).collect();
    let entries: Vec<String> = (0..SHARDS)
        .map(|n| {
            format!(
                r#"{{"path":"s-{n:04}.tar","bytes":{},"samples":1000,"sha256":"{sum}"}}"#,
                bytes.len()
            )
        })
        .collect();
    let manifest = format!(
        r#"{{"format":"splitmask-shards/1","shards":[{}],"classes":[],"label_counts":[],"statistics":{{"images":0,"mean":[0,0,0],"std":[1,1,1],"mean_width":1,"mean_height":1}},"provenance":""}}"#,
        entries.join(",")
    );
    let asked = Arc::new(Mutex::new(BTreeSet::new()));
    let log = Arc::clone(&asked);
    let server = FaultServer::start(vec![("d/manifest.json".into(), manifest.into_bytes())], move |r| {
        // Sizes of some are asked for by HEAD, to compare the manifest with; that reads nothing.
        if r.key.ends_with(".tar") && r.method == "GET" {
            log.lock().unwrap().insert(r.key.clone());
        }
        Fault::None
    });
    server.serve_everywhere(bytes);
    let (readers, window) = (4, 2048);
    let metrics = PipelineMetrics::default();
    let start = Instant::now();
    let dataset = Dataset::open(
        &format!("{}/d", server.url()),
        &data(window),
        &pipeline(2, readers),
        metrics.clone(),
    )
    .unwrap();
    assert_eq!(dataset.manifest().unwrap().samples(), 1_000_000);
    // 500 shards into the epoch, in the middle of a window.
    let middle = Cursor {
        plan_position: 500,
        member: 137,
        taken: 1000,
        before: 500_137,
        ..Cursor::default()
    };
    let mut stream = dataset.batches(spec(shuffled(middle), 64), hashing).unwrap();
    let batch = stream.next().unwrap().unwrap();
    let took = start.elapsed();
    assert_eq!(batch.cursor.samples(), 501_137 + 64);
    stream.stop();
    println!(
        "first batch behind sample 501,137 after {:.2} s; {} of {SHARDS} shards asked for",
        took.as_secs_f64(),
        asked.lock().unwrap().len()
    );
    assert!(took < Duration::from_secs(2), "{took:?}");
    // The window of 2,048 spans three shards and a quarter window lies ahead; one more may be opened while the last is drained.
    let shards = asked.lock().unwrap().len();
    assert!(shards <= 4 + readers, "{shards} shards read");
    assert_eq!(metrics.shards_opened.of(Scheme::Http).get() as usize, shards);
}

#[test]
fn two_global_and_six_local_views_go_through_maker_and_batch() {
    let folder = tempfile::tempdir().unwrap();
    let mut builder = tar::Builder::new(vec![]);
    for n in 0..24u64 {
        let bytes = bad_files::good(n);
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        builder.append_data(&mut header, format!("{n:03}.jpg"), bytes.as_slice()).unwrap();
    }
    std::fs::write(folder.path().join("s.tar"), builder.into_inner().unwrap()).unwrap();
    // DINO's recipe (arXiv 2104.14294 §3.1): what differs between the views is their crop's area, their size, and how often they are blurred and solarised.
    let view = |name, size, area, blur, solarise| ViewRequest {
        crop: CropConfig {
            area,
            ..CropConfig::default()
        },
        colour: ColourConfig {
            jitter: 0.8,
            blur,
            solarise,
            ..ColourConfig::default()
        },
        ..ViewRequest::new(name, size)
    };
    let mut views = vec![view("global", 32, [0.4, 1.0], 1.0, 0.0), view("global", 32, [0.4, 1.0], 0.1, 1.0)];
    views.extend([view("local", 12, [0.05, 0.4], 0.5, 0.0); 6]);
    let request = Arc::new(SampleRequest {
        mask: Some(MaskRequest {
            side: 8,
            spec: MaskSpec::UniformSplit { keep: 0.25 },
        }),
        hidden: Some(HiddenRequest {
            view: "global",
            side: 8,
            probability: 0.5,
            ratio: [0.1, 0.5],
        }),
        ..SampleRequest::of_views(views)
    });
    let make = |request: Arc<SampleRequest>| SampleMaker::new(request, ViewMode::Train, 9, Limits::default(), None).unwrap();
    let of = Arc::clone(&request);
    let worker = move || -> Worker {
        let mut maker = make(Arc::clone(&of));
        Box::new(move |raw, out| maker.make(raw, out))
    };
    let dataset = open(folder.path().to_str().unwrap(), &data(8), &pipeline(3, 1));
    let spec = BatchSpec {
        order: shuffled(Cursor::default()),
        request: Arc::clone(&request),
        batch: 6,
        last_partial: false,
    };
    let mut stream = dataset.batches(spec, worker).unwrap();
    let raws: Vec<RawSample> = dataset
        .samples(shuffled(Cursor::default()))
        .unwrap()
        .take(24)
        .map(Result::unwrap)
        .collect();
    let (mut maker, mut sample) = (make(Arc::clone(&request)), Sample::default());
    for n in 0..4 {
        let batch = stream.next().unwrap().unwrap();
        let names: Vec<&str> = batch.views.iter().map(|view| view.name.as_ref()).collect();
        assert_eq!(names, ["global", "global", "local", "local", "local", "local", "local", "local"]);
        assert_eq!((batch.sets.len(), batch.hidden.len()), (6 * 64, 6 * 2 * 64));
        for k in 0..6 {
            let raw = &raws[n * 6 + k];
            assert_eq!(batch.ids[k], raw.id);
            maker.make(raw, &mut sample).unwrap();
            assert_eq!(batch.hidden[k * 128..][..128], sample.hidden, "patches hidden of sample {k}");
            for (v, asked) in request.views.iter().enumerate() {
                let got = &batch.views[v];
                assert_eq!((got.size, got.pixels.len()), (asked.size, 6 * got.picture_bytes()));
                assert_eq!(got.picture(k), sample.views[v], "view {v} of sample {k}");
            }
            // A solarised view has no value above its threshold but those that were below it.
            assert!(sample.views[1].iter().all(|v| *v <= 127), "the second view is always solarised");
            assert_ne!(sample.views[0], sample.views[1], "each view has a draw of its own");
            assert_ne!(sample.views[2], sample.views[3]);
        }
        stream.recycle(batch);
    }
}
