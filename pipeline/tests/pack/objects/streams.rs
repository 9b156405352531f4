//! What a stream makes of packed objects.

use serde_json::{Value, json};
use splitmask_pipeline::cursor::Cursor;
use splitmask_pipeline::decode::{ObjectReading, Objects};
use splitmask_pipeline::metrics::ObjectFate;
use splitmask_pipeline::request::{IMAGE, ObjectRequest, ScaleJitter, ViewRequest};

use super::*;

/// Sixty pictures with up to three objects each, packed.
fn packed() -> TempDir {
    let dir = TempDir::new().unwrap();
    let names: Vec<String> = (0..60).map(|n| format!("{n}.png")).collect();
    let mut annotations = vec![];
    for (n, name) in names.iter().enumerate() {
        put(
            dir.path(),
            &format!("images/{name}"),
            &bytes(&picture(40, 20, n as u32), ImageFormat::Png),
        );
        for k in 0..n % 4 {
            let (x, y) = ((n * 7 + k * 11) % 30, (n * 5 + k * 3) % 12);
            let [left, top, right, bottom] = [x, y, x + 9, y + 7];
            let area = [x as f64, y as f64, 9.0, 7.0];
            let outline = json!([[left, top, right, top, right, bottom]]);
            annotations.push(with(object(n as u64, [0, 3, 7][k], area), "segmentation", outline));
        }
    }
    let file = coco(&names.iter().map(String::as_str).collect::<Vec<_>>(), annotations);
    put(dir.path(), "objects.json", file.to_string().as_bytes());
    let report = run(&PackOptions {
        shard_bytes: 32 << 10,
        ..options(dir.path())
    })
    .unwrap();
    assert!(report.train.shards.len() > 3, "{}", report.train.shards.len());
    dir
}

fn request() -> Arc<SampleRequest> {
    let mut view = ViewRequest::new(IMAGE, 32);
    view.jitter = Some(ScaleJitter::default());
    Arc::new(SampleRequest {
        objects: Some(ObjectRequest { view: IMAGE }),
        ..SampleRequest::of_views(vec![view])
    })
}

#[test]
fn batches_hold_the_same_objects_at_any_number_of_workers_and_after_any_batch() {
    let dir = packed();
    let url = dir.path().join("out/train").display().to_string();
    let (data, request) = (
        DataConfig {
            shuffle_window: 16,
            ..DataConfig::default()
        },
        request(),
    );
    let batches = |workers: usize, start: Cursor, many: usize| -> (Vec<Batch>, PipelineMetrics) {
        let pipeline = PipelineConfig {
            workers,
            ..PipelineConfig::default()
        };
        let metrics = PipelineMetrics::default();
        let dataset = Dataset::open(&url, &data, &pipeline, metrics.clone()).unwrap();
        let images = dataset.images().unwrap();
        assert!(
            (images.objects - 1.5).abs() < 1e-9 && (images.masked - 1.5 * 63.0 / 800.0).abs() < 1e-9,
            "{images:?}"
        );
        let making = Making {
            order: Order::Shuffled {
                seed: 5,
                start,
                rank: 0,
                world: 1,
            },
            request: &request,
            mode: ViewMode::Train,
            batch: 8,
            seed: 3,
            tokenizer: None,
        };
        let mut stream = dataset.make(making).unwrap();
        let made = (0..many).map(|_| stream.next().unwrap().unwrap()).collect();
        (made, metrics)
    };
    let (one, metrics) = batches(1, Cursor::default(), 12);
    let (four, _) = batches(4, Cursor::default(), 12);
    assert_eq!(one, four);
    assert_eq!(batches(2, one[6].cursor, 5).0, one[7..]);
    let objects: usize = one.iter().map(|batch| batch.objects.len()).sum();
    assert!(objects > 40, "{objects}");
    let counted = |fate| metrics.objects.of(fate).get();
    assert!(counted(ObjectFate::Kept) >= objects as u64 && counted(ObjectFate::Outside) > 0);
    for batch in &one {
        assert_eq!((batch.object_offsets.len(), batch.object_offsets[0]), (9, 0));
        assert_eq!(batch.object_offsets[8] as usize, batch.objects.len());
        let each: usize = (0..8).map(|sample| batch.objects_of(sample).len()).sum();
        assert_eq!(each, batch.objects.len());
        let masks: usize = batch.objects.iter().map(|o| o.mask.as_ref().unwrap().pixels.len()).sum();
        assert!(batch.bytes() > 8 * request.sample_bytes() + masks, "masks count in the queue");
        assert!(batch.objects.iter().all(|object| object.class < 3));
    }
}

#[test]
fn a_stream_reads_objects_where_they_are_asked_for_and_counts_what_has_none() {
    let dir = packed();
    run(&PackOptions {
        objects: None,
        ..PackOptions::new(dir.path().join("images"), dir.path().join("plain"))
    })
    .unwrap();
    let first = |place: &str, request: &Arc<SampleRequest>, objects: &str| {
        let data = DataConfig {
            objects: objects.into(),
            ..DataConfig::default()
        };
        first_batch(&dir.path().join(place), data, request)
    };
    let batch = first("out", &request(), "objects.json").unwrap();
    assert_eq!((batch.len, batch.object_offsets.len(), batch.objects.len()), (60, 61, 90));
    let plain = Arc::new(SampleRequest::of_views(vec![ViewRequest::new(IMAGE, 32)]));
    let batch = first("out", &plain, "objects.json").unwrap();
    assert_eq!((batch.len, batch.objects.len(), batch.object_offsets.len()), (60, 0, 0));
    let error = first("plain", &request(), "objects.json").unwrap_err().to_string();
    assert!(
        error.contains("60 of the last 60 samples failed") && error.contains("no_objects"),
        "{error}"
    );
    // What `pack` writes about a sample is no list of objects.
    let error = first("plain", &request(), "json").unwrap_err().to_string();
    assert!(error.contains("bad_objects"), "{error}");
}

#[test]
fn members_are_annotations_that_others_read() {
    let dir = packed();
    let packed = objects_in(&dir.path().join("out/train"));
    let (name, member) = packed.iter().find(|(_, member)| member.annotations.len() == 3).unwrap();
    let text = serde_json::to_vec(member).unwrap();
    let by_index = Objects::read(&text, &ObjectReading::default(), None).unwrap();
    let mut foreign: Value = serde_json::from_slice(&text).unwrap();
    for annotation in foreign["annotations"].as_array_mut().unwrap() {
        annotation.as_object_mut().unwrap().remove("category");
    }
    let reading = ObjectReading {
        ids: [0, 3, 7].into(),
        ..ObjectReading::default()
    };
    let by_number = Objects::read(foreign.to_string().as_bytes(), &reading, None).unwrap();
    assert_eq!(by_index, by_number, "{name}");
}
