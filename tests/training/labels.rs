//! Runs that learn labels: what they refuse, and that they keep to their classes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use crate::ground::{Daemon, Ground, splitmask};

/// The ground's config with the supervised objective, and `more` in its table.
fn supervised(ground: &Ground, more: &str) -> String {
    let text = ground.config_text();
    let (before, rest) = text.split_once("[objective]").unwrap();
    let (_, after) = rest.split_once("[optim]").unwrap();
    format!("{before}[objective]\nkind = \"supervised\"\n{more}\n[optim]{after}")
}

/// Shards of the images in a folder.
fn packed(ground: &Ground, images: &Path, name: &str) -> PathBuf {
    let place = ground.path(name);
    let done = splitmask().arg("pack").arg(images).arg(&place).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    place.join("train")
}

/// The ground's images with the third class under another name.
fn renamed(ground: &Ground) -> PathBuf {
    let images = ground.path("renamed-images");
    for class in fs::read_dir(ground.path("images")).unwrap().flatten() {
        let name = class.file_name().into_string().unwrap().replace("class2", "other");
        fs::create_dir_all(images.join(&name)).unwrap();
        for image in fs::read_dir(class.path()).unwrap().flatten() {
            fs::copy(image.path(), images.join(&name).join(image.file_name())).unwrap();
        }
    }
    packed(ground, &images, "renamed")
}

fn train(ground: &Ground, place: Option<&Path>, sets: &[&str]) -> Output {
    let place = place.map(|place| format!("data.train={:?}", place.display().to_string()));
    let all = place.as_deref().into_iter().chain(sets.iter().copied());
    let arguments: Vec<&str> = all.flat_map(|set| ["--set", set]).collect();
    ground.train(&arguments).output().unwrap()
}

#[track_caller]
fn assert_refused(output: &Output, words: &[&str]) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(64), "{text}");
    for word in words {
        assert!(text.contains(word), "{word:?} is not in {text}");
    }
}

#[test]
fn a_set_without_labels_is_refused_before_anything_is_written() {
    let ground = Ground::new();
    fs::write(ground.config(), supervised(&ground, "")).unwrap();
    let flat = packed(&ground, &ground.path("images/class0"), "flat");
    let words = [
        "data.train = ",
        "flat",
        "has no labels",
        "objective.kind = \"supervised\"",
        "splitmask pack",
    ];
    assert_refused(&train(&ground, Some(&flat), &[]), &words);
    // The same without a start.
    let checked = |sets: &[&str]| {
        let arguments = sets.iter().flat_map(|set| ["--set", set]);
        splitmask()
            .arg("check-config")
            .arg(ground.config())
            .args(arguments)
            .output()
            .unwrap()
    };
    let place = format!("data.train={:?}", flat.display().to_string());
    assert_refused(&checked(&[&place]), &words);
    assert_refused(&checked(&["objective.classes=7"]), &["objective.classes = 7", "names 4 classes"]);
    // Neighbours of images without a class are no neighbours.
    let place = format!("data.val={:?}", flat.display().to_string());
    let told = checked(&[&place, "eval.every_steps=10", "eval.watch=\"knn\""]);
    let told = String::from_utf8_lossy(&told.stdout).into_owned();
    assert!(
        told.contains("has no labels, by which eval.watch = \"knn\" judges") && told.contains("eval.watch = \"loss\""),
        "{told}"
    );
    // Without a manifest nothing says how many classes there are; with their number the first samples are looked at.
    fs::remove_file(flat.join("manifest.json")).unwrap();
    assert_refused(&train(&ground, Some(&flat), &[]), &["objective.classes = 0", "manifest.json"]);
    assert_refused(&train(&ground, Some(&flat), &["objective.classes=4"]), &words);
    let numbers = packed(&ground, &ground.path("images"), "numbers");
    fs::remove_file(numbers.join("manifest.json")).unwrap();
    let fewer = [
        "objective.classes = 2",
        "has label ",
        "2 classes have labels 0 to 1",
        "the largest label + 1",
    ];
    assert_refused(&train(&ground, Some(&numbers), &["objective.classes=2"]), &fewer);
    // One folder of images is one class.
    let one = ground.path("one-images");
    fs::create_dir_all(&one).unwrap();
    fs::rename(ground.path("images/class0"), one.join("class0")).unwrap();
    let one = packed(&ground, &one, "one");
    assert_refused(&train(&ground, Some(&one), &[]), &["objective.classes = 0", "one class"]);
    assert_refused(
        &train(&ground, None, &["objective.classes=7"]),
        &["objective.classes = 7", "names 4 classes"],
    );
    assert!(!ground.path("run/checkpoints").exists() && !ground.path("run/metrics.jsonl").exists());
}

#[test]
fn numbers_of_steps_without_a_label_are_no_zeros() {
    let ground = Ground::new();
    // Every image twice: in the folder of its class, and beside the folders without one.
    let images = ground.path("half-images");
    for class in fs::read_dir(ground.path("images")).unwrap().flatten() {
        let name = class.file_name().into_string().unwrap();
        fs::create_dir_all(images.join(&name)).unwrap();
        for image in fs::read_dir(class.path()).unwrap().flatten() {
            let file = image.file_name().into_string().unwrap();
            fs::copy(image.path(), images.join(&name).join(&file)).unwrap();
            fs::copy(image.path(), images.join(format!("{name}-{file}"))).unwrap();
        }
    }
    let half = packed(&ground, &images, "half");
    fs::write(ground.config(), supervised(&ground, "")).unwrap();
    // Steps too short to learn: each image with a label costs what a guess does. Of batches of two a quarter has no label at all.
    let still = [
        "train.batch=2",
        "train.accumulate=1",
        "optim.lr=1e-12",
        "optim.min_lr=1e-12",
        "optim.total_steps=60",
        "log.every_steps=20",
    ];
    let done = train(&ground, Some(&half), &still);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    for line in ground.trace("run") {
        let of = |name: &str| line[name].as_f64().unwrap();
        assert!((0.3..0.7).contains(&of("unlabelled")), "{line}");
        for name in ["classification", "total"] {
            assert!((of(name) / 4f64.ln() - 1.0).abs() < 0.1, "{name}: {line}");
        }
    }
}

