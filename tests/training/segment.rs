//! Segmentation with label maps: from pictures with maps to maps of somebody's own pictures, and what is refused on the way.

mod counted;

use std::fs;

use serde_json::Value;

use self::counted::{contact_sheet, judged};
use crate::finetune::{SHORT, ask, config, train, weights};
use crate::ground::Ground;

const OBJECTIVE: &str = "kind = \"segment\"\nwidth = 32\ndrop_path = 0.0";
const PYRAMID: &str = "kind = \"segment\"\nhead = \"upernet\"\nwidth = 16\nauxiliary_width = 8";
const WATCH: &str = "[eval]\nwatch = \"segment\"\nevery_steps = 120";

#[test]
fn a_pretrained_encoder_learns_the_classes_of_pixels_and_draws_maps() {
    let ground = Ground::with_maps();
    train(&ground, "pretrained", &[SHORT]);
    let data = ground.path("data/train").display().to_string();
    let sheet = ground.path("sheet.png").display().to_string();
    let (code, out, err) = ask(&["inspect", &data, "--read", "all", "--contact-sheet", &sheet]);
    assert_eq!(code, Some(0), "{err}");
    assert!(
        out.contains("label maps (seg.png): of") && out.contains("5 classes") && out.contains("largest: ground"),
        "{out}"
    );
    assert!(!out.contains("beware"), "{out}");
    contact_sheet(&ground, &sheet);

    fs::write(ground.config(), config(&ground, OBJECTIVE, WATCH)).unwrap();
    let from = format!("run.init_from={}", ground.path("pretrained").display());
    let log = train(
        &ground,
        "segmented",
        &[&from, "optim.total_steps=240", "optim.lr=1e-2", "augment.crop.area=[0.7,1.0]"],
    );
    assert!(log.contains("initialised from weights") && log.contains("mean IoU"), "{log}");
    let trace = ground.trace("segmented");
    let told: Vec<&Value> = trace.iter().filter(|line| line["mean_iou"].is_f64()).collect();
    assert_eq!(
        told.iter().map(|line| line["step"].as_u64().unwrap()).collect::<Vec<_>>(),
        [120, 240]
    );
    let last = told[1];
    // Always saying "ground" is 0.16, without the ground 0, and 0.80 of the pixels.
    for (number, least) in [("mean_iou", 0.25), ("object_mean_iou", 0.1), ("val_pixel_accuracy", 0.82)] {
        assert!(last[number].as_f64().unwrap() > least, "{number}: {last}");
    }
    let step = trace.iter().rev().find(|line| line["segmentation"].is_f64()).unwrap();
    assert!(step["segmentation"].as_f64() < step["frequency_guess"].as_f64(), "{step}");
    assert_eq!(
        (step["unlabelled_pixels"].as_f64(), step["unknown_class_pixels"].as_f64()),
        (Some(0.0), Some(0.0))
    );
    assert!(image::open(ground.path("segmented/segments.png")).unwrap().width() > 300);

    let run = ground.path("segmented").display().to_string();
    let (code, out, err) = ask(&["eval", "segment", &run, "--json"]);
    assert_eq!(code, Some(0), "{err}");
    let found: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(
        found["segment"]["mean_iou"], last["mean_iou"],
        "the command finds what the run found: {out}"
    );
    let classes: Vec<&str> = found["segment"]["classes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| c["class"].as_str().unwrap())
        .collect();
    assert_eq!(classes, ["ground", "disc", "square", "stripes", "cross"]);
    let (code, out, err) = ask(&["eval", "segment", &run, "--slide", "--stride", "16"]);
    assert!(
        code == Some(0) && out.contains("mean IoU") && out.contains("worst classes"),
        "{err}"
    );

    predictions(&ground, &run, "answers");
    judged(&ground, &run, "judged");
    export(&ground, &run);
    pyramid(&ground, &run);
}

/// The other head, from the same door to the same door.
fn pyramid(ground: &Ground, deconv: &str) {
    let objective = format!("{PYRAMID}\ndrop_path = 0.0");
    let text = config(
        ground,
        &objective,
        "[ema]\ndecay = 0.9\n[eval]\nwatch = \"segment\"\nevery_steps = 60",
    );
    let from = format!("run.init_from={deconv}");
    ground.refuses(
        &text,
        &["model.depth=2", &from],
        &["model.depth", "2", "4 or more", "objective.head = \"upernet\""],
    );
    let sets = [
        "model.depth=4",
        "optim.total_steps=120",
        "optim.lr=1e-2",
        "augment.crop.area=[0.7,1.0]",
    ];
    train(ground, "pyramid", &sets);
    let trace = ground.trace("pyramid");
    let step = trace.iter().rev().find(|line| line["segmentation"].is_f64()).unwrap();
    let loss = |name: &str| step[name].as_f64().unwrap();
    assert!(loss("segmentation") < 0.9 * loss("frequency_guess"), "{step}");
    assert!(loss("auxiliary") < 5f64.ln(), "{step}");
    assert!(
        (loss("segmentation") + 0.4 * loss("auxiliary") - loss("total")).abs() < 1e-4,
        "{step}"
    );
    let told = trace.iter().rev().find(|line| line["mean_iou"].is_f64()).unwrap();
    // Always saying "ground" overlaps with no object and is right at 0.80 of the pixels; guesses at random overlap with objects by 0.04. This run came to 0.17
    // and 0.865, and with two other seeds to 0.18 and 0.87, 0.21 and 0.88; the bounds are half of the least, and half of the way to it.
    for (number, least) in [("object_mean_iou", 0.08), ("val_pixel_accuracy", 0.83)] {
        assert!(told[number].as_f64().unwrap() > least, "{number}: {told}");
    }
    assert!(image::open(ground.path("pyramid/segments.png")).unwrap().width() > 300);

    let run = ground.path("pyramid").display().to_string();
    let (code, out, err) = ask(&["eval", "segment", &run, "--json"]);
    assert_eq!(code, Some(0), "{err}");
    let found: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(found["segment"]["mean_iou"], told["mean_iou"], "{out}");
    let (code, out, err) = ask(&["eval", "segment", &run, "--slide", "--stride", "16"]);
    assert!(code == Some(0) && out.contains("mean IoU"), "{err}");
    predictions(ground, &run, "pyramid-answers");
    judged(ground, &run, "pyramid-judged");
    other_heads(ground);

    let exported = |format: &str, weights: &str| {
        let out = ground.path(&format!("pyramid-{format}-{weights}"));
        let arguments = ["--format", format, "--weights", weights, "--out"].map(str::to_owned);
        let end = [out.display().to_string(), "--verify".into()];
        let all: Vec<String> = ["export".to_owned(), run.clone()].into_iter().chain(arguments).chain(end).collect();
        (out, ask(&all.iter().map(String::as_str).collect::<Vec<_>>()))
    };
    for weights in ["raw", "ema"] {
        let (out, (code, told, err)) = exported("hf-upernet", weights);
        assert!(code == Some(0) && told.contains("verified: 159 tensors"), "{told} {err}");
        let about: Value = serde_json::from_str(&fs::read_to_string(out.join("config.json")).unwrap()).unwrap();
        assert_eq!((&about["id2label"]["4"], &about["hidden_size"]), (&"cross".into(), &16.into()));
        assert_eq!(
            about["backbone_config"]["out_features"],
            serde_json::json!(["stage1", "stage2", "stage3", "stage4"])
        );
        let truth: std::collections::BTreeMap<String, tch::Tensor> = tch::Tensor::read_safetensors(out.join("verify.safetensors"))
            .unwrap()
            .into_iter()
            .collect();
        let apart = (&truth["logits"] - &truth["map_logits"]).abs().max().double_value(&[]);
        assert!(apart < 1e-4, "{weights}: the export and the run's own network differ by {apart}");
        let card = fs::read_to_string(out.join("README.md")).unwrap();
        assert!(
            card.contains("A UperNet tells 5 classes apart") && card.contains("UperNetForSemanticSegmentation.from_pretrained"),
            "{card}"
        );
    }
    let (_, (code, _, err)) = exported("timm", "raw");
    assert!(
        code == Some(64) && err.contains("upernet") && err.contains("--encoder-only"),
        "{err}"
    );
    let (out, (code, _, err)) = exported("safetensors", "raw");
    assert!(code == Some(0) && !out.join("load_segmenter.py").exists(), "{err}");
    assert!(fs::read_to_string(out.join("segment.json")).unwrap().contains("\"upernet\""));
}

/// A head of the same classes that is of another kind or size is refused by name.
fn other_heads(ground: &Ground) {
    let from = format!("run.init_from={}", ground.path("pyramid").display());
    let narrower = PYRAMID.replacen("width = 16", "width = 12", 1);
    for (objective, differs) in [
        (OBJECTIVE, "of another kind"),
        (
            narrower.as_str(),
            "head.upernet.classifier.weight: [5, 16, 1, 1] in it, [5, 12, 1, 1] in this run",
        ),
    ] {
        ground.refuses(
            &config(ground, objective, ""),
            &["model.depth=4", &from],
            &[
                "run.init_from",
                "pyramid",
                "same 5 classes",
                differs,
                "objective.head",
                "run.init_partial",
            ],
        );
    }
}

/// Maps of a user's own pictures, one of them broken.
fn predictions(ground: &Ground, run: &str, answers: &str) {
    let mine = ground.path("mine");
    fs::create_dir_all(&mine).unwrap();
    fs::copy(ground.path("images/class1/03.png"), mine.join("a.png")).unwrap();
    fs::write(mine.join("broken.png"), "no picture").unwrap();
    let (folder, out) = (mine.display().to_string(), ground.path(answers));
    let (code, _, err) = ask(&["predict", run, &folder]);
    assert!(code == Some(64) && err.contains("--out"), "{err}");
    let (code, told, err) = ask(&["predict", run, &folder, "--out", &out.display().to_string(), "--json"]);
    assert!(code == Some(64) && err.contains("1 of 2 files could not be read"), "{err}");
    let told: Value = serde_json::from_str(&told).unwrap();
    let answer = &told["images"][0];
    let classes = answer["classes"].as_array().unwrap();
    let shares: f64 = classes.iter().map(|class| class["share"].as_f64().unwrap()).sum();
    assert!((shares - 1.0).abs() < 1e-9 && classes[0]["name"] == "ground", "{answer}");
    // The map is one that can be trained on.
    let bytes = fs::read(out.join("a.png")).unwrap();
    let reading = splitmask_pipeline::decode::MapReading::default();
    let map = splitmask_pipeline::decode::LabelMap::read(&bytes, &reading, splitmask_pipeline::decode::Limits::default()).unwrap();
    assert_eq!((map.width, map.height), (64, 64));
    let ground_pixels = map.classes.iter().filter(|class| **class == 0).count() as u64;
    assert_eq!(Some(ground_pixels), classes[0]["pixels"].as_u64());
    assert!(out.join("a.overlay.png").exists());
}

fn export(ground: &Ground, run: &str) {
    let out = ground.path("exported");
    let (code, told, err) = ask(&[
        "export",
        run,
        "--format",
        "safetensors",
        "--out",
        &out.display().to_string(),
        "--verify",
    ]);
    assert!(code == Some(0) && told.contains("verified"), "{err}");
    let about: Value = serde_json::from_str(&fs::read_to_string(out.join("segment.json")).unwrap()).unwrap();
    assert_eq!((&about["classes"][4], &about["doublings"]), (&"cross".into(), &1.into()));
    let card = fs::read_to_string(out.join("README.md")).unwrap();
    assert!(
        card.contains("fine-tuned for segmentation") && card.contains("from load_segmenter import load"),
        "{card}"
    );
    let loader = fs::read_to_string(out.join("load_segmenter.py")).unwrap();
    assert!(loader.lines().filter(|line| !line.trim().is_empty()).count() <= 50);
    let rest: std::collections::BTreeMap<String, tch::Tensor> = tch::Tensor::read_safetensors(out.join("decoder.safetensors"))
        .unwrap()
        .into_iter()
        .collect();
    let trained = weights(&ground.path("segmented/checkpoints/step-00000240"));
    for name in ["head.deconv.0.weight", "head.deconv.0.norm.running_var", "head.classifier.bias"] {
        assert_eq!(rest[name], trained[name], "{name}");
    }
    assert!(!told.contains("encoder alone"), "{told}");
    // A format without a place for the head says where it went.
    let other = ground.path("exported-timm").display().to_string();
    let (code, told, err) = ask(&["export", run, "--format", "timm", "--out", &other]);
    assert_eq!(code, Some(0), "{err}");
    assert!(
        told.contains("the encoder alone") && told.contains("decoder.safetensors, which timm does not load; --format safetensors"),
        "{told}"
    );
    let (code, _, err) = ask(&["eval", "segment", run, "--slide", "--stride", "100000"]);
    assert!(code == Some(64) && err.contains("--stride 100000"), "{err}");
    let (code, told, err) = ask(&["eval", "segment", run, "--max-queries", "3"]);
    assert_eq!(code, Some(0), "{err}");
    assert!(
        told.contains("(3 images)") && told.contains("eval.max_queries; all: --max-queries 0"),
        "{told}"
    );
}

#[test]
fn what_cannot_be_segmented_is_refused_with_file_key_and_value() {
    let ground = Ground::new();
    ground.refuses(
        &config(&ground, OBJECTIVE, ""),
        &[],
        &["data.train", "has no label maps", "manifest.json tells of none", "--maps"],
    );
    ground.refuses(
        &config(&ground, "kind = \"mae\"", WATCH),
        &[],
        &["eval.watch", "\"segment\"", "\"mae\" learns no classes of pixels"],
    );
    ground.refuses(
        &config(&ground, OBJECTIVE, ""),
        &["model.patch=14", "model.image=28"],
        &["model.patch", "14", "4, 8, 16, 32"],
    );
    let with_maps = Ground::with_maps();
    let at = |set: &str| format!("data.train={}/{set}", with_maps.path("data").display());
    ground.refuses(
        &config(&ground, OBJECTIVE, ""),
        &[&at("train"), "data.map_ignore=0"],
        &["data.map_ignore", "says that 255 stands for nothing", "hint: "],
    );
    ground.refuses(
        &config(&ground, OBJECTIVE, ""),
        &[&at("train"), "objective.classes=7"],
        &["objective.classes", "7", "names 5 classes of label maps"],
    );
    ground.refuses(
        &config(&ground, OBJECTIVE, WATCH),
        &[&at("train")],
        &["data.val", "has no label maps", "eval.watch = \"segment\"", "--map-classes"],
    );
}
