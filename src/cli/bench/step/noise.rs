//! Pictures of noise with labels of every sort, for whatever an objective asks for.

use std::path::Path;

use serde_json::{Value, json};
use splitmask_pipeline::decode::LabelMap;
use splitmask_pipeline::pack::{MapOptions, ObjectOptions, PackOptions, pack};

use crate::exit::CliError;

/// Pictures of noise that they are made of.
const PICTURES: u64 = 24;
/// Objects in each of them: about as many as in a picture of COCO.
const OBJECTS: u64 = 7;

/// Shards of noise in `folder`.
pub(super) fn noise(folder: &Path, side: u32) -> Result<String, CliError> {
    let (pictures, maps, shards) = (folder.join("pictures"), folder.join("maps"), folder.join("shards"));
    let unwritable = |e: &dyn std::fmt::Display| CliError::io(format!("{}: {e}", folder.display()));
    for folder in [&pictures, &maps] {
        std::fs::create_dir(folder).map_err(|e| unwritable(&e))?;
    }
    // For an objective that learns classes of pixels: two, by columns.
    let classes = (0..side * side).map(|pixel| (pixel % side / 8 % 2) as i16).collect();
    let map = LabelMap::new(side, side, classes).to_png(255);
    for n in 0..PICTURES {
        // Any numbers without a pattern will do (a linear congruential generator, Knuth's constants).
        let mut state = n + 1;
        let picture = image::RgbImage::from_fn(side, side, |_, _| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            image::Rgb([40, 48, 56].map(|shift| (state >> shift) as u8))
        });
        picture.save(pictures.join(format!("{n}.png"))).map_err(|e| unwritable(&e))?;
        std::fs::write(maps.join(format!("{n}.png")), &map).map_err(|e| unwritable(&e))?;
    }
    let file = folder.join("objects.json");
    std::fs::write(&file, objects(side).to_string()).map_err(|e| unwritable(&e))?;
    let options = PackOptions {
        objects: Some(ObjectOptions { file, val_file: None }),
        maps: Some(MapOptions {
            folder: maps,
            val_folder: None,
            classes: vec![],
            ignore: 255,
        }),
        ..PackOptions::new(pictures, shards.clone())
    };
    pack(&options, |_| {})?;
    Ok(shards.join("train").display().to_string())
}

/// A file in COCO's form: in each picture of `side` pixels some objects of two classes and several sizes, with outlines.
fn objects(side: u32) -> Value {
    let whole = f64::from(side);
    let object = |picture: u64, n: u64| {
        let length = whole * (0.1 + 0.06 * n as f64);
        let at = |step: u64| (whole - length) * ((picture * step + n * 3) % OBJECTS) as f64 / OBJECTS as f64;
        let (left, top) = (at(5), at(2));
        let (right, bottom) = (left + length, top + length);
        json!({
            "id": picture * OBJECTS + n + 1, "image_id": picture, "category_id": n % 2, "bbox": [left, top, length, length],
            "segmentation": [[left, top, right, top, right, bottom]],
        })
    };
    let pictures = 0..PICTURES;
    let of_picture = |n: u64| json!({ "id": n, "file_name": format!("{n}.png"), "width": side, "height": side });
    json!({
        "images": pictures.clone().map(of_picture).collect::<Vec<_>>(),
        "annotations": pictures.flat_map(|picture| (0..OBJECTS).map(move |n| object(picture, n))).collect::<Vec<_>>(),
        "categories": [{ "id": 0, "name": "odd" }, { "id": 1, "name": "even" }],
    })
}
