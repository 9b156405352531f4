//! Vocabularies without learning: random projections and random patches; and the source of patches that all builders share.

use std::collections::HashSet;

use rand::Rng;
use rand::seq::SliceRandom;

use super::codebook::{Codebook, CodebookKind, MAX_PATCH, MAX_WORDS, Provenance};
use super::exact::cut;
use super::pixels::PixelSpace;
use crate::error::PipelineError;
use crate::seed::{Purpose, rng};

/// A planar 3×side×side half-size copy of one view; each view of another image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HalfView {
    /// 3×side×side bytes.
    pub pixels: Vec<u8>,
    /// Side, pixels; a multiple of the word's patch.
    pub side: usize,
}

/// What every builder is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BookSpec {
    /// Words V.
    pub words: usize,
    /// Side of a word's patch on the half-size copy, pixels.
    pub patch: u32,
    /// Space of the vectors.
    pub pixels: PixelSpace,
    /// Seed of everything random.
    pub seed: u64,
}

#[expect(clippy::needless_pass_by_value, reason = "callers hand over numbers")]
pub(super) fn bad(key: &str, value: impl ToString, detail: impl Into<String>) -> PipelineError {
    PipelineError::BadSetting {
        key: key.into(),
        value: value.to_string(),
        detail: detail.into(),
    }
}

impl BookSpec {
    /// Numbers of a vector.
    #[must_use]
    pub fn dim(&self) -> usize {
        3 * (self.patch as usize).pow(2)
    }

    /// Checks ranges.
    ///
    /// # Errors
    /// [`PipelineError::BadSetting`] naming the key and the allowed range.
    pub fn validate(&self) -> Result<(), PipelineError> {
        if !(2..=MAX_WORDS).contains(&self.words) {
            return Err(bad("words", self.words, format!("2 to {MAX_WORDS}")));
        }
        if !(1..=MAX_PATCH).contains(&self.patch) {
            return Err(bad("patch", self.patch, format!("1 to {MAX_PATCH} pixels on the half-size copy")));
        }
        Ok(())
    }

    pub(super) fn check_view(&self, view: &HalfView) -> Result<usize, PipelineError> {
        let p = self.patch as usize;
        if view.side == 0 || !view.side.is_multiple_of(p) || view.pixels.len() != 3 * view.side * view.side {
            return Err(bad(
                "image",
                2 * view.side,
                format!("views must be cut into patches of {} pixels", 2 * p),
            ));
        }
        Ok(view.side / p)
    }

    pub(super) fn book(&self, kind: CodebookKind, vectors: Vec<f32>) -> Codebook {
        Codebook {
            kind,
            patch: self.patch,
            pixels: self.pixels,
            vectors,
            seed: self.seed,
            provenance: Provenance {
                made_by: concat!("splitmask ", env!("CARGO_PKG_VERSION")).into(),
                ..Provenance::default()
            },
            display: None,
            counts: None,
        }
    }
}

/// Unit vector of `x`, or none where it is too short to have a direction worth comparing: root mean square of less than one level of a byte.
pub(super) fn unit(pixels: PixelSpace, x: &[f64]) -> Option<Vec<f32>> {
    let norm = x.iter().map(|x| x * x).sum::<f64>().sqrt();
    (norm >= pixels.level(x.len()) * (x.len() as f64).sqrt()).then(|| x.iter().map(|x| (x / norm) as f32).collect())
}

