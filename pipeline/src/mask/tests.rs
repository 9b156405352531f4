//! Counts, blocks, refusals.

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
        (MaskSpec::UniformSplit { keep: 0.01 }, 2, "at least one patch for each set: "),
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
        (
            MaskSpec::UniformMask { ratio: 0.9 },
            2,
            "1 to 3 masked patches: 0.9 is 4 (grid of 2 × 2",
        ),
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
fn half_of_the_views_hide_a_tenth_to_a_half_of_their_patches() {
    let asked = HiddenRequest {
        view: "global",
        side: 14,
        probability: 0.5,
        ratio: [0.1, 0.5],
    };
    let mut out = vec![];
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    (0..4000).for_each(|_| hide(&asked, &mut rng, &mut out));
    assert_eq!(out.len(), 4000 * 196);
    let counts: Vec<usize> = out.chunks(196).map(|view| count(view, A)).filter(|&n| n > 0).collect();
    assert!((counts.len() as f64 / 4000.0 - 0.5).abs() < 0.03, "{}", counts.len());
    assert!(counts.iter().all(|n| (19..98).contains(n)), "{counts:?}");
    let mean = counts.iter().sum::<usize>() as f64 / counts.len() as f64;
    assert!((mean / 196.0 - 0.3).abs() < 0.01, "{mean}");
    // Lumps: a hidden patch has a hidden one to its right far more often than the three tenths of chance.
    let beside = |view: &[PatchSet]| (0..195).filter(|i| i % 14 < 13 && view[*i] == A && view[i + 1] == A).count();
    let pairs: usize = out.chunks(196).map(beside).sum();
    assert!(pairs as f64 / counts.iter().sum::<usize>() as f64 > 0.65, "{pairs}");
    assert!(out.iter().all(|set| *set != B));
}

#[test]
fn small_grids_hide_at_least_one_patch_and_show_one() {
    for (side, ratio) in [(2, [0.01, 0.01]), (2, [0.99, 0.99]), (3, [0.1, 0.9]), (4, [0.1, 0.5])] {
        let asked = HiddenRequest {
            view: "global",
            side,
            probability: 1.0,
            ratio,
        };
        let mut rng = ChaCha8Rng::seed_from_u64(4);
        for _ in 0..200 {
            let mut out = vec![];
            hide(&asked, &mut rng, &mut out);
            let (hidden, n) = (count(&out, A), (side * side) as usize);
            assert!((1..n).contains(&hidden), "{hidden} of {n}");
            let [low, high] = ratio.map(|share| (f64::from(share) * n as f64) as usize);
            assert!((low.max(1)..=high.max(1)).contains(&hidden), "{hidden}, {asked:?}");
        }
    }
}

#[test]
fn bad_requests_to_hide_are_refused_with_the_key() {
    let told = |probability, ratio| {
        let mut found = Findings::default();
        let asked = HiddenRequest {
            view: "global",
            side: 14,
            probability,
            ratio,
        };
        asked.check("objective.ibot_mask_", &mut found);
        found.found().iter().map(|v| format!("{v}\n")).collect::<String>()
    };
    assert_eq!(told(0.5, [0.1, 0.5]), "");
    assert_eq!(told(1.0, [0.3, 0.3]), "");
    for (message, words) in [
        (told(0.0, [0.1, 0.5]), "objective.ibot_mask_probability = 0: expected above 0"),
        (told(f32::NAN, [0.1, 0.5]), "objective.ibot_mask_probability = NaN"),
        (
            told(0.5, [0.0, 0.5]),
            "objective.ibot_mask_ratio = [0.0, 0.5]: expected [low, high]",
        ),
        (told(0.5, [0.5, 0.1]), "objective.ibot_mask_ratio = [0.5, 0.1]"),
        (told(0.5, [0.5, 1.0]), "objective.ibot_mask_ratio = [0.5, 1.0]"),
        (told(0.5, [f32::NAN, 0.5]), "objective.ibot_mask_ratio = [NaN, 0.5]"),
    ] {
        assert!(message.contains(words), "{message}");
    }
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
