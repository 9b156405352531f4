//! Label maps packed beside their images: found, checked, changed as the images are, counted; and what a stream makes of them.

use splitmask_pipeline::decode::{LabelMap, Limits, MapReading};
use splitmask_pipeline::pack::MapOptions;
use splitmask_pipeline::request::{IMAGE, MapRequest, ViewRequest};

use super::*;

/// A map whose left half is `class` and whose right half is 0.
fn halves(width: u32, height: u32, class: i16) -> Vec<u8> {
    let classes = (0..width * height).map(|at| if at % width < width / 2 { class } else { 0 });
    LabelMap::new(width, height, classes.collect()).to_png(255)
}

fn options(dir: &Path) -> PackOptions {
    PackOptions {
        maps: Some(MapOptions {
            folder: dir.join("maps"),
            val_folder: None,
            classes: vec!["ground".into(), "thing".into()],
            ignore: 255,
        }),
        ..PackOptions::new(dir.join("images"), dir.join("out"))
    }
}

/// Four pictures of 40×20 with maps in two folders, and four that something is wrong with.
fn tree() -> TempDir {
    let dir = TempDir::new().unwrap();
    let picture = |name: &str, n| put(dir.path(), &format!("images/{name}"), &bytes(&picture(40, 20, n), ImageFormat::Png));
    for n in 0..4 {
        picture(&format!("a/{n}.png"), n);
        put(dir.path(), &format!("maps/a/{n}.png"), &halves(40, 20, if n == 3 { 7 } else { 1 }));
    }
    picture("b/none.png", 11);
    picture("b/other_size.png", 12);
    put(dir.path(), "maps/b/other_size.png", &halves(20, 40, 1));
    picture("b/colours.png", 13);
    put(
        dir.path(),
        "maps/b/colours.png",
        &bytes(&super::picture(40, 20, 1), ImageFormat::Png),
    );
    put(dir.path(), "maps/b/nobody.png", &halves(40, 20, 1));
    dir
}

/// The maps in the shards of a set, by key.
fn maps_in(set: &Path) -> BTreeMap<String, LabelMap> {
    let map = |(name, data): (String, Vec<u8>)| {
        let key = name.strip_suffix(".seg.png")?;
        Some((
            key.to_owned(),
            LabelMap::read(&data, &MapReading::default(), Limits::default()).unwrap(),
        ))
    };
    members(set).into_iter().filter_map(map).collect()
}

#[test]
fn maps_are_found_by_path_counted_and_refused_by_reason() {
    let dir = tree();
    let report = run(&options(dir.path())).unwrap();
    assert_eq!(report.packed(), 4);
    let refused: Vec<(&str, u64)> = report.refused.iter().map(|(reason, count)| (*reason, count.files)).collect();
    assert_eq!(refused, [("bad_map", 1), ("map_size", 1), ("no_map", 1)]);
    let maps = report.train.maps.as_ref().unwrap();
    assert_eq!(
        (&*maps.classes, &*maps.pixels),
        (&["ground".to_owned(), "thing".to_owned()][..], &[1600, 1200][..])
    );
    assert_eq!((maps.beyond["7"], maps.ignored, maps.ignore), (400, 0, 255));
    let notes = report.notes().join("\n");
    let beyond = format!("7 (400 pixels, first in {})", dir.path().join("maps/a/3.png").display());
    for told in [beyond.as_str(), "1 maps belong to no image that was found", "nobody.png"] {
        assert!(notes.contains(told), "{told:?} is not in {notes}");
    }
    let read = Manifest::parse(&fs::read(dir.path().join("out/train/manifest.json")).unwrap(), "m").unwrap();
    assert_eq!(read.maps.as_ref(), Some(maps));
    // Images that need no change keep their own bytes, and so do their maps.
    let packed = maps_in(&dir.path().join("out/train"));
    assert_eq!(packed.len(), 4);
    assert!(packed.values().all(|map| (map.width, map.height) == (40, 20)));
}

