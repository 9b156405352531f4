use std::time::Duration;

use bytes::Bytes;
use image::{DynamicImage, ImageFormat};
use turbojpeg_sys as tj;

use super::*;
use crate::augment::Augmenter;
use crate::decode::fixtures::{Jpeg, difference, encode, photo, raster, with_orientation};
use crate::tokenize::{BookSpec, PixelSpace, build_random_projection};
use crate::types::{ColourConfig, CropConfig, Image, MaskSpec, SampleId, WordSpec};

fn view(size: u32) -> ViewSpec {
    ViewSpec {
        size,
        crop: CropConfig::default(),
        colour: ColourConfig::default(),
    }
}

fn plan(views: Vec<ViewSpec>) -> ViewPlan {
    ViewPlan {
        views,
        words: None,
        target: None,
        mask: None,
    }
}

fn raw(bytes: Vec<u8>, member: u32) -> RawSample {
    RawSample {
        id: SampleId {
            epoch: 0,
            shard: 3,
            member,
        },
        shard: "shard-000003.tar".into(),
        key: format!("k{member}").as_str().into(),
        image: Bytes::from(bytes),
        extension: "jpg".into(),
        label: None,
    }
}

fn maker(plan: ViewPlan, mode: ViewMode) -> SampleMaker {
    SampleMaker::new(Arc::new(plan), mode, 11, Limits::default(), None).unwrap()
}

/// Full decode, upright, then crop and resize: what region decoding must equal.
fn reference(raw: &RawSample, spec: &ViewSpec, index: u32, mode: ViewMode) -> Vec<u8> {
    let (mut image, mut out) = (Image::default(), vec![]);
    Decoder::new(Limits::default()).decode(&raw.image, &mut image).unwrap();
    let mut augmenter = Augmenter::new();
    match mode {
        ViewMode::Train => augmenter.train_view(&image, spec, &mut sample_rng(11, raw.id, Purpose::View, index), &mut out),
        ViewMode::Eval { crop_ratio } => augmenter.eval_view(&image, spec.size, crop_ratio, &mut out),
    }
    out
}

#[test]
fn at_full_scale_region_decoding_is_full_decoding() {
    // Crops of at most 300 pixels for views of 160: never reduced.
    let image = photo(299, 261);
    for subsampling in [
        tj::TJSAMP_TJSAMP_444,
        tj::TJSAMP_TJSAMP_420,
        tj::TJSAMP_TJSAMP_411,
        tj::TJSAMP_TJSAMP_GRAY,
    ] {
        let jpeg = encode(
            &image,
            Jpeg {
                subsampling,
                ..Jpeg::default()
            },
        );
        for mode in [ViewMode::Train, ViewMode::Eval { crop_ratio: 0.875 }] {
            let mut maker = maker(plan(vec![view(160)]), mode);
            let mut sample = Sample::default();
            for member in 0..24 {
                let tag = member as u8 % 8 + 1;
                let raw = raw(with_orientation(&jpeg, tag), member);
                maker.make(&raw, &mut sample).unwrap();
                let (psnr, worst) = difference(&sample.views[0], &reference(&raw, &view(160), 0, mode));
                // Pictures turned by a quarter are resized along the other axis first; overshoot is clipped to 8 bits in between.
                let allowed = match (mode, tag) {
                    (ViewMode::Train, 1) => 0,
                    (_, 1..=4) => 2,
                    _ => 8,
                };
                assert!(worst <= allowed && psnr > 50.0, "{mode:?} tag {tag}: {psnr:.1} dB, worst {worst}");
            }
        }
    }
}

