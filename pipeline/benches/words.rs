//! Visual words of a 112-pixel half-size copy: 196 patches × 8,192 words × 192 numbers, on one core.
//! On made-up pictures, or with SHARDS=folder on those of a folder of shards (see `corpus`), which have more textures.

#![expect(clippy::print_stdout, reason = "a benchmark prints its numbers")]

mod corpus;
mod turns;

use std::hint::black_box;
use std::sync::Arc;

use splitmask_pipeline::augment::{Augmenter, half_size};
use splitmask_pipeline::decode::{Decoder, Limits};
use splitmask_pipeline::request::{IMAGE, ViewRequest};
use splitmask_pipeline::seed::{Purpose, sample_rng};
use splitmask_pipeline::tokenize::{
    BookSpec, Census, Codebook, HalfView, Isa, PixelSpace, Tokenizer, build_random_patches, build_random_projection,
};
use splitmask_pipeline::types::{Image, RawSample};

const SIDE: usize = 112;
const WORDS: usize = 8192;
const ROUNDS: usize = 9;
/// Tens of pictures in a round.
const PIECES: usize = 8;

/// Half-size copies of training crops of up to 800 pictures, so many that they show textures of all kinds.
fn halves() -> Vec<Vec<u8>> {
    let (mut decoder, mut image) = (Decoder::new(Limits::default()), Image::default());
    let (mut augmenter, mut view, mut half) = (Augmenter::new(), vec![], vec![]);
    let spec = ViewRequest::new(IMAGE, 2 * SIDE as u32);
    let cut = |raw: &RawSample| {
        decoder.decode(&raw.image, &mut image).ok()?;
        augmenter.train_view(&image, &spec, &mut sample_rng(1, raw.id, Purpose::View, 0), &mut view);
        half_size(&view, 2 * SIDE, &mut half);
        Some(half.clone())
    };
    corpus::jpegs().iter().take(800).filter_map(cut).collect()
}

/// f32 matrix product and argmax: what a straightforward implementation does. Vectors are transposed beforehand (192×8192).
fn gemm(book: &Codebook, transposed: &[f32], half: &[u8], scores: &mut [f32], out: &mut Vec<u32>) {
    let (p, d) = (book.patch as usize, book.dim());
    let grid = SIDE / p;
    let mut x = vec![0f32; grid * grid * d];
    let (mut patch, mut mapped) = (vec![0u8; d], vec![0f64; d]);
    for (at, x) in x.chunks_exact_mut(d).enumerate() {
        for (line, to) in patch.chunks_exact_mut(p).enumerate() {
            let from = (line / p * SIDE + at / grid * p + line % p) * SIDE + at % grid * p;
            to.copy_from_slice(&half[from..from + p]);
        }
        book.pixels.map(&patch, &mut mapped);
        x.iter_mut().zip(&mapped).for_each(|(x, m)| *x = *m as f32);
    }
    let (m, k, n) = (grid * grid, d, book.len());
    // SAFETY: row-major m×k, k×n and m×n slices of exactly these sizes.
    #[expect(unsafe_code, reason = "the library's interface")]
    unsafe {
        matrixmultiply::sgemm(
            m,
            k,
            n,
            1.0,
            x.as_ptr(),
            k as isize,
            1,
            transposed.as_ptr(),
            n as isize,
            1,
            0.0,
            scores.as_mut_ptr(),
            n as isize,
            1,
        );
    }
    out.clear();
    out.extend(scores.chunks_exact(n).map(|row| {
        let mut best = (f32::NEG_INFINITY, 0);
        for (i, &s) in row.iter().enumerate() {
            if s > best.0 {
                best = (s, i as u32);
            }
        }
        best.1
    }));
}

fn main() {
    let halves = halves();
    let (timed, others) = halves.split_at(halves.len() / 2);
    let views = || {
        others.iter().map(|pixels| {
            Ok(HalfView {
                pixels: pixels.clone(),
                side: SIDE,
            })
        })
    };
    let spec = |pixels| BookSpec {
        words: WORDS,
        patch: 8,
        pixels,
        seed: 0,
    };
    let projection = |pixels, range| build_random_projection(&spec(pixels), range).expect("valid");
    let patches = |pixels| build_random_patches(views(), &spec(pixels), |_| {}).expect("enough patches");
    let books = [
        ("projection 0..1, mean-std", projection(PixelSpace::MeanStd, [0.0, 1.0])),
        ("projection -1..1, mean-std", projection(PixelSpace::MeanStd, [-1.0, 1.0])),
        ("patches, raw", patches(PixelSpace::Raw)),
        ("patches, mean-std", patches(PixelSpace::MeanStd)),
        ("patches, channel-mean-removed", patches(PixelSpace::ChannelMeanRemoved)),
    ];
    for (name, book) in books {
        let (n, d) = (book.len(), book.dim());
        let mut out = vec![];
        // As the codebook verb stores it: with counts, so that frequent words come first.
        let mut counted = book.clone();
        let tokenizer = Tokenizer::new(Arc::new(book));
        let (mut scratch, mut census) = (tokenizer.scratch(), Census::new(&counted));
        for half in others {
            tokenizer.words(&mut scratch, half, SIDE, &mut out);
            census.add(half, SIDE, &out);
        }
        census.finish(&mut counted);
        let book = Arc::new(counted);
        let transposed: Vec<f32> = (0..d * n).map(|i| book.vectors[i % n * d + i / n]).collect();
        let mut scores = vec![0.0; (SIDE / 8) * (SIDE / 8) * n];
        let mut ways = vec![];
        for cells in [true, false] {
            for isa in Isa::available() {
                let tokenizer = Tokenizer::with_plan(Arc::clone(&book), isa, cells);
                let scratch = tokenizer.scratch();
                ways.push((format!("{isa:?}, {}", if cells { "cells" } else { "bytes" }), tokenizer, scratch));
            }
        }
        let mut names: Vec<&str> = ways.iter().map(|w| w.0.as_str()).collect();
        let names = {
            names.push("f32 GEMM + argmax");
            names.into_iter().map(String::from).collect::<Vec<_>>()
        };
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let pieces: Vec<_> = timed.chunks(10).take(PIECES).collect();
        println!("{name}: {ROUNDS} rounds; of one picture");
        turns::by_turns(&names, ROUNDS, pieces.len(), (pieces.len() * 10) as f64, |way, _, piece| {
            for half in pieces[piece] {
                match ways.get_mut(way) {
                    Some((_, tokenizer, scratch)) => tokenizer.words(scratch, black_box(half), SIDE, &mut out),
                    None => gemm(&book, &transposed, black_box(half), &mut scores, &mut out),
                }
            }
        });
    }
}