#[test]
fn a_number_beyond_the_classes_is_told_with_the_first_map_that_was_packed_with_it() {
    let dir = tree();
    for n in 0..4 {
        put(dir.path(), &format!("maps/a/{n}.png"), &halves(40, 20, 7));
    }
    let options = options(dir.path());
    let report = run(&options).unwrap();
    let first = members(&dir.path().join("out/train"))
        .into_iter()
        .find_map(|(name, _)| Some(name.strip_suffix(".seg.png")?.split_once('-')?.1.to_owned()))
        .unwrap();
    let place = dir.path().join(format!("maps/a/{first}.png")).display().to_string();
    let told = format!("7 (1600 pixels, first in {place})");
    assert_eq!(report.first_beyond, BTreeMap::from([("7".to_owned(), place)]));
    assert!(report.notes().iter().any(|note| note.contains(&told)), "{:?}", report.notes());
    // Without a list none is beyond it.
    let mut unlisted = PackOptions {
        output: dir.path().join("unlisted"),
        ..options
    };
    unlisted.maps.as_mut().unwrap().classes = vec![];
    assert!(run(&unlisted).unwrap().first_beyond.is_empty());
}

#[test]
fn maps_that_lie_among_the_images_are_refused() {
    let dir = tree();
    put(dir.path(), "images/a/9.jpg", &bytes(&picture(40, 20, 9), ImageFormat::Jpeg));
    put(dir.path(), "images/a/9.png", &halves(40, 20, 1));
    let mut beside = options(dir.path());
    beside.maps.as_mut().unwrap().folder = dir.path().join("images");
    let error = run(&beside).unwrap_err();
    assert!(matches!(error, PackError::MapIsImage { .. }), "{error}");
    assert!(error.to_string().contains("among the images to pack"), "{error}");
}

#[test]
fn what_changes_an_image_changes_its_map() {
    let dir = tree();
    let options = PackOptions {
        longest_side: Some(20),
        square: true,
        ..options(dir.path())
    };
    run(&options).unwrap();
    for map in maps_in(&dir.path().join("out/train")).values() {
        assert_eq!((map.width, map.height), (20, 20));
        for y in 0..20u32 {
            let row = &map.classes[y as usize * 20..][..20];
            match (5..15).contains(&y) {
                true => assert!(row[..10].iter().all(|class| *class > 0) && row[10..] == [0; 10], "{row:?}"),
                false => assert_eq!(row, [-1; 20], "nothing is said about what was added"),
            }
        }
    }
}

#[test]
fn a_stream_gives_maps_where_they_are_asked_for_and_counts_what_has_none() {
    let dir = tree();
    let with_maps = options(dir.path());
    run(&with_maps).unwrap();
    run(&PackOptions {
        maps: None,
        ..PackOptions::new(dir.path().join("images"), dir.path().join("plain"))
    })
    .unwrap();
    let request = Arc::new(SampleRequest {
        map: Some(MapRequest { view: IMAGE }),
        ..SampleRequest::of_views(vec![ViewRequest::new(IMAGE, 16)])
    });
    let plain = Arc::new(SampleRequest::of_views(vec![ViewRequest::new(IMAGE, 16)]));
    let batches = |place: &str, request: &Arc<SampleRequest>| first_batch(&dir.path().join(place), DataConfig::default(), request);
    let batch = batches("out", &request).unwrap();
    assert_eq!((batch.len, batch.maps.len()), (4, 4 * 256));
    assert!(batch.maps.iter().all(|class| [0, 1, 7].contains(class)));
    // The centre square of halves is halves.
    assert!(
        batch
            .maps
            .chunks_exact(16)
            .all(|row| row[..8].iter().all(|c| *c > 0) && row[8..] == [0; 8])
    );
    let batch = batches("out", &plain).unwrap();
    assert_eq!((batch.len, batch.maps.len()), (4, 0), "nobody reads maps who did not ask for them");
    // The other set has none.
    let error = batches("plain", &request).unwrap_err().to_string();
    assert!(
        error.contains("7 of the last 7 samples failed") && error.contains("no_map"),
        "{error}"
    );
}
