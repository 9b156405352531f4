//! A manifest is compared with what is there: at the listing and while shards are read. What differs is told by name, and the order of what
//! does not stays as it was.

use std::fs;
use std::path::Path;

use crate::fault_server::{Ability, Fault, FaultServer};
use crate::stream_support::*;
use splitmask_pipeline::bucket::differences::{Difference, sentences};
use splitmask_pipeline::bucket::manifest::{ImageStatistics, Manifest, ShardEntry};
use splitmask_pipeline::config::{DataConfig, OnShardError};
use splitmask_pipeline::cursor::Cursor;
use splitmask_pipeline::error::PipelineError;
use splitmask_pipeline::file::sha256;
use splitmask_pipeline::metrics::{ManifestDifference, PipelineMetrics};
use splitmask_pipeline::run::{Dataset, Order};
use splitmask_pipeline::types::RawSample;

const COUNTS: [u32; 3] = [5, 6, 7];
/// Labels of the shards are 0 to 6.
const CLASSES: usize = 7;

fn name(shard: usize) -> String {
    format!("s-{shard:03}.tar")
}

/// (name, bytes) of the shards, and a manifest that tells the truth about them.
fn set() -> (Vec<(String, Vec<u8>)>, Manifest) {
    let shards: Vec<(String, Vec<u8>)> = COUNTS.iter().enumerate().map(|(n, c)| (name(n), tar(n as u32, *c, 3000))).collect();
    let entry = |((path, bytes), samples): (&(String, Vec<u8>), &u32)| ShardEntry {
        path: path.clone(),
        bytes: bytes.len() as u64,
        samples: *samples,
        sha256: sha256(bytes),
    };
    let manifest = Manifest {
        format: Manifest::FORMAT.into(),
        shards: shards.iter().zip(&COUNTS).map(entry).collect(),
        classes: (0..CLASSES).map(|n| format!("class {n}")).collect(),
        label_counts: vec![3, 3, 3, 3, 3, 2, 1],
        statistics: ImageStatistics::default(),
        maps: None,
        objects: None,
        provenance: String::new(),
    };
    (shards, manifest)
}

fn write(folder: &Path, (shards, manifest): (Vec<(String, Vec<u8>)>, Manifest)) {
    for (name, bytes) in shards {
        fs::write(folder.join(name), bytes).unwrap();
    }
    fs::write(folder.join("manifest.json"), serde_json::to_vec(&manifest).unwrap()).unwrap();
}

fn try_open(folder: &Path, data: &DataConfig, metrics: &PipelineMetrics) -> Result<Dataset, PipelineError> {
    Dataset::open(folder.to_str().unwrap(), data, &pipeline(1, 2), metrics.clone())
}

fn read_all(dataset: &Dataset) -> Vec<RawSample> {
    dataset.samples(Order::Sequential).unwrap().map(Result::unwrap).collect()
}

/// Shows what a change of the folder leads to: differences after a pass over all shards with checksums, and the samples.
fn after(change: impl FnOnce(&Path)) -> (Vec<Difference>, Vec<RawSample>, PipelineMetrics) {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), set());
    change(folder.path());
    let metrics = PipelineMetrics::default();
    let mut dataset = try_open(folder.path(), &data(16), &metrics).unwrap();
    dataset.compare_checksums();
    let samples = read_all(&dataset);
    let short = |path: &str| path.rsplit('/').next().unwrap().to_owned();
    let mut differences = dataset.differences();
    for difference in &mut differences {
        match difference {
            Difference::Missing { shard }
            | Difference::Unknown { shard }
            | Difference::Size { shard, .. }
            | Difference::Samples { shard, .. }
            | Difference::Label { shard, .. }
            | Difference::Checksum { shard, .. } => *shard = short(shard),
            Difference::Compressed { file: path } | Difference::Folder { folder: path } => *path = short(path),
            Difference::LabelCount { .. } => {}
        }
    }
    (differences, samples, metrics)
}

fn count(metrics: &PipelineMetrics, kind: ManifestDifference) -> u64 {
    metrics.manifest_differences.of(kind).get()
}

