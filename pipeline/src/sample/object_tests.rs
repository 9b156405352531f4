//! Objects beside their pictures: a picture painted with the shape of a mask and that mask stay alike, whatever is cut, resized, mirrored, turned or laid on
//! a ground; boxes hold their masks.

use image::{DynamicImage, ImageFormat};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::json;

use super::tests::raw;
use super::*;
use crate::augment::CropDraw;
use crate::coco::{RunLength, Segmentation};
use crate::decode::fixtures::{Jpeg, encode, raster, with_orientation};
use crate::decode::{MarkedObject, Orientation};
use crate::request::{CropConfig, IMAGE, ObjectRequest, RandAugment, ScaleJitter};
use crate::types::{Image, Object, ObjectCounts, ObjectMask};

/// Colours of the object and of the rest: a pixel that blends them is neither.
const OBJECT: [u8; 3] = [250, 10, 10];
const REST: [u8; 3] = [10, 10, 250];

/// An ellipse in a picture: its pixels, row by row.
fn ellipse(width: u32, height: u32, rng: &mut ChaCha8Rng) -> Vec<u8> {
    let (w, h) = (f64::from(width), f64::from(height));
    let (x, y) = (rng.random_range(0.0..w), rng.random_range(0.0..h));
    let (a, b) = (rng.random_range(4.0..w / 2.0), rng.random_range(4.0..h / 2.0));
    let inside = |column: u32, row: u32| ((f64::from(column) - x) / a).powi(2) + ((f64::from(row) - y) / b).powi(2) < 1.0;
    (0..height)
        .flat_map(|row| (0..width).map(move |column| (column, row)))
        .map(|(column, row)| u8::from(inside(column, row)))
        .collect()
}

fn painted(width: u32, height: u32, mask: &[u8]) -> Image {
    let pixels = mask.iter().flat_map(|set| if *set == 1 { OBJECT } else { REST }).collect();
    Image { width, height, pixels }
}

fn png(image: &Image) -> Vec<u8> {
    let image = image::RgbImage::from_raw(image.width, image.height, image.pixels.clone()).unwrap();
    raster(DynamicImage::ImageRgb8(image), ImageFormat::Png)
}

/// A member that marks one object in a picture of this size.
fn member(width: u32, height: u32, mask: &[u8]) -> String {
    let runs = RunLength::of_pixels(height, width, mask);
    let object = json!({ "category": 2, "bbox": runs.bounds(), "segmentation": Segmentation::of(&runs), "iscrowd": 0 });
    json!({ "width": width, "height": height, "annotations": [object] }).to_string()
}

fn sample(image: Vec<u8>, member: String, number: u32) -> RawSample {
    RawSample {
        objects: Some(member.into()),
        ..raw(image, number)
    }
}

fn request(size: u32, area: f32, jitter: Option<ScaleJitter>) -> SampleRequest {
    SampleRequest {
        objects: Some(ObjectRequest { view: IMAGE }),
        ..SampleRequest::of_views(vec![ViewRequest {
            crop: CropConfig {
                area: [area, 1.0],
                ..CropConfig::default()
            },
            jitter,
            ..ViewRequest::new(IMAGE, size)
        }])
    }
}

fn made(request: SampleRequest, mode: ViewMode, raw: &RawSample) -> Result<(Sample, ObjectCounts), SampleError> {
    let mut maker = SampleMaker::new(Arc::new(request), mode, 11, Limits::default(), None).unwrap();
    let mut out = Sample::default();
    let times = maker.make(raw, &mut out)?;
    Ok((out, times.objects))
}

/// Of the pixels in the colour of the object or of the rest, to `tolerance`: (all, those of which the mask says something else).
fn compared(view: &[u8], size: u32, mask: &ObjectMask, tolerance: u8) -> (usize, usize) {
    let plane = (size * size) as usize;
    let (mut seen, mut other) = (0, 0);
    for at in 0..plane {
        let near = |painted: [u8; 3]| (0..3).all(|c| view[c * plane + at].abs_diff(painted[c]) <= tolerance);
        if !near(OBJECT) && !near(REST) {
            continue;
        }
        let (x, y) = (at as u32 % size, at as u32 / size);
        let inside = (mask.left..mask.left + mask.width).contains(&x) && (mask.top..mask.top + mask.height).contains(&y);
        let set = inside && mask.pixels[((y - mask.top) * mask.width + x - mask.left) as usize] == 1;
        seen += 1;
        other += usize::from(set != near(OBJECT));
    }
    (seen, other)
}

