//! Hostile bytes: whatever comes, no panic, no endless loop, no more memory than the input allows, and what is accepted is right.
#![expect(clippy::print_stdout, reason = "a measurement that is read with --nocapture")]

mod mutate;
#[path = "../stream_support/mod.rs"]
mod stream_support;

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use mutate::fuzz;
use png::{BitDepth, ColorType};
use splitmask_pipeline::augment::{CropDraw, object_view};
use splitmask_pipeline::bucket::manifest::Manifest;
use splitmask_pipeline::decode::{Decoder, LabelMap, Limits, MapReading, ObjectReading, Objects, Orientation};
use splitmask_pipeline::metrics::PassedOver;
use splitmask_pipeline::shard::samples::{LabelMember, SampleOptions, Samples};
use splitmask_pipeline::shard::tally::Tally;
use splitmask_pipeline::shard::tar::{Entries, EntryKind, TarError};
use splitmask_pipeline::types::{Image, UNLABELLED};
use stream_support::bad_files::{self, KINDS, jpeg, spoil};

/// Archives with every kind of header that writers use.
fn archives() -> Vec<Vec<u8>> {
    let files = |header: fn() -> tar::Header, names: &[&str]| {
        let mut builder = tar::Builder::new(vec![]);
        for (n, name) in names.iter().enumerate() {
            let data: Vec<u8> = (0..n * 300 + 5).map(|b| b as u8).collect();
            let mut header = header();
            header.set_size(data.len() as u64);
            header.set_mode(0o644);
            builder.append_data(&mut header, name, data.as_slice()).unwrap();
        }
        builder.into_inner().unwrap()
    };
    let long = format!("{}/k.jpg", "d".repeat(120));
    let mut pax = vec![];
    {
        let mut builder = tar::Builder::new(&mut pax);
        for n in 0..3 {
            let size = format!("{}", 20 + n);
            let path = format!("p/{n}.jpg");
            builder
                .append_pax_extensions([("path", path.as_bytes()), ("size", size.as_bytes()), ("mtime", b"1.5")])
                .unwrap();
            let mut header = tar::Header::new_ustar();
            header.set_size(20 + n);
            header.set_mode(0o644);
            builder
                .append_data(&mut header, "x.jpg", vec![b'x'; 20 + n as usize].as_slice())
                .unwrap();
        }
        builder.finish().unwrap();
    }
    vec![
        files(tar::Header::new_gnu, &["a.jpg", "a.cls", "b/c.png", "b/c.cls"]),
        files(tar::Header::new_gnu, &["a.jpg", &long]),
        files(tar::Header::new_ustar, &["u.jpg", "u.cls", "v.jpg"]),
        files(tar::Header::new_old, &["o.jpg", "o.json"]),
        pax,
        stream_support::tar(0, 4, 700),
    ]
}

