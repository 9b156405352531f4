//! Objects packed beside their images from files in COCO's form: matched by path, checked, changed as the images are, counted.

mod streams;

use serde_json::{Value, json};
use splitmask_pipeline::coco::RunLength;
use splitmask_pipeline::decode::ObjectMember;
use splitmask_pipeline::pack::ObjectOptions;

use super::*;

fn options(dir: &Path) -> PackOptions {
    PackOptions {
        objects: Some(ObjectOptions {
            file: dir.join("objects.json"),
            val_file: None,
        }),
        class: ClassFrom::None,
        ..PackOptions::new(dir.join("images"), dir.join("out"))
    }
}

/// A file of pictures of 40×20 with ids from 0: `images` (name), `annotations` (picture, class, and the rest).
fn coco(names: &[&str], annotations: Vec<Value>) -> Value {
    let images: Vec<Value> = names
        .iter()
        .enumerate()
        .map(|(id, name)| json!({ "id": id, "file_name": name, "width": 40, "height": 20 }))
        .collect();
    let annotations: Vec<Value> = annotations
        .into_iter()
        .enumerate()
        .map(|(id, mut annotation)| {
            annotation["id"] = id.into();
            annotation
        })
        .collect();
    let categories =
        json!([{ "id": 7, "name": "tree" }, { "id": 0, "name": "cat", "supercategory": "animal" }, { "id": 3, "name": "dog" }]);
    json!({ "info": {}, "images": images, "annotations": annotations, "categories": categories })
}

fn object(image: u64, category: u64, bbox: [f64; 4]) -> Value {
    json!({ "image_id": image, "category_id": category, "bbox": bbox, "iscrowd": 0 })
}

fn with(mut object: Value, key: &str, value: Value) -> Value {
    object[key] = value;
    object
}

/// Pictures of 40×20, a file of their objects, and all that may be wrong with both.
fn tree() -> TempDir {
    let dir = TempDir::new().unwrap();
    for (n, name) in ["a/0.png", "a/1.png", "b/2.png", "b/unlisted.png"].into_iter().enumerate() {
        put(
            dir.path(),
            &format!("images/{name}"),
            &bytes(&picture(40, 20, n as u32), ImageFormat::Png),
        );
    }
    put(dir.path(), "images/b/larger.png", &bytes(&picture(41, 20, 9), ImageFormat::Png));
    let square = json!([[4.0, 4.0, 14.0, 4.0, 14.0, 10.0, 4.0, 10.0]]);
    let annotations = vec![
        with(object(0, 0, [4.0, 4.0, 10.0, 6.0]), "segmentation", square.clone()),
        object(0, 3, [30.0, -5.0, 20.0, 15.0]),
        with(
            with(object(0, 3, [0.0, 0.0, 40.0, 20.0]), "iscrowd", 1.into()),
            "segmentation",
            json!({ "size": [20, 40], "counts": [0, 800] }),
        ),
        with(object(1, 0, [4.0, 4.0, 5.0, 6.0]), "segmentation", square),
        with(object(1, 0, [1.0, 1.0, 2.0, 2.0]), "segmentation", json!([])),
        object(1, 99, [1.0, 1.0, 2.0, 2.0]),
        object(77, 0, [1.0, 1.0, 2.0, 2.0]),
        object(1, 0, [40.0, 1.0, 2.0, 2.0]),
        object(1, 0, [1.0, 1.0, 0.0, 2.0]),
        object(1, 0, [1.0, 1.0, -2.0, 2.0]),
        with(object(1, 0, [1.0, 1.0, 2.0, 2.0]), "segmentation", json!([[1, 2, 3]])),
        with(object(1, 0, [1.0, 1.0, 2.0, 2.0]), "iscrowd", 3.into()),
        with(
            object(1, 0, [30.0, 15.0, 2.0, 2.0]),
            "segmentation",
            json!([[1, 1, 5, 1, 5, 5, 1, 5]]),
        ),
        object(3, 0, [1.0, 1.0, 2.0, 2.0]),
        object(4, 0, [1.0, 1.0, 2.0, 2.0]),
    ];
    let file = coco(&["a/0.png", "./a/1.png", "b/2.png", "b/larger.png", "gone.png"], annotations);
    put(dir.path(), "objects.json", file.to_string().as_bytes());
    dir
}