/// The mask lies in its box, which lies in the view; where nothing was cut off, it reaches the edges of its box to `step` pixels.
fn check_box(object: &Object, size: u32, step: f32) {
    let [left, top, right, bottom] = object.corners;
    let mask = object.mask.as_ref().unwrap();
    assert!(left >= 0.0 && top >= 0.0 && right <= size as f32 && bottom <= size as f32 && right - left >= 1.0 && bottom - top >= 1.0);
    assert_eq!(
        (mask.left, mask.top),
        (left.floor() as u32, top.floor() as u32),
        "{:?}",
        object.corners
    );
    assert_eq!(
        (mask.left + mask.width, mask.top + mask.height),
        (right.ceil() as u32, bottom.ceil() as u32)
    );
    assert_eq!(mask.pixels.len(), (mask.width * mask.height) as usize);
    let whole = left > 0.0 && top > 0.0 && right < size as f32 && bottom < size as f32;
    if whole {
        let [x, y, width, height] = RunLength::of_pixels(mask.height, mask.width, &mask.pixels)
            .bounds()
            .map(|v| v as f32);
        let (x, y) = (x + mask.left as f32, y + mask.top as f32);
        for (edge, of_mask) in [(left, x), (top, y), (right, x + width), (bottom, y + height)] {
            assert!((edge - of_mask).abs() <= 3.0 + step, "{:?}: {edge} and {of_mask}", object.corners);
        }
    }
}

#[test]
fn picture_and_mask_stay_alike_through_crop_jitter_flip_and_resize() {
    let (mut flat, mut kept, mut dropped, mut grounds) = (0, 0, 0, 0);
    for number in 0..160u32 {
        let mut rng = ChaCha8Rng::seed_from_u64(number.into());
        let (width, height) = (rng.random_range(40..150), rng.random_range(40..150));
        let mask = ellipse(width, height, &mut rng);
        let raw = sample(png(&painted(width, height, &mask)), member(width, height, &mask), number);
        let size = rng.random_range(48..96);
        let jitter = ScaleJitter {
            scale: [0.3, 2.0],
            ..ScaleJitter::default()
        };
        for (jitter, mode) in [
            (None, ViewMode::Train),
            (None, ViewMode::Eval { crop_ratio: 0.875 }),
            (Some(jitter), ViewMode::Train),
            (Some(jitter), ViewMode::Eval { crop_ratio: 0.875 }),
        ] {
            let (sample, counts) = made(request(size, 0.3, jitter), mode, &raw).unwrap();
            assert_eq!(counts.kept as usize, sample.objects.len());
            assert_eq!(counts.kept + counts.outside + counts.small + counts.hidden, 1);
            let view = &sample.views[0];
            let plane = (size * size) as usize;
            let ground = (0..plane)
                .filter(|at| (0..3).all(|c| view[c * plane + at] == ScaleJitter::default().ground[c]))
                .count();
            grounds += usize::from(ground > 0);
            let Some(object) = sample.objects.first() else {
                dropped += 1;
                continue;
            };
            kept += 1;
            assert_eq!((object.class, object.crowd), (2, false));
            // What a pixel of the picture may take of the view: the largest scale is that of the smallest crop or of the jitter.
            let largest = 2.0 * size as f32 / width.min(height) as f32 * 1.9;
            check_box(object, size, largest);
            let (seen, other) = compared(view, size, object.mask.as_ref().unwrap(), 0);
            assert_eq!(other, 0, "of {seen} flat pixels of {number}");
            flat += seen;
        }
    }
    assert!(
        flat > 160 * 2000 && kept > 450 && dropped > 10 && grounds > 150,
        "{flat} {kept} {dropped} {grounds}"
    );
}

