//! `[objective]` against the patch grid and the batch.

use splitmask_pipeline::types::MaskSpec;

use super::Findings;
use crate::config::Config;
use crate::objective::config::ObjectiveConfig;

pub(super) fn check(config: &Config, f: &mut Findings<'_>) {
    let patches = u32::try_from(config.model.patches()).unwrap_or(u32::MAX);
    let grid = format!(
        "{0}×{0} = {patches} patches of model.image = {1} and model.patch = {2}",
        config.model.grid(),
        config.model.image,
        config.model.patch
    );
    let mask = match &config.objective {
        ObjectiveConfig::Splitmask(c) => {
            f.need(
                !matches!(c.mask, MaskSpec::BlockwiseMask { .. }),
                "objective.mask.kind",
                "\"blockwise-mask\"",
                "\"blockwise-split\" or \"uniform-split\" with objective.kind = \"splitmask\"",
            );
            f.need(
                c.inpaint || c.match_,
                "objective.inpaint",
                false,
                "true, or objective.match = true: something must be learnt",
            );
            f.need(c.inpaint_weight >= 0.0, "objective.inpaint_weight", c.inpaint_weight, "0 or more");
            f.need(c.match_weight >= 0.0, "objective.match_weight", c.match_weight, "0 or more");
            let weight = f64::from(u8::from(c.inpaint)) * c.inpaint_weight + f64::from(u8::from(c.match_)) * c.match_weight;
            f.need(
                weight > 0.0 || !(c.inpaint || c.match_),
                "objective.inpaint_weight",
                c.inpaint_weight,
                "a positive weight on some loss that is on",
            );
            f.need(c.temperature > 0.0, "objective.temperature", c.temperature, "above 0");
            f.need(
                !c.match_ || config.train.batch >= 2,
                "train.batch",
                config.train.batch,
                "at least 2 images with objective.match = true",
            );
            f.need(
                !c.inpaint || (1..=48).contains(&c.decoder_depth),
                "objective.decoder_depth",
                c.decoder_depth,
                "1 to 48",
            );
            f.need(
                (0.0..1.0).contains(&c.drop_path),
                "objective.drop_path",
                c.drop_path,
                "0 to below 1",
            );
            f.need(
                (0.0..1.0).contains(&c.decoder_drop_path),
                "objective.decoder_drop_path",
                c.decoder_drop_path,
                "0 to below 1",
            );
            c.mask
        }
        ObjectiveConfig::Beit(c) => {
            f.need(
                matches!(c.mask, MaskSpec::BlockwiseMask { .. }),
                "objective.mask.kind",
                "",
                "\"blockwise-mask\" with objective.kind = \"beit\"",
            );
            f.need(
                (0.0..1.0).contains(&c.drop_path),
                "objective.drop_path",
                c.drop_path,
                "0 to below 1",
            );
            c.mask
        }
    };
    match mask {
        MaskSpec::BlockwiseSplit { min_block, max_block } => {
            f.need(
                patches % 2 == 0,
                "model.image",
                config.model.image,
                &format!("an even number of patches for halves of equal size, not {grid}"),
            );
            blocks(min_block, max_block, patches / 2, &grid, f);
        }
        MaskSpec::BlockwiseMask {
            count,
            min_block,
            max_block,
        } => {
            f.need(
                (1..patches).contains(&count),
                "objective.mask.count",
                count,
                &format!("1 to fewer than the {grid}"),
            );
            blocks(min_block, max_block, count, &grid, f);
        }
        MaskSpec::UniformSplit { keep } => {
            let seen = (keep * patches as f32).round() as u32;
            f.need(
                keep <= 0.5 && seen >= 1 && 2 * seen <= patches,
                "objective.mask.keep",
                keep,
                &format!("a share of at most 0.5 that leaves each set a patch of the {grid}"),
            );
        }
    }
}

fn blocks(min_block: u32, max_block: u32, target: u32, grid: &str, f: &mut Findings<'_>) {
    f.need(
        min_block >= 1 && min_block <= max_block,
        "objective.mask.min_block",
        min_block,
        &format!("1 to objective.mask.max_block = {max_block}"),
    );
    f.need(
        min_block <= target,
        "objective.mask.min_block",
        min_block,
        &format!("at most {target}, the patches to choose of the {grid}"),
    );
}