/// The members with objects of a set, by the file that they belong to.
fn objects_in(set: &Path) -> BTreeMap<String, ObjectMember> {
    let objects = |(name, data): (String, Vec<u8>)| {
        let (_, stem) = name.strip_suffix(".objects.json")?.split_once('-').unwrap();
        Some((stem.to_owned(), serde_json::from_slice(&data).unwrap()))
    };
    members(set).into_iter().filter_map(objects).collect()
}

#[test]
fn annotations_are_matched_by_path_counted_and_left_out_by_reason() {
    let dir = tree();
    let report = run(&options(dir.path())).unwrap();
    let refused: Vec<(&str, u64)> = report.refused.iter().map(|(reason, count)| (*reason, count.files)).collect();
    assert_eq!((report.packed(), refused), (3, vec![("no_objects", 1), ("objects_size", 1)]));
    assert!(
        report.refused["objects_size"].examples[0]
            .1
            .contains("of 40×20 pixels, where the picture has 41×20")
    );
    let dropped: Vec<(&str, u64)> = report
        .objects
        .dropped
        .iter()
        .map(|(reason, (number, _))| (*reason, *number))
        .collect();
    let expected = [
        ("bad_box", 1),
        ("bad_crowd", 1),
        ("bad_mask", 1),
        ("empty_mask", 1),
        ("outside", 1),
        ("unknown_category", 1),
        ("unknown_picture", 1),
        ("zero_area", 1),
    ];
    assert_eq!(dropped, expected);
    assert!(
        report.objects.dropped["outside"]
            .1
            .contains("a/1.png: annotation 7: bbox [40.0, 1.0, 2.0, 2.0] in a picture of 40×20 pixels")
    );
    let counted = &report.objects;
    assert_eq!((counted.clipped, counted.masks_cut, counted.emptied), (1, 1, 0));
    assert_eq!(counted.missing, (1, vec!["gone.png".to_owned()]));
    let notes = report.notes().join("\n");
    for told in [
        "1 annotations left out, zero_area",
        "1 boxes reach beyond their pictures",
        "1 masks have pixels beyond",
        "gone.png",
        "no object: tree",
        "2 of 5 objects of train have a box alone",
    ] {
        assert!(notes.contains(told), "{told:?} is not in {notes}");
    }
    // Classes in the order of their ids; those are no indices, and 0 is one of them.
    let objects = report.train.objects.as_ref().unwrap();
    assert_eq!(objects.classes, ["cat", "dog", "tree"]);
    assert_eq!(
        (&*objects.ids, &*objects.objects, &*objects.crowds),
        (&[0, 3, 7][..], &[3, 1, 0][..], &[0, 1, 0][..])
    );
    assert_eq!((objects.masks, objects.mask_pixels, objects.negatives), (3, 60 + 800 + 30, 1));
    let read = Manifest::parse(&fs::read(dir.path().join("out/train/manifest.json")).unwrap(), "m").unwrap();
    assert_eq!(read.objects.as_ref(), Some(objects));
    let packed = objects_in(&dir.path().join("out/train"));
    assert!(packed["2"].annotations.is_empty());
    let first = &packed["0"];
    assert_eq!((first.width, first.height, first.image_id), (Some(40), Some(20), Some(0)));
    assert_eq!(first.annotations[1].bbox, Some([30.0, 0.0, 10.0, 10.0]), "cut to the picture");
    assert_eq!(
        (first.annotations[1].category, first.annotations[1].category_id),
        (Some(1), Some(3))
    );
    assert_eq!((first.annotations[0].area, first.annotations[2].iscrowd), (Some(60.0), 1));
}