#[test]
fn mirrored_twice_is_nothing() {
    for seed in 0..200 {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let (width, height, size) = (rng.random_range(20..90), rng.random_range(20..90), rng.random_range(8..50));
        let mask = ellipse(width, height, &mut rng);
        let runs = RunLength::of_pixels(height, width, &mask);
        let [x, y, w, h] = runs.bounds();
        let objects = |mask: RunLength, x: f64| Objects {
            width,
            height,
            marked: vec![MarkedObject {
                class: 0,
                area: Rect { x, y, width: w, height: h },
                crowd: true,
                mask: Some(mask),
            }],
        };
        let draw = CropDraw {
            flip: false,
            ..CropDraw::jittered(width, height, size, &ScaleJitter::default(), 0.0, &mut rng)
        };
        let (mut straight, mut mirrored) = (vec![], vec![]);
        let counts = object_view(&objects(runs.clone(), x), Orientation::default(), &draw, size, &mut straight);
        let flipped = CropDraw { flip: true, ..draw };
        assert_eq!(
            object_view(&objects(runs, x), Orientation::default(), &flipped, size, &mut mirrored),
            counts
        );
        for object in &mut mirrored {
            let [left, top, right, bottom] = object.corners;
            object.corners = [size as f32 - right, top, size as f32 - left, bottom];
            let mask = object.mask.as_mut().unwrap();
            mask.left = size - mask.left - mask.width;
            mask.pixels.chunks_exact_mut(mask.width as usize).for_each(<[u8]>::reverse);
        }
        for (a, b) in straight.iter().zip(&mirrored) {
            assert_eq!((&a.mask, a.crowd), (&b.mask, b.crowd), "{seed}");
            assert!(a.corners.iter().zip(b.corners).all(|(a, b)| (a - b).abs() < 1e-4), "{a:?} {b:?}");
        }
        // Marked in the mirrored picture, which its file turns back.
        let turned: Vec<u8> = mask
            .chunks_exact(width as usize)
            .flat_map(|row| row.iter().rev().copied())
            .collect();
        let turned = objects(RunLength::of_pixels(height, width, &turned), f64::from(width) - x - w);
        let mirror = Orientation {
            mirror_x: true,
            ..Orientation::default()
        };
        let mut again = vec![];
        object_view(&turned, mirror, &draw, size, &mut again);
        assert_eq!(again, straight, "{seed}");
    }
}

#[test]
fn objects_of_turned_pictures_lie_on_them_however_they_were_marked() {
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    let mask = ellipse(96, 64, &mut rng);
    let settings = Jpeg {
        subsampling: turbojpeg_sys::TJSAMP_TJSAMP_444,
        quality: 98,
        ..Jpeg::default()
    };
    let jpeg = encode(&painted(96, 64, &mask), settings);
    for tag in 1..=8 {
        let orientation = Orientation::from_exif(tag);
        let (width, height) = orientation.size(96, 64);
        let (start, step_x, step_y) = orientation.walk(96, 64);
        let at = |x: u32, y: u32| mask[(start + x as isize * step_x + y as isize * step_y) as usize];
        let upright: Vec<u8> = (0..height).flat_map(|y| (0..width).map(move |x| at(x, y))).collect();
        for (member, how) in [(member(96, 64, &mask), "stored"), (member(width, height, &upright), "upright")] {
            let raw = sample(with_orientation(&jpeg, tag), member, 5);
            for (jitter, mode) in [
                (None, ViewMode::Train),
                (Some(ScaleJitter::default()), ViewMode::Eval { crop_ratio: 1.0 }),
            ] {
                let made = made(request(56, 0.6, jitter), mode, &raw);
                if orientation.transpose || orientation.is_upright() {
                    let (sample, _) = made.unwrap();
                    let (seen, other) = compared(&sample.views[0], 56, sample.objects[0].mask.as_ref().unwrap(), 6);
                    assert!(seen > 800 && other == 0, "tag {tag}, {how}: {other} of {seen}");
                } else {
                    // Both have one size: nothing tells in which of them the objects were marked.
                    let error = made.unwrap_err();
                    assert!(
                        error.reason() == "objects_size" && error.to_string().contains("EXIF"),
                        "tag {tag}, {how}: {error}"
                    );
                }
            }
        }
    }
}

