//! Speed of the image kernels on one thread: `cargo bench -p splitmask-pipeline --bench images` (add `--profile dev` to reuse what
//! `cargo test` built: it is optimised too).
//!
//! On made-up pictures, or with SHARDS=folder on those of a folder of shards (see `corpus`).

mod corpus;

use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use fast_image_resize as fr;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use turbojpeg_sys as tj;

use corpus::jpegs;
use splitmask_pipeline::augment::{Augmenter, ColourDraw, CropDraw, Painter, half_size};
use splitmask_pipeline::decode::{Decoder, Limits};
use splitmask_pipeline::mask;
use splitmask_pipeline::request::{ColourConfig, CropConfig, IMAGE, MaskRequest, MaskSpec, SampleRequest, ViewRequest};
use splitmask_pipeline::sample::{SampleMaker, ViewMode};
use splitmask_pipeline::seed::{Purpose, sample_rng};
use splitmask_pipeline::types::{Image, RawSample, Sample};

fn recipe() -> ColourConfig {
    ColourConfig {
        jitter: 0.8,
        greyscale: 0.2,
        blur: 0.5,
        solarise: 0.2,
        ..ColourConfig::default()
    }
}

fn view(colour: ColourConfig) -> ViewRequest {
    ViewRequest {
        colour,
        ..ViewRequest::new(IMAGE, 224)
    }
}

/// What no pipeline on libjpeg-turbo's public interface can undercut much: region decode at the best DCT scale and one resize to
/// interleaved RGB, for the crops that [`SampleMaker`] draws.
#[expect(unsafe_code, reason = "the bare C interface is what is measured")]
fn floor(raws: &[RawSample], resizer: &mut fr::Resizer, pixels: &mut [u8], square: &mut [u8]) {
    // SAFETY: one thread; the buffer holds the largest picture of the corpus.
    unsafe {
        let handle = tj::tj3Init(tj::TJINIT_TJINIT_DECOMPRESS as i32);
        for raw in raws {
            assert_eq!(tj::tj3DecompressHeader(handle, raw.image.as_ptr(), raw.image.len() as _), 0);
            let get = |p: tj::TJPARAM| tj::tj3Get(handle, p as i32);
            let (width, height) = (get(tj::TJPARAM_TJPARAM_JPEGWIDTH), get(tj::TJPARAM_TJPARAM_JPEGHEIGHT));
            let mut rng = sample_rng(1, raw.id, Purpose::View, 0);
            let crop = CropDraw::random(width as u32, height as u32, &CropConfig::default(), &mut rng).area;
            let shorter = crop.width.min(crop.height) as i32;
            let denom = [8, 4, 2].into_iter().find(|d| shorter >= 224 * d).unwrap_or(1);
            tj::tj3SetScalingFactor(handle, tj::tjscalingfactor { num: 1, denom });
            let mcu = [8, 16, 16, 8, 8, 32, 8][get(tj::TJPARAM_TJPARAM_SUBSAMP) as usize] / denom;
            let d = f64::from(denom);
            let x = ((crop.x / d) as i32 - 2).max(0) / mcu * mcu;
            let y = ((crop.y / d) as i32 - 2).max(0);
            let w = ((((crop.x + crop.width) / d).ceil() as i32) + 2).min((width + denom - 1) / denom) - x;
            let h = ((((crop.y + crop.height) / d).ceil() as i32) + 2).min((height + denom - 1) / denom) - y;
            assert_eq!(tj::tj3SetCroppingRegion(handle, tj::tjregion { x, y, w, h }), 0);
            let rgb = tj::TJPF_TJPF_RGB;
            tj::tj3Decompress8(handle, raw.image.as_ptr(), raw.image.len() as _, pixels.as_mut_ptr(), 0, rgb);
            let source = fr::images::ImageRef::new(w as u32, h as u32, &pixels[..(w * h * 3) as usize], fr::PixelType::U8x3).unwrap();
            let mut target = fr::images::Image::from_slice_u8(224, 224, square, fr::PixelType::U8x3).unwrap();
            let options = fr::ResizeOptions::new()
                .crop(
                    crop.x / d - f64::from(x),
                    crop.y / d - f64::from(y),
                    crop.width / d,
                    crop.height / d,
                )
                .resize_alg(fr::ResizeAlg::Convolution(fr::FilterType::CatmullRom));
            resizer.resize(&source, &mut target, &options).unwrap();
        }
        tj::tj3Destroy(handle);
    }
}