#[test]
fn a_manifest_that_tells_the_truth_has_no_differences() {
    let (differences, samples, _) = after(|_| {});
    assert_eq!((differences, samples.len() as u32), (vec![], COUNTS.iter().sum()));
}

#[test]
fn a_shard_beside_the_manifest_is_named_and_left_out() {
    let (differences, samples, metrics) = after(|folder| fs::write(folder.join("s-003.tar"), tar(9, 4, 100)).unwrap());
    assert_eq!(differences, [Difference::Unknown { shard: name(3) }]);
    assert_eq!(samples.len() as u32, COUNTS.iter().sum::<u32>());
    assert_eq!(count(&metrics, ManifestDifference::Unknown), 1);
    let text = sentences(&differences).join("\n");
    assert!(
        text.contains("s-003.tar: there, but not named by manifest.json") && text.contains("left out"),
        "{text}"
    );
}

#[test]
fn a_missing_shard_is_named_at_open_and_refused_where_shards_must_not_miss() {
    let (differences, samples, metrics) = after(|folder| fs::remove_file(folder.join(name(1))).unwrap());
    assert_eq!(differences, [Difference::Missing { shard: name(1) }]);
    assert_eq!(samples.len() as u32, COUNTS[0] + COUNTS[2]);
    assert_eq!(count(&metrics, ManifestDifference::Missing), 1);
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), set());
    fs::remove_file(folder.path().join(name(1))).unwrap();
    let mut stop = data(16);
    stop.on_shard_error = OnShardError::Stop;
    let error = try_open(folder.path(), &stop, &PipelineMetrics::default()).unwrap_err();
    assert!(
        matches!(error, PipelineError::BadManifest { .. }) && error.to_string().contains("s-001.tar"),
        "{error}"
    );
    // A manifest of something else altogether.
    for shard in [0, 2] {
        fs::remove_file(folder.path().join(name(shard))).unwrap();
    }
    let error = try_open(folder.path(), &data(16), &PipelineMetrics::default()).unwrap_err();
    assert!(
        matches!(error, PipelineError::Empty { .. }) && error.to_string().contains("none of the 3 shards"),
        "{error}"
    );
}

#[test]
fn a_shard_of_another_size_is_read_without_labels() {
    let other = tar(9, 9, 3000);
    let (found, manifest) = (other.len() as u64, set().0[1].1.len() as u64);
    let (differences, samples, metrics) = after(|folder| fs::write(folder.join(name(1)), other).unwrap());
    assert_eq!(
        differences,
        [Difference::Size {
            shard: name(1),
            manifest,
            found
        }]
    );
    assert_eq!(count(&metrics, ManifestDifference::Size), 1);
    assert_eq!(samples.len() as u32, COUNTS[0] + 9 + COUNTS[2], "its images are used");
    for sample in samples {
        assert_eq!(sample.label.is_some(), sample.id.shard != 1, "what its labels mean is unknown");
    }
    let text = sentences(&differences).join("\n");
    assert!(text.contains(&format!("says {manifest} bytes, it has {found}")), "{text}");
}

#[test]
fn a_shard_of_the_same_size_is_noticed_by_count_label_or_checksum() {
    // The same size, fewer samples.
    let (_, bytes) = &set().0[1];
    let fewer = tar(9, COUNTS[1] - 1, 3000);
    let mut fewer = fewer;
    fewer.resize(bytes.len(), 0);
    let (differences, _, metrics) = after(|folder| fs::write(folder.join(name(1)), &fewer).unwrap());
    assert!(
        differences.contains(&Difference::Samples {
            shard: name(1),
            manifest: COUNTS[1],
            found: COUNTS[1] - 1
        }),
        "{differences:?}"
    );
    assert_eq!(
        (
            count(&metrics, ManifestDifference::Samples),
            count(&metrics, ManifestDifference::Checksum)
        ),
        (1, 1)
    );
    // The same size and number.
    let (differences, _, _) = after(|folder| fs::write(folder.join(name(1)), tar(9, COUNTS[1], 3000)).unwrap());
    assert!(
        matches!(&differences[..], [Difference::Checksum { shard, .. }] if *shard == name(1)),
        "{differences:?}"
    );
    // Labels beyond the list.
    let (differences, samples, metrics) = after(|folder| {
        let (_, mut manifest) = set();
        manifest.classes.truncate(3);
        manifest.label_counts.truncate(3);
        fs::write(folder.join("manifest.json"), serde_json::to_vec(&manifest).unwrap()).unwrap();
    });
    assert_eq!(samples.len() as u32, COUNTS.iter().sum::<u32>(), "no image is lost for its label");
    assert_eq!(differences.len(), 3, "one for each shard: {differences:?}");
    assert_eq!(count(&metrics, ManifestDifference::Label), 3);
    assert!(
        sentences(&differences)[0].contains("says 3 classes, it has the label 3"),
        "{:?}",
        sentences(&differences)
    );
}

