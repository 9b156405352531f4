//! JPEGs to measure with, made here from fixed seeds: 48 pictures of 350 to 640 pixels a side with the 1/f spectrum of photographs,
//! quality 75 to 92, 4:2:0. `SHARDS=folder` takes the `.jpg` members of that folder's tar shards instead.

use std::io::Read;

use bytes::Bytes;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use splitmask_pipeline::types::{Image, RawSample, SampleId};

/// Value noise in octaves whose amplitude halves with the wavelength.
fn picture(rng: &mut ChaCha8Rng) -> Image {
    let (width, height) = (rng.random_range(350..640u32), rng.random_range(350..640u32));
    let mut sums = vec![0f32; (width * height * 3) as usize];
    let mut wave = 256u32;
    while wave >= 2 {
        let columns = width / wave + 2;
        let grid: Vec<f32> = (0..columns * (height / wave + 2) * 3).map(|_| rng.random::<f32>() - 0.5).collect();
        for y in 0..height {
            for x in 0..width {
                let (gx, gy) = (x / wave, y / wave);
                let (fx, fy) = ((x % wave) as f32 / wave as f32, (y % wave) as f32 / wave as f32);
                for c in 0..3 {
                    let at = |dx: u32, dy: u32| grid[(((gy + dy) * columns + gx + dx) * 3 + c) as usize];
                    let top = at(0, 0) * (1.0 - fx) + at(1, 0) * fx;
                    let bottom = at(0, 1) * (1.0 - fx) + at(1, 1) * fx;
                    sums[((y * width + x) * 3 + c) as usize] += (top * (1.0 - fy) + bottom * fy) * wave as f32;
                }
            }
        }
        wave /= 2;
    }
    let spread = sums.iter().fold(1e-6f32, |m, v| m.max(v.abs()));
    Image {
        width,
        height,
        pixels: sums.iter().map(|v| (127.5 + 127.5 * v / spread) as u8).collect(),
    }
}

fn members(shard: &std::path::Path) -> Vec<Vec<u8>> {
    let mut archive = tar::Archive::new(std::fs::File::open(shard).unwrap());
    let mut files = vec![];
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        if entry.path().unwrap().extension().is_some_and(|e| e == "jpg") {
            let mut bytes = vec![];
            entry.read_to_end(&mut bytes).unwrap();
            files.push(bytes);
        }
    }
    files
}

/// The pictures; see the module.
pub(crate) fn jpegs() -> Vec<RawSample> {
    let files: Vec<Vec<u8>> = if let Ok(folder) = std::env::var("SHARDS") {
        let mut paths: Vec<_> = std::fs::read_dir(folder)
            .expect("SHARDS is a folder of tar shards")
            .map(|e| e.unwrap().path())
            .filter(|p| p.extension().is_some_and(|e| e == "tar"))
            .collect();
        paths.sort();
        paths.iter().flat_map(|p| members(p)).collect()
    } else {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        (0..48)
            .map(|_| {
                let image = picture(&mut rng);
                let source = turbojpeg::Image {
                    pixels: &image.pixels[..],
                    width: image.width as usize,
                    pitch: image.width as usize * 3,
                    height: image.height as usize,
                    format: turbojpeg::PixelFormat::RGB,
                };
                turbojpeg::compress(source, rng.random_range(75..93), turbojpeg::Subsamp::Sub2x2)
                    .unwrap()
                    .to_vec()
            })
            .collect()
    };
    files
        .into_iter()
        .enumerate()
        .map(|(i, bytes)| RawSample {
            id: SampleId {
                epoch: 0,
                shard: 0,
                member: i as u32,
            },
            shard: "bench.tar".into(),
            key: i.to_string().as_str().into(),
            image: Bytes::from(bytes),
            extension: "jpg".into(),
            label: None,
            map: None,
            objects: None,
        })
        .collect()
}
