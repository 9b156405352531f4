//! Fine-tuning with labels: from a pre-trained run to the names of somebody's own pictures, and what is refused on the way.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Output;

use serde_json::Value;
use tch::Tensor;

use crate::ground::{Ground, splitmask};

/// The ground's config with another objective and further tables.
pub(crate) fn config(ground: &Ground, objective: &str, more: &str) -> String {
    let text = ground.config_text();
    let (before, rest) = text.split_once("[objective]").unwrap();
    let (_, after) = rest.split_once("[optim]").unwrap();
    format!("{before}[objective]\n{objective}\n{more}\n[optim]{after}")
}

pub(crate) fn said(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

pub(crate) fn ask(arguments: &[&str]) -> (Option<i32>, String, String) {
    said(&splitmask().args(arguments).output().unwrap())
}

/// Trains into the folder `run`, and answers the log.
#[track_caller]
pub(crate) fn train(ground: &Ground, run: &str, sets: &[&str]) -> String {
    let dir = ground.path(run).display().to_string();
    let mut arguments = vec!["--run-dir", &dir];
    arguments.extend(sets.iter().flat_map(|set| ["--set", *set]));
    let (code, _, err) = said(&ground.train(&arguments).output().unwrap());
    assert_eq!(code, Some(0), "{err}");
    err
}

pub(crate) fn weights(checkpoint: &Path) -> BTreeMap<String, Tensor> {
    Tensor::read_safetensors(checkpoint.join("model.safetensors"))
        .unwrap()
        .into_iter()
        .collect()
}

pub(crate) const SHORT: &str = "optim.total_steps=12";

#[test]
fn a_pretrained_encoder_learns_classes_names_pictures_and_is_exported() {
    let ground = Ground::new();
    train(&ground, "pretrained", &[SHORT]);
    let pretrained = ground.path("pretrained").display().to_string();
    let more = "[eval]\nwatch = \"classify\"\nevery_steps = 30\ncrop_ratio = 1.0";
    let objective = "kind = \"classify\"\nrand_augment = 0.0\nmixup = 0.0\ncutmix = 0.0\ndrop_path = 0.0";
    fs::write(ground.config(), config(&ground, objective, more)).unwrap();
    let from = format!("run.init_from={pretrained}");
    // Another image side than that of the weights: positions are interpolated.
    let log = train(
        &ground,
        "tuned",
        &[
            &from,
            "optim.total_steps=60",
            "optim.layer_decay=0.75",
            "optim.lr=3e-3",
            "model.image=40",
        ],
    );
    for told in [
        "initialised from weights",
        "pos_embed: interpolated from 4 × 4 patches to 5 × 5",
        "new, at random: fc_norm.bias, fc_norm.weight, head.bias, head.weight",
        "but not used: decoder.",
        "top-1 ",
    ] {
        assert!(log.contains(told), "{told:?} is not in {log}");
    }
    let trace = ground.trace("tuned");
    let told: Vec<&Value> = trace.iter().filter(|line| line["top1_accuracy"].is_f64()).collect();
    assert_eq!(told.iter().map(|line| line["step"].as_u64().unwrap()).collect::<Vec<_>>(), [30, 60]);
    let last = told[1];
    assert!(last["top1_accuracy"].as_f64().unwrap() > 0.4, "4 classes of drawn shapes: {last}");
    assert!(last["top5_accuracy"] == 1.0 && last["class_mean_accuracy"].is_f64(), "{last}");
    assert!(image::open(ground.path("tuned/confusion.png")).unwrap().width() > 100);

    // The command finds what the run found, and every class by name.
    let tuned = ground.path("tuned").display().to_string();
    let picture = ground.path("confused.png").display().to_string();
    let (code, out, err) = ask(&["eval", "classify", &tuned, "--json", "--picture", &picture]);
    assert_eq!(code, Some(0), "{err}");
    let found: Value = serde_json::from_str(&out).unwrap();
    let found = &found["classify"];
    assert_eq!(found["top1"], last["top1_accuracy"], "{out}");
    let classes: Vec<&str> = found["classes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| c["class"].as_str().unwrap())
        .collect();
    assert_eq!(classes, ["class0", "class1", "class2", "class3"]);
    assert_eq!(fs::read(&picture).unwrap(), fs::read(ground.path("tuned/confusion.png")).unwrap());
    let (_, table, _) = ask(&["eval", "classify", &tuned]);
    assert!(table.contains("top-1 accuracy") && table.contains("worst classes"), "{table}");

    let (_, report, _) = ask(&["report", &tuned]);
    assert!(report.contains("top-1 accuracy") && report.contains("confusion.png"), "{report}");

    predictions(&ground, &tuned, &pretrained);
    exports(&ground, &tuned, &pretrained);
}

/// Pictures of a user's own, one of them broken.
fn predictions(ground: &Ground, tuned: &str, pretrained: &str) {
    let (mine, broken) = (ground.path("mine"), ground.path("mine/broken.png"));
    fs::create_dir(&mine).unwrap();
    for class in 0..4 {
        let from = ground.path(&format!("images/class{class}/00.png"));
        fs::copy(from, mine.join(format!("{class}.png"))).unwrap();
    }
    let folder = mine.display().to_string();
    let (code, table, err) = ask(&["predict", tuned, &folder, "--top", "2"]);
    assert_eq!((code, table.lines().count()), (Some(0), 8), "{err}");
    fs::write(&broken, "no picture").unwrap();
    let named = ground.path("named").display().to_string();
    let (code, out, err) = ask(&["predict", tuned, &folder, "--json", "--out", &named]);
    assert!(code == Some(64) && err.contains("1 of 5 files could not be read"), "{err}");
    let sheet = format!("{named}/classes-001.png");
    let (code, _, refused) = ask(&["predict", tuned, &sheet, "--out", &named]);
    assert!(code == Some(64) && refused.contains("lies in this folder"), "{refused}");
    let told: Value = serde_json::from_str(&out).unwrap();
    let images = told["images"].as_array().unwrap();
    assert_eq!((images.len(), told["unreadable"].as_array().unwrap().len()), (4, 1), "{out}");
    assert!(told["unreadable"][0]["file"].as_str().unwrap().ends_with("broken.png"));
    for image in images {
        let shares: Vec<f64> = image["classes"]
            .as_array()
            .unwrap()
            .iter()
            .map(|c| c["probability"].as_f64().unwrap())
            .collect();
        assert!(
            shares.len() == 3 && shares.is_sorted_by(|a, b| a >= b) && shares.iter().sum::<f64>() <= 1.0 + 1e-6,
            "{image}"
        );
        assert!(image["sheet"].as_str().unwrap().ends_with("named/classes-001.png"), "{image}");
    }
    // Three images side by side, the fourth below them.
    let sheet = image::open(ground.path("named/classes-001.png")).unwrap().into_rgb8();
    assert_eq!(sheet.dimensions(), (968, 216));
    let colours: BTreeSet<[u8; 3]> = sheet.pixels().map(|pixel| pixel.0).collect();
    assert!(colours.len() > 100, "{} colours", colours.len());
    let named = |n: usize| images[n]["classes"][0]["name"].as_str().unwrap().to_owned();
    let right = (0..4).filter(|n| named(*n) == format!("class{n}")).count();
    assert!(right >= 2, "{out}");
    let see_through = ground.path("see-through.png");
    image::RgbaImage::from_fn(40, 40, |x, _| image::Rgba([200, 0, 0, (x * 6) as u8]))
        .save(&see_through)
        .unwrap();
    let see_through = see_through.display().to_string();
    let (code, _, err) = ask(&["predict", tuned, &see_through]);
    assert!(code == Some(0) && err.contains("1 images are transparent"), "{err}");
    let (code, _, err) = ask(&["predict", tuned, &see_through, "--background", "white"]);
    assert!(code == Some(0) && !err.contains("transparent"), "{err}");
    for (run, images, told) in [
        (pretrained, folder.as_str(), "learnt no classes (objective.kind = \"splitmask\")"),
        (tuned, tuned, "no image file in this folder"),
    ] {
        // The run folder holds pictures: a folder of it without any.
        let images = if images == tuned {
            format!("{tuned}/checkpoints")
        } else {
            images.to_owned()
        };
        let (code, _, err) = ask(&["predict", run, &images]);
        assert!(code == Some(64) && err.contains(told) && err.contains("hint: "), "{err}");
    }
    let (code, _, err) = ask(&["eval", "classify", pretrained]);
    assert!(
        code == Some(64) && err.contains("learnt no classes") && err.contains("run.init_from="),
        "{err}"
    );
}

fn exports(ground: &Ground, tuned: &str, pretrained: &str) {
    for (format, what) in [("timm", "fc_norm.weight"), ("hf-beit", "beit.pooler.layernorm.weight")] {
        let out = ground.path(format).display().to_string();
        let (code, said, err) = ask(&["export", tuned, "--format", format, "--out", &out, "--verify"]);
        assert!(code == Some(0) && said.contains("verified"), "{format}: {err}");
        assert!(weights(Path::new(&out)).contains_key(what), "{format}");
        assert!(
            fs::read_to_string(ground.path(format).join("config.json"))
                .unwrap()
                .contains("class2")
        );
        assert!(!Path::new(&out).join("decoder.safetensors").exists());
    }
    let out = ground.path("hf-vit").display().to_string();
    let (code, _, err) = ask(&["export", tuned, "--format", "hf-vit", "--out", &out]);
    assert!(
        code == Some(64) && err.contains("mean of the patches") && err.contains("--encoder-only"),
        "{err}"
    );
    let (code, _, err) = ask(&["export", tuned, "--format", "hf-vit", "--out", &out, "--encoder-only", "--verify"]);
    assert_eq!(code, Some(0), "{err}");
    let encoder = ground.path("plain").display().to_string();
    let (code, _, err) = ask(&["export", pretrained, "--format", "timm", "--out", &encoder, "--verify"]);
    assert_eq!(code, Some(0), "{err}");
}

#[test]
fn a_frozen_encoder_is_bit_for_bit_what_it_started_from() {
    let ground = Ground::new();
    train(&ground, "pretrained", &[SHORT]);
    let from = ground.path("pretrained/checkpoints/step-00000012");
    fs::write(ground.config(), config(&ground, "kind = \"classify\"\nfreeze = \"encoder\"", "")).unwrap();
    let log = train(
        &ground,
        "head",
        &[&format!("run.init_from={}", from.display()), SHORT, "checkpoint.every_steps=6"],
    );
    assert!(log.contains("objective.drop_path"), "what made room is told: {log}");
    let (before, after) = (weights(&from), weights(&ground.path("head/checkpoints/step-00000012")));
    let encoder: Vec<&String> = before.keys().filter(|name| splitmask::model::is_backbone_name(name)).collect();
    assert_eq!(encoder.len(), 30);
    assert!(encoder.iter().all(|name| before[*name] == after[*name]));
    assert!(after["head.weight"].abs().max().double_value(&[]) > 1e-3, "the head has learnt");
    // Taken back to an earlier checkpoint, it comes to the same weights and moments, bit for bit.
    let last = ground.path("head/checkpoints/step-00000012");
    let bytes = |file: &str| fs::read(last.join(file)).unwrap();
    let want = (bytes("model.safetensors"), bytes("optimizer.safetensors"));
    fs::remove_dir_all(&last).unwrap();
    train(
        &ground,
        "head",
        &[&format!("run.init_from={}", from.display()), SHORT, "checkpoint.every_steps=6"],
    );
    assert!(want == (bytes("model.safetensors"), bytes("optimizer.safetensors")));
    // The head is handed on to a run of the same classes, and not to one of others.
    let tuned = config(&ground, "kind = \"classify\"", "");
    fs::write(ground.config(), &tuned).unwrap();
    let from = format!("run.init_from={}", ground.path("head").display());
    let log = train(&ground, "on", &[&from, "optim.total_steps=1", "optim.warmup_steps=0"]);
    assert!(log.contains("tensors=34") && !log.contains("a new head"), "{log}");
    let three = ground.path("three-images");
    fs::create_dir(&three).unwrap();
    for class in ["class0", "class1", "class3"] {
        fs::rename(ground.path("images").join(class), three.join(class)).unwrap();
    }
    let packed = ground.path("three").display().to_string();
    let (code, _, err) = ask(&["pack", &three.display().to_string(), &packed, "--val-share", "0.2"]);
    assert_eq!(code, Some(0), "{err}");
    let other = format!("data.train={packed}/train");
    let log = train(&ground, "other", &[&from, &other, "optim.total_steps=1", "optim.warmup_steps=0"]);
    for told in [
        "run.init_from = ",
        "its head tells other classes apart (4: \"class0\", \"class1\", \"class2\", …) than this run (3: \"class0\", \"class1\", \"class3\"), from number 2 on",
        "a new head begins. If it was meant to be taken: train on a set that names the same classes in the same order",
        "1 of its classes are not in data.train",
    ] {
        assert!(log.contains(told), "{told:?} is not in {log}");
    }
}

#[test]
fn what_cannot_be_fine_tuned_is_refused_with_file_key_and_value() {
    let ground = Ground::new();
    let classify = |more: &str, eval: &str| config(&ground, &format!("kind = \"classify\"\n{more}"), eval);
    ground.refuses(
        &classify("freeze = \"neck\"", ""),
        &[],
        &["config.toml", "objective.freeze", "\"neck\"", "encoder"],
    );
    ground.refuses(
        &classify("freeze = \"encoder\"", ""),
        &[],
        &["run.init_from", "required", "objective.freeze = \"encoder\""],
    );
    ground.refuses(
        &config(&ground, "kind = \"mae\"", "[eval]\nwatch = \"classify\""),
        &[],
        &["eval.watch", "\"classify\"", "\"mae\" learns no classes"],
    );
    // A validation set of other classes, and one without any, where the run is judged by it.
    let judged = classify("", "[eval]\nwatch = \"classify\"\nevery_steps = 5");
    let (other, flat) = (ground.path("other-images/zebra"), ground.path("flat-images"));
    fs::create_dir_all(&other).unwrap();
    fs::create_dir_all(&flat).unwrap();
    for n in 0..9 {
        let from = ground.path(&format!("images/class1/0{n}.png"));
        fs::copy(&from, other.join(format!("{n}.png"))).unwrap();
        fs::copy(&from, flat.join(format!("{n}.png"))).unwrap();
    }
    for (images, told) in [
        ("other-images", "has no images of a class that data.train has some of: it has zebra"),
        ("flat-images", "has no labels"),
    ] {
        let place = ground.path(&format!("{images}-packed"));
        let (code, _, err) = ask(&["pack", &ground.path(images).display().to_string(), &place.display().to_string()]);
        assert_eq!(code, Some(0), "{err}");
        let val = format!("data.val={}/train", place.display());
        ground.refuses(&judged, &[&val], &["data.val = ", told, "eval.watch = \"classify\"", "hint: "]);
    }
}
