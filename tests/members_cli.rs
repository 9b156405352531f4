//! Tars that are not what `pack` writes, as a user meets them: what inspect shows, and what ends a start.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use image::{Rgb, RgbImage};
use serde_json::{Value, json};
use tempfile::TempDir;

fn splitmask(args: &[&str], dir: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_splitmask"))
        .args(args)
        .current_dir(dir)
        .output()
        .unwrap()
}

fn text(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// What `inspect --json` says.
fn inspect(dir: &Path, more: &[&str]) -> Value {
    let output = splitmask(&[&["inspect", "t", "--json"], more].concat(), dir);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn png(colour: u8) -> Vec<u8> {
    let mut bytes = std::io::Cursor::new(vec![]);
    RgbImage::from_fn(40, 40, |x, y| Rgb([colour, (x * 6) as u8, (x * y) as u8]))
        .write_to(&mut bytes, image::ImageFormat::Png)
        .unwrap();
    bytes.into_inner()
}

/// A folder with `t/0.tar` of these members; one whose content is `link` is a hard link.
fn shard(members: &[(&[u8], Vec<u8>)]) -> TempDir {
    let dir = TempDir::new().unwrap();
    let mut bytes = vec![];
    for (name, data) in members {
        let mut header = tar::Header::new_ustar();
        header.as_old_mut().name[..name.len()].copy_from_slice(name);
        let link = data == b"link";
        header.set_entry_type(if link { tar::EntryType::Link } else { tar::EntryType::Regular });
        header.set_size(if link { 0 } else { data.len() as u64 });
        header.set_mode(0o644);
        header.set_cksum();
        bytes.extend_from_slice(header.as_bytes());
        bytes.extend_from_slice(if link { b"" } else { data });
        bytes.resize(bytes.len().next_multiple_of(512), 0);
    }
    bytes.resize(bytes.len() + 1024, 0);
    fs::create_dir(dir.path().join("t")).unwrap();
    fs::write(dir.path().join("t/0.tar"), bytes).unwrap();
    dir
}

/// A picture and its mask under each key, as WebDataset's writer names them, and a label.
fn masked() -> TempDir {
    let members: Vec<(String, Vec<u8>)> = (0..12)
        .flat_map(|n: u8| {
            [
                (format!("{n:04}.cls"), (n % 3).to_string().into_bytes()),
                (format!("{n:04}.input.png"), png(20 * n)),
                (format!("{n:04}.mask.png"), png(255)),
            ]
        })
        .collect();
    shard(
        &members
            .iter()
            .map(|(name, data)| (name.as_bytes(), data.clone()))
            .collect::<Vec<_>>(),
    )
}

const CONFIG: &str = r#"
[run]
name = "nano"
dir = "run"
[data]
train = "t"
val = "t"
[codebook]
path = "words.safetensors"
[model]
size = "nano"
image = 32
patch = 8
depth = 2
[objective]
kind = "splitmask"
mask = { kind = "uniform-split", keep = 0.5 }
[optim]
lr = 1e-3
min_lr = 1e-5
warmup_steps = 1
total_steps = 2
[train]
batch = 4
precision = "f32"
device = "cpu"
threads = 1
[picture]
every_steps = 0
[eval]
min_class = 1
k = 1
[admin]
bind = ""
"#;

#[test]
fn names_in_latin_1_are_samples_of_their_own() {
    let names: Vec<Vec<u8>> = (0xe0..0xef).map(|c| [b"f/img", &[c][..], b".png"].concat()).collect();
    let members: Vec<(&[u8], Vec<u8>)> = names.iter().map(|name| (name.as_slice(), png(1))).collect();
    let dir = shard(&members);
    let out = inspect(dir.path(), &[]);
    assert_eq!(
        (&out["samples"], &out["left_out"]),
        (&json!(15), &json!({"members": {}, "samples": {}, "shards": {}}))
    );
    assert_eq!(out["read"]["first_keys"][1], "f/img\\xe1");
}

#[test]
fn inspect_counts_what_is_left_out_and_names_the_first_of_each() {
    let dir = shard(&[
        (b"a.png", png(1)),
        (b"a.cls", b"cat".to_vec()),
        (b"b.png", b"link".to_vec()),
        (b"c.png", png(2)),
        (b"c.png", png(3)),
        (b".d.png", png(3)),
        (b"e.png", b"no picture".to_vec()),
        (b"f.jpg", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic".to_vec()),
    ]);
    let out = inspect(dir.path(), &[]);
    assert_eq!(out["samples"], 2);
    assert_eq!(
        out["left_out"],
        json!({"members": {"bad_label": 1, "hard_link": 1, "duplicate": 1, "hidden": 1}, "samples": {"not_an_image": 1, "unsupported": 1}, "shards": {}})
    );
    let shown = text(&splitmask(&["inspect", "t"], dir.path()));
    for part in [
        "1 members left out: hard_link, such as t/0.tar: b.png",
        "bad_label, such as t/0.tar: a.cls (\"cat\")",
        "1 samples left out: unsupported, such as t/0.tar: f: unsupported: HEIC",
        "members by extension: 4 png, 1 cls, 1 jpg",
    ] {
        assert!(shown.contains(part), "{part:?} is missing in:\n{shown}");
    }
}

#[test]
fn inspect_finds_images_that_break_in_the_middle_where_it_is_asked_to_decode() {
    let whole = png(1);
    let cut = whole[..whole.len() / 2].to_vec();
    let dir = shard(&[(b"a.png", whole), (b"b.png", cut)]);
    assert_eq!(inspect(dir.path(), &[])["samples"], 2, "their headers are whole");
    let out = inspect(dir.path(), &["--decode"]);
    assert_eq!(out["samples"], 1, "{out}");
    let lost: u64 = out["left_out"]["samples"]
        .as_object()
        .unwrap()
        .values()
        .filter_map(Value::as_u64)
        .sum();
    assert_eq!(lost, 1, "{out}");
}

/// It is needed most where nothing can be used.
#[test]
fn inspect_shows_what_is_there_when_all_of_it_is_bad() {
    let dir = shard(&[(b"a.png", b"no picture".to_vec()), (b"b.png", vec![])]);
    let out = inspect(dir.path(), &[]);
    assert_eq!(
        (&out["samples"], &out["left_out"]["samples"]),
        (&json!(0), &json!({"not_an_image": 2}))
    );
    let dir = shard(&[(b"q.png", b"link".to_vec())]);
    assert_eq!(inspect(dir.path(), &[])["left_out"]["members"], json!({"hard_link": 1}));
    let dir = shard(&[(b"a.heic", b"x".to_vec()), (b"a.cls", b"1".to_vec())]);
    let out = inspect(dir.path(), &[]);
    assert_eq!(out["read"]["members"], json!({"cls": 1, "heic": 1}));
    assert!(out["advice"].as_str().unwrap().contains("data.image"));
    // No shard could be read at all: the same, and exit code 74.
    fs::write(dir.path().join("t/0.tar"), [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3]).unwrap();
    let output = splitmask(&["inspect", "t"], dir.path());
    assert_eq!(output.status.code(), Some(74));
    let shown = text(&output);
    assert!(
        shown.contains("1 shards left out: compressed") && shown.contains("gzip -dc t/0.tar"),
        "{shown}"
    );
    assert!(!shown.contains("on_shard_error"), "{shown}");
}

#[test]
fn two_images_under_one_key_end_every_start_until_data_image_says_which() {
    let dir = masked();
    let run = |args: &[&str]| splitmask(args, dir.path());
    let shown = text(&run(&["inspect", "t"]));
    for part in ["two images", "12 input.png, 12 mask.png", "data.image = \"input.png\""] {
        assert!(shown.contains(part), "{part:?} is missing in:\n{shown}");
    }
    let out = inspect(dir.path(), &["--extension", "input.png"]);
    assert_eq!(
        (&out["samples"], &out["left_out"]["members"]),
        (&json!(12), &json!({"second_image": 12}))
    );

    let words = [
        "codebook",
        "t",
        "--out",
        "words.safetensors",
        "--image",
        "32",
        "--patch",
        "8",
        "--words",
        "16",
        "--measure",
        "0",
    ];
    let output = run(&words);
    assert_eq!(output.status.code(), Some(64), "{}", text(&output));
    assert!(
        text(&output).contains("two images under key 0000: input.png, mask.png"),
        "{}",
        text(&output)
    );
    let output = run(&[&words[..], &["--extension", "input.png"]].concat());
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));

    fs::write(dir.path().join("config.toml"), CONFIG).unwrap();
    for verb in [&["check-config", "config.toml"][..], &["train", "--config", "config.toml"]] {
        let output = run(verb);
        assert_eq!(output.status.code(), Some(64), "{verb:?}: {}", text(&output));
        for part in ["two images under key", "input.png", "mask.png", "set data.image = \"input.png\""] {
            assert!(text(&output).contains(part), "{verb:?}: {part:?} is missing in:\n{}", text(&output));
        }
        for choice in ["data.image=input.png", "data.image=[\"mask.png\", \"input.png\"]"] {
            let output = run(&[verb, &["--set", choice, "--set", &format!("run.dir=run-{}", choice.len())]].concat());
            assert_eq!(output.status.code(), Some(0), "{verb:?}: {}", text(&output));
        }
    }
    let output = run(&["eval", "knn", &format!("run-{}", "data.image=input.png".len())]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    let output = run(&["check-config", "config.toml", "--set", "data.image=.png"]);
    assert_eq!(output.status.code(), Some(64), "{}", text(&output));
}

/// A sheet that cannot be written whole leaves the one before it as it was, and the error names the file.
#[test]
fn a_contact_sheet_is_written_whole_or_not_at_all() {
    let dir = shard(&[(b"a.png", png(1)), (b"b.png", png(2))]);
    let output = splitmask(&["inspect", "t", "--contact-sheet", "sheet.png"], dir.path());
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    let before = fs::read(dir.path().join("sheet.png")).unwrap();
    // Files of 512 bytes at most stand for a full disk.
    let limited = "trap '' XFSZ; ulimit -f 1; exec \"$0\" inspect t --contact-sheet sheet.png";
    let output = Command::new("bash")
        .args(["-c", limited, env!("CARGO_BIN_EXE_splitmask")])
        .current_dir(dir.path())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(74), "{}", text(&output));
    assert!(
        text(&output).contains("sheet.png: ") && text(&output).contains("2 samples"),
        "{}",
        text(&output)
    );
    assert_eq!(fs::read(dir.path().join("sheet.png")).unwrap(), before);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "nothing is left beside it");
}

