//! Visual words of a 112-pixel half-size copy: 196 patches × 8,192 words × 192 numbers, on one core.
//! On made-up pictures, or with SHARDS=folder on those of a folder of shards (see `corpus`), which have more textures.

mod corpus;

use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, criterion_group, criterion_main};
use splitmask_pipeline::augment::{Augmenter, half_size};
use splitmask_pipeline::decode::{Decoder, Limits};
use splitmask_pipeline::request::{IMAGE, ViewRequest};
use splitmask_pipeline::seed::{Purpose, sample_rng};
use splitmask_pipeline::tokenize::{
    BookSpec, Codebook, HalfView, Isa, PixelSpace, Survey, Tokenizer, build_random_patches, build_random_projection,
};
use splitmask_pipeline::types::{Image, RawSample};

const SIDE: usize = 112;
const WORDS: usize = 8192;

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

fn words(c: &mut Criterion) {
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
    let mut group = c.benchmark_group("words");
    group.sample_size(10);
    for (name, book) in books {
        let (n, d) = (book.len(), book.dim());
        let mut out = vec![];
        if name.starts_with("projection 0") {
            let transposed: Vec<f32> = (0..d * n).map(|i| book.vectors[i % n * d + i / n]).collect();
            let mut scores = vec![0.0; (SIDE / 8) * (SIDE / 8) * n];
            let mut next = timed.iter().cycle();
            group.bench_function(format!("f32 GEMM + argmax, {name}"), |b| {
                b.iter(|| gemm(&book, &transposed, black_box(next.next().expect("endless")), &mut scores, &mut out));
            });
        }
        // As the codebook verb stores it: with counts, so that frequent words come first.
        let mut counted = book.clone();
        let tokenizer = Tokenizer::new(Arc::new(book.clone()));
        let (mut scratch, mut survey) = (tokenizer.scratch(), Survey::new(&book));
        for half in others {
            tokenizer.words(&mut scratch, half, SIDE, &mut out);
            survey.add(half, SIDE, &out);
        }
        survey.finish(&mut counted);
        for (kind, book) in [("", book), (", counted", counted)] {
            let book = Arc::new(book);
            for isa in Isa::available().into_iter().filter(|i| *i != Isa::Portable) {
                let tokenizer = Tokenizer::with_isa(Arc::clone(&book), isa);
                let mut scratch = tokenizer.scratch();
                let mut next = timed.iter().cycle();
                group.bench_function(format!("{isa:?}, {name}{kind}"), |b| {
                    b.iter(|| tokenizer.words(&mut scratch, black_box(next.next().expect("endless")), SIDE, &mut out));
                });
            }
        }
    }
    group.finish();
}

criterion_group!(benches, words);
criterion_main!(benches);
