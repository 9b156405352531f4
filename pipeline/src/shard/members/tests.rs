use super::*;
use proptest::prelude::*;

fn ours(bytes: &[u8]) -> (Vec<(String, Vec<u8>)>, Option<TarError>) {
    let mut members = Members::new(bytes);
    let mut out = vec![];
    loop {
        match members.next() {
            Ok(None) => return (out, None),
            Err(e) => return (out, Some(e)),
            Ok(Some(member)) => match members.read() {
                Ok(bytes) => out.push((member.path, bytes)),
                Err(e) => return (out, Some(e)),
            },
        }
    }
}

fn header(path: &str, kind: EntryType, size: u64) -> Header {
    let mut header = Header::new_ustar();
    header.set_path(path).unwrap();
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(0o644);
    header.set_cksum();
    header
}

fn padded(out: &mut Vec<u8>, header: &Header, data: &[u8]) {
    out.extend_from_slice(header.as_bytes());
    out.extend_from_slice(data);
    out.resize(out.len().next_multiple_of(BLOCK), 0);
}

proptest! {
    #[test]
    fn what_the_tar_crate_reads_is_read_the_same(files in proptest::collection::vec(("[a-z/]{1,180}[a-z]", proptest::collection::vec(any::<u8>(), 0..1500)), 0..8)) {
        let mut builder = tar::Builder::new(vec![]);
        for (path, data) in &files {
            let mut header = Header::new_gnu();
            header.set_size(data.len() as u64);
            builder.append_data(&mut header, path.trim_start_matches('/'), data.as_slice()).unwrap();
        }
        let bytes = builder.into_inner().unwrap();
        let mut theirs = vec![];
        for entry in tar::Archive::new(bytes.as_slice()).entries().unwrap() {
            let mut entry = entry.unwrap();
            let mut data = vec![];
            entry.read_to_end(&mut data).unwrap();
            theirs.push((String::from_utf8(entry.path_bytes().into_owned()).unwrap(), data));
        }
        let (mine, error) = ours(&bytes);
        prop_assert!(error.is_none(), "{error:?}");
        prop_assert_eq!(mine, theirs);
    }

    #[test]
    fn no_bytes_make_it_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..3000), flips in proptest::collection::vec((0usize..3000, any::<u8>()), 0..20)) {
        let _ = ours(&bytes);
        // Near-valid input gets deeper than noise.
        let mut valid = vec![];
        padded(&mut valid, &header("x", EntryType::XHeader, 30), b"18 path=abc/de.jpg\n12 size=700\n");
        padded(&mut valid, &header("a.jpg", EntryType::Regular, bytes.len() as u64), &bytes);
        for (at, value) in flips {
            if at < valid.len() { valid[at] = value; }
        }
        let _ = ours(&valid);
        bytes.clear();
    }
}

#[test]
fn the_pax_size_wins_so_inner_bytes_are_never_members() {
    // The outer header says 0 bytes, PAX says 1024: those hold a whole tar header that must stay data.
    let mut inner = vec![];
    padded(&mut inner, &header("evil.jpg", EntryType::Regular, 4), b"evil");
    let pax = b"13 size=1024\n";
    let mut bytes = vec![];
    padded(&mut bytes, &header("pax", EntryType::XHeader, pax.len() as u64), pax);
    padded(&mut bytes, &header("good.bin", EntryType::Regular, 0), &inner);
    padded(&mut bytes, &header("last.jpg", EntryType::Regular, 1), b"x");
    bytes.extend_from_slice(&[0; 1024]);
    let (members, error) = ours(&bytes);
    assert!(error.is_none(), "{error:?}");
    let names: Vec<&str> = members.iter().map(|m| m.0.as_str()).collect();
    assert_eq!(names, ["good.bin", "last.jpg"]);
    assert_eq!(members[0].1, inner);
}

#[test]
fn what_could_be_read_in_two_ways_or_fill_the_memory_is_refused() {
    let end = [0; 1024];
    for (name, kind, size, reason) in [
        ("huge PAX header", EntryType::XHeader, 1u64 << 33, "extension header"),
        ("huge long name", EntryType::GNULongName, 2 << 20, "extension header"),
        ("huge global header", EntryType::XGlobalHeader, 2 << 20, "extension header"),
        ("link with content", EntryType::Symlink, 512, "content"),
        ("directory with content", EntryType::Directory, 512, "content"),
        ("sparse", EntryType::GNUSparse, 0, "sparse"),
    ] {
        let mut bytes = header("x", kind, size).as_bytes().to_vec();
        bytes.extend_from_slice(&end);
        let (members, error) = ours(&bytes);
        assert!(members.is_empty(), "{name}");
        assert!(
            matches!(&error, Some(TarError::Malformed(detail)) if detail.contains(reason)),
            "{name}: {error:?}"
        );
    }
}

#[test]
fn links_devices_and_directories_are_passed_over() {
    let mut bytes = vec![];
    for kind in [
        EntryType::Directory,
        EntryType::Symlink,
        EntryType::Link,
        EntryType::Char,
        EntryType::Block,
        EntryType::Fifo,
    ] {
        padded(&mut bytes, &header("x.jpg", kind, 0), b"");
    }
    padded(&mut bytes, &header("a.jpg", EntryType::Regular, 1), b"x");
    bytes.extend_from_slice(&[0; 1024]);
    let (members, error) = ours(&bytes);
    assert!(error.is_none());
    assert_eq!(members, [("a.jpg".to_owned(), b"x".to_vec())]);
}

#[test]
fn names_that_could_be_read_in_two_ways_are_refused() {
    let name = [b'd'; 120];
    let long = |size: u64, behind: &[u8]| {
        let mut out = vec![];
        padded(&mut out, &header("LongLink", EntryType::GNULongName, size), behind);
        padded(&mut out, &header("short", EntryType::Regular, 2), b"xy");
        out.extend_from_slice(&[0; 2 * BLOCK]);
        ours(&out)
    };
    let (members, error) = long(120, &name);
    assert!(
        error.is_none() && members[0].0.len() == 120,
        "a name without a NUL, and nothing behind it"
    );
    let (_, error) = long(119, &name);
    assert!(matches!(error, Some(TarError::Malformed(m)) if m.contains("long name")));
    let (members, error) = long(120, b"a/b\0c");
    assert!(error.is_none() && members[0].0 == "a/b", "up to its NUL");
    let mut out = vec![];
    padded(&mut out, &header("x", EntryType::XHeader, 16), b"16 path=p/\0.jpg\n");
    padded(&mut out, &header("short", EntryType::Regular, 2), b"xy");
    out.extend_from_slice(&[0; 2 * BLOCK]);
    assert!(matches!(ours(&out).1, Some(TarError::Malformed(m)) if m.contains("NUL")));
}
