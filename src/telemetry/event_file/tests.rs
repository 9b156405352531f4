//! What is written is read back twice: by a parser that is stricter than TensorBoard's, and by TensorBoard's own package.

mod reader;

use std::path::Path;
use std::process::Command;

use self::reader::{Read, file};
use super::*;

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    found.sort();
    found
}

/// All that TensorBoard would show: files in order of name, restarts make later steps void.
fn shown(folder: &Path) -> Vec<Read> {
    let mut found: Vec<Read> = Vec::new();
    for event in files(folder).iter().flat_map(|f| file(f)) {
        match event {
            Read::Restart { void_from } => found.retain(|e| match e {
                Read::Scalar { step, .. } | Read::Picture { step, .. } => *step < void_from,
                _ => true,
            }),
            Read::Version(_) => (),
            other => found.push(other),
        }
    }
    found
}

fn lost() -> IntCounter {
    IntCounter::new("lost", "lost").unwrap()
}

fn scalar(step: u64, name: &str, value: f32) -> Read {
    Read::Scalar {
        step,
        name: name.into(),
        value,
    }
}

fn png(width: u32, height: u32) -> Vec<u8> {
    let picture = image::RgbImage::from_fn(width, height, |x, y| image::Rgb([x as u8, y as u8, 200]));
    let mut bytes = std::io::Cursor::new(Vec::new());
    picture.write_to(&mut bytes, image::ImageFormat::Png).unwrap();
    bytes.into_inner()
}

#[test]
fn the_crc_is_castagnolis() {
    // RFC 3720, B.4: 32 bytes of zeros and of ones, before masking.
    let unmasked = |data: &[u8]| encoding::masked_crc(data).wrapping_sub(0xa282_ead8).rotate_left(15);
    assert_eq!(unmasked(&[0; 32]), 0x8a91_36aa);
    assert_eq!(unmasked(&[0xff; 32]), 0x62a8_ab43);
}

#[test]
fn scalars_and_pictures_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("tensorboard");
    let counter = lost();
    let mut events = EventFiles::new(&folder, 0, counter.clone());
    events.scalars(0, &[]);
    assert!(!folder.exists(), "nothing to write, nothing made");
    events.scalars(10, &[("loss/total", 6.5), ("loss/match", 0.1), ("train/images", 123_456.0)]);
    let picture = png(300, 2);
    events.picture(10, "inpainting", &picture);
    events.scalars(1 << 40, &[("loss/total", f64::NAN)]);
    events.picture(20, "broken", &picture[..20]);
    assert_eq!(counter.get(), 1, "a picture that is none");
    let [one] = &files(&folder)[..] else {
        panic!("one file for one start")
    };
    let read = file(one);
    assert_eq!(read[1], Read::Restart { void_from: 1 });
    assert_eq!(
        read[2..5],
        [
            scalar(10, "loss/total", 6.5),
            scalar(10, "loss/match", 0.1),
            scalar(10, "train/images", 123_456.0)
        ]
    );
    assert_eq!(
        read[5],
        Read::Picture {
            step: 10,
            name: "inpainting".into(),
            width: 300,
            height: 2,
            png: picture
        }
    );
    assert!(matches!(&read[6], Read::Scalar { step, value, .. } if *step == 1 << 40 && value.is_nan()));
    assert_eq!(read.len(), 7);
}

#[test]
fn steps_beyond_the_checkpoint_are_not_shown_twice() {
    let dir = tempfile::tempdir().unwrap();
    let run = |done: u64, to: u64, value: f64| {
        let mut events = EventFiles::new(dir.path(), done, lost());
        for step in done + 1..=to {
            events.scalars(step, &[("loss/total", value)]);
        }
        events
    };
    run(0, 30, 1.0);
    // Killed in the middle of a write.
    let first = files(dir.path()).remove(0);
    let torn = fs::read(&first).unwrap();
    let whole = torn.len();
    fs::write(&first, [&torn[..], &torn[..17]].concat()).unwrap();
    let mut events = run(20, 25, 2.0);
    // Rolled back while it runs.
    events.rolled_back(22);
    events.scalars(23, &[("loss/total", 3.0)]);
    fs::OpenOptions::new()
        .write(true)
        .open(&first)
        .unwrap()
        .set_len(whole as u64)
        .unwrap();
    let total = |step: u64| {
        scalar(
            step,
            "loss/total",
            if step <= 20 {
                1.0
            } else if step <= 22 {
                2.0
            } else {
                3.0
            },
        )
    };
    assert_eq!(shown(dir.path()), (1..=23).map(total).collect::<Vec<_>>());
    assert_eq!(files(dir.path()).len(), 3);
}

#[test]
fn files_sort_by_their_beginning_even_if_the_clock_went_back() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("events.out.tfevents.4000000000.other.1"), "").unwrap();
    fs::write(dir.path().join("events.out.tfevents.rubbish"), "").unwrap();
    let mut events = EventFiles::new(dir.path(), 0, lost());
    events.scalars(1, &[("x", 1.0)]);
    assert!(
        dir.path()
            .join(format!("events.out.tfevents.4000000001.{}.{}", host(), std::process::id()))
            .is_file(),
        "{:?}",
        files(dir.path())
    );
}