#[test]
fn a_run_keeps_to_its_classes_and_its_checkpoints_know_them() {
    let ground = Ground::new();
    fs::write(ground.config(), supervised(&ground, "")).unwrap();
    let short = ["optim.total_steps=20", "optim.warmup_steps=2"];
    let done = train(&ground, None, &short);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let last = ground.trace("run").pop().unwrap();
    assert_eq!(last["unlabelled"].as_f64(), Some(0.0), "{last}");
    assert!(last["classification"].as_f64().unwrap() < 2.0 * 4f64.ln() && last["commonest_class"].as_f64().unwrap() > 0.1);
    // The number that was found stands in the checkpoint, so the network can be built without the data.
    let folder = ground.path("run/checkpoints").join(newest(&ground));
    assert!(fs::read_to_string(folder.join("config.toml")).unwrap().contains("classes = 4"));
    let eval = |more: &[&str]| {
        splitmask()
            .args(["eval", "loss", "--json"])
            .arg(ground.path("run"))
            .args(more)
            .output()
            .unwrap()
    };
    let loss = |output: Output| -> f64 {
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let told: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        told["loss"]["total"].as_f64().unwrap()
    };
    assert!(loss(eval(&[])) > 0.0);
    // Labels of another set are read by class name: a set whose list has one more class in front, so that every number is another, costs the same.
    let (plain, shifted) = (ground.path("val-plain"), ground.path("val-shifted"));
    for images in [&plain, &shifted] {
        for class in ["class0", "class1", "class3"] {
            copy_folder(&ground.path("images").join(class), &images.join(class));
        }
    }
    let first = packed(&ground, &plain, "plain");
    fs::create_dir(shifted.join("a-class-that-is-not-learnt")).unwrap();
    copy_folder(&ground.path("images/class2"), &shifted.join("a-class-that-is-not-learnt"));
    let second = packed(&ground, &shifted, "shifted");
    let (first, second) = (first.display().to_string(), second.display().to_string());
    let (by_name, shifted) = (loss(eval(&["--val", &first])), loss(eval(&["--val", &second])));
    assert!((by_name / shifted - 1.0).abs() < 0.02, "{by_name} {shifted}");
    // Going on with other classes is refused, by name and not by number.
    let other = renamed(&ground);
    let longer = ["optim.total_steps=30", "optim.warmup_steps=2"];
    assert_refused(&train(&ground, Some(&other), &longer), &["learnt other classes", "4 names"]);
    let on = train(&ground, None, &longer);
    assert!(on.status.success(), "{}", String::from_utf8_lossy(&on.stderr));
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for file in fs::read_dir(from).unwrap().flatten() {
        fs::copy(file.path(), to.join(file.file_name())).unwrap();
    }
}

#[test]
fn a_set_without_manifest_needs_the_number_of_classes_alone() {
    let ground = Ground::new();
    fs::write(ground.config(), supervised(&ground, "classes = 4")).unwrap();
    fs::remove_file(ground.path("data/train/manifest.json")).unwrap();
    let done = train(&ground, None, &["optim.total_steps=4", "optim.warmup_steps=2"]);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let last = ground.trace("run").pop().unwrap();
    assert!(
        last.get("commonest_class").is_none() && last["frequency_guess"].as_f64().unwrap() > 1.3,
        "{last}"
    );
}

#[test]
fn a_reload_to_other_classes_is_refused_and_one_that_reads_the_same_otherwise_is_not() {
    let ground = Ground::new();
    let text = supervised(&ground, "");
    fs::write(ground.config(), &text).unwrap();
    let other = renamed(&ground);
    let sets = [
        "--set",
        "optim.total_steps=100000",
        "--set",
        "admin.watch=false",
        "--enable-lifecycle",
    ];
    let mut daemon = Daemon::start(ground.train(&sets), &ground.path("log"));
    daemon.until("some steps", |d| d.status()["step"].as_u64().is_some_and(|s| s >= 30));
    let reload = |from: &str, to: &str| {
        let new = text.replace(from, to);
        assert_ne!(new, text);
        fs::write(ground.config(), new).unwrap();
        daemon.ask("POST", "/-/reload").unwrap()
    };
    let place = |place: &Path| format!("train = \"{}\"", place.display());
    let (code, report) = reload(&place(&ground.path("data/train")), &place(&other));
    assert!(code == 500 && report.contains("has other classes (4)"), "{code} {report}");
    let (code, report) = reload("shuffle_window = 48", "shuffle_window = 32");
    assert_eq!(code, 200, "{report}");
    daemon.signal("TERM");
    assert_eq!(daemon.end().code(), Some(75));
    let text = fs::read_to_string(ground.path("run/checkpoints").join(newest(&ground)).join("config.toml")).unwrap();
    assert!(text.contains("classes = 4") && text.contains("shuffle_window = 32"), "{text}");
}

/// Name of the newest checkpoint's folder.
fn newest(ground: &Ground) -> String {
    let last = splitmask::checkpoint::steps(&ground.path("run/checkpoints")).pop().unwrap();
    format!("step-{last:08}")
}