/// Random projection: components drawn uniformly from `range`, then unit length (arXiv 2112.10740 §3.3; the range is not stated, docs/method.md §2).
///
/// # Errors
/// [`PipelineError::BadSetting`].
pub fn build_random_projection(spec: &BookSpec, range: [f32; 2]) -> Result<Codebook, PipelineError> {
    spec.validate()?;
    let [lo, hi] = range;
    if !(lo < hi && lo.is_finite() && hi.is_finite() && (hi - lo).is_finite() && hi.abs().max(lo.abs()) <= 1e6) {
        return Err(bad(
            "range",
            format!("{lo},{hi}"),
            "two numbers, the lower one first, within ±1000000",
        ));
    }
    let mut vectors = Vec::with_capacity(spec.words * spec.dim());
    for word in 0..spec.words {
        let mut rng = rng(spec.seed, Purpose::Codebook, word as u64, 0);
        loop {
            let x: Vec<f64> = (0..spec.dim()).map(|_| f64::from(rng.random_range(lo..hi))).collect();
            let norm = x.iter().map(|x| x * x).sum::<f64>().sqrt();
            if norm > 1e-6 * f64::from(hi - lo) {
                vectors.extend(x.iter().map(|x| (x / norm) as f32));
                break;
            }
        }
    }
    let mut book = spec.book(CodebookKind::RandomProjection, vectors);
    book.provenance.range = Some(range);
    Ok(book)
}

/// At most so many patches are taken from one image, when there are fewer images than words.
const RANKS: usize = 64;