#[test]
fn counts_of_classes_are_compared_once_all_shards_were_read() {
    let (differences, _, metrics) = after(|folder| {
        let (_, mut manifest) = set();
        (manifest.label_counts[0], manifest.label_counts[6]) = (4, 0);
        fs::write(folder.join("manifest.json"), serde_json::to_vec(&manifest).unwrap()).unwrap();
    });
    let count_of = |class: usize, manifest, found| Difference::LabelCount {
        class: format!("class {class}"),
        manifest,
        found,
    };
    assert_eq!(differences, [count_of(0, 4, 3), count_of(6, 0, 1)]);
    assert_eq!(count(&metrics, ManifestDifference::LabelCount), 2);
}

#[test]
fn a_manifest_that_says_of_every_class_that_it_is_empty_leaves_no_fraction_of_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (shards, mut manifest) = set();
    manifest.label_counts = vec![0; CLASSES];
    write(folder.path(), (shards, manifest));
    let half = DataConfig { fraction: 0.5, ..data(16) };
    let dataset = try_open(folder.path(), &half, &PipelineMetrics::default()).unwrap();
    let samples = read_all(&dataset).len();
    assert!((1..18).contains(&samples), "{samples} of 18");
}

#[test]
fn archives_and_folders_beside_the_shards_are_told_with_a_manifest_and_without() {
    let beside = |folder: &Path| {
        fs::write(folder.join("more.tar.gz"), b"\x1f\x8b").unwrap();
        fs::create_dir_all(folder.join("sub/deeper")).unwrap();
        fs::write(folder.join("sub/s.tar"), tar(1, 1, 100)).unwrap();
        fs::create_dir(folder.join("notes")).unwrap();
    };
    let told = [
        Difference::Compressed {
            file: "more.tar.gz".into(),
        },
        Difference::Folder { folder: "sub".into() },
    ];
    for with_manifest in [true, false] {
        let (differences, samples, metrics) = after(|folder| {
            beside(folder);
            if !with_manifest {
                fs::remove_file(folder.join("manifest.json")).unwrap();
                // Endings count in any case of letters.
                fs::rename(folder.join(name(0)), folder.join("S-000.TAR")).unwrap();
            }
        });
        assert_eq!(
            (&differences[..], samples.len() as u32),
            (&told[..], COUNTS.iter().sum()),
            "{with_manifest}"
        );
        assert_eq!(count(&metrics, ManifestDifference::Folder), 1);
    }
    // Alone they are no shards, but named: the folder that `splitmask pack` writes holds its sets one folder further.
    let folder = tempfile::tempdir().unwrap();
    beside(folder.path());
    let error = try_open(folder.path(), &data(16), &PipelineMetrics::default())
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("did you mean") && error.contains("sub?") && error.contains("more.tar.gz"),
        "{error}"
    );
}

