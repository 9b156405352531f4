//! Spherical k-means over patches (arXiv 2112.10740 §3.3; the paper states neither metric nor start: cosine here, as in its assignment).

use rand::seq::SliceRandom;
use rayon::prelude::*;

use super::build::{BookSpec, HalfView, bad, build_random_patches, unit};
use super::codebook::{Codebook, CodebookKind};
use super::exact::{cut, score};
use super::kernel::Portable;
use super::tokenizer::Tokenizer;
use crate::error::PipelineError;
use crate::seed::{Purpose, rng};
use std::sync::Arc;

/// How long k-means works.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct KMeansOptions {
    /// Patches to cluster; they are taken evenly from the views, as many of each as needed.
    pub patches: usize,
    /// Views that the source will give, to divide `patches` by.
    pub views: usize,
    /// Passes over all patches at most.
    pub passes: u32,
    /// Stops when a smaller share of the patches changed their word in a pass.
    pub settled: f64,
}

/// State after a pass.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct KMeansProgress {
    /// Passes done.
    pub pass: u32,
    /// Mean cosine between the patches and their words before this pass moved the words.
    pub mean_cosine: f64,
    /// Share of the patches that changed their word.
    pub moved: f64,
    /// Words that no patch chose and that were started anew.
    pub empty: usize,
}

/// Patches worked on by one task; fixed, so that results do not depend on the number of threads.
const BLOCK: usize = 2048;

/// Clusters patches by cosine; the words are the unit-length means of their unit-length patches.
///
/// Starts from random patches, as [`build_random_patches`] draws them; words that lose all patches start anew at the patches that fit
/// their own words worst. Same views and seed give the same codebook at any number of threads.
///
/// # Errors
/// Those of `views`; [`PipelineError::FewPatches`] for fewer distinct patches than words, [`PipelineError::BadSetting`] for no passes.
pub fn build_kmeans(
    views: impl Iterator<Item = Result<HalfView, PipelineError>>,
    spec: &BookSpec,
    options: &KMeansOptions,
    mut gathered: impl FnMut(usize),
    mut progress: impl FnMut(KMeansProgress),
) -> Result<Codebook, PipelineError> {
    spec.validate()?;
    if options.passes == 0 {
        return Err(bad("passes", 0, "at least 1"));
    }
    let (patches, views) = gather(views, spec, options, &mut gathered)?;
    let d = spec.dim();
    let n = patches.len() / d;
    // The start: each patch is a picture of its own.
    let singles = patches.chunks_exact(d).map(|p| {
        Ok(HalfView {
            pixels: p.to_vec(),
            side: spec.patch as usize,
        })
    });
    let mut book = build_random_patches(singles, spec, |_| {}).map_err(|error| match error {
        PipelineError::FewPatches { words, found, .. } => PipelineError::FewPatches {
            words,
            found,
            images: views,
        },
        other => other,
    })?;
    book.kind = CodebookKind::KMeans;
    book.display = None;
    book.provenance.patches = n as u64;
    book.provenance.images = 0;
    let mut before = vec![u32::MAX; n];
    for pass in 1..=options.passes {
        let (words, cosines) = assign(&book, &patches);
        let moved = words.iter().zip(&before).filter(|(a, b)| a != b).count() as f64 / n as f64;
        let (vectors, empty) = update(&book, &patches, &words, &cosines);
        progress(KMeansProgress {
            pass,
            mean_cosine: cosines.iter().map(|&c| f64::from(c)).sum::<f64>() / n as f64,
            moved,
            empty,
        });
        book.vectors = vectors;
        book.provenance.passes = pass;
        before = words;
        if moved < options.settled && empty == 0 {
            break;
        }
    }
    Ok(book)
}

