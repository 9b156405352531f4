//! Which members make a sample.

mod hostile;

use super::*;
use crate::shard::subset::Balance;

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
        until: None,
        fraction: 1.0,
        balance: None,
        images: Arc::default(),
        classes: None,
        max_member_bytes: 100,
        map: super::LabelMember::unread(""),
        objects: super::LabelMember::unread(""),
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
