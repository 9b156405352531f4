use std::time::Duration;

use bytes::Bytes;
use image::{DynamicImage, ImageFormat};
use turbojpeg_sys as tj;

use super::*;
use crate::augment::Augmenter;
use crate::decode::fixtures::{Jpeg, difference, encode, photo, raster, with_orientation};
use crate::request::{ColourConfig, CropConfig, Filter, HiddenRequest, IMAGE, MaskRequest, MaskSpec, TargetRequest, WordRequest};
use crate::tokenize::{BookSpec, PixelSpace, build_random_projection};
use crate::types::{Image, PatchSet, SampleId};

pub(super) fn view(size: u32) -> ViewRequest {
    ViewRequest::new(IMAGE, size)
}

fn bilinear(size: u32) -> ViewRequest {
    ViewRequest {
        filter: Filter::Bilinear,
        ..view(size)
    }
}

pub(super) fn raw(bytes: Vec<u8>, member: u32) -> RawSample {
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
        map: None,
        objects: None,
    }
}

fn maker(request: SampleRequest, mode: ViewMode) -> SampleMaker {
    SampleMaker::new(Arc::new(request), mode, 11, Limits::default(), None).unwrap()
}

/// Full decode, upright, then crop and resize: what region decoding must equal.
fn reference(raw: &RawSample, spec: &ViewRequest, index: u32, mode: ViewMode) -> Vec<u8> {
    let (mut image, mut out) = (Image::default(), vec![]);
    Decoder::new(Limits::default()).decode(&raw.image, &mut image).unwrap();
    let mut augmenter = Augmenter::new();
    match mode {
        ViewMode::Train => augmenter.train_view(&image, spec, &mut sample_rng(11, raw.id, Purpose::View, index), &mut out),
        ViewMode::Eval { crop_ratio } => augmenter.eval_view(&image, spec.size, crop_ratio, &mut out),
    }
    out
}