/// The input with the checksum of every header set right, so that what else was changed is looked at; every other input is left as it is.
fn repaired(bytes: &[u8]) -> Vec<u8> {
    let mut out = bytes.to_vec();
    for block in out
        .chunks_exact_mut(512)
        .filter(|b| b[257..262] == *b"ustar" && bytes.len().is_multiple_of(2))
    {
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
    out
}

/// Sizes of all regular members, the number of all entries, and how the walk ended.
fn members(bytes: &[u8]) -> (Vec<u64>, u64, Option<TarError>) {
    let (mut walk, mut seen, mut all) = (Entries::new(bytes), vec![], 0);
    loop {
        match walk.next() {
            Ok(Some(entry)) => {
                all += 1;
                seen.extend((entry.kind == EntryKind::Regular).then_some(entry.size));
            }
            Ok(None) => return (seen, all, None),
            Err(error) => return (seen, all, Some(error)),
        }
    }
}

#[test]
fn members_of_hostile_archives() {
    fuzz("members", &archives(), 20_000, |bytes| {
        let bytes = &repaired(bytes)[..];
        let (mut walk, mut held) = (Entries::new(bytes), 0);
        while let Ok(Some(entry)) = walk.next() {
            match walk.read() {
                Ok(data) => {
                    assert_eq!(data.len() as u64, entry.size);
                    held += data.len();
                }
                Err(_) => break,
            }
        }
        while let Ok(Some(_)) = walk.next_behind_end() {}
        assert!(held <= bytes.len(), "{held} bytes out of {}", bytes.len());
    });
}

#[test]
fn samples_of_hostile_archives() {
    fuzz("group", &archives(), 20_000, |bytes| {
        let bytes = &repaired(bytes)[..];
        let options = SampleOptions {
            epoch: 0,
            shard: 0,
            path: "s.tar".into(),
            skip: 0,
            until: None,
            fraction: 1.0,
            balance: None,
            images: [].into(),
            classes: Some(3),
            max_member_bytes: 600,
            map: LabelMember::unread(""),
            objects: LabelMember {
                extension: "json".into(),
                read: true,
            },
        };
        let (mut held, mut next, mut ended, mut tally) = (0, 0, false, Tally::default());
        let mut samples = Samples::new(bytes, options);
        while let Some(item) = samples.next() {
            assert!(!ended, "nothing comes behind an error");
            tally.add(samples.take_tally());
            match item {
                Ok(Ok(sample)) => {
                    assert!(sample.id.member >= next && sample.label.is_none_or(|label| label < 3));
                    assert!(sample.image.len() <= 600);
                    held += sample.image.len();
                    next = sample.id.member + 1;
                }
                Ok(Err(rejected)) => {
                    assert!(rejected.id.member >= next);
                    next = rejected.id.member + 1;
                }
                Err(_) => ended = true,
            }
        }
        tally.add(samples.take_tally());
        assert!(held <= bytes.len());
        if !ended {
            let aside = [PassedOver::BehindEnd, PassedOver::NoEndMarker];
            let passed: u64 = tally.passed_over().filter(|p| !aside.contains(&p.0)).map(|p| p.1).sum();
            assert_eq!(tally.used + passed, members(bytes).1, "each entry is used or counted: {tally:?}");
        }
    });
}

/// Type letter and size of each line of `tar -tv`; `None` where GNU tar refuses or warns.
fn gnu_tar(bytes: &[u8]) -> Option<Vec<(char, u64)>> {
    let mut child = Command::new("tar")
        .args(["--numeric-owner", "--quoting-style=escape", "-tvf", "-"])
        .env("LC_ALL", "C")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("GNU tar is part of every Debian");
    // It may end before it has read everything.
    let _ = child.stdin.take().unwrap().write_all(bytes);
    let output = child.wait_with_output().unwrap();
    if !output.status.success() || !output.stderr.is_empty() {
        return None;
    }
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let entries = text.lines().map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        (line.chars().next().unwrap(), words[2].parse().unwrap_or(u64::MAX))
    });
    Some(entries.collect())
}

#[test]
fn gnu_tar_sees_the_same_members() {
    let (mut compared, mut only_theirs) = (0, 0);
    fuzz("gnu-tar", &archives(), 1_500, |bytes| {
        let bytes = &repaired(bytes)[..];
        let Some(theirs) = gnu_tar(bytes) else { return };
        let (ours, _, error) = members(bytes);
        if error.is_some() {
            only_theirs += 1;
            return;
        }
        compared += 1;
        // C is a contiguous file, which is a file.
        let theirs: Vec<u64> = theirs.iter().filter(|m| matches!(m.0, '-' | 'C')).map(|m| m.1).collect();
        assert_eq!(ours, theirs, "sizes of the members");
    });
    println!("gnu-tar: {compared} read alike, {only_theirs} that we refuse and GNU tar reads");
    assert!(compared > 50, "{compared}");
}

