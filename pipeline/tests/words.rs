//! Visual words: the fast pass of every instruction set gives the f64 argmax, on natural and on hostile patches.

use std::sync::Arc;

use proptest::prelude::*;
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use splitmask_pipeline::tokenize::{
    BookSpec, Codebook, Exhaustive, HalfView, Isa, PixelSpace, Tokenizer, build_random_patches, build_random_projection, usage,
};

fn rng(seed: u64) -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(seed)
}

/// A picture with the 1/f spectrum of natural ones: waves whose amplitude falls with their frequency, and a little noise.
fn natural(seed: u64, side: usize) -> Vec<u8> {
    let mut r = rng(seed);
    let contrast = r.random_range(5.0..120.0f32);
    let waves: Vec<[f32; 7]> = (0..24)
        .map(|_| {
            let f = 0.5 * 1.25f32.powi(r.random_range(0..20));
            let (turn, phase) = (r.random_range(0.0..6.3f32), r.random_range(0.0..6.3f32));
            let hue = [0; 3].map(|_| r.random_range(0.7..1.0f32));
            [f * turn.cos(), f * turn.sin(), phase, contrast / f / 3.0, hue[0], hue[1], hue[2]]
        })
        .collect();
    let base = [0; 3].map(|_| r.random_range(20.0..235.0f32));
    let mut pixels = vec![0; 3 * side * side];
    for (i, out) in pixels.iter_mut().enumerate() {
        let (c, y, x) = (i / (side * side), i / side % side, i % side);
        let (u, v) = (x as f32 * 6.3 / 112.0, y as f32 * 6.3 / 112.0);
        let sum: f32 = waves.iter().map(|w| (w[0] * u + w[1] * v + w[2]).sin() * w[3] * w[4 + c]).sum();
        *out = (base[c] + sum + r.random_range(-2.0..2.0f32)).clamp(0.0, 255.0) as u8;
    }
    pixels
}

/// Patches that ask for trouble: flat, extreme, one pixel, noise of one level, checkerboards, natural ones.
fn patches(p: usize) -> Vec<u8> {
    let d = 3 * p * p;
    let mut r = rng(17);
    let mut all = vec![];
    for v in [0, 1, 124, 127, 128, 254, 255] {
        all.extend(vec![v; d]);
    }
    for at in [0, d / 2, d - 1] {
        for (ground, dot) in [(0, 1), (0, 255), (255, 254), (255, 0), (124, 125)] {
            let mut patch = vec![ground; d];
            patch[at] = dot;
            all.extend(patch);
        }
    }
    for _ in 0..4 {
        all.extend((0..d).map(|_| r.random::<u8>()));
        all.extend((0..d).map(|_| 127 + r.random_range(0..2u8)));
        all.extend((0..d).map(|_| r.random_range(0..2u8) * 255));
    }
    all.extend((0..d).map(|i| if (i / p + i).is_multiple_of(2) { 255u8 } else { 0 }));
    for c in 0..3 {
        all.extend((0..d).map(|i| if i / (p * p) == c { 255u8 } else { 0 }));
    }
    let side = 4 * p;
    for seed in 0..3 {
        let picture = natural(seed, side);
        for at in 0..16 {
            for line in 0..3 * p {
                let start = (line / p * side + at / 4 * p + line % p) * side + at % 4 * p;
                all.extend(&picture[start..start + p]);
            }
        }
    }
    all
}

fn spec(words: usize, patch: u32, pixels: PixelSpace) -> BookSpec {
    BookSpec {
        words,
        patch,
        pixels,
        seed: 5,
    }
}

fn random_patches(words: usize, patch: u32, pixels: PixelSpace) -> Codebook {
    let side = 8 * patch as usize;
    let views = (100..).map(|seed| {
        Ok(HalfView {
            pixels: natural(seed, side),
            side,
        })
    });
    build_random_patches(views.take(words), &spec(words, patch, pixels), |_| {}).unwrap()
}

