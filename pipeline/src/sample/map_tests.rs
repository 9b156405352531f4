//! Label maps beside their pictures: both painted alike must stay alike, whatever is cut, resized, mirrored or turned.

use image::{DynamicImage, ImageFormat};
use proptest::prelude::*;

use super::tests::raw;
use super::*;
use crate::decode::fixtures::{Jpeg, encode, raster, with_orientation};
use crate::decode::{LabelMap, Orientation};
use crate::request::{CropConfig, IMAGE, MapRequest, RandAugment};
use crate::types::{Image, UNLABELLED};

/// Side of the patches of one class, pixels.
const PATCH: u32 = 16;
/// Corners of the cube of colours: a pixel that blends others is never one of them.
const COLOURS: [[u8; 3]; 5] = [[250, 10, 10], [10, 250, 10], [10, 10, 250], [250, 250, 10], [10, 10, 10]];

/// A picture of flat patches, each in the colour of its class, and its map.
fn painted(width: u32, height: u32, seed: u32) -> (Image, Vec<i16>) {
    let class = |x: u32, y: u32| ((x / PATCH * 7 + y / PATCH * 3 + x / PATCH * (y / PATCH) + seed) % COLOURS.len() as u32) as i16;
    let all: Vec<i16> = (0..height).flat_map(|y| (0..width).map(move |x| class(x, y))).collect();
    let pixels = all.iter().flat_map(|class| COLOURS[*class as usize]).collect();
    (Image { width, height, pixels }, all)
}

fn png(image: &Image) -> Vec<u8> {
    let image = image::RgbImage::from_raw(image.width, image.height, image.pixels.clone()).unwrap();
    raster(DynamicImage::ImageRgb8(image), ImageFormat::Png)
}

fn sample(image: Vec<u8>, map: &LabelMap, member: u32) -> RawSample {
    RawSample {
        map: Some(map.to_png(255).into()),
        ..raw(image, member)
    }
}

fn request(size: u32, crop: CropConfig) -> SampleRequest {
    SampleRequest {
        map: Some(MapRequest { view: IMAGE }),
        ..SampleRequest::of_views(vec![ViewRequest {
            crop,
            ..ViewRequest::new(IMAGE, size)
        }])
    }
}

fn made(request: SampleRequest, mode: ViewMode, raw: &RawSample) -> Result<Sample, SampleError> {
    let mut maker = SampleMaker::new(Arc::new(request), mode, 11, Limits::default(), None).unwrap();
    let mut out = Sample::default();
    maker.make(raw, &mut out)?;
    Ok(out)
}

/// Of the pixels whose colour is that of a class, to `tolerance`: (all, those whose class is another one).
fn compared(sample: &Sample, tolerance: u8) -> (usize, usize) {
    let n = sample.map.len();
    let (mut seen, mut other) = (0, 0);
    for (at, class) in sample.map.iter().enumerate() {
        let colour: [u8; 3] = std::array::from_fn(|c| sample.views[0][c * n + at]);
        let near = |painted: &[u8; 3]| painted.iter().zip(colour).all(|(a, b)| a.abs_diff(b) <= tolerance);
        if let Some(painted) = COLOURS.iter().position(near) {
            seen += 1;
            other += usize::from(painted as i16 != *class);
        }
    }
    (seen, other)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn picture_and_map_stay_alike_through_crop_flip_and_resize(width in 40u32..150, height in 40u32..150, size in 56u32..80, member: u32, area in 0.3f32..1.0) {
        let (image, classes) = painted(width, height, member % 5);
        let raw = sample(png(&image), &LabelMap::new(width, height, classes), member);
        let crop = CropConfig { area: [area, 1.0], ..CropConfig::default() };
        for mode in [ViewMode::Train, ViewMode::Eval { crop_ratio: 0.875 }] {
            let sample = made(request(size, crop), mode, &raw).unwrap();
            let (seen, other) = compared(&sample, 0);
            prop_assert!(sample.map.len() == (size * size) as usize && seen * 50 > sample.map.len(), "{seen} flat pixels of {}", sample.map.len());
            prop_assert_eq!(other, 0);
        }
    }

    #[test]
    fn mirrored_twice_is_nothing(width in 20u32..90, height in 20u32..90, size in 8u32..50, seed: u64) {
        use rand::SeedableRng;
        let (_, classes) = painted(width, height, 1);
        let map = LabelMap::new(width, height, classes);
        let crop = CropConfig { flip: 0.0, ..CropConfig::default() };
        let draw = CropDraw::random(width, height, &crop, &mut rand_chacha::ChaCha8Rng::seed_from_u64(seed));
        let (mut straight, mut mirrored) = (vec![], vec![]);
        label_view(&map, Orientation::default(), &draw, size, &mut straight);
        label_view(&map, Orientation::default(), &CropDraw { flip: true, ..draw }, size, &mut mirrored);
        mirrored.chunks_exact_mut(size as usize).for_each(<[i16]>::reverse);
        prop_assert_eq!(&straight, &mirrored);
        // A map that is stored mirrored and mirrored by the draw is straight again, but for middles that lie on an edge between two pixels.
        let stored = map.upright(Orientation { mirror_x: true, ..Orientation::default() });
        label_view(&stored, Orientation { mirror_x: true, ..Orientation::default() }, &draw, size, &mut mirrored);
        prop_assert_eq!(straight, mirrored);
    }
}