#[test]
fn what_changes_an_image_changes_its_objects() {
    let dir = tree();
    let options = PackOptions {
        longest_side: Some(20),
        square: true,
        ..options(dir.path())
    };
    run(&options).unwrap();
    let packed = objects_in(&dir.path().join("out/train"));
    let member = &packed["0"];
    assert_eq!((member.width, member.height), (Some(20), Some(20)));
    let boxes: Vec<[f64; 4]> = member.annotations.iter().map(|a| a.bbox.unwrap()).collect();
    assert_eq!(boxes, [[2.0, 7.0, 5.0, 3.0], [15.0, 5.0, 5.0, 5.0], [0.0, 5.0, 20.0, 10.0]]);
    let mask = member.annotations[0].segmentation.as_ref().unwrap().mask(20, 20).unwrap();
    assert_eq!((mask.area(), mask.bounds()), (15, boxes[0]));
    let crowd = member.annotations[2].segmentation.as_ref().unwrap().mask(20, 20).unwrap();
    assert_eq!((crowd.area(), crowd.bounds()), (200, boxes[2]));
    assert_eq!(member.annotations[0].area, Some(15.0));
}

#[test]
fn objects_of_a_photograph_that_its_file_turns_are_turned_with_it() {
    let dir = TempDir::new().unwrap();
    let turned = |name: &str| {
        let image = image::DynamicImage::ImageRgb8(picture(40, 20, 1));
        let mut jpeg = std::io::Cursor::new(vec![]);
        image.write_to(&mut jpeg, ImageFormat::Jpeg).unwrap();
        let mut jpeg = jpeg.into_inner();
        // Orientation 6: stored lying, seen upright, 20 columns of 40 rows.
        let mut exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0".to_vec();
        exif.splice(0..0, [0xff, 0xe1, 0, exif.len() as u8 + 2]);
        jpeg.splice(2..2, exif);
        put(dir.path(), &format!("images/{name}"), &jpeg);
    };
    turned("stored.jpg");
    turned("seen.jpg");
    let mask = json!({ "size": [20, 40], "counts": RunLength::of_part(20, 40, [30, 2, 4, 3], &[1; 12]).text() });
    let seen = json!({ "size": [40, 20], "counts": RunLength::of_part(40, 20, [15, 30, 3, 4], &[1; 12]).text() });
    let annotations = vec![
        with(object(0, 0, [30.0, 2.0, 4.0, 3.0]), "segmentation", mask),
        with(object(1, 0, [15.0, 30.0, 3.0, 4.0]), "segmentation", seen),
    ];
    let mut file = coco(&["stored.jpg", "seen.jpg"], annotations);
    (file["images"][1]["width"], file["images"][1]["height"]) = (20.into(), 40.into());
    put(dir.path(), "objects.json", file.to_string().as_bytes());
    // Packed as they are, objects stay as they were marked; encoded anew, all lie on the upright picture.
    for (encode, sizes, boxes) in [
        (
            Encoding::Keep,
            [(40, 20), (20, 40)],
            [[30.0, 2.0, 4.0, 3.0], [15.0, 30.0, 3.0, 4.0]],
        ),
        (
            Encoding::Png,
            [(20, 40), (20, 40)],
            [[15.0, 30.0, 3.0, 4.0], [15.0, 30.0, 3.0, 4.0]],
        ),
    ] {
        let options = PackOptions {
            encode,
            force: true,
            ..options(dir.path())
        };
        run(&options).unwrap();
        let packed = objects_in(&dir.path().join("out/train"));
        for ((name, (width, height)), bounds) in ["stored", "seen"].into_iter().zip(sizes).zip(boxes) {
            let member = &packed[name];
            assert_eq!((member.width, member.height), (Some(width), Some(height)), "{name} {encode:?}");
            let mask = member.annotations[0].segmentation.as_ref().unwrap().mask(height, width).unwrap();
            assert_eq!(
                (member.annotations[0].bbox, mask.bounds(), mask.area()),
                (Some(bounds), bounds, 12),
                "{name} {encode:?}"
            );
        }
    }
}

