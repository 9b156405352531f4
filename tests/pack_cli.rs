//! `splitmask pack` as a user meets it: exit codes, hints, summary.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use image::{Rgb, RgbImage};
use tempfile::TempDir;

fn splitmask(args: &[&str], dir: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_splitmask"))
        .args(args)
        .current_dir(dir)
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// Ten pictures in each of two folders, and one broken file.
fn pictures() -> TempDir {
    let dir = TempDir::new().unwrap();
    for class in ["red", "blue"] {
        fs::create_dir_all(dir.path().join("in").join(class)).unwrap();
        for i in 0..10u8 {
            let colour = if class == "red" { Rgb([250, i, 0]) } else { Rgb([0, i, 250]) };
            RgbImage::from_pixel(40, 30, colour)
                .save(dir.path().join(format!("in/{class}/{i}.png")))
                .unwrap();
        }
    }
    fs::write(dir.path().join("in/red/broken.jpg"), "no image").unwrap();
    dir
}

#[test]
fn packs_and_says_what_it_did() {
    let dir = pictures();
    let out = splitmask(&["pack", "in", "out", "--val-share", "0.3", "--longest-side", "20px"], dir.path());
    let stdout = text(&out.stdout);
    assert_eq!(out.status.code(), Some(0), "{}", text(&out.stderr));
    for part in [
        "packed 20 of 21 images",
        "2 classes, the largest: blue 10, red 10",
        "20 images were shrunk",
        "1 not_an_image",
        "red/broken.jpg",
        "splitmask inspect out/train",
    ] {
        assert!(stdout.contains(part), "{part:?} is missing in:\n{stdout}");
    }
    assert!(dir.path().join("out/train/000000.tar").exists() && dir.path().join("out/refused.tsv").exists());
}

#[test]
fn the_json_summary_is_json() {
    let dir = pictures();
    let out = splitmask(&["pack", "in", "out", "--json", "--encode", "jpeg:80"], dir.path());
    let summary: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(
        (&summary["packed"], &summary["train"]["label_counts"]),
        (&20.into(), &serde_json::json!([10, 10]))
    );
    assert_eq!(summary["refused"]["not_an_image"]["files"], 1);
}

/// Bad input: exit code 64, the value and what to do are named, nothing is written.
#[test]
fn bad_input_gets_64_and_a_hint() {
    let dir = pictures();
    fs::create_dir_all(dir.path().join("full")).unwrap();
    fs::write(dir.path().join("full/mine.txt"), "mine").unwrap();
    for (args, parts) in [
        (
            &["pack", "nowhere", "out"][..],
            &["nowhere: no such folder", "hint: give the folder that holds your images"][..],
        ),
        (
            &["pack", "full", "out"],
            &["full: no images found among 1 files (1 txt)", "hint: PNG, JPEG"],
        ),
        (&["pack", "in", "full"], &["full: not empty", "--force"]),
        (&["pack", "in", "full", "--force"], &["mine.txt", "hint: choose another folder"]),
        (
            &["pack", "in", "out", "--shard-size", "64px"],
            &["--shard-size", "\"px\" is no unit of bytes", "64MiB"],
        ),
        (
            &["pack", "in", "out", "--longest-side", "5cm"],
            &["--longest-side", "\"cm\"", "512px"],
        ),
        (&["pack", "in", "out", "--val-share", "20%"], &["--val-share", "0.2"]),
        (&["pack", "in", "out", "--encode", "jpeg:900"], &["--encode", "jpeg:90"]),
    ] {
        let out = splitmask(args, dir.path());
        let stderr = text(&out.stderr);
        assert_eq!(out.status.code(), Some(64), "{args:?}: {stderr}");
        for part in parts {
            assert!(stderr.contains(part), "{args:?}: {part:?} is missing in:\n{stderr}");
        }
        assert!(!dir.path().join("out").exists() && !dir.path().join("out.partial").exists());
    }
    assert!(dir.path().join("full/mine.txt").exists());
}

/// As the examples of `splitmask codebook` do it: words and their picture lie beside the shards.
#[test]
fn packing_again_keeps_the_codebook_and_its_picture() {
    let dir = pictures();
    let ok = |line: &str| {
        let out = splitmask(&line.split(' ').collect::<Vec<_>>(), dir.path());
        assert_eq!(out.status.code(), Some(0), "{line}: {}", text(&out.stderr));
    };
    ok("pack in out");
    ok(
        "codebook out/train --out out/words.safetensors --kind random-projection --words 16 --range 0,1 --image 32 --patch 8 --picture out/words.png",
    );
    let read = || ["words.safetensors", "words.png"].map(|name| fs::read(dir.path().join("out").join(name)).unwrap());
    let words = read();
    ok("pack in out --force --longest-side 20px");
    assert!(read() == words, "neither was touched");
}

#[test]
fn help_teaches_with_an_example() {
    let out = splitmask(&["pack", "--help"], Path::new("."));
    assert_eq!(out.status.code(), Some(0));
    assert!(text(&out.stdout).contains("splitmask pack photos data/photos --longest-side 512"));
}

#[test]
fn inspect_describes_a_pack_and_draws_a_sheet() {
    let dir = pictures();
    assert!(splitmask(&["pack", "in", "out"], dir.path()).status.success());
    let out = splitmask(
        &["inspect", "out/train", "--contact-sheet", "sheet.png", "--thumbnails", "4"],
        dir.path(),
    );
    let stdout = text(&out.stdout);
    assert_eq!(out.status.code(), Some(0), "{}", text(&out.stderr));
    for part in [
        "1 shards, 20 samples",
        "2 classes; largest 50.0 %",
        "evenness 1.00",
        "blue 10, red 10",
        "20 Png",
        "width 40 to 40",
        "contact sheet of 4 images",
    ] {
        assert!(stdout.contains(part), "{part:?} is missing in:\n{stdout}");
    }
    let sheet = image::open(dir.path().join("sheet.png")).unwrap().into_rgb8();
    let strong = |channel: usize| sheet.pixels().filter(|p| p.0[channel] == 250 && p.0[2 - channel] == 0).count();
    assert!(strong(0) + strong(2) > 4 * 100 * 80, "four pictures are drawn");
    let json = splitmask(&["inspect", "out/train", "--json", "--read", "5"], dir.path());
    let value: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(
        (&value["samples"], &value["read"]["samples"], &value["classes"]["red"]),
        (&20.into(), &5.into(), &10.into())
    );
    // Without the manifest the shards are listed and counted by reading.
    fs::remove_file(dir.path().join("out/train/manifest.json")).unwrap();
    let out = splitmask(&["inspect", "out/train"], dir.path());
    assert!(text(&out.stdout).contains("20 samples; no manifest.json"), "{}", text(&out.stdout));
    for (args, part) in [
        (&["inspect", "nowhere"][..], "nowhere: no shards found"),
        (&["inspect", "in"], "splitmask pack FOLDER OUT"),
        (&["inspect", "out/train", "--contact-sheet", "sheet.jpg"], "must end in .png"),
        (&["inspect", "out/train", "--read", "0"], "above 0"),
    ] {
        let out = splitmask(args, dir.path());
        assert_eq!(out.status.code(), Some(64), "{args:?}");
        assert!(text(&out.stderr).contains(part), "{args:?}: {}", text(&out.stderr));
    }
}

/// `splitmask inspect … | head -1` and a full disk.
#[test]
fn a_reader_that_leaves_is_no_error_and_a_full_disk_is() {
    let dir = pictures();
    assert!(splitmask(&["pack", "in", "out"], dir.path()).status.success());
    let inspect = |stdout: std::process::Stdio| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_splitmask"));
        command
            .args(["inspect", "out/train"])
            .current_dir(dir.path())
            .stdout(stdout)
            .stderr(std::process::Stdio::piped());
        command.output().unwrap()
    };
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let out = inspect(writer.into());
    assert_eq!((out.status.code(), text(&out.stderr)), (Some(0), ""));
    if let Ok(full) = fs::File::options().write(true).open("/dev/full") {
        let out = inspect(full.into());
        assert_eq!(out.status.code(), Some(74));
        assert!(text(&out.stderr).contains("stdout"), "{}", text(&out.stderr));
    }
}