/// Takes patches that have a direction from the views, then mixes them, so that the start comes from all of them; and how many views it read.
fn gather(
    views: impl Iterator<Item = Result<HalfView, PipelineError>>,
    spec: &BookSpec,
    options: &KMeansOptions,
    gathered: &mut impl FnMut(usize),
) -> Result<(Vec<u8>, u64), PipelineError> {
    let (p, d) = (spec.patch as usize, spec.dim());
    let each = options.patches.div_ceil(options.views.max(1)).max(1);
    let mut taken: Vec<Vec<u8>> = vec![];
    let mut images = 0;
    let (mut patch, mut x) = (vec![0; d], vec![0.0; d]);
    for (number, view) in views.enumerate() {
        let view = view?;
        images += 1;
        let grid = spec.check_view(&view)?;
        let mut order: Vec<usize> = (0..grid * grid).collect();
        order.shuffle(&mut rng(spec.seed, Purpose::Codebook, number as u64, 2));
        let mut left = each;
        for at in order {
            cut(&view.pixels, view.side, p, at / grid, at % grid, &mut patch);
            spec.pixels.map(&patch, &mut x);
            if left > 0 && unit(spec.pixels, &x).is_some() {
                taken.push(patch.clone());
                left -= 1;
            }
        }
        gathered(taken.len());
        if taken.len() >= options.patches {
            break;
        }
    }
    taken.truncate(options.patches);
    taken.shuffle(&mut rng(spec.seed, Purpose::Codebook, 0, 3));
    Ok((taken.concat(), images))
}

/// Word and cosine of each patch.
fn assign(book: &Codebook, patches: &[u8]) -> (Vec<u32>, Vec<f32>) {
    let d = book.dim();
    let tokenizer = Tokenizer::new(Arc::new(book.clone()));
    let blocks: Vec<(Vec<u32>, Vec<f32>)> = patches
        .par_chunks(BLOCK * d)
        .map_init(
            || (tokenizer.scratch(), vec![0.0; d]),
            |(scratch, x), block| {
                let mut words = vec![];
                tokenizer.patch_words(scratch, block, &mut words);
                let cosine = |(patch, &word): (&[u8], &u32)| {
                    book.pixels.map(patch, x);
                    (score::<Portable>(x, book.vector(word as usize)) / x.iter().map(|x| x * x).sum::<f64>().sqrt()) as f32
                };
                let cosines = block.chunks_exact(d).zip(&words).map(cosine).collect();
                (words, cosines)
            },
        )
        .collect();
    let mut all = (vec![], vec![]);
    for (words, cosines) in blocks {
        all.0.extend(words);
        all.1.extend(cosines);
    }
    all
}

/// New words, and how many had to start anew.
fn update(book: &Codebook, patches: &[u8], words: &[u32], cosines: &[f32]) -> (Vec<f32>, usize) {
    let (v, d) = (book.len(), book.dim());
    // Patches sorted by word (stable), so that each word adds up its own in a fixed order.
    let mut starts = vec![0usize; v + 1];
    words.iter().for_each(|&w| starts[w as usize + 1] += 1);
    (0..v).for_each(|w| starts[w + 1] += starts[w]);
    let mut members = vec![0u32; words.len()];
    let mut next = starts.clone();
    for (i, &w) in words.iter().enumerate() {
        members[next[w as usize]] = i as u32;
        next[w as usize] += 1;
    }
    let means: Vec<Option<Vec<f32>>> = (0..v)
        .into_par_iter()
        .map(|w| {
            let (mut sum, mut x) = (vec![0.0f64; d], vec![0.0f64; d]);
            for &i in &members[starts[w]..starts[w + 1]] {
                book.pixels.map(&patches[i as usize * d..][..d], &mut x);
                let norm = x.iter().map(|x| x * x).sum::<f64>().sqrt();
                sum.iter_mut().zip(&x).for_each(|(s, x)| *s += x / norm);
            }
            let norm = sum.iter().map(|s| s * s).sum::<f64>().sqrt();
            (norm > 1e-9).then(|| sum.iter().map(|s| (s / norm) as f32).collect())
        })
        .collect();
    let mut worst: Vec<u32> = (0..words.len() as u32).collect();
    let empty = means.iter().filter(|m| m.is_none()).count();
    if empty > 0 {
        worst.sort_by(|&a, &b| cosines[a as usize].total_cmp(&cosines[b as usize]).then(a.cmp(&b)));
    }
    let mut worst = worst.into_iter();
    let mut x = vec![0.0; d];
    let vectors = means.into_iter().enumerate().flat_map(|(w, mean)| {
        mean.unwrap_or_else(|| {
            let fresh = worst.next().and_then(|i| {
                book.pixels.map(&patches[i as usize * d..][..d], &mut x);
                unit(book.pixels, &x)
            });
            fresh.unwrap_or_else(|| book.vector(w).to_vec())
        })
    });
    (vectors.collect(), empty)
}