#[test]
fn a_folder_of_validation_images_has_a_file_of_its_own() {
    let dir = tree();
    put(dir.path(), "val/0.png", &bytes(&picture(40, 20, 50), ImageFormat::Png));
    let of_val = |file: &Value| put(dir.path(), "val.json", file.to_string().as_bytes());
    of_val(&coco(&["0.png"], vec![object(0, 7, [1.0, 2.0, 3.0, 4.0])]));
    let both = |val_file: Option<PathBuf>| {
        run(&PackOptions {
            val: Some(dir.path().join("val")),
            force: true,
            objects: Some(ObjectOptions {
                file: dir.path().join("objects.json"),
                val_file,
            }),
            ..options(dir.path())
        })
    };
    let val_file = Some(dir.path().join("val.json"));
    let report = both(val_file.clone()).unwrap();
    assert_eq!(report.val.unwrap().objects.unwrap().objects, [0, 0, 1]);
    assert!(both(None).unwrap_err().to_string().starts_with("--val-coco = none"));
    let mut other = coco(&["0.png"], vec![]);
    other["categories"][0]["name"] = "bush".into();
    of_val(&other);
    let told = both(val_file).unwrap_err().to_string();
    assert!(told.contains("val.json: categories: \"bush\" (id 7) is none of those of"), "{told}");
}

#[test]
fn files_of_other_images_or_without_a_usable_object_are_refused_with_place_and_value() {
    let dir = tree();
    let good = coco(&["a/0.png"], vec![object(0, 0, [1.0, 1.0, 2.0, 2.0])]);
    let edited = |edit: &dyn Fn(&mut Value)| {
        let mut file = good.clone();
        edit(&mut file);
        put(dir.path(), "objects.json", file.to_string().as_bytes());
        let error = run(&options(dir.path())).unwrap_err();
        assert!(error.hint().is_some() && !dir.path().join("out").exists());
        error.to_string()
    };
    let table: [(&dyn Fn(&mut Value), &str); 10] = [
        (
            &|f| f["images"][0]["file_name"] = "0.png".into(),
            "none of its 1 pictures is among the images; the first is called \"0.png\"",
        ),
        (
            &|f| f["images"] = json!([{ "id": 0, "width": 1, "height": 1 }]),
            "images[0] (id 0): file_name is missing",
        ),
        (
            &|f| f["images"] = json!([f["images"][0], { "id": 1, "file_name": "./a/0.png", "width": 1, "height": 1 }]),
            "\"a/0.png\" was there before",
        ),
        (&|f| f["categories"] = json!([]), "categories: there is none"),
        (&|f| f["categories"][0]["name"] = "cat".into(), "categories: \"cat\" stands twice"),
        (&|f| f["categories"][0]["id"] = 3.into(), "categories[2]: id 3 was there before"),
        (&|f| f["annotations"] = json!([]), "none of its 0 can be packed"),
        (
            &|f| f["annotations"][0]["bbox"][2] = 0.into(),
            "none of its 1 can be packed; 1 zero_area: a/0.png: annotation 0: bbox",
        ),
        (&|f| f["annotations"][0]["bbox"] = "?".into(), "line 1, column"),
        (&|f| *f = json!([]), "line 1, column"),
    ];
    for (edit, words) in table {
        let told = edited(edit);
        assert!(
            told.contains("objects.json: ") && told.contains(words),
            "{words:?} is not in {told}"
        );
    }
    fs::remove_file(dir.path().join("objects.json")).unwrap();
    assert!(run(&options(dir.path())).unwrap_err().to_string().contains("it cannot be read"));
}
