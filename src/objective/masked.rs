//! What objectives over masked patches share: the checks of a batch, and masks that fit a grid.

use splitmask_pipeline::request::{IMAGE, MaskRequest, MaskSpec, SampleRequest, ViewRequest, WordRequest};
use tch::Tensor;

use super::input::{image, shape};
use super::{ObjectiveError, Scope};
use crate::model::Vit;
use crate::model::config::VitConfig;
use crate::setting::{Findings, Fitting};
use crate::tensor::{PatchSets, StepInput, place_rows};

/// Patches of the grid that BEiT's numbers are for: 14 × 14 (arXiv 2106.08254 §2.3).
const PAPER_PATCHES: f64 = 196.0;

/// As large a share of a grid of `patches` as `of_196` is of BEiT's, at least one patch.
fn share_of_grid(of_196: u32, patches: u32) -> u32 {
    ((f64::from(of_196) * f64::from(patches) / PAPER_PATCHES).round() as u32).max(1)
}

/// Patches N as the pipeline counts them.
pub(super) fn patches(model: &VitConfig) -> u32 {
    u32::try_from(model.patches()).unwrap_or(u32::MAX)
}

/// Patches a side.
pub(super) fn side(model: &VitConfig) -> u32 {
    u32::try_from(model.grid()).unwrap_or(u32::MAX)
}

/// BEiT's number of masked patches and its blocks are for a grid of 14 × 14; on a smaller one, defaults that do not fit become the same shares.
pub(super) fn fit_mask(mask: &mut MaskSpec, model: &VitConfig, fitting: &mut Fitting<'_>) {
    let patches = patches(model);
    let grid = format!("the grid has {0} × {0} = {patches} patches", model.grid());
    if let MaskSpec::BlockwiseMask { count, .. } = mask
        && *count >= patches
    {
        let share = share_of_grid(*count, patches);
        fitting.fit("objective.mask.count", count, share, grid.clone());
    }
    let (a, b) = mask.counts(patches as usize);
    let target = u32::try_from(a.max(b)).unwrap_or(u32::MAX);
    if let MaskSpec::BlockwiseSplit { min_block, max_block } | MaskSpec::BlockwiseMask { min_block, max_block, .. } = mask {
        let most = target.min(*max_block).max(1);
        if *min_block > most {
            let share = share_of_grid(*min_block, patches).min(most);
            fitting.fit(
                "objective.mask.min_block",
                min_block,
                share,
                format!("{grid}, {target} of them to choose in blocks of at most {max_block}"),
            );
        }
        if *max_block < *min_block {
            fitting.fit(
                "objective.mask.max_block",
                max_block,
                *min_block,
                format!("objective.mask.min_block = {min_block}"),
            );
        }
    }
}

/// Says so if blocks can be larger than what there is to choose.
pub(super) fn odd_blocks(mask: &MaskSpec, model: &VitConfig) -> Option<String> {
    let half = patches(model) / 2;
    match *mask {
        MaskSpec::BlockwiseSplit { max_block, .. } if max_block > half => Some(format!(
            "objective.mask.max_block = {max_block} is more than the {half} patches of a half: blocks stop at what is left"
        )),
        _ => None,
    }
}

/// Needs a rate of drop path.
pub(super) fn drop_path(key: &str, rate: f64, found: &mut Findings) {
    found.need((0.0..1.0).contains(&rate), key, rate, "0 (off) to below 1");
}

/// One view of the model's size with its mask, and its visual words if they are wanted.
pub(super) fn one_view(at: &Scope<'_>, mask: MaskSpec, words: bool) -> SampleRequest {
    let Scope { model, crop, colour, .. } = *at;
    let view = ViewRequest {
        crop,
        colour,
        ..ViewRequest::new(IMAGE, model.image)
    };
    SampleRequest {
        words: words.then_some(WordRequest {
            view: IMAGE,
            patch: model.patch,
        }),
        mask: Some(MaskRequest {
            side: side(model),
            spec: mask,
        }),
        ..SampleRequest::of_views(vec![view])
    }
}

