//! Detection with marked objects: from pictures with boxes and masks to the objects in somebody's own pictures, and what is refused on the way.

use std::fs;

use serde_json::Value;

use crate::finetune::{SHORT, ask, config, train};
use crate::ground::Ground;

pub(crate) const OBJECTIVE: &str = "kind = \"detect\"\nchannels = 16\nbox_width = 32\nmask_depth = 1\nmask_width = 16\ncanonical = 112.0\nscale = [0.9, 1.2]\n\
                         drop_path = 0.0\nanchors = 32\ncandidates = 64\nproposals = 32\neval_candidates = 64\neval_proposals = 32\nregions = 24\nfound = 10";
const WATCH: &str = "[eval]\nwatch = \"detect\"\nevery_steps = 90";

#[test]
fn a_pretrained_encoder_learns_to_find_objects_and_names_those_of_other_pictures() {
    let ground = Ground::with_objects();
    train(&ground, "pretrained", &[SHORT]);
    refusals(&ground);
    fs::write(ground.config(), config(&ground, OBJECTIVE, WATCH)).unwrap();
    let from = format!("run.init_from={}", ground.path("pretrained").display());
    let [set, val] = ["train", "val"].map(|set| format!("data.{set}={}/{set}", ground.path("objects").display()));
    let sets = [
        &from,
        &set,
        &val,
        "optim.total_steps=180",
        "optim.lr=5e-3",
        "train.batch=8",
        "optim.clip=5.0",
    ];
    let log = train(&ground, "detected", &sets);
    assert!(
        log.contains("initialised from weights") && log.contains("average precision of boxes"),
        "{log}"
    );
    let trace = ground.trace("detected");
    let told: Vec<&Value> = trace.iter().filter(|line| line["box_average_precision"].is_f64()).collect();
    assert_eq!(
        told.iter().map(|line| line["step"].as_u64().unwrap()).collect::<Vec<_>>(),
        [90, 180]
    );
    let last = told[1];
    for (number, least) in [
        ("box_average_precision", 0.3),
        ("mask_average_precision", 0.2),
        ("box_average_precision_50", 0.6),
    ] {
        assert!(last[number].as_f64().unwrap() > least, "{number}: {last}");
    }
    let step = trace.iter().rev().find(|line| line["objectness"].is_f64()).unwrap();
    for (number, least, most) in [
        ("objects", 0.2, 0.8),
        ("object_regions", 0.2, 6.0),
        ("object_anchors", 0.2, 16.0),
        ("unknown_class_objects", 0.0, 0.0),
        ("objects_without_mask", 0.0, 0.0),
        ("region_accuracy", 0.8, 1.0),
    ] {
        let value = step[number].as_f64().unwrap();
        assert!((least..=most).contains(&value), "{number}: {step}");
    }
    assert!(image::open(ground.path("detected/objects.png")).unwrap().width() > 300);

    let run = ground.path("detected").display().to_string();
    let (code, out, err) = ask(&["eval", "detect", &run, "--json"]);
    assert_eq!(code, Some(0), "{err}");
    let found: Value = serde_json::from_str(&out).unwrap();
    let found = &found["detect"];
    assert_eq!(
        (&found["boxes"]["precision"], &found["masks"]["precision"]),
        (&last["box_average_precision"], &last["mask_average_precision"]),
        "the command finds what the run found: {out}"
    );
    assert_eq!(found["boxes"]["classes"][1]["name"], "square");
    let (_, table, _) = ask(&["eval", "detect", &run]);
    assert!(table.contains("at an overlap of 0.75") && table.contains("disc"), "{table}");

    predictions(&ground, &run);
}

/// Objects of a user's own pictures, one of them broken; and of all pictures, judged as any program's results are.
fn predictions(ground: &Ground, run: &str) {
    let mine = ground.path("mine");
    fs::create_dir(&mine).unwrap();
    fs::copy(ground.path("images/class1/03.png"), mine.join("a.png")).unwrap();
    fs::write(mine.join("broken.png"), "no picture").unwrap();
    let folder = mine.display().to_string();
    let (code, told, err) = ask(&["predict", run, &folder, "--json"]);
    assert!(code == Some(64) && err.contains("1 of 2 files could not be read"), "{err}");
    let told: Value = serde_json::from_str(&told).unwrap();
    let surest = &told["images"][0]["objects"][0];
    assert_eq!((&surest["name"], &surest["number"]), (&"square".into(), &1.into()), "{told}");
    assert!(surest["probability"].as_f64().unwrap() > 0.3, "{told}");
    let (code, _, err) = ask(&["predict", run, &folder, "--slide"]);
    assert!(code == Some(64) && err.contains("--slide"), "{err}");

    let (images, out, truth) = (ground.path("images"), ground.path("found"), ground.path("objects.json"));
    let [images, out_text, truth] = [&images, &out, &truth].map(|path| path.display().to_string());
    let (code, told, err) = ask(&["predict", run, &images, "--out", &out_text, "--coco", &truth, "--top", "1"]);
    assert_eq!(code, Some(0), "{err}");
    assert!(told.contains("square 0.") || told.contains("square 1."), "{told}");
    assert!(out.join("03.overlay.png").exists() && out.join("03-2.overlay.png").exists());
    let results = out.join("results.json").display().to_string();
    let (code, judged, err) = ask(&["eval", "detections", &truth, &results, "--of", "masks", "--json"]);
    assert_eq!(code, Some(0), "{err}");
    assert!(judged.contains("precision"), "{judged}");
}

/// By file, key and value.
fn refusals(ground: &Ground) {
    ground.refuses(
        &config(ground, OBJECTIVE, ""),
        &[],
        &["data.train", "has no marked objects", "manifest.json tells of none", "--coco"],
    );
    ground.refuses(
        &config(ground, "kind = \"mae\"", WATCH),
        &[],
        &["eval.watch", "\"detect\"", "\"mae\" learns no classes of objects"],
    );
    ground.refuses(
        &config(ground, OBJECTIVE, ""),
        &["model.patch=14", "model.image=28"],
        &["model.patch", "14", "4, 8, 16, 32 or 64"],
    );
    ground.refuses(
        &config(ground, OBJECTIVE, ""),
        &["model.image=40"],
        &["model.image", "40", "a multiple of 16"],
    );
    ground.refuses(
        &config(ground, OBJECTIVE, ""),
        &["objective.anchor_background=0.8"],
        &["objective.anchor_background", "0.8", "at most objective.anchor_object = 0.7"],
    );
    let train = format!("data.train={}/train", ground.path("objects").display());
    ground.refuses(
        &config(ground, OBJECTIVE, ""),
        &[&train, "objective.classes=7"],
        &["objective.classes", "7", "names 2 classes of objects"],
    );
    ground.refuses(
        &config(ground, OBJECTIVE, ""),
        &[&train, "data.objects=boxes.json"],
        &["data.objects", "boxes.json", "are .objects.json members"],
    );
    ground.refuses(
        &config(ground, OBJECTIVE, WATCH),
        &[&train],
        &["data.val", "has no marked objects", "eval.watch = \"detect\"", "--coco"],
    );
}
