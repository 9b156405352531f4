use super::*;
use proptest::prelude::*;

/// (name, content) of the regular files, and how the walk ended.
fn ours(bytes: &[u8]) -> (Vec<(String, Vec<u8>)>, Option<TarError>) {
    let mut entries = Entries::new(bytes);
    let mut out = vec![];
    loop {
        match entries.next() {
            Ok(None) => return (out, None),
            Err(e) => return (out, Some(e)),
            Ok(Some(entry)) if entry.kind != EntryKind::Regular => {}
            Ok(Some(entry)) => match entries.read() {
                Ok(bytes) => out.push((String::from_utf8_lossy(&entry.name).into_owned(), bytes)),
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

/// All entries: name and kind.
fn entries(bytes: &[u8]) -> (Vec<(Vec<u8>, EntryKind)>, Option<End>) {
    let mut entries = Entries::new(bytes);
    let mut out = vec![];
    while let Some(entry) = entries.next().unwrap() {
        out.push((entry.name, entry.kind));
    }
    (out, entries.end())
}

#[test]
fn each_entry_has_its_kind_and_its_name_in_bytes() {
    let mut bytes = vec![];
    for kind in [
        EntryType::Directory,
        EntryType::Symlink,
        EntryType::Link,
        EntryType::Char,
        EntryType::Block,
        EntryType::Fifo,
        EntryType::new(b'V'),
    ] {
        padded(&mut bytes, &header("x.jpg", kind, 0), b"");
    }
    // A directory as it was written before POSIX, and a name in Latin-1.
    padded(&mut bytes, &header("old/", EntryType::Regular, 0), b"");
    let mut latin = header("a.jpg", EntryType::Regular, 1);
    latin.as_old_mut().name[0] = 0xe9;
    latin.set_cksum();
    padded(&mut bytes, &latin, b"x");
    bytes.extend_from_slice(&[0; 1024]);
    let (all, end) = entries(&bytes);
    use EntryKind::{Directory, HardLink, Other, Regular, Special, SymbolicLink};
    let kinds: Vec<EntryKind> = all.iter().map(|e| e.1).collect();
    assert_eq!(
        kinds,
        [
            Directory,
            SymbolicLink,
            HardLink,
            Special,
            Special,
            Special,
            Other,
            Directory,
            Regular
        ]
    );
    assert_eq!((all[8].0.as_slice(), end), (&b"\xe9.jpg"[..], Some(End::Marked)));
}

#[test]
fn a_tar_may_end_without_its_marker_but_not_inside_a_header() {
    let mut bytes = vec![];
    padded(&mut bytes, &header("a.jpg", EntryType::Regular, 1), b"x");
    assert_eq!(
        entries(&bytes),
        (vec![(b"a.jpg".to_vec(), EntryKind::Regular)], Some(End::Unmarked))
    );
    assert!(matches!(ours(&[]).1, Some(TarError::Truncated)), "an empty file is no tar");
    for more in [1, 511] {
        bytes.resize(1024 + more, 0);
        assert!(matches!(ours(&bytes).1, Some(TarError::Truncated)), "{more} bytes of a header");
    }
    bytes.truncate(1024);
    padded(&mut bytes, &header("x", EntryType::XHeader, 20), b"20 path=abc/def.jpg\n");
    assert!(matches!(ours(&bytes).1, Some(TarError::Truncated)), "a header without its member");
}

#[test]
fn what_is_behind_the_end_marker_can_be_seen() {
    let tar = |names: &[&str]| {
        let mut out = vec![];
        names
            .iter()
            .for_each(|name| padded(&mut out, &header(name, EntryType::Regular, 1), b"x"));
        out
    };
    let behind = |tail: &[u8]| {
        let bytes = [tar(&["a.jpg"]), vec![0; 1024], tail.to_vec()].concat();
        let mut entries = Entries::new(bytes.as_slice());
        assert!(entries.next().unwrap().is_some() && entries.next().unwrap().is_none());
        let mut names = vec![];
        loop {
            match entries.next_behind_end() {
                Ok(Some(entry)) => names.push(String::from_utf8(entry.name).unwrap()),
                Ok(None) => return (names, true),
                Err(_) => return (names, false),
            }
        }
    };
    assert_eq!(behind(&[]), (vec![], true));
    assert_eq!(behind(&[0; 9000]), (vec![], true), "the padding of GNU tar");
    let two = [vec![0; 512], tar(&["b.jpg", "c.jpg"]), vec![0; 1024], tar(&["d.jpg"])].concat();
    assert_eq!(behind(&two), (vec!["b.jpg".into(), "c.jpg".into(), "d.jpg".into()], true));
    assert_eq!(behind(&[0xa5; 700]), (vec![], false));
    assert_eq!(behind(&[&tar(&["b.jpg"])[..], &[7; 100]].concat()), (vec!["b.jpg".into()], false));
}

#[test]
fn compressed_tars_are_told_by_their_first_bytes() {
    for (start, format) in [
        (&[0x1f, 0x8b, 8, 0][..], "gzip"),
        (&[0x28, 0xb5, 0x2f, 0xfd][..], "zstd"),
        (b"\xfd7zXZ\0", "xz"),
        (b"BZh91AY", "bzip2"),
        (b"PK\x03\x04", "zip"),
    ] {
        for length in [20, 5000] {
            let mut bytes = start.to_vec();
            bytes.resize(length, 0xa5);
            assert!(matches!(ours(&bytes).1, Some(TarError::Compressed(f)) if f == format), "{format}");
        }
    }
    let mut tar = vec![];
    padded(&mut tar, &header("BZh.jpg", EntryType::Regular, 1), b"x");
    assert_eq!(ours(&tar).0.len(), 1, "a name may begin like a format");
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
