//! The device's words are the tokenizer's, on photographs' statistics and on input that is made to tie. On CPU tensors: a GPU runs the same calls.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use splitmask_pipeline::augment::half_size as half_on_host;
use splitmask_pipeline::tokenize::{BookSpec, HalfView, build_random_patches, build_random_projection};

use super::*;

const SIDE: usize = 32;

fn picture(of: &mut dyn FnMut(usize, usize, usize) -> u8) -> Vec<u8> {
    (0..3 * SIDE * SIDE)
        .map(|i| of(i / (SIDE * SIDE), i / SIDE % SIDE, i % SIDE))
        .collect()
}

/// Smooth pictures, noise, flat ones of every kind of grey, one odd pixel, checkerboards.
fn pictures() -> Vec<Vec<u8>> {
    let mut r = ChaCha8Rng::seed_from_u64(5);
    let mut all = vec![];
    for _ in 0..8 {
        let (fx, fy, phase) = (
            r.random_range(0.02..0.6f32),
            r.random_range(0.02..0.6f32),
            r.random_range(0.0..6.0f32),
        );
        all.push(picture(&mut |c, y, x| {
            let wave = (x as f32 * fx + y as f32 * fy + phase + c as f32 * 0.3).sin();
            (128.0 + 90.0 * wave + r.random_range(-3.0..3.0f32)) as u8
        }));
        all.push(picture(&mut |_, _, _| r.random()));
        all.push(picture(&mut |_, _, _| 127 + r.random_range(0..2u8)));
    }
    for v in [0, 1, 127, 128, 254, 255] {
        all.push(picture(&mut |_, _, _| v));
        all.push(picture(&mut |c, y, x| if (c, y, x) == (1, 5, 9) { v ^ 1 } else { v }));
    }
    all.push(picture(&mut |_, y, x| if (x / 2 + y / 2).is_multiple_of(2) { 255 } else { 0 }));
    all
}

fn books(p: u32, pixels: PixelSpace) -> Vec<Codebook> {
    let spec = BookSpec {
        words: 60,
        patch: p,
        pixels,
        seed: 1,
    };
    let mut r = ChaCha8Rng::seed_from_u64(9);
    let noise = || {
        std::iter::from_fn(move || {
            let base: u8 = r.random_range(20..230);
            Some(Ok(HalfView {
                pixels: (0..3 * 16 * 16).map(|_| base + r.random_range(0..20u8)).collect(),
                side: 16,
            }))
        })
    };
    let crowded = build_random_patches(noise().take(100), &spec, |_| {}).unwrap();
    let spread = build_random_projection(&spec, [-1.0, 1.0]).unwrap();
    // Words that are equal, or one step of f32 apart: only the tokenizer can tell which one it is.
    let mut tied = spread.clone();
    let d = tied.dim();
    for pair in tied.vectors.chunks_exact_mut(2 * d) {
        let (a, b) = pair.split_at_mut(d);
        b.copy_from_slice(a);
    }
    for (i, pair) in tied.vectors.chunks_exact_mut(2 * d).enumerate().filter(|(i, _)| i % 3 != 0) {
        pair[d + i % d] = f32::from_bits(pair[i % d].to_bits() + 1);
    }
    vec![crowded, spread, tied]
}

#[test]
fn words_are_the_tokenizers_on_every_input() {
    let pictures = pictures();
    let views = Tensor::from_slice(&pictures.concat()).view([-1, 3, SIDE as i64, SIDE as i64]);
    for pixels in PixelSpace::ALL {
        for p in [2, 4, 8] {
            for book in books(p, pixels) {
                let tokenizer = Arc::new(Tokenizer::new(Arc::new(book)));
                let device = DeviceBook::new(Arc::clone(&tokenizer), Device::Cpu).unwrap();
                let found = Vec::<i64>::try_from(device.words(&views).unwrap().flatten(0, 1)).unwrap();
                let (mut half, mut words, mut wanted) = (vec![], vec![], vec![]);
                for picture in &pictures {
                    half_on_host(picture, SIDE, &mut half);
                    tokenizer.words(&mut tokenizer.scratch(), &half, SIDE / 2, &mut words);
                    wanted.extend(words.iter().map(|w| i64::from(*w)));
                }
                assert_eq!(found, wanted, "{pixels:?}, patches of {p}, {:?}", tokenizer.codebook().kind);
            }
        }
    }
}

#[test]
fn only_close_calls_go_to_the_host() {
    let mut r = ChaCha8Rng::seed_from_u64(3);
    let book = books(4, PixelSpace::MeanStd).swap_remove(1);
    let device = DeviceBook::new(Arc::new(Tokenizer::new(Arc::new(book))), Device::Cpu).unwrap();
    let patches: Vec<u8> = (0..2000 * 48).map(|_| r.random()).collect();
    let x = device.numbers_of(&Tensor::from_slice(&patches).view([2000, 48]));
    let (scores, _) = x.matmul(&device.words).topk(2, 1, true, true);
    let lead = scores.select(1, 0) - scores.select(1, 1);
    let open = lead.le_tensor(&(x.square().sum_dim_intlist(1, false, Kind::Float).sqrt() * device.lead));
    let open = open.sum(Kind::Int64).int64_value(&[]);
    assert!(open < 20, "{open} of 2000 patches of noise");
}
