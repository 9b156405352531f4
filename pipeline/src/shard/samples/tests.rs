use super::*;
use crate::shard::subset::Balance;
use proptest::prelude::*;

fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = ::tar::Builder::new(vec![]);
    for (path, data) in files {
        let mut header = ::tar::Header::new_gnu();
        header.set_size(data.len() as u64);
        builder.append_data(&mut header, path, *data).unwrap();
    }
    builder.into_inner().unwrap()
}

fn options() -> SampleOptions {
    SampleOptions {
        epoch: 2,
        shard: 5,
        path: "t.tar".into(),
        skip: 0,
        fraction: 1.0,
        balance: None,
        images: Arc::default(),
        classes: None,
        max_member_bytes: 100,
    }
}

/// Everything that a tar gives: keys of samples and `key!reason` of those that are none, how it ended, and what became of its entries.
fn all(bytes: &[u8], options: SampleOptions) -> (Vec<String>, Option<ShardError>, Tally) {
    let (mut keys, mut error, mut tally) = (vec![], None, Tally::default());
    let mut samples = Samples::new(bytes, options);
    while let Some(item) = samples.next() {
        tally.add(samples.take_tally());
        assert!(error.is_none(), "nothing comes behind an error");
        match item {
            Ok(Ok(sample)) => keys.push(sample.key.to_string()),
            Ok(Err(rejected)) => keys.push(format!("{}!{}", rejected.key, rejected.error.reason())),
            Err(e) => error = Some(e),
        }
    }
    tally.add(samples.take_tally());
    (keys, error, tally)
}

fn keys(bytes: &[u8], options: SampleOptions) -> (Vec<String>, Option<ShardError>) {
    let (keys, error, _) = all(bytes, options);
    (keys, error)
}

/// What was passed over, without directories: reason and count.
fn passed(tally: &Tally) -> Vec<(&'static str, u64)> {
    tally.passed_over().map(|(reason, count, _)| (reason.text(), count)).collect()
}

fn raw(bytes: &[u8], options: SampleOptions) -> Vec<RawSample> {
    Samples::new(bytes, options).map(|s| s.unwrap().unwrap()).collect()
}

fn choosing(images: &[&str]) -> SampleOptions {
    SampleOptions {
        images: images.iter().map(|i| (*i).to_owned()).collect(),
        ..options()
    }
}

#[test]
fn members_of_one_key_make_a_sample() {
    let bytes = tar(&[
        ("README", b"no key"),
        ("a.txt", b"other"),
        ("a.JPG", b"img a"),
        ("a.cls", b" 7\n"),
        ("d/b.input.png", b"img b"),
        ("d/b.json", b"{"),
    ]);
    let (_, error, tally) = all(&bytes, options());
    assert!(error.is_none());
    assert_eq!(passed(&tally), [("no_extension", 1), ("unknown_extension", 1)]);
    assert_eq!((tally.used, tally.seen()), (4, "1 cls, 1 input.png, 1 jpg, 1 json, 1 txt".into()));
    let samples = raw(&bytes, options());
    let [a, b] = &samples[..] else { unreachable!() };
    assert_eq!(
        (&a.key, &a.image[..], a.extension.as_str(), a.label),
        (&"a".into(), &b"img a"[..], "jpg", Some(7))
    );
    assert_eq!(
        (&b.key, &b.image[..], b.extension.as_str(), b.label),
        (&"d/b".into(), &b"img b"[..], "input.png", None)
    );
    assert_eq!((b.id.epoch, b.id.shard, b.id.member), (2, 5, 1));
}

#[test]
fn names_in_any_encoding_are_samples_of_their_own() {
    let names: Vec<Vec<u8>> = [
        &b"caf\xe9.png"[..],
        b"caf\xea.png",
        "caf\u{e9}.png".as_bytes(),
        "cafe\u{301}.png".as_bytes(),
        b"cafe.png",
        b"Cafe.png",
        b"a\nb.png",
        b"a b.png",
        b"\xff\xfe.png",
        b"\xff\xfd.png",
        "\u{fffd}.png".as_bytes(),
        b"./cafe.png",
    ]
    .map(<[u8]>::to_vec)
    .to_vec();
    let mut bytes = vec![];
    for name in &names {
        let mut header = ::tar::Header::new_ustar();
        header.as_old_mut().name[..name.len()].copy_from_slice(name);
        header.set_size(1);
        header.set_cksum();
        bytes.extend_from_slice(header.as_bytes());
        bytes.extend_from_slice(&[7; 1]);
        bytes.resize(bytes.len().next_multiple_of(512), 0);
    }
    bytes.extend_from_slice(&[0; 1024]);
    let (shown, error, tally) = all(&bytes, options());
    assert!(error.is_none() && passed(&tally).is_empty());
    assert_eq!(shown.len(), names.len());
    assert_eq!(shown.iter().collect::<HashSet<_>>().len(), names.len(), "{shown:?}");
    let exact: Vec<Vec<u8>> = raw(&bytes, options()).iter().map(|s| s.key.as_bytes().to_vec()).collect();
    assert_eq!(exact, names.iter().map(|n| n[..n.len() - 4].to_vec()).collect::<Vec<_>>());
}

