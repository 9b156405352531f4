use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use splitmask_pipeline::coco::{RunLength, rasterise};

use super::*;

fn fixture() -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/detection.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn written(dir: &tempfile::TempDir, name: &str, value: &Value) -> PathBuf {
    let path = dir.path().join(name);
    std::fs::write(&path, value.to_string()).unwrap();
    path
}

fn numbers(found: &Averages) -> [f64; 12] {
    [
        found.precision,
        found.precision_50,
        found.precision_75,
        found.precision_small,
        found.precision_medium,
        found.precision_large,
        found.recall_1,
        found.recall_10,
        found.recall_100,
        found.recall_small,
        found.recall_medium,
        found.recall_large,
    ]
    .map(|number| number.unwrap_or(-1.0))
}

#[test]
fn outlines_have_the_masks_of_pycocotools_to_the_pixel() {
    let fixture = fixture();
    for case in fixture["polygons"].as_array().unwrap() {
        let outline: Vec<f64> = serde_json::from_value(case["outline"].clone()).unwrap();
        let [height, width]: [u32; 2] = serde_json::from_value(case["size"].clone()).unwrap();
        let want = RunLength::of_text(height, width, case["counts"].as_str().unwrap()).unwrap();
        let mask = rasterise(&outline, height, width);
        assert_eq!(mask, want, "{outline:?} in {height} × {width}");
        assert_eq!(mask.area(), case["area"].as_u64().unwrap());
        let bounds: [f64; 4] = serde_json::from_value(case["bounds"].clone()).unwrap();
        assert_eq!(mask.bounds(), bounds, "{outline:?}");
    }
}

#[test]
fn the_twelve_numbers_are_those_of_pycocotools() {
    let (fixture, dir) = (fixture(), tempfile::tempdir().unwrap());
    let truth = written(&dir, "truth.json", &fixture["truth"]);
    for (kind, rows, want) in [(ShapeKind::Box, "boxes", "box"), (ShapeKind::Mask, "masks", "mask")] {
        let truth = read_truth(&truth, kind).unwrap();
        let found = read_detections(&written(&dir, rows, &fixture[rows]), &truth, kind).unwrap();
        let found = evaluate(&truth, &found);
        let want: [f64; 12] = serde_json::from_value(fixture[want].clone()).unwrap();
        for (ours, theirs) in numbers(&found).into_iter().zip(want) {
            assert!((ours - theirs).abs() < 1e-9, "{kind:?}: {:?} where {want:?}", numbers(&found));
        }
        assert_eq!(found.classes.len(), 3, "class 9 has no object");
    }
}

#[test]
fn masks_come_back_from_pixels_and_unite_as_pixels_do() {
    let mut state = 1u64;
    let mut draw = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as u32
    };
    for _ in 0..200 {
        let (height, width) = (draw() % 7 + 1, draw() % 7 + 1);
        let share = draw() % 4;
        let mut picture = || -> Vec<u8> { (0..height * width).map(|_| u8::from(draw() % 4 < share)).collect() };
        let (a, b) = (picture(), picture());
        let [first, second] = [&a, &b].map(|pixels| RunLength::of_pixels(height, width, pixels));
        assert_eq!(first.pixels(), a);
        let both = |one: &u8, other: &u8| u64::from(*one & *other);
        assert_eq!(first.common(&second), a.iter().zip(&b).map(|(x, y)| both(x, y)).sum::<u64>());
        let united = first.united(&second);
        let either: Vec<u8> = a.iter().zip(&b).map(|(x, y)| x | y).collect();
        assert_eq!(united.pixels(), either);
        assert_eq!(united, RunLength::of_pixels(height, width, &either), "no empty runs");
    }
}

#[test]
fn a_perfect_answer_has_1_also_where_ids_begin_at_0_and_none_has_0() {
    let dir = tempfile::tempdir().unwrap();
    let truth = json!({
        "images": [{ "id": 0, "height": 50, "width": 50 }, { "id": 1, "height": 50, "width": 50 }],
        "categories": [{ "id": 0, "name": "cat" }],
        "annotations": [
            { "id": 0, "image_id": 0, "category_id": 0, "bbox": [1, 2, 30, 20], "area": 600, "iscrowd": 0 },
            { "id": 1, "image_id": 1, "category_id": 0, "bbox": [40, 2, 20, 20] },
        ],
    });
    let truth = read_truth(&written(&dir, "truth.json", &truth), ShapeKind::Box).unwrap();
    assert!(
        truth.remarks[0].contains("id 0") && truth.remarks[1].contains("1 boxes"),
        "{:?}",
        truth.remarks
    );
    let rows = json!([
        { "image_id": 0, "category_id": 0, "bbox": [1, 2, 30, 20], "score": 0.5 },
        { "image_id": 1, "category_id": 0, "bbox": [40, 2, 20, 20], "score": 0.1 },
    ]);
    let found = read_detections(&written(&dir, "rows.json", &rows), &truth, ShapeKind::Box).unwrap();
    let perfect = evaluate(&truth, &found);
    assert_eq!(
        (perfect.precision, perfect.recall_100, perfect.precision_large),
        (Some(1.0), Some(1.0), None)
    );
    let none = evaluate(&truth, &Detections::default());
    assert_eq!(
        (none.precision, none.recall_100, none.precision_large),
        (Some(0.0), Some(0.0), None)
    );
}