/// Images B×3×S×S to patch embeddings B×N×D with their positions, those at `rows` (i64, of all B·N) replaced by `mask_token` (D values) first.
pub(super) fn embed_hidden(vit: &Vit, image: &Tensor, rows: &Tensor, mask_token: &Tensor) -> Tensor {
    let patches = vit.patches(image);
    let (b, n, d) = patches.size3().expect("patches are B×N×D");
    let hidden = mask_token.view([1, d]).expand([rows.size()[0], d], false);
    let tokens = place_rows(&patches.view([b * n, d]), rows, &hidden).view([b, n, d]);
    tokens + vit.patch_positions(image.size()[2] / vit.patch())
}

/// What masked image modelling needs.
pub(super) struct MaskedInput<'a> {
    pub(super) image: &'a Tensor,
    pub(super) words: Option<&'a Tensor>,
    pub(super) sets: &'a PatchSets,
}

/// Checks the view, words (if a vocabulary is given) and sets against the model.
pub(super) fn masked_input<'a>(
    objective: &'static str,
    input: &'a StepInput,
    vit: &Vit,
    vocabulary: Option<i64>,
) -> Result<MaskedInput<'a>, ObjectiveError> {
    let image = image(objective, input, vit)?;
    let sets = input.sets.as_ref().ok_or(ObjectiveError::Lacks { objective, what: "mask" })?;
    let n = (vit.image() / vit.patch()).pow(2);
    shape(objective, "the mask", &[input.len, sets.patches], &[input.len, n])?;
    if sets.a.size()[1] == 0 {
        return Err(ObjectiveError::Lacks {
            objective,
            what: "patch in set A of the mask",
        });
    }
    let words = match vocabulary {
        None => None,
        Some(vocabulary) => {
            let words = input.words.as_ref().ok_or(ObjectiveError::Lacks {
                objective,
                what: "visual words",
            })?;
            shape(objective, "visual words", &words.size(), &[input.len, n])?;
            if i64::from(input.largest_word) >= vocabulary {
                return Err(ObjectiveError::Word {
                    objective,
                    word: input.largest_word,
                    vocabulary,
                });
            }
            Some(words)
        }
    };
    Ok(MaskedInput { image, words, sets })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fitted(mut mask: MaskSpec, image: u32, set: &'static str) -> (MaskSpec, Vec<String>) {
        let model = VitConfig {
            image,
            ..VitConfig::default()
        };
        let is_set = |key: &str| key == set;
        let mut fitting = Fitting::new(&is_set);
        fit_mask(&mut mask, &model, &mut fitting);
        let told = fitting.fitted().into_iter().map(|f| format!("{} {} → {}", f.key, f.from, f.to));
        (mask, told.collect())
    }

    const SPLIT: MaskSpec = MaskSpec::BlockwiseSplit {
        min_block: 16,
        max_block: 75,
    };
    const MASK: MaskSpec = MaskSpec::BlockwiseMask {
        count: 75,
        min_block: 16,
        max_block: 75,
    };

    fn wrong(mask: &MaskSpec, image: u32) -> usize {
        let mut found = Findings::default();
        mask.check("objective.mask", image / 16, &mut found);
        found.found().len()
    }

    #[test]
    fn blocks_of_the_papers_grid_become_the_same_share_of_a_small_one() {
        assert_eq!(fitted(SPLIT, 224, ""), (SPLIT, vec![]));
        let (mask, told) = fitted(SPLIT, 64, "");
        assert_eq!(told, ["objective.mask.min_block 16 → 1"]);
        assert_eq!(wrong(&mask, 64), 0);
        let (mask, told) = fitted(MASK, 128, "");
        assert_eq!(told, ["objective.mask.count 75 → 24"]);
        assert_eq!(wrong(&mask, 128), 0);
        let (mask, told) = fitted(MASK, 64, "");
        assert_eq!(told, ["objective.mask.count 75 → 6", "objective.mask.min_block 16 → 1"]);
        assert_eq!(wrong(&mask, 64), 0);
    }

    #[test]
    fn every_default_fits_every_grid_that_can_be_masked() {
        for image in (32..=512).step_by(16) {
            for mask in [SPLIT, MASK, MaskSpec::UniformSplit { keep: 0.5 }] {
                let (fitted, _) = fitted(mask, image, "");
                assert_eq!(wrong(&fitted, image), 0, "{fitted:?} at {image}");
            }
        }
    }

    #[test]
    fn what_somebody_wrote_stays_and_is_refused() {
        let (mask, told) = fitted(SPLIT, 64, "objective.mask.min_block");
        assert_eq!((mask, told.len()), (SPLIT, 0));
        assert_eq!(wrong(&mask, 64), 1);
    }
}