fn host() -> String {
    fs::read_to_string("/proc/sys/kernel/hostname").unwrap().trim().to_owned()
}

#[test]
fn a_folder_that_goes_is_counted_and_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("tensorboard");
    let counter = lost();
    // A file where the folder should be.
    fs::write(&folder, "").unwrap();
    let mut events = EventFiles::new(&folder, 40, counter.clone());
    events.scalars(41, &[("x", 1.0)]);
    events.scalars(42, &[("x", 2.0), ("y", 2.0)]);
    assert_eq!(counter.get(), 2);
    fs::remove_file(&folder).unwrap();
    events.scalars(43, &[("x", 3.0)]);
    // Someone tidies up; the file would take bytes that nobody sees.
    fs::remove_dir_all(&folder).unwrap();
    events.scalars(44, &[("x", 4.0)]);
    assert_eq!(counter.get(), 3);
    events.scalars(45, &[("x", 5.0)]);
    assert_eq!(shown(&folder), [scalar(45, "x", 5.0)]);
}

const CHILD: &str = "SPLITMASK_TEST_EVENT_FOLDER";
const EVENTS: u64 = 200;

#[test]
#[ignore = "called by the next test, under a limit of its own"]
fn child_that_writes_more_than_there_is_room_for() {
    let counter = lost();
    let mut events = EventFiles::new(Path::new(&std::env::var_os(CHILD).unwrap()), 0, counter.clone());
    for step in 1..=EVENTS {
        events.scalars(step, &[("loss/total", step as f64)]);
    }
    eprintln!("lost={}", counter.get());
}

#[test]
fn a_full_disk_costs_events_but_no_training_and_no_file() {
    let dir = tempfile::tempdir().unwrap();
    // A limit on the size of a file refuses bytes as a full disk does: some of a write, then none.
    let output = Command::new("sh")
        .args(["-c", "trap '' XFSZ; ulimit -f 4; exec \"$0\" --ignored --exact --nocapture telemetry::event_file::tests::child_that_writes_more_than_there_is_room_for"])
        .arg(std::env::current_exe().unwrap())
        .env(CHILD, dir.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let lost: u64 = said.lines().find_map(|l| l.split("lost=").nth(1)).unwrap().trim().parse().unwrap();
    let kept = shown(dir.path());
    assert!(lost > 0 && kept.len() > 10, "{lost} lost, {} kept", kept.len());
    assert_eq!(kept.len() as u64 + lost, EVENTS);
    assert_eq!(
        kept[..],
        (1..=kept.len() as u64)
            .map(|s| scalar(s, "loss/total", s as f32))
            .collect::<Vec<_>>()
    );
}

/// Reads a folder with TensorBoard's own package, as its Python backend does; prints what it would show.
const READER: &str = "
import json, sys
from tensorboard.backend.event_processing import event_accumulator
read = event_accumulator.EventAccumulator(sys.argv[1], size_guidance={event_accumulator.TENSORS: 0, event_accumulator.SCALARS: 0, event_accumulator.IMAGES: 0})
read.Reload()
tags = read.Tags()
print(json.dumps({
    'scalars': {t: [[e.step, e.value] for e in read.Scalars(t)] for t in tags['scalars']},
    'images': {t: [[e.step, e.width, e.height, len(e.encoded_image_string)] for e in read.Images(t)] for t in tags['images']},
}))
";

#[test]
fn tensorboard_itself_reads_them() {
    let dir = tempfile::tempdir().unwrap();
    let picture = png(40, 30);
    let mut events = EventFiles::new(dir.path(), 0, lost());
    for step in [10, 20, 30] {
        events.scalars(step, &[("loss/total", 1.5), ("train/learning_rate", 0.25)]);
    }
    events.picture(20, "inpainting", &picture);
    let mut events = EventFiles::new(dir.path(), 20, lost());
    events.scalars(30, &[("loss/total", 2.5)]);

    let cache = std::env::var_os("SPLITMASK_CACHE").map(PathBuf::from).unwrap_or_else(|| {
        let base = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
        base.unwrap_or_else(|| PathBuf::from(std::env::var_os("HOME").unwrap()).join(".cache"))
            .join("splitmask")
    });
    let package = cache.join("tensorboard");
    assert!(
        package.join("tensorboard").is_dir(),
        "the Python package tensorboard is missing; `make setup` fetches it"
    );
    let output = Command::new("python3")
        .args(["-c", READER])
        .arg(dir.path())
        .env("PYTHONPATH", &package)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let shown: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let wanted = serde_json::json!({
        "scalars": { "loss/total": [[10, 1.5], [20, 1.5], [30, 2.5]], "train/learning_rate": [[10, 0.25], [20, 0.25]] },
        "images": { "inpainting": [[20, 40, 30, picture.len()]] },
    });
    assert_eq!(shown, wanted);
}