#[cfg(test)]
mod tests {
    use super::super::PixelSpace;
    use super::*;
    use rand::Rng;

    fn views() -> Vec<HalfView> {
        // Four strong colours with a little noise: four clusters.
        let colours = [[250u8, 10, 10], [10, 250, 10], [10, 10, 250], [240, 240, 20]];
        let mut r = rng(1, Purpose::View, 0, 0);
        (0..64)
            .map(|i| {
                let mut pixels = vec![];
                for c in 0..3 {
                    pixels.extend((0..64).map(|_| colours[i % 4][c] - 10 + r.random_range(0..15u8)));
                }
                HalfView { pixels, side: 8 }
            })
            .collect()
    }

    fn spec(words: usize) -> BookSpec {
        BookSpec {
            words,
            patch: 2,
            pixels: PixelSpace::Raw,
            seed: 5,
        }
    }

    fn options() -> KMeansOptions {
        KMeansOptions {
            patches: 1000,
            views: 64,
            passes: 20,
            settled: 0.001,
        }
    }

    fn build(words: usize) -> (Codebook, Vec<KMeansProgress>) {
        let mut log = vec![];
        let book = build_kmeans(views().into_iter().map(Ok), &spec(words), &options(), |_| {}, |p| log.push(p)).unwrap();
        (book, log)
    }

    #[test]
    fn fit_improves_and_words_are_unit_vectors_without_repeats() {
        let (book, log) = build(8);
        book.check().unwrap();
        assert!(
            log.len() > 1 && log.windows(2).all(|w| w[1].mean_cosine >= w[0].mean_cosine - 1e-9),
            "{log:?}"
        );
        assert!(log.last().unwrap().mean_cosine > 0.99);
        for i in 0..8 {
            for j in 0..i {
                assert_ne!(book.vector(i), book.vector(j));
            }
        }
    }

    #[test]
    fn the_number_of_threads_changes_nothing() {
        let one = rayon::ThreadPoolBuilder::new()
            .num_threads(1)
            .build()
            .unwrap()
            .install(|| build(16));
        let three = rayon::ThreadPoolBuilder::new()
            .num_threads(3)
            .build()
            .unwrap()
            .install(|| build(16));
        assert_eq!(one, three);
    }

    #[test]
    fn words_that_no_patch_chooses_start_anew() {
        let (book, _) = build(8);
        let mut twins = book;
        let first = twins.vector(0).to_vec();
        twins.vectors[12..24].copy_from_slice(&first); // word 1 = word 0: the lower index takes all
        let (patches, images) = gather(views().into_iter().map(Ok), &spec(8), &options(), &mut |_| {}).unwrap();
        assert!(images > 0);
        let (words, cosines) = assign(&twins, &patches);
        assert!(!words.contains(&1));
        let (vectors, empty) = update(&twins, &patches, &words, &cosines);
        assert!(empty >= 1);
        let worst = (0..words.len()).min_by(|&a, &b| cosines[a].total_cmp(&cosines[b])).unwrap();
        let mut x = vec![0.0; 12];
        PixelSpace::Raw.map(&patches[worst * 12..][..12], &mut x);
        assert_eq!(vectors[12..24], unit(PixelSpace::Raw, &x).unwrap());
    }

    #[test]
    fn too_few_patches_are_refused() {
        let e = build_kmeans(views().into_iter().take(1).map(Ok), &spec(64), &options(), |_| {}, |_| {}).unwrap_err();
        assert!(e.to_string().contains("words = 64"), "{e}");
    }
}