fn pictures(target: &str, seeds: &[Vec<u8>], count: u64) {
    for keep_truncated in [false, true] {
        let limits = Limits {
            max_pixels: 1 << 22,
            max_bytes: 64 << 20,
            keep_truncated,
        };
        let (mut decoder, mut out) = (Decoder::new(limits), Image::default());
        fuzz(target, seeds, count, |bytes| {
            let start = Instant::now();
            if decoder.decode(bytes, &mut out).is_ok() {
                assert!(u64::from(out.width) * u64::from(out.height) <= limits.max_pixels);
                assert_eq!(out.pixels.len(), out.width as usize * out.height as usize * 3);
            }
            assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
        });
        // The decoder is as good as new.
        let good = jpeg(3);
        decoder.decode(&good, &mut out).unwrap();
        assert_eq!((out.width, out.height), (32, 32));
    }
}

#[test]
fn hostile_jpegs() {
    let mut seeds: Vec<Vec<u8>> = (0..4).map(jpeg).collect();
    seeds.extend(KINDS.iter().filter(|k| !k.0.contains("png")).map(|k| spoil(k.0, 5).1));
    pictures("jpeg", &seeds, 4_000);
}

#[test]
fn hostile_pngs() {
    let mut seeds: Vec<Vec<u8>> = (0..4).map(bad_files::png).collect();
    seeds.extend(["png bomb", "png body"].map(|k| spoil(k, 5).1));
    pictures("png", &seeds, 4_000);
}

/// A label map of 13 × 7 pixels whose numbers take `depth` bits.
fn label_map(depth: BitDepth, colour: ColorType) -> Vec<u8> {
    let mut bytes = vec![];
    let mut encoder = png::Encoder::new(&mut bytes, 13, 7);
    encoder.set_depth(depth);
    encoder.set_color(colour);
    if colour == ColorType::Indexed {
        encoder.set_palette((0..3 << (depth as usize).min(8)).map(|n| n as u8).collect::<Vec<u8>>());
    }
    let rows: Vec<u8> = (0..7 * (13 * depth as usize).div_ceil(8)).map(|n| (n * 29) as u8).collect();
    encoder.write_header().unwrap().write_image_data(&rows).unwrap();
    bytes
}

#[test]
fn hostile_label_maps() {
    let depths = [BitDepth::One, BitDepth::Two, BitDepth::Four, BitDepth::Eight, BitDepth::Sixteen];
    let grey = depths.map(|depth| label_map(depth, ColorType::Grayscale));
    let indexed = depths[..4].iter().map(|depth| label_map(*depth, ColorType::Indexed));
    let seeds: Vec<Vec<u8>> = grey.into_iter().chain(indexed).collect();
    let limits = Limits {
        max_pixels: 1 << 22,
        max_bytes: 64 << 20,
        ..Limits::default()
    };
    for reduce_zero in [false, true] {
        let reading = MapReading {
            reduce_zero,
            ..MapReading::default()
        };
        let mut good = 0;
        fuzz("label-map", &seeds, 4_000, |bytes| {
            let start = Instant::now();
            if let Ok(map) = LabelMap::read(bytes, &reading, limits) {
                good += 1;
                assert!(u64::from(map.width) * u64::from(map.height) <= limits.max_pixels);
                assert_eq!(map.classes.len(), map.width as usize * map.height as usize);
                assert!(map.classes.iter().all(|class| *class >= UNLABELLED));
            }
            assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
        });
        assert!(good > 0, "nothing was accepted");
    }
}