#[test]
fn objects_are_packed_from_cocos_form_counted_and_drawn() {
    let dir = TempDir::new().unwrap();
    fs::create_dir(dir.path().join("in")).unwrap();
    for n in 0..4u8 {
        fs::write(dir.path().join(format!("in/{n}.png")), png(n)).unwrap();
    }
    let outline = json!([[4, 4, 36, 4, 36, 36, 4, 36]]);
    let object = |id: u64, image: u64, category: u64| json!({ "id": id, "image_id": image, "category_id": category, "bbox": [4, 4, 32, 32], "segmentation": outline, "iscrowd": 0 });
    let mut file = json!({
        "images": (0..4).map(|n| json!({ "id": n, "file_name": format!("{n}.png"), "width": 40, "height": 40 })).collect::<Vec<_>>(),
        "annotations": [object(0, 0, 5), object(1, 0, 5), object(2, 1, 0), object(3, 2, 8)],
        "categories": [{ "id": 0, "name": "cat" }, { "id": 5, "name": "dog" }],
    });
    let pack = |file: &Value| {
        fs::write(dir.path().join("objects.json"), file.to_string()).unwrap();
        splitmask(&["pack", "in", "out", "--coco", "objects.json", "--force"], dir.path())
    };
    let output = pack(&file);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    for told in [
        "objects of train: 3 and 0 crowds of 2 classes, 3 with masks; 2 images have none; the largest classes: dog 2, cat 1",
        "1 annotations left out, unknown_category",
        "1 images lost all of their annotations",
    ] {
        assert!(text(&output).contains(told), "{told:?} is not in {}", text(&output));
    }
    let inspect = |more: &[&str]| splitmask(&[&["inspect", "out/train", "--read", "all"], more].concat(), dir.path());
    let output = inspect(&["--contact-sheet", "sheet.png", "--thumbnails", "4"]);
    let line = "objects (objects.json): 3 and 0 crowds, 3 with masks, in 4 samples, 2 of them without any; 2 classes";
    assert!(
        text(&output).contains(line) && !text(&output).contains("beware"),
        "{}",
        text(&output)
    );
    let sheet = image::open(dir.path().join("sheet.png")).unwrap().to_rgb8();
    // The frames of dogs, the second of the classes, are of the second colour.
    let green = |pixel: &Rgb<u8>| pixel.0[0] <= 40 && pixel.0[1] >= 105 && pixel.0[2] <= 40;
    assert!(sheet.pixels().filter(|pixel| green(pixel)).count() > 50);
    let told: Value = serde_json::from_slice(&inspect(&["--json"]).stdout).unwrap();
    let dog = json!({ "class": "dog", "number": 1, "objects": 2, "crowds": 0, "samples": 1 });
    assert_eq!((&told["objects"]["classes"][0], &told["objects"]["negatives"]), (&dog, &2.into()));
    // Asked for another member: what `pack` writes about samples is no list of objects.
    let output = inspect(&["--objects", "json"]);
    assert!(
        text(&output).contains("4 samples cannot be learnt from by a detector, bad_objects"),
        "{}",
        text(&output)
    );
    file["images"][0]["file_name"] = "nowhere.png".into();
    file["annotations"] = json!([]);
    let output = pack(&file);
    assert_eq!(output.status.code(), Some(64), "{}", text(&output));
    assert!(
        text(&output).contains("objects.json: annotations: none of its 0 can be packed"),
        "{}",
        text(&output)
    );
}
