use super::*;

fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(vec![]);
    for (path, data) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(data.len() as u64);
        builder.append_data(&mut header, path, *data).unwrap();
    }
    builder.into_inner().unwrap()
}

fn options() -> GroupOptions {
    GroupOptions {
        epoch: 2,
        shard: 5,
        path: "t.tar".into(),
        skip: 0,
        fraction: 1.0,
        balance: None,
        max_member_bytes: 100,
    }
}

fn keys(bytes: &[u8], options: GroupOptions) -> (Vec<String>, Option<ShardError>) {
    let mut keys = vec![];
    for item in Groups::new(bytes, options) {
        match item {
            Ok(Ok(sample)) => keys.push(sample.key),
            Ok(Err(rejected)) => keys.push(format!("{}!{}", rejected.key, rejected.error.reason())),
            Err(error) => return (keys, Some(error)),
        }
    }
    (keys, None)
}

#[test]
fn members_of_one_key_make_a_sample() {
    let bytes = tar(&[
        ("README", b"no key"),
        ("a.txt", b"other"),
        ("a.JPG", b"img a"),
        ("a.cls", b" 7\n"),
        ("d/b.png", b"img b"),
        ("d/b.jpg", b"second image"),
    ]);
    let samples: Vec<RawSample> = Groups::new(bytes.as_slice(), options()).map(|g| g.unwrap().unwrap()).collect();
    assert_eq!(samples.len(), 2);
    let [a, b] = &samples[..] else { unreachable!() };
    assert_eq!(
        (a.key.as_str(), &a.image[..], a.extension.as_str(), a.label),
        ("a", &b"img a"[..], "jpg", Some(7))
    );
    assert_eq!(
        (b.key.as_str(), &b.image[..], b.extension.as_str(), b.label),
        ("d/b", &b"img b"[..], "png", None)
    );
    assert_eq!(
        b.id,
        SampleId {
            epoch: 2,
            shard: 5,
            member: 1
        }
    );
}

#[test]
fn bad_samples_are_named_with_their_reason_and_keep_their_number() {
    let long = [0; 101];
    let bytes = tar(&[
        ("a.txt", b"x"),
        ("b.jpg", &long),
        ("c.jpg", b"x"),
        ("c.cls", b"cat"),
        ("d.jpg", b"ok"),
    ]);
    let (keys, error) = keys(&bytes, options());
    assert!(error.is_none());
    assert_eq!(keys, ["a!no_image", "b!too_large", "c!bad_label", "d"]);
    let last = Groups::new(bytes.as_slice(), options()).last().unwrap().unwrap().unwrap();
    assert_eq!(last.id.member, 3);
}

#[test]
fn scattered_members_end_the_shard_with_the_key() {
    let bytes = tar(&[("a.jpg", b"x"), ("b.jpg", b"x"), ("a.cls", b"1"), ("c.jpg", b"x")]);
    let (keys, error) = keys(&bytes, options());
    assert_eq!(keys, ["a", "b"]);
    assert!(matches!(error, Some(ShardError::Scattered { key, .. }) if key == "a"));
}

#[test]
fn a_tar_cut_anywhere_gives_its_whole_samples_and_then_says_truncated() {
    let bytes = tar(&[
        ("a.jpg", b"1"),
        ("a.cls", b"1"),
        ("b.jpg", b"2"),
        ("b.cls", b"2"),
        ("c.jpg", b"3"),
        ("c.cls", b"3"),
    ]);
    assert_eq!(bytes.len(), 6 * 1024 + 1024);
    for cut in (0..bytes.len()).step_by(37) {
        let (keys, error) = keys(&bytes[..cut], options());
        // A sample is known to be whole once the header of the next one, or the end marker, was read.
        let whole = (cut.saturating_sub(512) / 2048).min(3);
        if cut >= 6 * 1024 + 512 {
            assert!(error.is_none());
            assert_eq!(keys.len(), 3);
        } else {
            assert_eq!(keys, ["a", "b", "c"][..whole], "cut at {cut}");
            assert!(
                matches!(error, Some(ShardError::Truncated { samples, .. }) if samples == whole as u32),
                "cut at {cut}: {error:?}"
            );
        }
    }
}

#[test]
fn names_are_keys_only_so_nothing_is_written_wherever_they_point() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("x.jpg");
    let mut bytes = vec![];
    for name in ["../../x.jpg", target.to_str().unwrap(), "a/\u{1b}[31m.jpg"] {
        let mut header = tar::Header::new_gnu();
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
    assert_eq!(keys, ["../../x", target.to_str().unwrap().trim_end_matches(".jpg"), "a/\u{1b}[31m"]);
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
    assert!(keys_found.is_empty(), "whether `a` is whole is not known: {keys_found:?}");
    assert!(matches!(error, Some(ShardError::Malformed { samples: 0, .. })), "{error:?}");
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
        let options = GroupOptions {
            skip,
            fraction,
            ..options()
        };
        Groups::new(bytes.as_slice(), options)
            .map(|g| g.unwrap().unwrap().id.member)
            .collect()
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