/// All instruction sets against the oracle, and the oracle against a plain loop.
fn check(book: Codebook, patches: &[u8], what: &str) {
    let book = Arc::new(book);
    book.check().unwrap();
    let (d, oracle) = (book.dim(), Exhaustive(&book));
    let expected: Vec<u32> = patches.chunks_exact(d).map(|p| oracle.word(p)).collect();
    let mut x = vec![0.0; d];
    for (patch, &word) in patches.chunks_exact(d).zip(&expected) {
        book.pixels.map(patch, &mut x);
        let plain = |w: usize| x.iter().zip(book.vector(w)).map(|(x, e)| x * f64::from(*e)).sum::<f64>();
        let best = (0..book.len()).map(plain).fold(f64::NEG_INFINITY, f64::max);
        let length = x.iter().map(|x| x * x).sum::<f64>().sqrt();
        assert!(plain(word as usize) >= best - 1e-12 * length, "{what}: the oracle errs");
    }
    for isa in Isa::available() {
        let tokenizer = Tokenizer::with_isa(Arc::clone(&book), isa);
        let (mut scratch, mut words) = (tokenizer.scratch(), vec![7; 3]);
        tokenizer.patch_words(&mut scratch, patches, &mut words);
        for (i, (got, want)) in words.iter().zip(&expected).enumerate() {
            assert_eq!(got, want, "{what}, {isa:?}: patch {i} of {}", expected.len());
        }
        assert_eq!(words.len(), expected.len());
        // One at a time, with used buffers: neighbours change nothing.
        let mut one = vec![];
        for (patch, want) in patches.chunks_exact(d).zip(&expected).step_by(5) {
            tokenizer.patch_words(&mut scratch, patch, &mut one);
            assert_eq!(one, [*want], "{what}, {isa:?}");
        }
    }
}

#[test]
fn every_space_and_vocabulary() {
    let patches = patches(8);
    for pixels in PixelSpace::ALL {
        for range in [[0.0, 1.0], [-1.0, 1.0], [5.0, 5.5]] {
            let book = build_random_projection(&spec(1000, 8, pixels), range).unwrap();
            check(book, &patches, &format!("projection {range:?}, {pixels:?}"));
        }
        let mut book = random_patches(500, 8, pixels);
        check(book.clone(), &patches, &format!("patches, {pixels:?}"));
        // Words are themselves patches: each finds itself or an equal one.
        let shown = book.display.clone().unwrap();
        check(book.clone(), &shown[..100 * book.dim()], &format!("own patches, {pixels:?}"));
        book.counts = Some((0..500).map(|i| i * 7919 % 491).collect());
        check(book, &patches, &format!("patches by frequency, {pixels:?}"));
    }
}

#[test]
fn every_size_of_patch_and_vocabulary() {
    for patch in [1, 2, 3, 4, 5, 7, 12, 16] {
        let all = patches(patch as usize);
        for words in [2, 63, 64, 65, 200] {
            let book = build_random_projection(&spec(words, patch, PixelSpace::MeanStd), [-1.0, 1.0]).unwrap();
            check(book, &all, &format!("{words} words of side {patch}"));
        }
    }
    let book = build_random_projection(&spec(70, 32, PixelSpace::PatchMeanRemoved), [0.0, 1.0]).unwrap();
    check(book, &patches(32), "side 32");
}

