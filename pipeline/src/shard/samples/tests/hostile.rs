//! Tars that are damaged, cut, or made to harm.

use proptest::prelude::*;

use super::*;

#[test]
fn a_tar_cut_anywhere_gives_its_whole_images_and_then_says_truncated() {
    let bytes = tar(&[
        ("a.jpg", b"1"),
        ("a.cls", b"1"),
        ("b.jpg", b"2"),
        ("b.cls", b"2"),
        ("c.jpg", b"3"),
        ("c.cls", b"3"),
    ]);
    assert_eq!(bytes.len(), 6 * 1024 + 1024);
    for cut in (0..bytes.len()).step_by(37).chain((0..bytes.len()).step_by(512)) {
        let (keys, error, tally) = all(&bytes[..cut], options());
        // An image is whole with its last byte; each sample takes 2048.
        let whole = (cut + 2048).saturating_sub(513) / 2048;
        assert_eq!(keys, ["a", "b", "c"][..whole.min(3)], "cut at {cut}");
        let marked = cut >= 6 * 1024 + 512;
        // Behind a whole member a tar may end, but not before the first.
        let between = cut % 1024 == 0 && cut > 0;
        match error {
            None => assert!(marked || between, "cut at {cut}"),
            Some(ShardError::Truncated { samples, .. }) => {
                assert!(!marked && !between && samples as usize == whole.min(3), "cut at {cut}: {samples}");
            }
            Some(other) => panic!("cut at {cut}: {other}"),
        }
        let count = |reason| passed(&tally).iter().find(|p| p.0 == reason).map_or(0, |p| p.1);
        assert_eq!(count("no_end_marker"), u64::from(between && !marked), "cut at {cut}");
    }
    let (_, _, tally) = all(&bytes[..512 + 1024], options());
    assert_eq!(passed(&tally), [("cut_off", 1)], "a label whose bytes are missing");
}

#[test]
fn a_second_tar_behind_the_first_is_counted() {
    let bytes = [tar(&[("a.jpg", b"1")]), tar(&[("b.jpg", b"1"), ("c.jpg", b"1")])].concat();
    let (keys, error, tally) = all(&bytes, options());
    assert!(error.is_none() && keys == ["a"]);
    assert_eq!(passed(&tally), [("behind_end", 2)]);
    let (keys, error, tally) = all(&[tar(&[("a.jpg", b"1")]), vec![9; 100]].concat(), options());
    assert!(error.is_none() && keys == ["a"], "the tar itself is whole");
    assert_eq!(passed(&tally), [("behind_end", 1)]);
}

