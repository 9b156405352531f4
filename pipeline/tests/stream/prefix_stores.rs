//! A prefix that is written to, on real stores: s3s-fs and azurite. fake-gcs-server takes no objects by the XML interface that `object_store` speaks; the
//! mirror's own test writes to it through a door (tests/training/mirror_clouds.rs).

use crate::alone::alone;
use crate::servers::{ACCOUNT, ACCOUNT_KEY, Server};
use splitmask_pipeline::bucket::prefix::{Expected, Prefix, PrefixFailure};
use splitmask_pipeline::file::sha256;

/// Objects, conditions (which both servers keep in one act), large files in parts.
fn is_written_to(address: &str, endpoint: &str) {
    let prefix = Prefix::open(address, endpoint, "test-io").unwrap();
    assert_eq!(prefix.list("").unwrap(), []);
    assert!(prefix.get("a/x").unwrap().is_none());
    prefix.put("a/x", "one").unwrap();
    prefix.put("a/x", "other").unwrap();
    prefix.put("b", "three").unwrap();
    assert_eq!(prefix.list("a").unwrap(), [("a/x".into(), 5)]);
    assert_eq!(prefix.list("").unwrap().len(), 2);
    assert_eq!(prefix.get("a/x").unwrap().unwrap().0, "other");
    prefix.delete("a/x").unwrap();
    prefix.delete("a/x").unwrap();
    prefix.delete("b").unwrap();

    let conflict = |done: Result<bool, _>| {
        let error: splitmask_pipeline::bucket::prefix::PrefixError = done.unwrap_err();
        assert_eq!(error.kind, PrefixFailure::Conflict, "{error}");
    };
    let created = prefix.put_if("lease", "one", Expected::Absent).unwrap();
    conflict(prefix.put_if("lease", "two", Expected::Absent));
    let (text, version) = prefix.get("lease").unwrap().unwrap();
    assert_eq!(text, "one");
    let replaced = prefix.put_if("lease", "second", Expected::Version(&version)).unwrap();
    conflict(prefix.put_if("lease", "third", Expected::Version(&version)));
    assert_eq!(prefix.get("lease").unwrap().unwrap().0, "second");
    assert!(created && replaced, "in one act");
    prefix.delete("lease").unwrap();

    // Three parts.
    let bytes: Vec<u8> = (0..(20u32 << 20)).map(|n| (n ^ (n >> 9)) as u8).collect();
    let (sum, size) = (sha256(&bytes), bytes.len() as u64);
    let refused = prefix.put_from("big", &mut &bytes[..], size, Some(&sha256("other")), &mut |_| Ok(()));
    assert_eq!(refused.unwrap_err().kind, PrefixFailure::Source);
    assert_eq!(prefix.list("").unwrap(), [], "it never appeared");
    prefix.put_from("big", &mut &bytes[..], size, Some(&sum), &mut |_| Ok(())).unwrap();
    let mut back = vec![];
    assert_eq!(prefix.get_to("big", &mut back, &mut |_| Ok(())).unwrap(), (sum, size));
    assert!(back == bytes);
}

#[test]
fn a_prefix_on_s3_is_written_to() {
    let environment = [
        ("AWS_ACCESS_KEY_ID", "AKEXAMPLE"),
        ("AWS_SECRET_ACCESS_KEY", "SKEXAMPLE"),
        ("AWS_REGION", "us-east-1"),
    ];
    if !alone("prefix_stores::a_prefix_on_s3_is_written_to", &environment, &["SKEXAMPLE"]) {
        return;
    }
    let root = tempfile::tempdir().unwrap();
    std::fs::create_dir(root.path().join("runs")).unwrap();
    let server = Server::s3(root.path(), "AKEXAMPLE", "SKEXAMPLE");
    is_written_to("s3://runs/x", &server.endpoint);
    is_written_to("s3://runs/deep/er/x/", &server.endpoint);
}

#[test]
fn a_prefix_on_azure_blob_storage_is_written_to() {
    let environment = [("AZURE_STORAGE_ACCOUNT_NAME", ACCOUNT), ("AZURE_STORAGE_ACCOUNT_KEY", ACCOUNT_KEY)];
    if !alone(
        "prefix_stores::a_prefix_on_azure_blob_storage_is_written_to",
        &environment,
        &[ACCOUNT_KEY],
    ) {
        return;
    }
    let state = tempfile::tempdir().unwrap();
    let server = Server::azure(state.path());
    server.make_container("runs");
    is_written_to("az://runs/x", &server.endpoint);
}