#[test]
fn check_config_tells_the_epochs_of_each_source() {
    let dir = pictures();
    for out in ["a", "b"] {
        let out = splitmask(&["pack", "in", out, "--val-share", "0"], dir.path());
        assert_eq!(out.status.code(), Some(0), "{}", text(&out.stderr));
    }
    let config = r#"
[data]
sources = [
    { name = "first", url = "a/train", weight = 3 },
    { name = "second", url = "b/train", weight = 1 },
    { name = "away", url = "nowhere", weight = 4 },
]
[codebook]
path = "w"
[optim]
total_steps = 100
warmup_steps = 10
[train]
batch = 16
"#;
    fs::write(dir.path().join("c.toml"), config).unwrap();
    let out = splitmask(&["check-config", "c.toml"], dir.path());
    let stdout = text(&out.stdout);
    assert_eq!(out.status.code(), Some(64), "a source that is not there is wrong");
    assert!(
        text(&out.stderr).contains("c.toml:3:1: data.sources[2].url = nowhere: nowhere: no shards found"),
        "{}",
        text(&out.stderr)
    );
    for part in [
        "source first: 37.5 % = 600 images, 30.00 epochs of 20",
        "source second: 12.5 % = 200 images, 10.00 epochs of 20",
        "source away: 50.0 % = 800 images, epochs unknown: nowhere: no shards found",
    ] {
        assert!(stdout.contains(part), "{part:?} is missing in:\n{stdout}");
    }
}