/// An unlabelled image is as good as a labelled one.
#[test]
fn a_label_that_cannot_be_read_is_no_label() {
    let long = [b'1'; 65];
    let labels: [(&[u8], &str, Option<u32>); 11] = [
        (b"2", "", Some(2)),
        (b" 0\r\n", "", Some(0)),
        (b"-1", "bad_label", None),
        (b"", "bad_label", None),
        (b"cat", "bad_label", None),
        (b"1.0", "bad_label", None),
        (b"\xff", "bad_label", None),
        (&long, "bad_label", None),
        (b"4294967296", "bad_label", None),
        (b"3", "unknown_class", None),
        (b"4294967295", "unknown_class", None),
    ];
    for (text, reason, label) in labels {
        let bytes = tar(&[("a.cls", text), ("a.png", b"x"), ("b.png", b"x")]);
        let options = SampleOptions {
            classes: Some(3),
            ..options()
        };
        let (keys, error, tally) = all(&bytes, options.clone());
        assert!(error.is_none() && keys == ["a", "b"], "{text:?}");
        let counted: Vec<&str> = tally.passed_over().map(|p| p.0.text()).collect();
        assert_eq!(counted.concat(), reason, "{text:?}");
        assert_eq!(raw(&bytes, options)[0].label, label, "{text:?}");
    }
    let bytes = tar(&[("a.png", b"x"), ("a.cls", b"4294967295")]);
    assert_eq!(
        raw(&bytes, options())[0].label,
        Some(u32::MAX),
        "classes that nobody listed are taken as they are"
    );
    let (_, _, tally) = all(&tar(&[("a.png", b"x"), ("a.cls", b"c\xe4t")]), options());
    assert_eq!(tally.passed_over().next().unwrap().2, "t.tar: a.cls (\"c\\xe4t\")");
}

#[test]
fn json_that_cannot_be_read_costs_neither_image_nor_label() {
    let large = vec![b' '; 70_000];
    for json in [&b"{"[..], b"{\"class_rank\": -1}", &large] {
        let bytes = tar(&[("a.png", b"x"), ("a.cls", b"0"), ("a.json", json)]);
        let balanced = SampleOptions {
            fraction: 0.999,
            balance: Some(Arc::new(Balance::new(0.999, &[1], 1))),
            max_member_bytes: 100_000,
            ..options()
        };
        let (keys, error, tally) = all(&bytes, balanced);
        assert!(error.is_none() && keys == ["a"]);
        assert_eq!(passed(&tally), [("bad_json", 1)]);
        let (_, _, tally) = all(&bytes, options());
        assert!(passed(&tally).is_empty(), "nobody looks at it");
    }
    let foreign = tar(&[("a.png", b"x"), ("a.json", b"{\"caption\": 1}")]);
    assert!(passed(&all(&foreign, options()).2).is_empty());
}

#[test]
fn two_pictures_of_one_key_are_no_sample_until_one_is_chosen() {
    let bytes = tar(&[
        ("a.tif", b"picture"),
        ("a.png", b"mask"),
        ("a.cls", b"1"),
        ("b.png", b"only"),
        ("c.input.png", b"in"),
        ("c.mask.png", b"m"),
    ]);
    let (keys, error, tally) = all(&bytes, options());
    assert!(error.is_none());
    assert_eq!(keys, ["a!two_images", "b", "c!two_images"]);
    assert_eq!(passed(&tally), [("second_image", 2)]);
    let rejected = Samples::new(bytes.as_slice(), options()).next().unwrap().unwrap().unwrap_err();
    let text = rejected.refuse_two_images(&tally).unwrap_err().to_string();
    assert!(
        text.contains("key a: tif, png") && text.contains("2 png, 1 cls, 1 input.png, 1 mask.png, 1 tif"),
        "{text}"
    );

    for (images, wanted) in [
        (&["png"][..], &[("a", "mask"), ("b", "only")][..]),
        (&["tif", "png"], &[("a", "picture"), ("b", "only")]),
        (&["png", "tif"], &[("a", "mask"), ("b", "only")]),
        (&["mask.png", "INPUT.PNG"], &[("c", "m")]),
        (&["cls"], &[("a", "1")]),
        (&["heic"], &[]),
    ] {
        let samples = raw(&bytes, choosing(images));
        let found: Vec<(String, &[u8])> = samples.iter().map(|s| (s.key.to_string(), &s.image[..])).collect();
        let wanted: Vec<(String, &[u8])> = wanted.iter().map(|(k, i)| ((*k).to_owned(), i.as_bytes())).collect();
        assert_eq!(found, wanted, "{images:?}");
    }
    assert_eq!(raw(&bytes, choosing(&["png"]))[0].label, Some(1));
    assert_eq!(
        raw(&bytes, choosing(&["png"]))[1].id.member,
        1,
        "keys are numbered alike whatever is chosen"
    );
    let (_, _, tally) = all(&bytes, choosing(&["tif"]));
    assert_eq!(passed(&tally), [("second_image", 4)]);
}

