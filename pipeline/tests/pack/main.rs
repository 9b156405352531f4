//! Promises of `pack`: what comes out for which input, whatever the number of threads.

mod found;
mod fraction;
mod maps;
mod objects;
mod pixels;
mod safety;
mod shares;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Cursor, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use image::{ImageFormat, Rgb, RgbImage};
use sha2::{Digest, Sha256};
use splitmask_pipeline::bucket::manifest::Manifest;
use splitmask_pipeline::config::{DataConfig, PipelineConfig};
use splitmask_pipeline::error::PipelineError;
use splitmask_pipeline::metrics::PipelineMetrics;
use splitmask_pipeline::pack::{ClassFrom, Encoding, PackError, PackOptions, PackReport, REFUSED_NAME, pack};
use splitmask_pipeline::request::SampleRequest;
use splitmask_pipeline::run::{Dataset, Making, Order};
use splitmask_pipeline::sample::ViewMode;
use splitmask_pipeline::types::Batch;
use tempfile::TempDir;

/// A picture that no other number gives.
fn picture(width: u32, height: u32, number: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| {
        Rgb([
            (x * 7 + number * 31) as u8,
            (y * 5 + number * 17) as u8,
            ((x + y) * 3 + number) as u8,
        ])
    })
}

fn bytes(image: &RgbImage, format: ImageFormat) -> Vec<u8> {
    let mut out = Cursor::new(Vec::new());
    image.write_to(&mut out, format).unwrap();
    out.into_inner()
}

fn put(root: &Path, relative: &str, data: &[u8]) {
    let path = root.join(relative);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, data).unwrap();
}

/// 60 pictures of six formats in three classes, 4 without a class.
fn mixed() -> TempDir {
    let dir = TempDir::new().unwrap();
    let formats = [
        ("png", ImageFormat::Png),
        ("jpg", ImageFormat::Jpeg),
        ("webp", ImageFormat::WebP),
        ("gif", ImageFormat::Gif),
        ("bmp", ImageFormat::Bmp),
        ("tiff", ImageFormat::Tiff),
    ];
    for i in 0..60u32 {
        let (extension, format) = formats[i as usize % 6];
        let class = ["animals/birds", "animals/cats", "tools"][i as usize / 20];
        put(
            dir.path(),
            &format!("{class}/pic.{i}.{extension}"),
            &bytes(&picture(20 + i, 40, i), format),
        );
    }
    for i in 60..64 {
        put(dir.path(), &format!("loose{i}.png"), &bytes(&picture(30, 30, i), ImageFormat::Png));
    }
    dir
}

fn run(options: &PackOptions) -> Result<PackReport, PackError> {
    pack(options, |_| {})
}

/// All files below a folder with their bytes.
fn tree(root: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let files = walkdir::WalkDir::new(root)
        .into_iter()
        .map(Result::unwrap)
        .filter(|e| e.file_type().is_file());
    files
        .map(|e| (e.path().strip_prefix(root).unwrap().to_path_buf(), fs::read(e.path()).unwrap()))
        .collect()
}

/// Members of all shards of a set in order: name and bytes.
fn members(set: &Path) -> Vec<(String, Vec<u8>)> {
    let manifest: Manifest = serde_json::from_slice(&fs::read(set.join("manifest.json")).unwrap()).unwrap();
    let mut out = Vec::new();
    for shard in &manifest.shards {
        let mut archive = tar::Archive::new(fs::File::open(set.join(&shard.path)).unwrap());
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            assert_eq!(
                (
                    entry.header().mtime().unwrap(),
                    entry.header().uid().unwrap(),
                    entry.header().mode().unwrap()
                ),
                (0, 0, 0o644)
            );
            let name = entry.path().unwrap().to_str().unwrap().to_owned();
            let mut data = Vec::new();
            entry.read_to_end(&mut data).unwrap();
            out.push((name, data));
        }
    }
    out
}

/// The first batch of `request` from the training set packed at `place`, whatever share of its samples cannot be used.
fn first_batch(place: &Path, data: DataConfig, request: &Arc<SampleRequest>) -> Result<Batch, PipelineError> {
    let data = DataConfig {
        failure_budget: 1.0,
        ..data
    };
    let url = place.join("train").display().to_string();
    let dataset = Dataset::open(&url, &data, &PipelineConfig::default(), PipelineMetrics::default()).unwrap();
    let making = Making {
        order: Order::Sequential,
        request,
        mode: ViewMode::Eval { crop_ratio: 1.0 },
        batch: 64,
        seed: 0,
        tokenizer: None,
    };
    dataset.make(making).unwrap().next().expect("a batch, or why there is none")
}

fn is_image(name: &str) -> bool {
    !name.ends_with(".cls") && !name.ends_with(".json")
}