#[test]
fn names_are_keys_only_so_nothing_is_written_wherever_they_point() {
    // Hidden folders are passed over, and the usual temporary ones are hidden.
    let folder = tempfile::Builder::new().prefix("names").tempdir().unwrap();
    let target = folder.path().join("x.jpg");
    let mut bytes = vec![];
    for name in ["../../x.jpg", target.to_str().unwrap(), "a/\u{1b}[31m.jpg"] {
        let mut header = ::tar::Header::new_gnu();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_size(1);
        header.set_cksum();
        bytes.extend_from_slice(header.as_bytes());
        bytes.extend_from_slice(&[1; 1]);
        bytes.resize(bytes.len().next_multiple_of(512), 0);
    }
    bytes.extend_from_slice(&[0; 1024]);
    let (keys, error) = keys(&bytes, options());
    assert!(error.is_none(), "{error:?}");
    assert_eq!(
        keys,
        ["../../x", target.to_str().unwrap().trim_end_matches(".jpg"), "a/\\u{1b}[31m"]
    );
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn garbage_between_members_ends_the_shard_and_is_never_searched_for_a_header() {
    let mut bytes = tar(&[("a.jpg", b"1"), ("b.jpg", b"2")]);
    let after = bytes[1024..].to_vec();
    bytes.truncate(1024);
    bytes.extend_from_slice(&[0xa5; 700]);
    bytes.extend_from_slice(&after);
    let (keys_found, error) = keys(&bytes, options());
    assert_eq!(keys_found, ["a"], "an image is whole whatever comes behind it");
    assert!(matches!(error, Some(ShardError::Malformed { samples: 1, .. })), "{error:?}");
    let mut bytes = tar(&[("a.jpg", b"1"), ("b.jpg", b"2")]);
    bytes[1024] ^= 1;
    let (_, error) = keys(&bytes, options());
    assert!(matches!(error, Some(ShardError::Malformed { detail, .. }) if detail.contains("checksum")));
}

/// An entry of a random tar: type flag, name, size.
fn entry() -> impl Strategy<Value = (u8, String, usize)> {
    let folder = proptest::sample::select(vec!["", "d/", ".h/", "__MACOSX/", "./"]);
    let key = proptest::sample::select(vec!["a", "b", "c", ".x", "._a", "no"]);
    let extension = proptest::sample::select(vec![
        ".jpg",
        ".png",
        ".JPG",
        ".tif",
        ".mask.png",
        ".cls",
        ".CLS",
        ".json",
        ".txt",
        "",
        ".",
        ".heic",
    ]);
    let kind = prop_oneof![12 => Just(b'0'), 1 => proptest::sample::select(b"\x001234567VMD".to_vec())];
    (kind, folder, key, extension, prop_oneof![Just(0), Just(1), 2usize..700]).prop_map(|(kind, folder, key, extension, size)| {
        let size = if matches!(kind, b'1'..=b'6') { 0 } else { size };
        (kind, format!("{folder}{key}{extension}"), size)
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..Default::default() })]
    /// Whatever a tar holds: each entry is part of a sample or counted with its reason, and no sample comes twice.
    #[test]
    fn nothing_in_a_tar_is_unaccounted_for(
        entries in proptest::collection::vec(entry(), 0..24),
        tail in proptest::collection::vec(entry(), 0..4),
        marked: bool,
        skip in 0u32..6,
        fraction in prop_oneof![3 => Just(1.0), 1 => 0.1f64..0.9],
        images in prop_oneof![Just(vec![]), Just(vec!["png"]), Just(vec!["mask.png", "jpg"])],
    ) {
        let mut bytes = vec![];
        let mut add = |entries: &[(u8, String, usize)]| {
            for (n, (kind, name, size)) in entries.iter().enumerate() {
                let mut header = ::tar::Header::new_ustar();
                header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
                header.set_entry_type(::tar::EntryType::new(*kind));
                header.set_size(*size as u64);
                header.set_cksum();
                bytes.extend_from_slice(header.as_bytes());
                bytes.resize(bytes.len() + size, b'0' + (n % 4) as u8);
                bytes.resize(bytes.len().next_multiple_of(512), 0);
            }
            if marked { bytes.extend_from_slice(&[0; 1024]); }
        };
        add(&entries);
        // Without a marker between them the two are one tar.
        add(&tail);
        let options = SampleOptions { skip, fraction, max_member_bytes: 600, ..choosing(&images) };
        let (keys, error, tally) = all(&bytes, options.clone());
        if entries.is_empty() && tail.is_empty() && !marked {
            prop_assert_eq!(error.map(|e| e.reason()), Some("truncated"));
            return Ok(());
        }
        prop_assert!(error.is_none(), "{:?}", error);
        let passed: u64 = tally.passed_over().filter(|p| p.0 != PassedOver::NoEndMarker).map(|p| p.1).sum();
        prop_assert_eq!(tally.used + tally.unwanted + passed, (entries.len() + tail.len()) as u64, "{:?}", tally);
        prop_assert!(tally.used >= keys.len() as u64);
        let distinct: HashSet<&str> = keys.iter().map(|k| k.split('!').next().unwrap()).collect();
        prop_assert_eq!(distinct.len(), keys.len(), "{:?}", keys);
        if skip == 0 && fraction == 1.0 {
            prop_assert_eq!(tally.unwanted, 0);
            // At least the samples that WebDataset's package has whole: a key with one image by its rules.
            for (_, name, _) in entries.iter().filter(|e| e.0 == b'0' || e.0 == 0) {
                if let MemberName::Of { key, extension } = MemberName::parse(name.as_bytes())
                    && matches!(Role::of(extension, &options.images, "", ""), Role::Image(_))
                {
                    prop_assert!(distinct.contains(shown(key).as_str()), "{} is lost", name);
                }
            }
        }
    }
}