#[test]
fn ties_go_to_the_lowest_index() {
    let all = patches(4);
    for pixels in [PixelSpace::Raw, PixelSpace::MeanStd, PixelSpace::ChannelMeanRemoved] {
        let base = build_random_projection(&spec(40, 4, pixels), [-1.0, 1.0]).unwrap();
        let d = base.dim();
        // The same words again and again, in another order; and words all alike.
        let mut repeated = base.clone();
        for i in 0..160 {
            let word = base.vector(i * 7 % 40).to_vec();
            repeated.vectors.extend(word);
        }
        check(repeated.clone(), &all, "repeated words");
        repeated.counts = Some((0..200).collect());
        check(repeated, &all, "repeated words, the last ones commonest");
        let mut alike = base.clone();
        alike.vectors = base.vector(3).repeat(100);
        check(alike, &all, "all words alike");
        // Neighbours one unit in the last place apart, and mirror images.
        let mut near = base.clone();
        for i in 0..40 * d {
            let v = base.vectors[i];
            near.vectors.push(f32::from_bits(v.to_bits() + (i % 3) as u32));
        }
        near.vectors.extend(base.vectors.iter().map(|v| -v));
        check(near, &all, "words a bit apart");
    }
}

#[test]
fn sparse_and_axis_words() {
    // One component each: most rotated components are far from the range of the others, and raw scores tie massively.
    let mut book = build_random_projection(&spec(48, 4, PixelSpace::Raw), [0.0, 1.0]).unwrap();
    book.vectors = (0..48 * 48).map(|i| if i / 48 == i % 48 { 1.0 } else { 0.0 }).collect();
    check(book.clone(), &patches(4), "axes");
    book.vectors.extend((0..48 * 48).map(|i| if i / 48 == i % 48 { -1.0 } else { 0.0 }));
    check(book, &patches(4), "axes both ways");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    #[test]
    fn any_patch_and_any_vocabulary(seed: u64, words in 2usize..150, patch in 1u32..6, space in 0usize..5, low in -3.0f32..1.0, span in 0.01f32..3.0, quiet: bool) {
        let spec = BookSpec { words, patch, pixels: PixelSpace::ALL[space], seed };
        let book = build_random_projection(&spec, [low, low + span]).unwrap();
        let mut r = rng(seed);
        let base: u8 = r.random();
        let bytes: Vec<u8> = (0..book.dim() * 12).map(|_| if quiet { base.saturating_add(r.random_range(0..3)) } else { r.random() }).collect();
        check(book, &bytes, "any");
    }
}

#[test]
fn words_of_a_picture_are_those_of_its_patches_row_by_row() {
    let book = Arc::new(random_patches(300, 4, PixelSpace::MeanStd));
    let picture = natural(1, 32);
    let tokenizer = Tokenizer::new(Arc::clone(&book));
    let mut words = vec![];
    tokenizer.words(&mut tokenizer.scratch(), &picture, 32, &mut words);
    assert_eq!(words, Exhaustive(&book).words(&picture, 32));
    assert_eq!(words.len(), 64);
}

/// Spec §2.3: without unit length a few bright words take nearly all patches.
#[test]
fn forgetting_unit_length_would_ruin_random_patches() {
    let book = random_patches(400, 4, PixelSpace::Raw);
    let mut counts = [vec![0; 400], vec![0; 400]];
    let shown = book.display.as_ref().unwrap();
    for seed in 1000..1030 {
        let picture = natural(seed, 32);
        for word in Exhaustive(&book).words(&picture, 32) {
            counts[0][word as usize] += 1;
        }
        // The same with the patches as they are: bytes times bytes, largest product.
        for at in 0..64 {
            let patch: Vec<u32> = (0..48)
                .map(|i| u32::from(picture[(i / 16 * 32 + at / 8 * 4 + i / 4 % 4) * 32 + at % 8 * 4 + i % 4]))
                .collect();
            let product = |w: &usize| {
                shown[w * 48..][..48]
                    .iter()
                    .zip(&patch)
                    .map(|(a, b)| u32::from(*a) * b)
                    .sum::<u32>()
            };
            counts[1][(0..400).max_by_key(product).unwrap()] += 1;
        }
    }
    let [unit, raw] = [usage(&counts[0]), usage(&counts[1])];
    assert!(unit.perplexity > 10.0 * raw.perplexity, "{unit:?} {raw:?}");
    let mut long = book;
    long.vectors.iter_mut().for_each(|v| *v *= 1.5);
    assert!(long.check().unwrap_err().contains("length 1.5"));
}