#[test]
fn hostile_objects() {
    let seeds: Vec<Vec<u8>> = [
        r#"{"width":13,"height":7,"annotations":[{"category":1,"bbox":[1,2,5,4],"segmentation":[[1,2,6,2,6,6,1,6]],"area":20,"iscrowd":0}]}"#,
        r#"{"annotations":[{"category_id":7,"bbox":[0.5,-2,9e3,4.25],"segmentation":{"size":[7,13],"counts":[40,3,4,3,41]},"iscrowd":1},{"category":0,"bbox":[3,3,1,1]}]}"#,
        r#"{"width":13,"height":7,"image_id":3,"annotations":[{"category":2,"segmentation":{"size":[7,13],"counts":"[134000k0"}},{"category":2,"segmentation":[[1,1,4,1,4,3],[5,5,9,5,9,7,5,7]]}]}"#,
    ]
    .iter()
    .map(|text| text.as_bytes().to_vec())
    .collect();
    let reading = ObjectReading {
        classes: Some(3),
        ids: [0, 7, 90].into(),
        ..ObjectReading::default()
    };
    let (mut good, mut seen, mut out) = (0, 0, vec![]);
    fuzz("objects", &seeds, 10_000, |bytes| {
        let start = Instant::now();
        if let Ok(objects) = Objects::read(bytes, &reading, Some((13, 7))) {
            good += 1;
            assert!(objects.marked.iter().all(|object| object.class < 3));
            if u64::from(objects.width) * u64::from(objects.height) <= 1 << 22 && objects.width > 0 && objects.height > 0 {
                let draw = CropDraw::whole(objects.width, objects.height, 16, [0; 3]);
                let counts = object_view(&objects, Orientation::default(), &draw, 16, &mut out);
                assert_eq!(counts.kept as usize, out.len());
                assert!((counts.kept + counts.outside + counts.small + counts.hidden) as usize == objects.marked.len());
                for object in &out {
                    seen += 1;
                    let [left, top, right, bottom] = object.corners;
                    assert!(0.0 <= left && left < right && right <= 16.0 && 0.0 <= top && top < bottom && bottom <= 16.0);
                    if let Some(mask) = &object.mask {
                        assert!(mask.left + mask.width <= 16 && mask.top + mask.height <= 16);
                        assert_eq!(mask.pixels.len(), (mask.width * mask.height) as usize);
                    }
                }
            }
        }
        assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
    });
    assert!(good > 100 && seen > 100, "{good} {seen}");
}

/// Those of `tests/zoo` that are neither JPEG nor PNG: TIFF, GIF, BMP and WebP in all their flavours.
#[test]
fn hostile_odd_pictures() {
    let zoo = std::fs::File::open(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/zoo/zoo.tar.gz")).unwrap();
    let mut tar = tar::Archive::new(flate2::read::GzDecoder::new(zoo));
    let mut seeds = vec![];
    for entry in tar.entries().unwrap() {
        let mut entry = entry.unwrap();
        let others = ["tif", "gif", "bmp", "webp"];
        if entry.path().unwrap().extension().is_some_and(|e| others.iter().any(|o| e == *o)) {
            let mut bytes = vec![];
            std::io::Read::read_to_end(&mut entry, &mut bytes).unwrap();
            seeds.push(bytes);
        }
    }
    assert!(seeds.len() > 200);
    pictures("odd-pictures", &seeds, 6_000);
}

#[test]
fn hostile_manifests() {
    let sha256 = "0f".repeat(32);
    let good = r#"{"format":"splitmask-shards/1","shards":[{"path":"a/b.tar","bytes":1024,"samples":3,"sha256":"SHA"},{"path":"c.tar","bytes":10,"samples":1,"sha256":""}],"classes":["x","y"],"label_counts":[2,2],"statistics":{"images":4,"mean":[0.5,0.4,0.3],"std":[0.1,0.2,0.3],"mean_width":64.0,"mean_height":48.0},"provenance":"test"}"#;
    let good = good.replace("SHA", &sha256);
    assert!(Manifest::parse(good.as_bytes(), "m").is_ok());
    let hostile = good.replace("a/b.tar", "../../etc/x.tar");
    let mut accepted = 0;
    fuzz("manifest", &[good.into(), hostile.into()], 20_000, |bytes| {
        let Ok(manifest) = Manifest::parse(bytes, "m") else { return };
        accepted += 1;
        assert!(!manifest.shards.is_empty());
        for shard in &manifest.shards {
            let path = std::path::Path::new(&shard.path);
            assert!(
                path.components().all(|c| matches!(c, std::path::Component::Normal(_))),
                "{:?}",
                shard.path
            );
        }
        let (_, _) = (manifest.samples(), manifest.bytes());
        let again = Manifest::parse(&serde_json::to_vec(&manifest).unwrap(), "m").unwrap();
        assert_eq!(again.shards, manifest.shards);
    });
    assert!(accepted > 100, "{accepted}");
}