#[test]
fn maps_of_turned_pictures_lie_on_them_however_they_were_made() {
    let (image, classes) = painted(96, 64, 2);
    let jpeg = encode(
        &image,
        Jpeg {
            subsampling: turbojpeg_sys::TJSAMP_TJSAMP_444,
            quality: 98,
            ..Jpeg::default()
        },
    );
    let stored = LabelMap::new(96, 64, classes);
    let crop = CropConfig {
        area: [0.5, 1.0],
        ..CropConfig::default()
    };
    for tag in 1..=8 {
        let turned = with_orientation(&jpeg, tag);
        let orientation = Orientation::from_exif(tag);
        let upright = stored.upright(orientation);
        for (map, how) in [(&stored, "stored"), (&upright, "upright")] {
            for mode in [ViewMode::Train, ViewMode::Eval { crop_ratio: 1.0 }] {
                let made = made(request(56, crop), mode, &sample(turned.clone(), map, 5));
                if orientation.transpose || orientation.is_upright() {
                    let (seen, other) = compared(&made.unwrap(), 6);
                    assert!(seen > 1000 && other == 0, "tag {tag}, {how}: {other} of {seen}");
                } else {
                    // Both have one size: nothing tells which of them the map is.
                    let error = made.unwrap_err();
                    assert!(
                        error.reason() == "map_size" && error.to_string().contains("EXIF"),
                        "tag {tag}, {how}: {error}"
                    );
                }
            }
        }
    }
}

#[test]
fn samples_without_a_fitting_map_are_dropped_by_reason() {
    let (image, classes) = painted(40, 30, 0);
    let whole = sample(png(&image), &LabelMap::new(40, 30, classes.clone()), 0);
    let none = RawSample {
        map: None,
        ..whole.clone()
    };
    let other = sample(png(&image), &LabelMap::new(30, 40, classes), 0);
    let picture = RawSample {
        map: Some(whole.image.clone()),
        ..whole
    };
    let crop = CropConfig::default();
    for (raw, reason, words) in [
        (&none, "no_map", "no member \"seg.png\" beside the image"),
        (&other, "map_size", "label map of 30×40 pixels for a picture of 40×30"),
        (&picture, "bad_map", "colours (Rgb)"),
    ] {
        let error = made(request(16, crop), ViewMode::Train, raw).unwrap_err();
        assert!(error.reason() == reason && error.to_string().contains(words), "{error}");
        assert!(SampleError::REASONS.contains(&reason));
        // Nobody who asks for no map is told of it.
        let plain = SampleRequest::of_views(vec![ViewRequest::new(IMAGE, 16)]);
        assert!(made(plain, ViewMode::Train, raw).unwrap().map.is_empty());
    }
    let unlabelled = LabelMap::new(40, 30, vec![UNLABELLED; 1200]);
    let made = made(request(16, crop), ViewMode::Train, &sample(png(&image), &unlabelled, 0)).unwrap();
    assert_eq!(made.map, [UNLABELLED; 256]);
}

#[test]
fn nothing_may_move_the_pixels_of_a_view_whose_map_is_asked_for() {
    let mut wrong = request(16, CropConfig::default());
    wrong.views[0].rand_augment = Some(RandAugment {
        magnitude: 9.0,
        deviation: 0.5,
    });
    let refused = SampleMaker::new(Arc::new(wrong), ViewMode::Train, 1, Limits::default(), None);
    assert!(refused.err().unwrap().to_string().contains("moves pixels of the picture"));
}