fn decoding(c: &mut Criterion) {
    let raws = jpegs();
    let mut group = c.benchmark_group("images");
    group.throughput(Throughput::Elements(raws.len() as u64)).sample_size(20);
    let mut decoder = Decoder::new(Limits::default());
    let mut image = Image::default();
    group.bench_function("header", |b| {
        b.iter(|| raws.iter().for_each(|r| assert!(decoder.header(black_box(&r.image)).is_ok())));
    });
    group.bench_function("full decode", |b| {
        b.iter(|| raws.iter().for_each(|r| decoder.decode(&r.image, &mut image).unwrap()));
    });
    let (mut resizer, mut pixels, mut square) = (fr::Resizer::new(), vec![0; 64 << 20], vec![0; 3 * 224 * 224]);
    group.bench_function("floor: region decode + resize 224", |b| {
        b.iter(|| floor(&raws, &mut resizer, &mut pixels, &mut square));
    });
    let mut augmenter = Augmenter::new();
    let mut out = vec![];
    let spec = view(ColourConfig::default());
    group.bench_function("full decode, then crop 224 + flip", |b| {
        b.iter(|| {
            for r in &raws {
                decoder.decode(&r.image, &mut image).unwrap();
                augmenter.train_view(&image, &spec, &mut sample_rng(1, r.id, Purpose::View, 0), &mut out);
            }
        });
    });
    for (name, colour) in [
        ("sample: crop 224 + flip", ColourConfig::default()),
        ("sample: with the colour recipe", recipe()),
    ] {
        let request = Arc::new(SampleRequest::of_views(vec![view(colour)]));
        let mut maker = SampleMaker::new(request, ViewMode::Train, 1, Limits::default(), None).unwrap();
        let mut sample = Sample::default();
        group.bench_function(name, |b| {
            b.iter(|| {
                for r in &raws {
                    maker.make(r, &mut sample).unwrap();
                }
            });
        });
    }
    group.finish();
}

fn views_only(c: &mut Criterion) {
    let mut rng = ChaCha8Rng::seed_from_u64(2);
    let view: Vec<u8> = (0..3 * 224 * 224).map(|_| rng.random()).collect();
    let mut group = c.benchmark_group("view 224");
    let mut painter = Painter::default();
    let always = ColourConfig {
        jitter: 1.0,
        jitter_strength: [0.4, 0.4, 0.4, 0.0],
        ..ColourConfig::default()
    };
    let hue = ColourConfig {
        jitter_strength: [0.4, 0.4, 0.2, 0.1],
        ..always
    };
    let blur = ColourConfig {
        blur: 1.0,
        blur_sigma: [2.0, 2.0],
        ..ColourConfig::default()
    };
    for (name, config) in [
        ("jitter b c s", always),
        ("jitter b c s h", hue),
        ("blur sigma 2", blur),
        ("colour recipe", recipe()),
    ] {
        let draws: Vec<ColourDraw> = (0..64).map(|_| ColourDraw::random(&config, &mut rng)).collect();
        let mut work = view.clone();
        let mut i = 0;
        group.bench_function(name, |b| {
            b.iter(|| {
                work.copy_from_slice(&view);
                painter.apply(&draws[i % 64], &mut work, 224);
                i += 1;
            });
        });
    }
    let mut half = vec![];
    group.bench_function("half size", |b| b.iter(|| half_size(black_box(&view), 224, &mut half)));
    let mut sets = vec![];
    let spec = MaskSpec::BlockwiseSplit {
        min_block: 16,
        max_block: 75,
    };
    let asked = MaskRequest { side: 14, spec };
    group.bench_function("blockwise split of 14 × 14", |b| {
        b.iter(|| {
            mask::fill(&asked, &mut rng, &mut sets);
        });
    });
    group.finish();
}

criterion_group!(benches, decoding, views_only);
criterion_main!(benches);