#[test]
fn at_reduced_dct_scale_views_stay_close_to_full_decoding() {
    let image = photo(1203, 905);
    let mut worst_psnr = f64::INFINITY;
    let mut worst_error = 0;
    let mut reduced = 0;
    for (subsampling, progressive) in [
        (tj::TJSAMP_TJSAMP_444, false),
        (tj::TJSAMP_TJSAMP_420, false),
        (tj::TJSAMP_TJSAMP_420, true),
        (tj::TJSAMP_TJSAMP_422, false),
    ] {
        let jpeg = encode(
            &image,
            Jpeg {
                subsampling,
                progressive,
                ..Jpeg::default()
            },
        );
        for mode in [ViewMode::Train, ViewMode::Eval { crop_ratio: 0.875 }] {
            let mut maker = maker(plan(vec![view(96)]), mode);
            let mut sample = Sample::default();
            for member in 0..12 {
                let raw = raw(with_orientation(&jpeg, member as u8 % 8 + 1), member);
                maker.make(&raw, &mut sample).unwrap();
                let header = maker.decoder.header(&raw.image).unwrap();
                let area = maker.draws[0].0.area;
                reduced += u32::from(header.reduction(area.width, area.height, 96) > 1);
                let (psnr, error) = difference(&sample.views[0], &reference(&raw, &view(96), 0, mode));
                worst_psnr = worst_psnr.min(psnr);
                worst_error = worst_error.max(error);
            }
        }
    }
    assert!(reduced > 60, "{reduced} of 96");
    assert!(worst_psnr > 33.0, "{worst_psnr:.1} dB, worst {worst_error}");
    assert!(worst_error < 48, "{worst_psnr:.1} dB, worst {worst_error}");
}

#[test]
fn several_views_share_one_decode() {
    let jpeg = encode(&photo(400, 300), Jpeg::default());
    let small = ViewSpec {
        crop: CropConfig {
            area: [0.05, 0.2],
            ..CropConfig::default()
        },
        ..view(64)
    };
    let views = vec![view(128), view(128), small.clone(), small];
    let mut maker = maker(plan(views.clone()), ViewMode::Train);
    let mut sample = Sample::default();
    for member in 0..8 {
        let raw = raw(jpeg.clone(), member);
        maker.make(&raw, &mut sample).unwrap();
        assert_eq!(sample.views.len(), 4);
        for (i, spec) in views.iter().enumerate() {
            let expected = reference(&raw, spec, i as u32, ViewMode::Train);
            let (psnr, _) = difference(&sample.views[i], &expected);
            assert!(psnr > 33.0, "view {i}: {psnr}");
        }
    }
}

#[test]
fn a_sample_depends_on_its_id_alone() {
    let files = [
        encode(&photo(300, 200), Jpeg::default()),
        raster(
            DynamicImage::ImageRgb8(image::RgbImage::from_raw(90, 120, photo(90, 120).pixels).unwrap()),
            ImageFormat::Png,
        ),
    ];
    let mut full = plan(vec![ViewSpec {
        colour: ColourConfig {
            jitter: 0.8,
            greyscale: 0.2,
            blur: 0.5,
            solarise: 0.2,
            ..ColourConfig::default()
        },
        ..view(64)
    }]);
    full.mask = Some((
        4,
        MaskSpec::BlockwiseSplit {
            min_block: 2,
            max_block: 6,
        },
    ));
    let raws: Vec<RawSample> = (0..20).map(|i| raw(files[i as usize % 2].clone(), i)).collect();
    let mut forward = maker(full.clone(), ViewMode::Train);
    let made: Vec<Sample> = raws
        .iter()
        .map(|r| {
            let mut s = Sample::default();
            forward.make(r, &mut s).unwrap();
            s
        })
        .collect();
    let mut backward = maker(full, ViewMode::Train);
    let mut recycled = Sample::default();
    for (raw, expected) in raws.iter().zip(&made).rev() {
        backward.make(raw, &mut recycled).unwrap();
        assert_eq!(&recycled, expected);
    }
    assert_ne!(made[0].views, made[2].views, "two crops of one picture");
    assert_eq!(made[0].parts.iter().filter(|p| **p == 1).count(), 8);
}

#[test]
fn words_are_those_of_the_half_size_view() {
    let spec = BookSpec {
        words: 32,
        patch: 4,
        pixels: PixelSpace::MeanStd,
        seed: 0,
    };
    let tokenizer = Arc::new(Tokenizer::new(Arc::new(build_random_projection(&spec, [-1.0, 1.0]).unwrap())));
    let full = ViewPlan {
        words: Some(WordSpec { patch: 8 }),
        ..plan(vec![view(64)])
    };
    let mut maker = SampleMaker::new(Arc::new(full), ViewMode::Train, 11, Limits::default(), Some(tokenizer.clone())).unwrap();
    let mut sample = Sample::default();
    let times = maker.make(&raw(encode(&photo(200, 150), Jpeg::default()), 1), &mut sample).unwrap();
    let (mut half, mut words) = (vec![], vec![]);
    half_size(&sample.views[0], 64, &mut half);
    tokenizer.words(&mut tokenizer.scratch(), &half, 32, &mut words);
    assert_eq!(sample.words, words);
    assert_eq!(words.len(), 64);
    assert!(times.decode > Duration::ZERO && times.augment > Duration::ZERO && times.tokenize > Duration::ZERO);
}