/// A limit on the size of files stands for a full disk: what is written is whole or absent, and the exit code says which.
#[test]
fn what_does_not_fit_on_the_disk_is_absent_and_never_cut() {
    let dir = pictures();
    assert!(splitmask(&["pack", "in", "out"], dir.path()).status.success());
    let codebook = "codebook --kind random-projection --words 4096 --image 32 --patch 8 --out";
    assert!(
        splitmask(&format!("{codebook} words.safetensors").split(' ').collect::<Vec<_>>(), dir.path())
            .status
            .success()
    );
    let before = fs::read(dir.path().join("words.safetensors")).unwrap();
    for command in [
        "pack in second".to_owned(),
        "inspect out/train --contact-sheet sheet.png".to_owned(),
        format!("{codebook} words.safetensors --seed 1 --force"),
        format!("{codebook} other.safetensors --picture words.png"),
    ] {
        let limited = format!("trap '' XFSZ; ulimit -f 1; exec {} {command}", env!("CARGO_BIN_EXE_splitmask"));
        let out = Command::new("bash")
            .args(["-c", &limited])
            .current_dir(dir.path())
            .output()
            .unwrap();
        assert_eq!(out.status.code(), Some(74), "{command}: {}", text(&out.stderr));
        let mut left: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["in", "out", "words.safetensors"], "{command}");
        assert!(fs::read(dir.path().join("words.safetensors")).unwrap() == before, "{command}");
    }
}

