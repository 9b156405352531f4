//! The stream from Google's and Azure's object stores, as their own test servers speak, through `data.endpoint`.

use std::path::Path;

use crate::alone::alone;
use crate::servers::{ACCOUNT, ACCOUNT_KEY, Server};
use crate::stream_support::*;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::{ObjectStoreExt, PutPayload};
use splitmask_pipeline::config::DataConfig;
use splitmask_pipeline::cursor::Cursor;
use splitmask_pipeline::error::PipelineError;
use splitmask_pipeline::metrics::{PipelineMetrics, Scheme};
use splitmask_pipeline::run::Dataset;
use splitmask_pipeline::types::Batch;

fn bucket() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    let prefix = root.path().join("photos/train");
    std::fs::create_dir_all(prefix.join("deeper")).unwrap();
    write_shards(&prefix, &[40, 50, 60], 30 << 10);
    std::fs::write(prefix.join("notes.txt"), "x").unwrap();
    std::fs::write(prefix.join("deeper/other.tar"), tar(9, 1, 10)).unwrap();
    root
}

fn take(dataset: &Dataset, start: Cursor, count: usize) -> Vec<Batch> {
    let mut stream = dataset.batches(spec(shuffled(start), 10), hashing).unwrap();
    (0..count).map(|_| stream.next().unwrap().unwrap()).collect()
}

/// A prefix, a glob and a range give the local stream; a resume goes on; an empty prefix is told.
fn serves_as_the_folder_does(root: &Path, endpoint: &str, scheme: Scheme, address: &str) {
    let settings = DataConfig {
        endpoint: endpoint.to_owned(),
        ..data(32)
    };
    let expected = take(
        &open(root.join("photos/train").to_str().unwrap(), &data(32), &pipeline(2, 2)),
        Cursor::default(),
        30,
    );
    for place in ["train", "train/", "train/s-*.tar", "train/s-{000..002}.tar"] {
        let metrics = PipelineMetrics::default();
        let place = format!("{address}/{place}");
        let dataset = Dataset::open(&place, &settings, &pipeline(2, 2), metrics.clone()).unwrap_or_else(|e| panic!("{place}: {e}"));
        assert_eq!(dataset.shards().len(), 3, "{place}");
        assert!(take(&dataset, Cursor::default(), 30) == expected, "{place}");
        assert!(metrics.bytes_read.of(scheme).get() > 2 << 20);
        assert!(take(&dataset, expected[12].cursor, 3) == expected[13..16], "a resume at {place}");
    }
    let error = Dataset::open(&format!("{address}/none"), &settings, &pipeline(1, 1), PipelineMetrics::default()).unwrap_err();
    assert!(matches!(error, PipelineError::Empty { .. }), "{error}");
}

#[test]
fn google_cloud_storage_gives_the_stream_of_the_local_folder() {
    let name = "clouds::google_cloud_storage_gives_the_stream_of_the_local_folder";
    if !alone(name, &[("GOOGLE_SKIP_SIGNATURE", "true")], &[]) {
        return;
    }
    let root = bucket();
    let server = Server::gcs(root.path());
    serves_as_the_folder_does(root.path(), &server.endpoint, Scheme::Gs, "gs://photos");
}

fn upload(root: &Path, endpoint: &str) {
    let store = MicrosoftAzureBuilder::new()
        .with_account(ACCOUNT)
        .with_access_key(ACCOUNT_KEY)
        .with_container_name("photos")
        .with_endpoint(endpoint.to_owned())
        .with_allow_http(true)
        .build()
        .unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for name in ["s-000.tar", "s-001.tar", "s-002.tar", "notes.txt", "deeper/other.tar"] {
        let bytes = std::fs::read(root.join("photos/train").join(name)).unwrap();
        let key = object_store::path::Path::parse(format!("train/{name}")).unwrap();
        runtime.block_on(store.put(&key, PutPayload::from(bytes))).unwrap();
    }
}

#[test]
fn azure_blob_storage_gives_the_stream_of_the_local_folder() {
    let name = "clouds::azure_blob_storage_gives_the_stream_of_the_local_folder";
    let environment = [("AZURE_STORAGE_ACCOUNT_NAME", ACCOUNT), ("AZURE_STORAGE_ACCOUNT_KEY", ACCOUNT_KEY)];
    if !alone(name, &environment, &[ACCOUNT_KEY]) {
        return;
    }
    let (root, state) = (bucket(), tempfile::tempdir().unwrap());
    let server = Server::azure(state.path());
    server.make_container("photos");
    upload(root.path(), &server.endpoint);
    serves_as_the_folder_does(root.path(), &server.endpoint, Scheme::Az, "az://photos");
}