#[test]
fn a_link_to_nowhere_among_shards_is_a_missing_shard() {
    let folder = tempfile::tempdir().unwrap();
    let (shards, _) = set();
    fs::write(folder.path().join("a.tar"), &shards[0].1).unwrap();
    std::os::unix::fs::symlink("unmounted.tar", folder.path().join("b.tar")).unwrap();
    for place in [folder.path().to_owned(), folder.path().join("*.tar")] {
        let open = |data: &DataConfig| try_open(&place, data, &PipelineMetrics::default()).unwrap();
        let dataset = open(&data(16));
        assert_eq!(
            (dataset.shards().len(), read_all(&dataset).len() as u32),
            (2, COUNTS[0]),
            "{}",
            place.display()
        );
        let strict = DataConfig {
            on_shard_error: OnShardError::Stop,
            ..data(16)
        };
        let error = open(&strict).samples(Order::Sequential).unwrap().find_map(Result::err);
        assert!(error.unwrap().to_string().contains("b.tar"));
    }
}

/// Without checksums too, and once however often the shard is read.
#[test]
fn differences_are_counted_once_over_many_epochs() {
    let folder = tempfile::tempdir().unwrap();
    let (shards, mut manifest) = set();
    manifest.shards[2].samples += 1;
    write(folder.path(), (shards, manifest));
    let metrics = PipelineMetrics::default();
    let dataset = try_open(folder.path(), &data(4), &metrics).unwrap();
    let mut stream = dataset.batches(spec(shuffled(Cursor::default()), 6), hashing).unwrap();
    for _ in 0..12 {
        stream.next().unwrap().unwrap();
    }
    assert_eq!(dataset.differences().len(), 1);
    assert_eq!(count(&metrics, ManifestDifference::Samples), 1);
}

#[test]
fn the_order_of_an_unchanged_set_is_that_of_its_listing_in_the_manifest() {
    let folder = tempfile::tempdir().unwrap();
    let (shards, manifest) = set();
    write(folder.path(), (shards, manifest));
    let order = |dataset: &Dataset| -> Vec<_> {
        let mut stream = dataset.batches(spec(shuffled(Cursor::default()), 6), hashing).unwrap();
        (0..9).flat_map(|_| contents(&stream.next().unwrap().unwrap())).collect()
    };
    let plain = order(&try_open(folder.path(), &data(8), &PipelineMetrics::default()).unwrap());
    fs::write(folder.path().join("zzz.tar"), tar(9, 4, 100)).unwrap();
    let beside = order(&try_open(folder.path(), &data(8), &PipelineMetrics::default()).unwrap());
    assert!(plain == beside, "a shard that is left out changes nothing");
}

#[test]
fn a_web_server_is_asked_for_the_sizes_of_its_shards() {
    let (shards, mut manifest) = set();
    manifest.shards[0].bytes += 512;
    let objects = |manifest: &Manifest| -> Vec<(String, Vec<u8>)> {
        let mut objects: Vec<_> = shards.iter().map(|(name, bytes)| (format!("d/{name}"), bytes.clone())).collect();
        objects.remove(2);
        objects.push(("d/manifest.json".into(), serde_json::to_vec(manifest).unwrap()));
        objects
    };
    for ability in [Ability::All, Ability::Whole] {
        let server = FaultServer::start(objects(&manifest), |_| Fault::None);
        server.limit(ability);
        let dataset = open(&format!("{}/d", server.url()), &data(16), &pipeline(1, 1));
        let found = dataset.differences();
        assert!(
            matches!(&found[..], [Difference::Missing { shard: a }, Difference::Size { shard: b, .. }] if a == "d/s-002.tar" && b == "d/s-000.tar"),
            "{found:?}"
        );
        assert_eq!(read_all(&dataset).len() as u32, COUNTS[0] + COUNTS[1]);
    }
    // One that says nothing about sizes, and takes no HEAD, is believed; a missing shard shows anyway.
    let server = FaultServer::start(objects(&manifest), |_| Fault::None);
    server.limit(Ability::Chunked);
    let dataset = open(&format!("{}/d", server.url()), &data(16), &pipeline(1, 1));
    assert_eq!(
        dataset.differences(),
        [Difference::Missing {
            shard: "d/s-002.tar".into()
        }]
    );
    // A server in trouble is not asked for long.
    let server = FaultServer::start(objects(&manifest), |r| {
        if r.method == "HEAD" { Fault::Status(503) } else { Fault::None }
    });
    assert!(
        open(&format!("{}/d", server.url()), &data(16), &pipeline(1, 1))
            .differences()
            .is_empty()
    );
}
