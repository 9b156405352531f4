//! Partitions of the patch grid with exact counts (arXiv 2112.10740 §4.1 and §5.5, blocks of arXiv 2106.08254 Algorithm 1).

use rand::Rng;
use rand::seq::SliceRandom;

use crate::request::{MaskRequest, MaskSpec};
use crate::setting::Findings;
use crate::types::PatchSet::{self, A, B, Neither};

/// Draws of one block's area and aspect before the generator gives up, as BEiT's.
const TRIES: u32 = 10;

/// Log of the widest aspect of a block (height ÷ width up to 1 ÷ 0.3).
const LOG_ASPECT: f64 = 1.203_972_804_325_936;

impl MaskSpec {
    /// Its name in settings.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::BlockwiseSplit { .. } => "blockwise-split",
            Self::UniformSplit { .. } => "uniform-split",
            Self::UniformMask { .. } => "uniform-mask",
            Self::BlockwiseMask { .. } => "blockwise-mask",
        }
    }

    /// Patches in set A and set B of a grid of `n` patches; the rest is in neither. The sets of a split are equal, also where `n` is odd.
    #[must_use]
    pub fn counts(&self, n: usize) -> (usize, usize) {
        match *self {
            Self::BlockwiseSplit { .. } => (n / 2, n / 2),
            Self::UniformSplit { keep } => {
                let each = (f64::from(keep) * n as f64).round() as usize;
                // Half of an odd grid leaves one patch in no set, as the blockwise split does.
                let each = each.min(n / 2);
                (each, each)
            }
            Self::UniformMask { ratio } => ((f64::from(ratio) * n as f64).round() as usize, 0),
            Self::BlockwiseMask { count, .. } => (count as usize, 0),
        }
    }

    /// Checks that the partition can be drawn on a grid of `side` × `side` patches; `table` is where the settings stand, such as `objective.mask`.
    pub fn check(&self, table: &str, side: u32, found: &mut Findings) {
        let n = (side as usize).pow(2);
        let grid = format!("(grid of {side} × {side} = {n} patches)");
        let key = |name: &str| format!("{table}.{name}");
        let (a, b) = self.counts(n);
        match *self {
            Self::UniformSplit { keep } => found.need(
                keep > 0.0 && keep <= 0.5 && a >= 1,
                &key("keep"),
                keep,
                format!("above 0, at most 0.5, and at least one patch for each set {grid}"),
            ),
            Self::BlockwiseSplit { .. } => found.need(
                n >= 4,
                &key("kind"),
                "\"blockwise-split\"",
                format!("a grid of at least 2 × 2 patches to split {grid}"),
            ),
            Self::UniformMask { ratio } => found.need(
                ratio > 0.0 && ratio < 1.0 && (1..n).contains(&a),
                &key("ratio"),
                ratio,
                format!("above 0, below 1, so that at least one patch is masked and one is seen {grid}"),
            ),
            Self::BlockwiseMask { count, .. } => found.need(
                count >= 1 && (count as usize) < n,
                &key("count"),
                count,
                format!(
                    "1 to {} patches, so that some are masked and some are seen {grid}",
                    n.saturating_sub(1)
                ),
            ),
        }
        if let Self::BlockwiseSplit { min_block, max_block } | Self::BlockwiseMask { min_block, max_block, .. } = *self {
            let most = a.max(b).max(1);
            found.need(
                min_block >= 1 && min_block <= max_block,
                &key("min_block"),
                min_block,
                format!("1 to {table}.max_block = {max_block}"),
            );
            found.need(
                min_block as usize <= most,
                &key("min_block"),
                min_block,
                format!("at most {most}, the patches to choose {grid}"),
            );
        }
    }
}

/// Draws the set of each patch of a grid into `out`, row-major.
///
/// The counts are those of [`MaskSpec::counts`], always: BEiT's block generator often ends a few patches short, then single patches are
/// masked or unmasked at random as BEiT v2 does. An odd grid split in halves leaves one random patch in neither set. Randomness: `rng`.
/// The spec has passed [`MaskSpec::check`].
pub fn fill(mask: &MaskRequest, rng: &mut impl Rng, out: &mut Vec<PatchSet>) {
    let side = mask.side;
    let n = (side as usize).pow(2);
    let (a, b) = mask.spec.counts(n);
    out.clear();
    out.resize(n, Neither);
    match mask.spec {
        MaskSpec::UniformSplit { .. } | MaskSpec::UniformMask { .. } => {
            out[..a].fill(A);
            out[a..a + b].fill(B);
            out.shuffle(rng);
        }
        MaskSpec::BlockwiseMask { min_block, max_block, .. } => blocks(side, a, (min_block, max_block), rng, out),
        MaskSpec::BlockwiseSplit { min_block, max_block } => {
            blocks(side, a, (min_block, max_block), rng, out);
            out.iter_mut().filter(|set| **set == Neither).for_each(|set| *set = B);
            if n % 2 == 1 {
                move_one(out, B, Neither, rng);
            }
        }
    }
}

