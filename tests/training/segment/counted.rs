//! What the program draws and says of label maps, counted again by nothing of its own: files are opened by the image crate, and classes told by colours.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::finetune::ask;
use crate::ground::Ground;

/// Colours of the ground's five classes: the first of PASCAL VOC's colour map.
const COLOURS: [[u8; 3]; 5] = [[0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0], [0, 0, 128]];

/// Fails unless the first picture of a contact sheet has the colour of its class laid over what is drawn in it.
pub(super) fn contact_sheet(ground: &Ground, sheet: &str) {
    let sheet = image::open(sheet).unwrap().to_rgb8();
    let mut shard = tar::Archive::new(fs::File::open(ground.path("data/train/000000.tar")).unwrap());
    let mut members = shard.entries().unwrap().map(|member| member.unwrap());
    let is_json = |path: &Path| path.extension().is_some_and(|extension| extension == "json");
    let about = members.find(|member| is_json(&member.path().unwrap())).unwrap();
    let about: Value = serde_json::from_reader(about).unwrap();
    let opened = |folder: &str| image::open(ground.path(folder).join(about["path"].as_str().unwrap())).unwrap();
    let (picture, map) = (opened("images").to_rgb8(), opened("maps").to_luma8());
    let class = map.pixels().map(|pixel| pixel.0[0]).max().unwrap();
    let inside = |x: u32, y: u32| (x - 1..=x + 1).all(|x| (y - 1..=y + 1).all(|y| map.get_pixel(x, y).0[0] == class));
    let mut compared = 0;
    let pixels = (1..63).flat_map(|x| (1..63).map(move |y| (x, y)));
    for (x, y) in pixels.filter(|(x, y)| inside(*x, *y)) {
        // 64 pixels became 112, 8 pixels from the edge.
        let place = |at: u32| 8 + (2 * at + 1) * 112 / 128;
        let (drawn, shown) = (picture.get_pixel(x, y).0, sheet.get_pixel(place(x), place(y)).0);
        for channel in 0..3 {
            let colour = COLOURS[usize::from(class)][channel];
            let laid_over = (2 * u32::from(drawn[channel]) + 3 * u32::from(colour)) / 5;
            assert!(
                laid_over.abs_diff(shown[channel].into()) <= 2,
                "{x}, {y}: {drawn:?} became {shown:?}"
            );
        }
        compared += 1;
    }
    assert!(compared > 20, "{compared} pixels lie within what is drawn");
}

/// Fails unless `eval segment` finds what the maps of `predict` come to beside the label maps, on pictures that are no squares, with an edge of which nothing is
/// said. What is written lies in folders whose names begin with `name`.
pub(super) fn judged(ground: &Ground, run: &str, name: &str) {
    let [images, maps, packed, out] = ["images", "maps", "packed", "out"].map(|part| ground.path(&format!("{name}-{part}")));
    fs::create_dir_all(&images).unwrap();
    fs::create_dir_all(&maps).unwrap();
    let mut truth = vec![];
    for (class, n) in (0..4).flat_map(|class| (0..10).map(move |n| (class, n))) {
        let file = format!("{class}-{n:02}.png");
        let cut = |folder: &str| {
            let whole = image::open(ground.path(&format!("{folder}/class{class}/{n:02}.png"))).unwrap();
            whole.crop_imm(0, 0, 64, 48)
        };
        cut("images").save(images.join(&file)).unwrap();
        let mut map = cut("maps").to_luma8();
        let edge = map.enumerate_pixels_mut().filter(|(x, ..)| *x < 9);
        edge.for_each(|(.., pixel)| pixel.0 = [255]);
        map.save(maps.join(&file)).unwrap();
        truth.push((file, map));
    }
    let [images_text, maps, packed, out_text] = [&images, &maps, &packed, &out].map(|path| path.display().to_string());
    let classes = ground.path("classes.txt").display().to_string();
    let (code, _, err) = ask(&[
        "pack",
        &images_text,
        &packed,
        "--class",
        "none",
        "--maps",
        &maps,
        "--map-classes",
        &classes,
    ]);
    assert_eq!(code, Some(0), "{err}");
    let (code, told, err) = ask(&["eval", "segment", run, "--val", &format!("{packed}/train"), "--json"]);
    assert_eq!(code, Some(0), "{err}");
    let found: Value = serde_json::from_str(&told).unwrap();
    let (code, _, err) = ask(&["predict", run, &images_text, "--out", &out_text]);
    assert_eq!(code, Some(0), "{err}");
    compare(&found["segment"], &truth, &out);
}

/// Compares the numbers that were found with those of the maps that were predicted into a folder.
fn compare(found: &Value, truth: &[(String, image::GrayImage)], predicted: &Path) {
    // Pixels by what they are and what they are called.
    let (mut pairs, mut unlabelled) = ([[0u64; 5]; 5], 0u64);
    for (file, map) in truth {
        let said = image::open(predicted.join(file)).unwrap().to_rgb8();
        assert_eq!(said.dimensions(), map.dimensions(), "{file}");
        for (is, said) in map.pixels().zip(said.pixels()) {
            let called = COLOURS.iter().position(|colour| *colour == said.0).unwrap();
            match is.0[0] {
                255 => unlabelled += 1,
                class => pairs[usize::from(class)][called] += 1,
            }
        }
    }
    let iou = |class: usize| {
        let (is, called): (u64, u64) = (pairs[class].iter().sum(), pairs.iter().map(|row| row[class]).sum());
        let either = is + called - pairs[class][class];
        (either > 0).then(|| pairs[class][class] as f64 / either as f64)
    };
    let each: Vec<Option<f64>> = (0..5).map(iou).collect();
    let mean = |of: &[Option<f64>]| of.iter().flatten().sum::<f64>() / of.iter().flatten().count() as f64;
    let (right, all): (u64, u64) = ((0..5).map(|class| pairs[class][class]).sum(), pairs.iter().flatten().sum());
    assert!(
        each[1..].iter().flatten().any(|iou| *iou > 0.1),
        "it says more than \"ground\": {pairs:?}"
    );
    assert_eq!(
        (&found["images"], &found["pixels"], &found["unlabelled_pixels"]),
        (&truth.len().into(), &all.into(), &unlabelled.into())
    );
    let near = |found: &Value, want: Option<f64>| match (found.as_f64(), want) {
        (Some(found), Some(want)) => (found - want).abs() < 1e-9,
        (found, want) => found == want,
    };
    for (number, want) in [
        ("mean_iou", mean(&each)),
        ("object_mean_iou", mean(&each[1..])),
        ("pixel_accuracy", right as f64 / all as f64),
    ] {
        assert!(near(&found[number], Some(want)), "{number}: its maps come to {want}: {found}");
    }
    for (class, want) in each.into_iter().enumerate() {
        let found = &found["classes"][class]["iou"];
        assert!(near(found, want), "class {class}: its maps come to {want:?}, not {found}");
    }
}