/// A view by each filter, and an evaluation.
fn in_each_way(size: u32) -> [(ViewRequest, ViewMode); 3] {
    [
        (view(size), ViewMode::Train),
        (bilinear(size), ViewMode::Train),
        (view(size), ViewMode::Eval { crop_ratio: 0.875 }),
    ]
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
        for (spec, mode) in in_each_way(160) {
            let mut maker = maker(SampleRequest::of_views(vec![spec]), mode);
            let mut sample = Sample::default();
            for member in 0..24 {
                let tag = member as u8 % 8 + 1;
                let raw = raw(with_orientation(&jpeg, tag), member);
                maker.make(&raw, &mut sample).unwrap();
                let (psnr, worst) = difference(&sample.views[0], &reference(&raw, &spec, 0, mode));
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
        for (spec, mode) in in_each_way(96) {
            let mut maker = maker(SampleRequest::of_views(vec![spec]), mode);
            let mut sample = Sample::default();
            for member in 0..12 {
                let raw = raw(with_orientation(&jpeg, member as u8 % 8 + 1), member);
                maker.make(&raw, &mut sample).unwrap();
                let header = maker.decoder.header(&raw.image).unwrap();
                let area = maker.draws[0].0.area;
                reduced += u32::from(header.reduction(area.width, area.height, 96) > 1);
                let (psnr, error) = difference(&sample.views[0], &reference(&raw, &spec, 0, mode));
                worst_psnr = worst_psnr.min(psnr);
                worst_error = worst_error.max(error);
            }
        }
    }
    assert!(reduced > 90, "{reduced} of 144");
    assert!(worst_psnr > 33.0, "{worst_psnr:.1} dB, worst {worst_error}");
    assert!(worst_error < 48, "{worst_psnr:.1} dB, worst {worst_error}");
}

#[test]
fn several_views_share_one_decode() {
    let jpeg = encode(&photo(400, 300), Jpeg::default());
    let small = ViewRequest {
        name: "small",
        crop: CropConfig {
            area: [0.05, 0.2],
            ..CropConfig::default()
        },
        ..view(64)
    };
    let views = vec![view(128), view(128), small, small];
    let mut maker = maker(SampleRequest::of_views(views.clone()), ViewMode::Train);
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
fn each_view_has_its_filter_and_an_evaluation_is_bicubic() {
    let raw = raw(encode(&photo(300, 200), Jpeg::default()), 1);
    let made = |views: [ViewRequest; 2], mode: ViewMode| {
        let mut sample = Sample::default();
        maker(SampleRequest::of_views(views.into()), mode).make(&raw, &mut sample).unwrap();
        sample.views
    };
    let (sharp, smooth) = (view(64), bilinear(64));
    let [of_both, all_sharp, all_smooth] = [[sharp, smooth], [sharp; 2], [smooth; 2]].map(|views| made(views, ViewMode::Train));
    assert_eq!(of_both, [all_sharp[0].as_slice(), all_smooth[1].as_slice()]);
    for (a, b) in all_sharp.iter().zip(&all_smooth) {
        let (psnr, _) = difference(a, b);
        assert!((25.0..60.0).contains(&psnr), "the same crop, resized in another way: {psnr}");
    }
    let mode = ViewMode::Eval { crop_ratio: 0.875 };
    let [a, b] = [sharp, smooth].map(|view| {
        let mut sample = Sample::default();
        maker(SampleRequest::of_views(vec![view]), mode).make(&raw, &mut sample).unwrap();
        sample.views
    });
    assert_eq!(a, b, "an evaluation's view is bicubic");
    // A loss between views judges nothing where they are equal, so several are drawn, the same each time.
    let of_both = made([sharp; 2], mode);
    assert!(of_both[0] != of_both[1] && of_both == made([sharp; 2], mode));
    assert_eq!(of_both, made([sharp; 2], ViewMode::Train));
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
    let mut full = SampleRequest::of_views(vec![ViewRequest {
        colour: ColourConfig {
            jitter: 0.8,
            greyscale: 0.2,
            blur: 0.5,
            solarise: 0.2,
            ..ColourConfig::default()
        },
        ..view(64)
    }]);
    full.mask = Some(MaskRequest {
        side: 4,
        spec: MaskSpec::BlockwiseSplit {
            min_block: 2,
            max_block: 6,
        },
    });
    full.views.push(view(64));
    full.hidden = Some(HiddenRequest {
        view: IMAGE,
        side: 8,
        probability: 0.75,
        ratio: [0.1, 0.5],
    });
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
    assert_eq!(made[0].sets.iter().filter(|set| **set == PatchSet::A).count(), 8);
    let both: Vec<(&[PatchSet], &[PatchSet])> = made.iter().map(|sample| sample.hidden.split_at(64)).collect();
    assert!(
        both.iter().any(|(first, second)| first != second),
        "each view of the name has a mask of its own"
    );
    let hides = |grid: &[PatchSet]| grid.contains(&PatchSet::A);
    assert!(both.iter().any(|(first, _)| hides(first)) && both.iter().any(|(first, _)| !hides(first)));
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
    // Not the first view, so that it must be found by its name.
    let full = SampleRequest {
        words: Some(WordRequest { view: "worded", patch: 8 }),
        ..SampleRequest::of_views(vec![view(32), ViewRequest::new("worded", 64)])
    };
    let mut maker = SampleMaker::new(Arc::new(full), ViewMode::Train, 11, Limits::default(), Some(tokenizer.clone())).unwrap();
    let mut sample = Sample::default();
    let times = maker.make(&raw(encode(&photo(200, 150), Jpeg::default()), 1), &mut sample).unwrap();
    let (mut half, mut words) = (vec![], vec![]);
    half_size(&sample.views[1], 64, &mut half);
    tokenizer.words(&mut tokenizer.scratch(), &half, 32, &mut words);
    assert_eq!(sample.words, words);
    assert_eq!(words.len(), 64);
    assert!(times.decode > Duration::ZERO && times.augment > Duration::ZERO && times.tokenize > Duration::ZERO);
}

#[test]
fn a_bad_sample_leaves_the_maker_usable() {
    let mut maker = maker(SampleRequest::of_views(vec![view(32)]), ViewMode::Train);
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

/// The network behind the words must see the very crop and flip of its view, but none of its colour changes.
#[test]
fn the_target_is_its_view_resized_without_its_colours() {
    let bytes = encode(&photo(300, 200), Jpeg::default());
    let loud = ViewRequest {
        colour: ColourConfig {
            jitter: 1.0,
            greyscale: 0.5,
            blur: 1.0,
            solarise: 1.0,
            ..ColourConfig::default()
        },
        ..view(64)
    };
    // Behind another view, so that it must be found by its name.
    let with = |image: ViewRequest| SampleRequest {
        target: Some(TargetRequest { view: IMAGE, size: 32 }),
        ..SampleRequest::of_views(vec![ViewRequest::new("other", 16), image])
    };
    for mode in [ViewMode::Train, ViewMode::Eval { crop_ratio: 0.875 }] {
        let (mut quiet_maker, mut loud_maker) = (maker(with(view(64)), mode), maker(with(loud), mode));
        for member in 0..12 {
            let (mut quiet, mut loud) = (Sample::default(), Sample::default());
            quiet_maker.make(&raw(bytes.clone(), member), &mut quiet).unwrap();
            loud_maker.make(&raw(bytes.clone(), member), &mut loud).unwrap();
            assert_eq!((quiet.views.len(), quiet.target.len()), (2, 3 * 32 * 32));
            assert_eq!(quiet.target, loud.target, "colour draws must not reach the target");
            let mut half = vec![];
            half_size(&quiet.views[1], 64, &mut half);
            let (psnr, _) = difference(&quiet.target, &half);
            assert!(psnr > 30.0, "member {member}: {psnr}");
        }
    }
}