#[test]
fn output_is_byte_identical_at_any_number_of_threads() {
    let (input, out) = (mixed(), TempDir::new().unwrap());
    let mut trees = Vec::new();
    for threads in [1, 2, 7] {
        let output = out.path().join(format!("t{threads}"));
        let options = PackOptions {
            threads,
            val_share: 0.3,
            longest_side: Some(32),
            shard_bytes: 20_000,
            ..PackOptions::new(input.path(), &output)
        };
        run(&options).unwrap();
        trees.push(tree(&output));
    }
    assert!(trees[0].len() > 6, "several shards: {:?}", trees[0].keys());
    assert!(trees[0] == trees[1] && trees[0] == trees[2]);
}

#[test]
fn manifest_describes_the_shards() {
    let (input, out) = (mixed(), TempDir::new().unwrap());
    let options = PackOptions {
        val_share: 0.25,
        shard_bytes: 40_000,
        ..PackOptions::new(input.path(), out.path().join("o"))
    };
    let report = run(&options).unwrap();
    let mut keys = Vec::new();
    for (name, manifest) in [("train", &report.train), ("val", report.val.as_ref().unwrap())] {
        let set = options.output.join(name);
        assert_eq!(manifest.classes, ["animals/birds", "animals/cats", "tools"]);
        for shard in &manifest.shards {
            let data = fs::read(set.join(&shard.path)).unwrap();
            assert_eq!(data.len() as u64, shard.bytes);
            assert!(shard.bytes <= 40_000);
            let hex: String = Sha256::digest(&data).iter().map(|b| format!("{b:02x}")).collect();
            assert_eq!(hex, shard.sha256);
            let mut archive = tar::Archive::new(data.as_slice());
            let names = archive
                .entries()
                .unwrap()
                .map(|e| e.unwrap().path().unwrap().to_str().unwrap().to_owned());
            assert_eq!(names.filter(|n| is_image(n)).count() as u32, shard.samples);
        }
        let (mut counts, mut image) = (vec![0; 3], Vec::new());
        for (member, data) in members(&set) {
            let (key, extension) = member.split_once('.').unwrap();
            match extension {
                "cls" => counts[std::str::from_utf8(&data).unwrap().parse::<usize>().unwrap()] += 1,
                "json" => {
                    let about: serde_json::Value = serde_json::from_slice(&data).unwrap();
                    let source = fs::read(input.path().join(about["path"].as_str().unwrap())).unwrap();
                    assert!(image == source, "{member}: the image before it is the file, unchanged");
                }
                _ => {
                    keys.push(key.to_owned());
                    image = data;
                }
            }
        }
        assert_eq!(counts, manifest.label_counts);
        assert_eq!(manifest.statistics.images, manifest.samples());
    }
    assert_eq!((keys.len(), keys.iter().collect::<BTreeSet<_>>().len()), (64, 64));
    assert_eq!(report.unlabelled, 4);
    let val = report.val.unwrap().samples();
    assert!((6..=28).contains(&val), "a quarter of 64, give or take: {val}");
}

/// Samples lie in the shards mixed over classes, not class by class.
#[test]
fn classes_are_mixed() {
    let (input, out) = (mixed(), TempDir::new().unwrap());
    let options = PackOptions::new(input.path(), out.path().join("o"));
    run(&options).unwrap();
    let labels: Vec<_> = members(&options.output.join("train"))
        .into_iter()
        .filter(|(n, _)| n.ends_with(".cls"))
        .map(|(_, d)| d)
        .collect();
    let changes = labels.windows(2).filter(|w| w[0] != w[1]).count();
    assert!(changes > 25, "{changes} changes of class among {} samples", labels.len());
}

#[test]
fn refuses_bad_files_by_reason_and_packs_the_rest() {
    let (input, out) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let root = input.path();
    let good = bytes(&picture(64, 64, 1), ImageFormat::Png);
    put(root, "c/good.png", &good);
    put(root, "c/empty.jpg", b"");
    put(root, "c/text.png", b"this is no image at all, whatever its name says");
    put(root, "c/cut.png", &good[..good.len() / 2]);
    let mut broken = good.clone();
    broken[60..90].fill(0x55);
    put(root, "c/broken.png", &broken);
    put(root, "c/many-bytes.bmp", &bytes(&picture(300, 300, 2), ImageFormat::Bmp));
    put(root, "c/many-pixels.png", &huge_png(20_990, 29_700));
    put(root, "c/notes.txt", b"hello");
    put(root, "c/.hidden.png", &good);
    let options = PackOptions {
        max_bytes: 100_000,
        ..PackOptions::new(root, out.path().join("o"))
    };
    let report = run(&options).unwrap();
    assert_eq!((report.packed(), report.found, report.refused_files()), (1, 7, 6));
    let count = |reason| report.refused.get(reason).map_or(0, |r| r.files);
    assert_eq!((count("empty"), count("too_large"), count("not_an_image")), (1, 2, 1));
    assert_eq!(count("truncated") + count("corrupt"), 2, "{:?}", report.refused);
    assert_eq!(report.other_files, BTreeMap::from([("txt".to_owned(), 1)]));
    assert_eq!(report.passed_over["hidden"].examples, ["c/.hidden.png"]);
    let list = fs::read_to_string(options.output.join(REFUSED_NAME)).unwrap();
    assert_eq!(list.lines().count(), 7, "{list}");
    assert!(
        list.lines().any(|l| l.starts_with("too_large\tc/many-pixels.png\t20990×29700")),
        "{list}"
    );
    assert!(list.lines().all(|l| l.split('\t').count() == 3), "{list}");
}