#[test]
fn more_words_than_the_data_holds_names_the_option_and_a_number_that_fits() {
    let dir = pictures();
    for i in 0..10u32 {
        let noise = RgbImage::from_fn(40, 30, |x, y| {
            Rgb([(x * 31 + y * 17 + i * 7) as u8, (x * y + i) as u8, (x ^ (y * i)) as u8])
        });
        noise.save(dir.path().join(format!("in/red/{i}.png"))).unwrap();
    }
    assert!(splitmask(&["pack", "in", "out"], dir.path()).status.success());
    for kind in ["random-patches", "k-means"] {
        let args = [
            "codebook",
            "out/train",
            "--out",
            "w.safetensors",
            "--image",
            "32",
            "--patch",
            "8",
            "--kind",
            kind,
        ];
        let out = splitmask(&args, dir.path());
        let stderr = text(&out.stderr);
        assert_eq!(out.status.code(), Some(64), "{stderr}");
        let hint = stderr
            .split("--words ")
            .nth(2)
            .and_then(|rest| rest.split(' ').next())
            .unwrap_or_else(|| panic!("{stderr}"));
        assert!(
            stderr.contains("--words 8192: only ") && stderr.contains("in 20 images"),
            "{stderr}"
        );
        let again = splitmask(&[&args[..], &["--words", hint]].concat(), dir.path());
        assert_eq!(again.status.code(), Some(0), "the number of the hint fits: {}", text(&again.stderr));
        fs::remove_file(dir.path().join("w.safetensors")).unwrap();
    }
    let there = [
        "codebook",
        "--out",
        "there.safetensors",
        "--kind",
        "random-projection",
        "--words",
        "16",
    ];
    assert!(splitmask(&there, dir.path()).status.success());
    for (args, part) in [
        (&["--out", "x", "--words", "1"][..], "--words 1: 2 to"),
        (&["--out", "x", "--patch", "200", "--image", "400"], "--patch 200: 1 to"),
        (&["--out", "none/w.safetensors"], "its folder does not exist"),
        (&["--out", "there.safetensors"], "replace them with --force"),
        (&["--out", "new.safetensors", "--picture", "config.toml"], "must end in .png"),
        (&["--out", "x.safetensors", "--picture", "x.safetensors"], "the same file as --out"),
    ] {
        let out = splitmask(&[&["codebook", "out/train"], args].concat(), dir.path());
        assert_eq!(out.status.code(), Some(64), "{args:?}");
        assert!(text(&out.stderr).contains(part), "{args:?}: {}", text(&out.stderr));
    }
}

#[test]
fn verbs_tell_where_a_manifest_and_what_is_there_disagree() {
    let dir = pictures();
    for out in ["a", "b"] {
        assert!(splitmask(&["pack", "in", out, "--val-share", "0.3"], dir.path()).status.success());
    }
    fs::copy(dir.path().join("b/val/000000.tar"), dir.path().join("a/train/000007.tar")).unwrap();
    let unknown = "a/train/000007.tar: there, but not named by manifest.json";
    let out = splitmask(&["inspect", "a/train"], dir.path());
    assert!(text(&out.stdout).contains(unknown), "{}", text(&out.stdout));
    let out = splitmask(&["inspect", "a/train", "--json"], dir.path());
    let value: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(value["differences"][0]["kind"], "unknown");
    let words = [
        "codebook",
        "a/train",
        "--out",
        "w.safetensors",
        "--kind",
        "random-projection",
        "--words",
        "16",
        "--image",
        "32",
        "--patch",
        "8",
    ];
    let out = splitmask(&words, dir.path());
    assert!(out.status.success() && text(&out.stderr).contains(unknown), "{}", text(&out.stderr));
    let config = "[data]\ntrain = \"a/train\"\nval = \"a/val\"\n[codebook]\npath = \"w.safetensors\"\n[model]\nsize = \"nano\"\nimage = 32\npatch = 8\n\
                  [objective]\nkind = \"splitmask\"\nmask = { kind = \"uniform-split\", keep = 0.5 }\n[train]\nbatch = 4\ndevice = \"cpu\"\n[admin]\nbind = \"\"\n";
    fs::write(dir.path().join("c.toml"), config).unwrap();
    let out = splitmask(&["check-config", "c.toml"], dir.path());
    assert_eq!(out.status.code(), Some(0), "{}", text(&out.stderr));
    assert!(
        text(&out.stdout).contains(&format!("data.train: {unknown}")),
        "{}",
        text(&out.stdout)
    );
    // A place that is not there is refused with the line of its key.
    fs::remove_dir_all(dir.path().join("a/val")).unwrap();
    for verb in [&["check-config", "c.toml"][..], &["train", "--config", "c.toml"]] {
        let out = splitmask(verb, dir.path());
        let stderr = text(&out.stderr);
        assert_eq!(out.status.code(), Some(64), "{verb:?}: {stderr}");
        assert!(
            stderr.contains("data.val = a/val: a/val: no shards found") && stderr.contains("splitmask pack FOLDER OUT"),
            "{verb:?}: {stderr}"
        );
        assert!(verb[0] == "train" || stderr.contains("c.toml:3:1: "), "{stderr}");
    }
    assert!(!dir.path().join("runs").exists(), "a refused start leaves no trace");
}
