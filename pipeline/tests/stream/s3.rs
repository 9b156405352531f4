//! The stream from a real S3 server (s3s-fs, which checks signatures as the real one does), through `data.endpoint`.

use crate::alone::alone;
use crate::servers::Server;
use crate::stream_support::*;
use splitmask_pipeline::config::{DataConfig, PipelineConfig};
use splitmask_pipeline::cursor::Cursor;
use splitmask_pipeline::error::PipelineError;
use splitmask_pipeline::metrics::{PipelineMetrics, Scheme};
use splitmask_pipeline::run::Dataset;

const KEY: &str = "splitmask-test";
const SECRET: &str = "canary-secret-8c1f";

/// Whether this is the process whose environment holds the credentials; else runs the test again in one.
fn with_credentials(test: &str, secret: &str) -> bool {
    let environment = [("AWS_ACCESS_KEY_ID", KEY), ("AWS_SECRET_ACCESS_KEY", secret)];
    alone(test, &environment, &[secret])
}

fn settings(server: &Server) -> DataConfig {
    DataConfig {
        endpoint: server.endpoint.clone(),
        ..data(32)
    }
}

fn bucket(sizes: &[u32]) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    let prefix = root.path().join("photos/train");
    std::fs::create_dir_all(prefix.join("deeper")).unwrap();
    write_shards(&prefix, sizes, 30 << 10);
    std::fs::write(prefix.join("notes.txt"), "x").unwrap();
    std::fs::write(prefix.join("deeper/other.tar"), tar(9, 1, 10)).unwrap();
    root
}

#[test]
fn a_prefix_a_glob_a_range_and_a_key_give_the_stream_of_the_local_folder() {
    if !with_credentials("s3::a_prefix_a_glob_a_range_and_a_key_give_the_stream_of_the_local_folder", SECRET) {
        return;
    }
    let root = bucket(&[40, 50, 60]);
    let server = Server::s3(root.path(), KEY, SECRET);
    let machine = PipelineConfig {
        fetch_ahead: 3,
        ..pipeline(2, 2)
    };
    let local = open(root.path().join("photos/train").to_str().unwrap(), &data(32), &machine);
    let take = |dataset: &Dataset| -> Vec<_> {
        let mut stream = dataset.batches(spec(shuffled(Cursor::default()), 10), hashing).unwrap();
        (0..30).map(|_| stream.next().unwrap().unwrap()).collect()
    };
    let expected = take(&local);
    for place in [
        "s3://photos/train",
        "s3://photos/train/",
        "s3://photos/train/s-*.tar",
        "s3://photos/train/s-{000..002}.tar",
    ] {
        let metrics = PipelineMetrics::default();
        let dataset = Dataset::open(place, &settings(&server), &machine, metrics.clone()).unwrap();
        assert_eq!(dataset.shards().len(), 3, "{place}");
        assert!(take(&dataset) == expected, "{place}");
        assert!(metrics.bytes_read.of(Scheme::S3).get() > 2 << 20);
    }
    let one = open("s3://photos/train/deeper/other.tar", &settings(&server), &machine);
    assert_eq!(one.samples(splitmask_pipeline::run::Order::Sequential).unwrap().count(), 1);
}

#[test]
fn a_resume_in_the_middle_goes_on_the_same() {
    if !with_credentials("s3::a_resume_in_the_middle_goes_on_the_same", SECRET) {
        return;
    }
    let root = bucket(&[40, 50, 60]);
    let server = Server::s3(root.path(), KEY, SECRET);
    let dataset = open("s3://photos/train", &settings(&server), &pipeline(2, 2));
    let mut stream = dataset.batches(spec(shuffled(Cursor::default()), 10), hashing).unwrap();
    let all: Vec<_> = (0..25).map(|_| stream.next().unwrap().unwrap()).collect();
    for at in [0, 7, 14, 20] {
        let mut resumed = dataset.batches(spec(shuffled(all[at].cursor), 10), hashing).unwrap();
        assert!(resumed.next().unwrap().unwrap() == all[at + 1], "behind batch {at}");
    }
}

#[test]
fn wrong_credentials_are_named_as_such() {
    if !with_credentials("s3::wrong_credentials_are_named_as_such", "wrong-secret-55aa") {
        return;
    }
    let root = bucket(&[3]);
    let server = Server::s3(root.path(), KEY, SECRET);
    let error = Dataset::open("s3://photos/train", &settings(&server), &pipeline(1, 1), PipelineMetrics::default()).unwrap_err();
    assert!(matches!(error, PipelineError::Refused { .. }), "{error}");
    assert!(
        error.to_string().contains("403") && error.hint().unwrap().contains("AWS_"),
        "{error}"
    );
}

#[test]
fn an_empty_prefix_says_what_was_looked_for() {
    if !with_credentials("s3::an_empty_prefix_says_what_was_looked_for", SECRET) {
        return;
    }
    let root = bucket(&[3]);
    let server = Server::s3(root.path(), KEY, SECRET);
    let error = Dataset::open("s3://photos/none", &settings(&server), &pipeline(1, 1), PipelineMetrics::default()).unwrap_err();
    assert!(
        matches!(error, PipelineError::Empty { .. }) && error.to_string().contains("neither manifest.json nor *.tar"),
        "{error}"
    );
}

#[test]
fn a_manifest_in_a_bucket_is_compared_with_its_listing() {
    if !with_credentials("s3::a_manifest_in_a_bucket_is_compared_with_its_listing", SECRET) {
        return;
    }
    let root = bucket(&[3, 4, 5]);
    let folder = root.path().join("photos/train");
    let entry = |name: &str, bytes: u64| serde_json::json!({"path": name, "bytes": bytes, "samples": 3, "sha256": ""});
    let size = |name: &str| std::fs::metadata(folder.join(name)).unwrap().len();
    let manifest = serde_json::json!({
        "format": "splitmask-shards/1", "classes": [], "label_counts": [], "provenance": "",
        "statistics": {"images": 1, "mean": [0, 0, 0], "std": [1, 1, 1], "mean_width": 1, "mean_height": 1},
        "shards": [entry("s-000.tar", size("s-000.tar")), entry("s-001.tar", 7), entry("s-009.tar", 7), entry("deeper/other.tar", size("deeper/other.tar"))],
    });
    std::fs::write(folder.join("manifest.json"), manifest.to_string()).unwrap();
    let server = Server::s3(root.path(), KEY, SECRET);
    let dataset = open("s3://photos/train", &settings(&server), &pipeline(1, 1));
    let found = splitmask_pipeline::bucket::differences::sentences(&dataset.differences());
    let told = |part: &str| assert!(found.iter().any(|line| line.contains(part)), "{part}: {found:?}");
    assert_eq!(found.len(), 3, "{found:?}");
    told("train/s-009.tar: named by manifest.json, but not there");
    told("train/s-002.tar: there, but not named");
    told("train/s-001.tar: manifest.json says 7 bytes, it has");

    // Without it the listing is all there is; what looks like more shards is named.
    std::fs::remove_file(folder.join("manifest.json")).unwrap();
    std::fs::write(folder.join("more.tgz"), b"\x1f\x8b").unwrap();
    let dataset = open("s3://photos/train", &settings(&server), &pipeline(1, 1));
    let found = splitmask_pipeline::bucket::differences::sentences(&dataset.differences());
    let told = |part: &str| assert!(found.iter().any(|line| line.contains(part)), "{part}: {found:?}");
    assert_eq!(found.len(), 2, "{found:?}");
    told("train/more.tgz: there, but not read: it is compressed");
    told("train/deeper: holds shards, but they are not read");
}
