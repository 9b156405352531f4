//! Partitions of the patch grid with exact counts (arXiv 2112.10740 §4.1 and §5.5, blocks of arXiv 2106.08254 Algorithm 1).

use rand::Rng;
use rand::seq::SliceRandom;

use crate::request::{HiddenRequest, MaskRequest, MaskSpec};
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
                format!("above 0, at most 0.5, and at least one patch for each set: {keep} is {a} {grid}"),
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
                format!(
                    "above 0, below 1, and 1 to {} masked patches: {ratio} is {a} {grid}",
                    n.saturating_sub(1)
                ),
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

/// Smallest block of hidden patches (the authors' code of DINOv2).
const MIN_HIDDEN: u32 = 4;

/// Draws the hidden patches of one view and puts its grid behind `out`, row-major: A = hidden.
///
/// A view is masked or not by a draw of its own. Where it is, the number of patches is exact, as in [`fill`]; at least one is hidden and one is seen.
/// Randomness: `rng`. The request has passed [`HiddenRequest::check`].
pub fn hide(hidden: &HiddenRequest, rng: &mut impl Rng, out: &mut Vec<PatchSet>) {
    let n = (hidden.side as usize).pow(2);
    let start = out.len();
    out.resize(start + n, Neither);
    if rng.random::<f32>() >= hidden.probability {
        return;
    }
    let [low, high] = hidden.ratio.map(f64::from);
    let share = low + (high - low) * rng.random::<f64>();
    let count = ((share * n as f64) as usize).clamp(1, n.saturating_sub(1).max(1));
    blocks(hidden.side, count, (MIN_HIDDEN, (n / 2) as u32), rng, &mut out[start..]);
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
mod tests;