#[test]
fn what_is_wrong_is_told_with_file_place_and_value() {
    let dir = tempfile::tempdir().unwrap();
    let truth = |annotation: Value| {
        json!({
            "images": [{ "id": 1, "height": 4, "width": 5 }], "categories": [{ "id": 3, "name": "cat" }],
            "annotations": [{ "id": 7, "image_id": 1, "category_id": 3, "bbox": [0, 0, 1, 1], "segmentation": [[0, 0, 2, 0, 2, 2]] }, annotation],
        })
    };
    let base = json!({ "id": 8, "image_id": 1, "category_id": 3, "bbox": [0, 0, 1, 1], "segmentation": [[0, 0, 2, 0, 2, 2]] });
    let table = [
        (
            "image_id",
            json!(2),
            ShapeKind::Box,
            "annotations[1] (id 8): image_id 2 is none of images",
        ),
        ("category_id", json!(4), ShapeKind::Box, "category_id 4 is none of categories"),
        ("id", json!(7), ShapeKind::Box, "annotations[1]: id 7 was there before"),
        ("bbox", json!([0, 0, -1, 1]), ShapeKind::Box, "bbox [0.0, 0.0, -1.0, 1.0]"),
        ("bbox", json!(null), ShapeKind::Box, "bbox is missing"),
        ("area", json!(-1), ShapeKind::Box, "area -1"),
        ("iscrowd", json!(2), ShapeKind::Box, "iscrowd 2"),
        ("segmentation", json!([[0, 0, 1, 1]]), ShapeKind::Mask, "three corners"),
        ("segmentation", json!({ "size": [4, 4], "counts": [16] }), ShapeKind::Mask, "[4, 5]"),
        (
            "segmentation",
            json!({ "size": [4, 5], "counts": [19] }),
            ShapeKind::Mask,
            "runs of 19 pixels in all",
        ),
        ("segmentation", json!({ "size": [4, 5], "counts": "~" }), ShapeKind::Mask, "byte 0"),
        (
            "segmentation",
            json!({ "size": [4, 5], "counts": "PPPPPPPPPPPPPPPPPPPPP" }),
            ShapeKind::Mask,
            "byte 12",
        ),
    ];
    for (key, value, kind, words) in table {
        let mut annotation = base.clone();
        annotation[key] = value;
        let path = written(&dir, "truth.json", &truth(annotation));
        let told = read_truth(&path, kind).unwrap_err().to_string();
        assert!(told.contains("truth.json") && told.contains(words), "{key}: {told}");
    }
    let none = json!({ "images": [], "categories": [], "annotations": [] });
    let told = read_truth(&written(&dir, "none.json", &none), ShapeKind::Box)
        .unwrap_err()
        .to_string();
    assert!(told.contains("no object"), "{told}");
    let truth = read_truth(&written(&dir, "truth.json", &truth(base)), ShapeKind::Box).unwrap();
    for (row, words) in [
        (
            json!({ "image_id": 9, "category_id": 3, "bbox": [0, 0, 1, 1], "score": 1 }),
            "[0]: image_id 9",
        ),
        (
            json!({ "image_id": 1, "category_id": 9, "bbox": [0, 0, 1, 1], "score": 1 }),
            "category_id 9",
        ),
        (json!({ "image_id": 1, "category_id": 3, "score": 1 }), "bbox is missing"),
        (
            json!({ "image_id": 1, "category_id": 3, "bbox": [0, 0, 1, 1] }),
            "missing field `score`",
        ),
    ] {
        let told = read_detections(&written(&dir, "rows.json", &json!([row])), &truth, ShapeKind::Box);
        let told = told.unwrap_err().to_string();
        assert!(told.contains("rows.json") && told.contains(words), "{told}");
    }
}