/// Random patches of different images, unit length (arXiv 2112.10740 §3.3).
///
/// Each view offers its patches in random order; flat ones without a direction and repeated ones are refused. While there are enough images
/// each gives one word; with fewer images each gives a second one, and so on. Stops reading as soon as it has enough.
/// Randomness: (seed, number of the view).
///
/// # Errors
/// Those of `views`; [`PipelineError::FewPatches`] if the views hold fewer distinct patches than words.
pub fn build_random_patches(
    views: impl Iterator<Item = Result<HalfView, PipelineError>>,
    spec: &BookSpec,
    mut progress: impl FnMut(usize),
) -> Result<Codebook, PipelineError> {
    spec.validate()?;
    let (p, d) = (spec.patch as usize, spec.dim());
    let mut ranks: Vec<Vec<(Vec<u8>, Vec<f32>)>> = vec![vec![]; RANKS];
    let mut seen = HashSet::new();
    let (mut patch, mut x) = (vec![0; d], vec![0.0; d]);
    let mut images = 0u64;
    for view in views {
        let view = view?;
        let grid = spec.check_view(&view)?;
        let mut order: Vec<usize> = (0..grid * grid).collect();
        order.shuffle(&mut rng(spec.seed, Purpose::Codebook, images, 1));
        images += 1;
        let mut rank = 0;
        for at in order {
            if rank == RANKS || ranks[rank].len() == spec.words {
                break;
            }
            cut(&view.pixels, view.side, p, at / grid, at % grid, &mut patch);
            spec.pixels.map(&patch, &mut x);
            let Some(v) = unit(spec.pixels, &x) else { continue };
            // Patches that differ in brightness alone point the same way: compare directions, to 1/64 of a typical component.
            let key: Vec<i8> = v
                .iter()
                .map(|v| (v * (d as f32).sqrt() * 64.0).round().clamp(-127.0, 127.0) as i8)
                .collect();
            if seen.insert(key) {
                ranks[rank].push((patch.clone(), v));
                rank += 1;
            }
        }
        progress(ranks[0].len());
        if ranks[0].len() == spec.words {
            break;
        }
    }
    let chosen: Vec<_> = ranks.into_iter().flatten().take(spec.words).collect();
    if chosen.len() < spec.words {
        return Err(PipelineError::FewPatches {
            words: spec.words,
            found: chosen.len(),
            images,
        });
    }
    let mut book = spec.book(
        CodebookKind::RandomPatches,
        chosen.iter().flat_map(|(_, v)| v.iter().copied()).collect(),
    );
    book.display = Some(chosen.iter().flat_map(|(bytes, _)| bytes.iter().copied()).collect());
    book.provenance.images = images;
    book.provenance.patches = spec.words as u64;
    Ok(book)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(words: usize) -> BookSpec {
        BookSpec {
            words,
            patch: 2,
            pixels: PixelSpace::MeanStd,
            seed: 3,
        }
    }

    fn noise(n: usize, side: usize) -> Vec<HalfView> {
        (0..n)
            .map(|i| {
                let mut r = rng(9, Purpose::View, i as u64, 0);
                HalfView {
                    pixels: (0..3 * side * side).map(|_| r.random()).collect(),
                    side,
                }
            })
            .collect()
    }

    #[test]
    fn projections_are_unit_vectors_of_the_range_and_repeat_by_seed() {
        let book = build_random_projection(&spec(50), [0.0, 1.0]).unwrap();
        book.check().unwrap();
        assert!(book.vectors.iter().all(|&v| v >= 0.0));
        assert_eq!(book, build_random_projection(&spec(50), [0.0, 1.0]).unwrap());
        assert_ne!(
            book.vectors,
            build_random_projection(&BookSpec { seed: 4, ..spec(50) }, [0.0, 1.0])
                .unwrap()
                .vectors
        );
        assert!(
            build_random_projection(&spec(50), [-1.0, 1.0])
                .unwrap()
                .vectors
                .iter()
                .any(|&v| v < 0.0)
        );
        for range in [[1.0, 1.0], [2.0, 1.0], [f32::NAN, 1.0], [f32::MIN, f32::MAX]] {
            assert!(build_random_projection(&spec(5), range).is_err(), "{range:?}");
        }
    }

    #[test]
    fn patches_come_from_different_images_while_there_are_enough() {
        let views = noise(40, 8);
        let book = build_random_patches(views.iter().cloned().map(Ok), &spec(30), |_| {}).unwrap();
        book.check().unwrap();
        assert_eq!(book.provenance.images, 30, "reads no more images than it needs");
        for (i, shown) in book.display.as_ref().unwrap().chunks_exact(12).enumerate() {
            let mut patch = [0; 12];
            let found = (0..16).any(|at| {
                cut(&views[i].pixels, 8, 2, at / 4, at % 4, &mut patch);
                patch == shown
            });
            assert!(found, "word {i} is a patch of image {i}");
        }
    }

    #[test]
    fn fewer_images_than_words_give_several_each_but_never_twice_the_same() {
        let book = build_random_patches(noise(4, 8).into_iter().map(Ok), &spec(50), |_| {}).unwrap();
        let distinct: HashSet<Vec<u8>> = book.display.unwrap().chunks_exact(12).map(<[u8]>::to_vec).collect();
        assert_eq!(distinct.len(), 50);
        let twice = noise(1, 8).into_iter().chain(noise(1, 8)).map(Ok);
        let e = build_random_patches(twice, &spec(17), |_| {}).unwrap_err().to_string();
        assert!(
            e.contains("words = 17") && e.contains("only 16 distinct") && e.contains("2 images"),
            "{e}"
        );
    }

    #[test]
    fn flat_patches_have_no_direction_where_the_mean_is_removed_and_one_direction_elsewhere() {
        let flat = |v: u8| HalfView {
            pixels: vec![v; 48],
            side: 4,
        };
        let greys = || (0..=255).map(|v| Ok(flat(v)));
        let removed = BookSpec {
            pixels: PixelSpace::PatchMeanRemoved,
            ..spec(2)
        };
        assert!(
            build_random_patches(greys(), &removed, |_| {})
                .unwrap_err()
                .to_string()
                .contains("only 0 distinct")
        );
        let raw = BookSpec {
            pixels: PixelSpace::Raw,
            ..spec(2)
        };
        assert!(
            build_random_patches(greys(), &raw, |_| {})
                .unwrap_err()
                .to_string()
                .contains("only 1 distinct")
        );
    }

    #[test]
    fn views_that_do_not_fit_are_refused() {
        let view = HalfView {
            pixels: vec![0; 27],
            side: 3,
        };
        assert!(build_random_patches([Ok(view)].into_iter(), &spec(2), |_| {}).is_err());
        assert!(BookSpec { words: 1, ..spec(2) }.validate().is_err());
        assert!(BookSpec { patch: 33, ..spec(2) }.validate().is_err());
    }
}