/// A PNG whose header promises `width × height` pixels, with next to no data.
fn huge_png(width: u32, height: u32) -> Vec<u8> {
    let mut png = bytes(&picture(1, 1, 0), ImageFormat::Png);
    png[16..20].copy_from_slice(&width.to_be_bytes());
    png[20..24].copy_from_slice(&height.to_be_bytes());
    let crc = !png[12..29].iter().fold(!0u32, |crc, &b| {
        (0..8).fold(crc ^ u32::from(b), |c, _| (c >> 1) ^ (0xedb8_8320 & (c & 1).wrapping_neg()))
    });
    png[29..33].copy_from_slice(&crc.to_be_bytes());
    png
}

#[test]
fn classes_by_option_and_least_size() {
    let (input, out) = (mixed(), TempDir::new().unwrap());
    let classes = |name: &str, class, min_class| {
        let report = run(&PackOptions {
            class,
            min_class,
            ..PackOptions::new(input.path(), out.path().join(name))
        })
        .unwrap();
        (report.train.classes.clone(), report.train.label_counts.clone(), report.unlabelled)
    };
    let names = |list: &[&str]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(classes("a", ClassFrom::Top, 1), (names(&["animals", "tools"]), vec![40, 20], 4));
    assert_eq!(
        classes("b", ClassFrom::Leaf, 1),
        (names(&["birds", "cats", "tools"]), vec![20, 20, 20], 4)
    );
    assert_eq!(classes("c", ClassFrom::None, 1), (vec![], vec![], 64));
    assert_eq!(classes("d", ClassFrom::Top, 21), (names(&["animals"]), vec![40], 24));
}

#[test]
fn duplicates_are_counted_and_dropped_on_request() {
    let (input, out) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let png = bytes(&picture(20, 20, 5), ImageFormat::Png);
    for path in ["a/one.png", "a/two.png", "b/three.png"] {
        put(input.path(), path, &png);
    }
    put(input.path(), "b/other.png", &bytes(&picture(20, 20, 6), ImageFormat::Png));
    let kept = run(&PackOptions::new(input.path(), out.path().join("kept"))).unwrap();
    assert_eq!((kept.packed(), kept.duplicates.files, kept.refused_files()), (4, 2, 0));
    assert!(kept.duplicates.label_conflicts >= 1);
    let dropped = run(&PackOptions {
        drop_duplicates: true,
        ..PackOptions::new(input.path(), out.path().join("dropped"))
    })
    .unwrap();
    assert_eq!((dropped.packed(), dropped.refused["duplicate"].files), (2, 2));
}

#[cfg(unix)]
#[test]
fn link_loops_and_dangling_links_are_reported() {
    use std::os::unix::fs::symlink;
    let (input, elsewhere, out) = (TempDir::new().unwrap(), TempDir::new().unwrap(), TempDir::new().unwrap());
    put(input.path(), "a/one.png", &bytes(&picture(20, 20, 1), ImageFormat::Png));
    put(elsewhere.path(), "two.png", &bytes(&picture(20, 20, 2), ImageFormat::Png));
    symlink(input.path(), input.path().join("a/loop")).unwrap();
    symlink(elsewhere.path(), input.path().join("linked")).unwrap();
    symlink("nowhere.png", input.path().join("a/dangling.png")).unwrap();
    let report = run(&PackOptions::new(input.path(), out.path().join("o"))).unwrap();
    assert_eq!(report.train.classes, ["a", "linked"]);
    assert_eq!(
        (report.packed(), report.refused["unreadable"].files),
        (2, 2),
        "{:?}",
        report.refused
    );
    let report = run(&PackOptions {
        follow_links: false,
        ..PackOptions::new(input.path(), out.path().join("p"))
    })
    .unwrap();
    assert_eq!((report.packed(), report.refused_files()), (1, 0));
    assert_eq!(report.passed_over["link"].files, 3);
}

/// Images are known by their bytes where the name does not say.
#[test]
fn images_without_extension_are_found() {
    let (input, out) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    put(input.path(), "blobs/0a1b2c", &bytes(&picture(20, 20, 1), ImageFormat::Jpeg));
    put(input.path(), "blobs/README", b"not an image");
    let options = PackOptions::new(input.path(), out.path().join("o"));
    let report = run(&options).unwrap();
    assert_eq!((report.packed(), report.other_files["no extension"]), (1, 1));
    assert!(members(&options.output.join("train"))[0].0.ends_with("-0a1b2c.jpg"));
}