#[test]
fn a_bad_sample_leaves_the_maker_usable() {
    let mut maker = maker(plan(vec![view(32)]), ViewMode::Train);
    let good = encode(&photo(100, 80), Jpeg::default());
    let (mut sample, mut again) = (Sample::default(), Sample::default());
    maker.make(&raw(good.clone(), 5), &mut sample).unwrap();
    for bad in [vec![], b"nonsense bytes".to_vec(), good[..good.len() / 2].to_vec()] {
        assert!(maker.make(&raw(bad, 6), &mut again).is_err());
    }
    let mut labelled = raw(good, 5);
    labelled.label = Some(7);
    maker.make(&labelled, &mut again).unwrap();
    assert_eq!((again.views, again.label, sample.label), (sample.views, 7, -1));
}

#[test]
fn plans_that_cannot_be_made_are_refused_with_key_and_range() {
    let refused = |plan: ViewPlan, mode: ViewMode| {
        SampleMaker::new(Arc::new(plan), mode, 0, Limits::default(), None)
            .err()
            .unwrap()
            .to_string()
    };
    let with = |change: fn(&mut ViewSpec)| {
        let mut v = view(64);
        change(&mut v);
        plan(vec![v])
    };
    let words = |patch| ViewPlan {
        words: Some(WordSpec { patch }),
        ..plan(vec![view(64)])
    };
    let masked = |side| ViewPlan {
        mask: Some((side, MaskSpec::UniformSplit { keep: 0.25 })),
        ..plan(vec![view(64)])
    };
    for (message, expected) in [
        (refused(plan(vec![]), ViewMode::Train), "views = 0"),
        (refused(with(|v| v.size = 0), ViewMode::Train), "size = 0: 1 to 4096"),
        (
            refused(with(|v| v.crop.area = [0.5, 0.1]), ViewMode::Train),
            "crop.area = [0.5, 0.1]",
        ),
        (refused(with(|v| v.crop.flip = f32::NAN), ViewMode::Train), "crop.flip = NaN"),
        (
            refused(with(|v| v.colour.blur_sigma = [0.1, 99.0]), ViewMode::Train),
            "colour.blur_sigma",
        ),
        (
            refused(with(|v| v.colour.jitter_strength[3] = 0.6), ViewMode::Train),
            "hue at most 0.5",
        ),
        (refused(words(7), ViewMode::Train), "patch = 7"),
        (refused(words(8), ViewMode::Train), "missing"),
        (refused(masked(1), ViewMode::Train), "grid of 1 × 1"),
        (
            refused(plan(vec![view(64)]), ViewMode::Eval { crop_ratio: 0.0 }),
            "crop_ratio = 0.0",
        ),
    ] {
        assert!(message.contains(expected), "{message:?} has no {expected:?}");
    }
}

/// The network behind the words must see the very crop and flip of view 0, but none of its colour changes.
#[test]
fn the_target_is_view_0_resized_without_its_colours() {
    let bytes = encode(&photo(300, 200), Jpeg::default());
    let loud = ViewSpec {
        colour: ColourConfig {
            jitter: 1.0,
            greyscale: 0.5,
            blur: 1.0,
            solarise: 1.0,
            ..ColourConfig::default()
        },
        ..view(64)
    };
    let with = |view: ViewSpec| ViewPlan {
        target: Some(32),
        ..plan(vec![view])
    };
    for mode in [ViewMode::Train, ViewMode::Eval { crop_ratio: 0.875 }] {
        let (mut quiet_maker, mut loud_maker) = (maker(with(view(64)), mode), maker(with(loud.clone()), mode));
        for member in 0..12 {
            let (mut quiet, mut loud) = (Sample::default(), Sample::default());
            quiet_maker.make(&raw(bytes.clone(), member), &mut quiet).unwrap();
            loud_maker.make(&raw(bytes.clone(), member), &mut loud).unwrap();
            assert_eq!((quiet.views.len(), quiet.views[1].len()), (2, 3 * 32 * 32));
            assert_eq!(quiet.views[1], loud.views[1], "colour draws must not reach the target");
            let mut half = vec![];
            half_size(&quiet.views[0], 64, &mut half);
            let (psnr, _) = difference(&quiet.views[1], &half);
            assert!(psnr > 30.0, "member {member}: {psnr}");
        }
    }
}