/// Puts exactly `target` patches into A by rectangles, then single patches.
fn blocks(side: u32, target: usize, (min_block, max_block): (u32, u32), rng: &mut impl Rng, out: &mut [PatchSet]) {
    let side = side as usize;
    let mut masked = 0;
    while masked < target {
        let added = block(side, (target - masked).min(max_block as usize), min_block, rng, out);
        if added == 0 {
            break;
        }
        masked += added;
    }
    while masked < target {
        move_one(out, Neither, A, rng);
        masked += 1;
    }
    while masked > target {
        move_one(out, A, Neither, rng);
        masked -= 1;
    }
}

/// Tries to put one rectangle into A that adds 1 to `allowed` patches; answers how many it added.
fn block(side: usize, allowed: usize, min_block: u32, rng: &mut impl Rng, out: &mut [PatchSet]) -> usize {
    for _ in 0..TRIES {
        // As in BEiT, the bounds may stand the wrong way round near the end: then the block is larger than what may be added, and
        // only an overlap with masked patches lets it in.
        let (low, high) = (f64::from(min_block), allowed as f64);
        let area = low + (high - low) * rng.random::<f64>();
        let aspect = ((2.0 * rng.random::<f64>() - 1.0) * LOG_ASPECT).exp();
        let height = (area * aspect).sqrt().round_ties_even() as usize;
        let width = (area / aspect).sqrt().round_ties_even() as usize;
        if height == 0 || width == 0 || height >= side || width >= side {
            continue;
        }
        let top = rng.random_range(0..=side - height);
        let left = rng.random_range(0..=side - width);
        let rows = || (top..top + height).map(|y| y * side + left..y * side + left + width);
        let added = rows().map(|r| out[r].iter().filter(|set| **set == Neither).count()).sum();
        if (1..=allowed).contains(&added) {
            for row in rows() {
                out[row].fill(A);
            }
            return added;
        }
    }
    0
}