/// The better picture counts even where the worse one would fit.
#[test]
fn an_image_above_the_limit_is_refused_by_its_header() {
    let long = [0; 101];
    let bytes = tar(&[("a.jpg", &long), ("b.png", b"x"), ("b.jpg", &long), ("c.jpg", b"x")]);
    let (found, error) = keys(&bytes, choosing(&["jpg", "png"]));
    assert!(error.is_none());
    assert_eq!(found, ["a!too_large", "b!too_large", "c"]);
}

#[test]
fn what_has_no_image_is_no_sample_and_keeps_its_number() {
    let bytes = tar(&[("a.txt", b"x"), ("b.cls", b"1"), ("b.json", b"{}"), ("c.jpg", b"ok")]);
    let (keys, error, tally) = all(&bytes, options());
    assert!(error.is_none());
    assert_eq!(keys, ["c"]);
    assert_eq!(passed(&tally), [("unknown_extension", 1), ("no_image", 2)]);
    assert_eq!(raw(&bytes, options())[0].id.member, 2);
}

/// Members of one key apart from each other: what is whole is delivered once, and the shard is read to its end.
#[test]
fn scattered_members_cost_no_image() {
    for (files, wanted, counts) in [
        // A label behind the other samples.
        (
            &["a.jpg", "b.jpg", "a.cls", "c.jpg", "c.cls"][..],
            &["a", "b", "c"][..],
            &[("scattered", 1)][..],
        ),
        // All labels before all images.
        (&["a.cls", "b.cls", "a.jpg", "b.jpg"], &["a", "b"], &[("no_image", 2)]),
        // All images before all masks: these are no pictures of their own.
        (&["a.jpg", "b.jpg", "a.png", "b.png"], &["a", "b"], &[("scattered", 2)]),
        // An archive that was appended to: the same names again.
        (&["a.jpg", "a.cls", "b.jpg", "a.jpg", "a.cls"], &["a", "b"], &[("duplicate", 2)]),
        (&["a.jpg", "a.jpg", "a.cls", "a.CLS", "b.jpg"], &["a", "b"], &[("duplicate", 2)]),
    ] {
        let files: Vec<(&str, &[u8])> = files.iter().map(|name| (*name, &b"1"[..])).collect();
        let (keys, error, tally) = all(&tar(&files), options());
        assert!(error.is_none());
        assert_eq!(
            (keys, passed(&tally)),
            (wanted.iter().map(|k| (*k).to_owned()).collect(), counts.to_vec())
        );
    }
}

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

#[test]
fn skipping_and_subsets_leave_numbers_as_they_are() {
    let files: Vec<(String, &[u8])> = (0..400).map(|n| (format!("{n:04}.jpg"), &b"x"[..])).collect();
    let files: Vec<(&str, &[u8])> = files.iter().map(|(n, d)| (n.as_str(), *d)).collect();
    let bytes = tar(&files);
    let numbers = |skip, fraction| -> Vec<u32> {
        let options = SampleOptions {
            skip,
            fraction,
            ..options()
        };
        raw(&bytes, options).iter().map(|s| s.id.member).collect()
    };
    assert_eq!(numbers(397, 1.0), [397, 398, 399]);
    let (third, half) = (numbers(0, 0.3), numbers(0, 0.5));
    // Binomial: 120 ± 9 and 200 ± 10; five standard deviations.
    assert!(
        (75..=165).contains(&third.len()) && (150..=250).contains(&half.len()),
        "{} {}",
        third.len(),
        half.len()
    );
    assert!(third.iter().all(|n| half.contains(n)), "a smaller subset lies inside a larger one");
    assert_eq!(numbers(200, 0.3), third.iter().copied().filter(|n| *n >= 200).collect::<Vec<_>>());
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
                    && matches!(Role::of(extension, &options.images), Role::Image(_))
                {
                    prop_assert!(distinct.contains(shown(key).as_str()), "{} is lost", name);
                }
            }
        }
    }
}