#[test]
fn samples_without_fitting_objects_are_dropped_by_reason() {
    let mask = vec![1; 40 * 30];
    let good = sample(png(&painted(40, 30, &mask)), member(40, 30, &mask), 0);
    let with = |objects: Option<&str>| RawSample {
        objects: objects.map(|text| text.to_owned().into()),
        ..good.clone()
    };
    let other = member(30, 40, &mask);
    for (objects, reason, words) in [
        (None, "no_objects", "no member \"objects.json\" beside the image"),
        (
            Some(other.as_str()),
            "objects_size",
            "objects of a picture of 30×40 pixels, where the picture has 40×30",
        ),
        (Some("[]"), "bad_objects", "objects: invalid"),
        (
            Some("{\"annotations\": [{\"category\": 0}]}"),
            "bad_objects",
            "annotations[0]: bbox is missing",
        ),
    ] {
        let raw = with(objects);
        let error = made(request(16, 0.5, None), ViewMode::Train, &raw).unwrap_err();
        assert!(error.reason() == reason && error.to_string().contains(words), "{error}");
        assert!(SampleError::REASONS.contains(&reason));
        // Nobody who asks for no objects is told of it.
        let plain = SampleRequest::of_views(vec![ViewRequest::new(IMAGE, 16)]);
        assert!(made(plain, ViewMode::Train, &raw).unwrap().0.objects.is_empty());
    }
    let (none, counts) = made(request(16, 0.5, None), ViewMode::Train, &with(Some("{\"annotations\": []}"))).unwrap();
    assert!(
        none.objects.is_empty() && counts == ObjectCounts::default(),
        "a picture without objects is no fault"
    );
}

#[test]
fn boxes_move_by_the_draw_and_what_is_hardly_seen_is_left_out() {
    let object = |x, y, width, height| MarkedObject {
        class: 0,
        area: Rect { x, y, width, height },
        crowd: false,
        mask: None,
    };
    let boxes = [
        object(20.0, 10.0, 10.0, 5.0),
        object(60.0, 0.0, 10.0, 10.0),
        object(45.0, 0.0, 50.0, 50.0),
        object(45.5, 0.0, 45.0, 50.0),
        object(20.0, 20.0, 0.4, 9.0),
        object(-30.0, 5.0, 70.0, 10.0),
        object(120.0, 5.0, 7.0, 7.0),
    ];
    let objects = Objects {
        width: 100,
        height: 50,
        marked: boxes.into(),
    };
    let draw = CropDraw {
        area: Rect {
            x: 10.0,
            y: 0.0,
            width: 40.0,
            height: 40.0,
        },
        ..CropDraw::whole(100, 50, 80, [0; 3])
    };
    let mut out = vec![];
    let counts = object_view(&objects, Orientation::default(), &draw, 80, &mut out);
    let expected = ObjectCounts {
        kept: 2,
        outside: 2,
        small: 1,
        hidden: 2,
    };
    assert_eq!(counts, expected);
    let corners: Vec<[f32; 4]> = out.iter().map(|object| object.corners).collect();
    // The second reaches beyond picture and view.
    assert_eq!(corners, [[20.0, 20.0, 40.0, 30.0], [0.0, 10.0, 60.0, 30.0]]);
    object_view(&objects, Orientation::default(), &CropDraw { flip: true, ..draw }, 80, &mut out);
    assert_eq!(out[0].corners, [40.0, 20.0, 60.0, 30.0]);
    // The whole picture in a corner of the view, so that boxes are mapped back by one number.
    object_view(
        &objects,
        Orientation::default(),
        &CropDraw::whole(100, 50, 80, [0; 3]),
        80,
        &mut out,
    );
    assert_eq!(out[0].corners, [16.0, 8.0, 24.0, 12.0]);
}

#[test]
fn nothing_may_move_the_pixels_of_a_view_whose_objects_are_asked_for() {
    let mut wrong = request(16, 0.5, None);
    wrong.views[0].rand_augment = Some(RandAugment {
        magnitude: 9.0,
        deviation: 0.5,
    });
    let refused = |request| {
        SampleMaker::new(Arc::new(request), ViewMode::Train, 1, Limits::default(), None)
            .err()
            .unwrap()
            .to_string()
    };
    assert!(refused(wrong).contains("moves pixels of the picture"));
    let scale = ScaleJitter {
        scale: [2.0, 1.0],
        ..ScaleJitter::default()
    };
    assert!(refused(request(16, 0.5, Some(scale))).contains("jitter.scale"));
}
