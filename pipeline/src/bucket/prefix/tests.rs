use super::*;

fn prefix(folder: &std::path::Path) -> Prefix {
    Prefix::open(&folder.join("mirror").display().to_string(), "", "test-io").unwrap()
}

fn open() -> impl FnMut(u64) -> Result<(), String> {
    |_| Ok(())
}

#[test]
fn objects_are_put_listed_read_and_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let prefix = prefix(dir.path());
    assert_eq!(prefix.list("").unwrap(), []);
    assert!(prefix.get("a/x").unwrap().is_none());
    prefix.put("a/x", "one").unwrap();
    prefix.put("a/x", "two").unwrap();
    prefix.put("b", "three").unwrap();
    assert_eq!(prefix.list("a").unwrap(), [("a/x".into(), 3)]);
    assert_eq!(prefix.list("").unwrap().len(), 2);
    assert_eq!(prefix.get("a/x").unwrap().unwrap().0, "two");
    prefix.delete("a/x").unwrap();
    prefix.delete("a/x").unwrap();
    assert_eq!(prefix.list("").unwrap(), [("b".into(), 5)]);
}

#[test]
fn a_condition_that_does_not_hold_writes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let prefix = prefix(dir.path());
    assert!(prefix.put_if("lease", "one", Expected::Absent).unwrap());
    let refused = prefix.put_if("lease", "two", Expected::Absent).unwrap_err();
    assert_eq!(refused.kind, PrefixFailure::Conflict);
    let (text, version) = prefix.get("lease").unwrap().unwrap();
    assert_eq!(text, "one");
    assert!(
        !prefix.put_if("lease", "other", Expected::Version(&version)).unwrap(),
        "a folder needs two acts"
    );
    let refused = prefix.put_if("lease", "third", Expected::Version(&version)).unwrap_err();
    assert_eq!(refused.kind, PrefixFailure::Conflict);
    assert_eq!(prefix.get("lease").unwrap().unwrap().0, "other");
}

#[test]
fn a_large_file_goes_up_in_parts_and_comes_back_with_its_checksum() {
    let dir = tempfile::tempdir().unwrap();
    let prefix = prefix(dir.path());
    let bytes: Vec<u8> = (0..(35u32 << 20)).map(|n| (n ^ (n >> 8)) as u8).collect();
    let size = bytes.len() as u64;
    let sum = crate::file::sha256(&bytes);
    let mut parts = vec![];
    let mut gate = |n| {
        parts.push(n);
        Ok(())
    };
    assert_eq!(prefix.put_from("big", &mut &bytes[..], size, Some(&sum), &mut gate).unwrap(), sum);
    assert_eq!(
        parts,
        [8 << 20, 8 << 20, 8 << 20, 8 << 20, 3 << 20, 0],
        "in parts, and asked once more before it appears"
    );
    let mut back = vec![];
    assert_eq!(prefix.get_to("big", &mut back, &mut open()).unwrap(), (sum, size));
    assert!(back == bytes);
}

#[test]
fn what_is_not_what_its_checksum_says_or_is_stopped_never_appears() {
    let dir = tempfile::tempdir().unwrap();
    let prefix = prefix(dir.path());
    for size in [1 << 20, 20 << 20] {
        let bytes = vec![7; size];
        let other = crate::file::sha256(b"other");
        let put = |length: usize, want: Option<&str>, gate: Gate<'_>| {
            let refused = prefix.put_from("big", &mut &bytes[..], length as u64, want, gate);
            assert_eq!(prefix.list("").unwrap(), [], "nothing is there");
            refused.unwrap_err().kind
        };
        assert_eq!(put(size, Some(&other), &mut open()), PrefixFailure::Source);
        assert_eq!(put(size + 1, None, &mut open()), PrefixFailure::Source, "it ends early");
        assert_eq!(put(size, None, &mut |_| Err("enough".into())), PrefixFailure::Stopped);
    }
}

#[test]
fn addresses_that_cannot_be_written_to_are_refused_with_a_reason() {
    for (address, reason) in [
        ("https://host/runs", "web server"),
        ("s3://b/x-{0..3}", "pattern"),
        ("s3://b/*.tar", "pattern"),
        ("ftp://h/x", "unknown scheme"),
        ("s3://key:secret@b/x", "environment"),
    ] {
        let why = Prefix::check(address).unwrap_err();
        assert!(why.contains(reason) && !why.contains("secret"), "{address}: {why}");
    }
    Prefix::check("s3://b/runs/x").unwrap();
}