/// Moves one random patch from one set to another.
fn move_one(out: &mut [PatchSet], from: PatchSet, to: PatchSet, rng: &mut impl Rng) {
    let candidates = out.iter().filter(|set| **set == from).count();
    if candidates > 0 {
        let which = rng.random_range(0..candidates);
        if let Some(patch) = out.iter_mut().filter(|set| **set == from).nth(which) {
            *patch = to;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    use super::*;

    fn draw(spec: &MaskSpec, side: u32, seed: u64) -> Vec<PatchSet> {
        let mut out = vec![B; 3];
        fill(&MaskRequest { side, spec: *spec }, &mut ChaCha8Rng::seed_from_u64(seed), &mut out);
        out
    }

    fn count(sets: &[PatchSet], set: PatchSet) -> usize {
        sets.iter().filter(|s| **s == set).count()
    }

    fn any_spec() -> impl Strategy<Value = (MaskSpec, u32)> {
        (2u32..24, 1u32..80, 0u32..80, 0.0f32..0.6, 1u32..600, 0u8..4).prop_map(|(side, min_block, more, keep, count, kind)| {
            let max_block = min_block + more;
            let spec = match kind {
                0 => MaskSpec::BlockwiseSplit { min_block, max_block },
                1 => MaskSpec::UniformSplit { keep },
                2 => MaskSpec::UniformMask { ratio: 2.0 * keep },
                _ => MaskSpec::BlockwiseMask {
                    count,
                    min_block,
                    max_block,
                },
            };
            (spec, side)
        })
    }

    proptest! {
        #[test]
        fn counts_are_exact_and_draws_repeat((spec, side) in any_spec(), seed: u64) {
            prop_assume!(wrong(&spec, side).is_empty());
            let sets = draw(&spec, side, seed);
            let n = (side * side) as usize;
            let (a, b) = spec.counts(n);
            prop_assert_eq!(sets.len(), n);
            prop_assert_eq!((count(&sets, A), count(&sets, B), count(&sets, Neither)), (a, b, n - a - b));
            prop_assert_eq!(draw(&spec, side, seed), sets);
        }

        #[test]
        fn both_halves_are_equal_at_any_side(side in 2u32..40, seed: u64) {
            let sets = draw(&MaskSpec::BlockwiseSplit { min_block: 16, max_block: 75 }, side, seed);
            prop_assert_eq!(count(&sets, A), count(&sets, B));
            prop_assert_eq!(count(&sets, Neither), (side * side % 2) as usize);
        }
    }

    #[test]
    fn blocks_are_connected_lumps_and_uniform_sets_are_not() {
        // Neighbouring pairs in the same set among the 364 of a 14×14 grid: half of them by chance, far more in blocks.
        let same = |spec: &MaskSpec| -> f64 {
            let mut pairs = 0usize;
            for seed in 0..200 {
                let sets = draw(spec, 14, seed);
                for i in 0..196 {
                    pairs += usize::from(i % 14 < 13 && sets[i] == sets[i + 1]) + usize::from(i < 182 && sets[i] == sets[i + 14]);
                }
            }
            pairs as f64 / (200.0 * 364.0)
        };
        let uniform = same(&MaskSpec::UniformSplit { keep: 0.5 });
        assert!((uniform - 0.497).abs() < 0.01, "{uniform}");
        let blockwise = same(&MaskSpec::BlockwiseSplit {
            min_block: 16,
            max_block: 75,
        });
        assert!(blockwise > 0.75, "{blockwise}");
    }

    #[test]
    fn the_generator_alone_reaches_beits_counts() {
        // BEiT's generator in Python, 20,000 runs, target 98, blocks of 16 to 75: exact in 71 %, mean 97.6 before the correction.
        let (mut exact, mut sum, runs) = (0, 0usize, 4000);
        for seed in 0..runs {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            let mut out = vec![Neither; 196];
            let mut masked = 0;
            while masked < 98 {
                match block(14, (98 - masked).min(75), 16, &mut rng, &mut out) {
                    0 => break,
                    added => masked += added,
                }
            }
            exact += usize::from(masked == 98);
            sum += masked;
        }
        assert!((exact as f64 / runs as f64 - 0.71).abs() < 0.03, "{exact}");
        assert!((sum as f64 / runs as f64 - 97.6).abs() < 0.1, "{sum}");
    }

    fn wrong(spec: &MaskSpec, side: u32) -> String {
        let mut found = Findings::default();
        spec.check("mask", side, &mut found);
        found.found().iter().map(|v| format!("{v}\n")).collect()
    }

    #[test]
    fn bad_specs_are_refused_with_the_field_and_the_range() {
        let blocks = |min_block, max_block| MaskSpec::BlockwiseSplit { min_block, max_block };
        let masked = |count, min_block| MaskSpec::BlockwiseMask {
            count,
            min_block,
            max_block: 75,
        };
        let cases = [
            (
                MaskSpec::UniformSplit { keep: 0.6 },
                14,
                "mask.keep = 0.6: expected above 0, at most 0.5",
            ),
            (MaskSpec::UniformSplit { keep: f32::NAN }, 14, "mask.keep = NaN"),
            (
                MaskSpec::UniformSplit { keep: 0.01 },
                2,
                "at least one patch for each set (grid of 2 × 2",
            ),
            (MaskSpec::UniformSplit { keep: 0.5 }, 1, "mask.keep = 0.5"),
            (blocks(20, 10), 14, "mask.min_block = 20: expected 1 to mask.max_block = 10"),
            (blocks(0, 10), 14, "mask.min_block = 0"),
            (blocks(99, 120), 14, "mask.min_block = 99: expected at most 98"),
            (blocks(1, 1), 1, "at least 2 × 2"),
            (
                MaskSpec::UniformMask { ratio: 1.0 },
                14,
                "mask.ratio = 1: expected above 0, below 1",
            ),
            (MaskSpec::UniformMask { ratio: f32::NAN }, 14, "mask.ratio = NaN"),
            (MaskSpec::UniformMask { ratio: 0.9 }, 2, "one is seen (grid of 2 × 2"),
            (masked(196, 16), 14, "mask.count = 196: expected 1 to 195 patches"),
            (masked(0, 16), 14, "mask.count = 0"),
            (masked(10, 16), 14, "mask.min_block = 16: expected at most 10"),
        ];
        for (spec, side, words) in cases {
            let message = wrong(&spec, side);
            assert!(message.contains(words), "{message}");
        }
    }

    #[test]
    fn three_quarters_of_the_papers_grid_are_147_patches_each_as_often_as_another() {
        // arXiv 2111.06377 §3: 49 of 196 are seen.
        let spec = MaskSpec::UniformMask { ratio: 0.75 };
        assert_eq!((spec.counts(196), spec.counts(16)), ((147, 0), (12, 0)));
        let mut masked = [0u32; 196];
        for seed in 0..2000 {
            for (times, set) in masked.iter_mut().zip(draw(&spec, 14, seed)) {
                *times += u32::from(set == A);
            }
        }
        // 1500 times each, with a standard deviation of 19.
        assert!(masked.iter().all(|times| (1400..=1600).contains(times)), "{masked:?}");
    }

    #[test]
    fn half_of_an_odd_grid_leaves_one_patch_in_no_set() {
        for spec in [
            MaskSpec::UniformSplit { keep: 0.5 },
            MaskSpec::BlockwiseSplit {
                min_block: 2,
                max_block: 18,
            },
        ] {
            assert_eq!(wrong(&spec, 7), "");
            let sets = draw(&spec, 7, 5);
            assert_eq!((count(&sets, A), count(&sets, B), count(&sets, Neither)), (24, 24, 1), "{spec:?}");
        }
    }
}
