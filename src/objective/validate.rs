//! Checks of `[objective]` against the model and the batch, and the view plan that follows from both.

use splitmask_pipeline::types::{ColourConfig, CropConfig, MaskSpec, ViewPlan, ViewSpec, WordSpec};

use crate::model::config::VitConfig;
use crate::objective::config::{BeitConfig, ObjectiveConfig, SplitMaskConfig};

/// Key, value, what is allowed.
type Violation = (&'static str, String, String);

fn check(ok: bool, key: &'static str, value: &dyn ToString, allowed: impl Into<String>) -> Result<(), Violation> {
    if ok {
        Ok(())
    } else {
        Err((key, value.to_string(), allowed.into()))
    }
}

impl ObjectiveConfig {
    /// `objective.kind`.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Splitmask(_) => "splitmask",
            Self::Beit(_) => "beit",
        }
    }

    /// Which patches go where.
    #[must_use]
    pub fn mask(&self) -> MaskSpec {
        match self {
            Self::Splitmask(c) => c.mask,
            Self::Beit(c) => c.mask,
        }
    }

    /// Whether visual words are predicted, i.e. a codebook is needed.
    #[must_use]
    pub fn needs_words(&self) -> bool {
        match self {
            Self::Splitmask(c) => c.inpaint,
            Self::Beit(_) => true,
        }
    }

    /// What the pipeline must build: one view of the model's size, its words if they are predicted, its mask.
    #[must_use]
    pub fn views(&self, model: &VitConfig, crop: CropConfig, colour: ColourConfig) -> ViewPlan {
        ViewPlan {
            views: vec![ViewSpec {
                size: model.image,
                crop,
                colour,
            }],
            words: self.needs_words().then_some(WordSpec { patch: model.patch }),
            target: None,
            mask: Some((model.image / model.patch, self.mask())),
        }
    }

    /// Checks all keys; answers (key, value, what is allowed) of the first violation. `batch` is the number of images of one forward pass
    /// (`train.batch` ÷ `train.accumulate`): they are each other's negatives.
    ///
    /// # Errors
    /// The offending key.
    pub fn validate(&self, model: &VitConfig, batch: u32) -> Result<(), Violation> {
        let patches = model.patches();
        match self {
            Self::Splitmask(c) => c.validate(patches, batch),
            Self::Beit(c) => c.validate(patches),
        }
    }
}

fn drop_path(key: &'static str, rate: f64) -> Result<(), Violation> {
    check((0.0..1.0).contains(&rate), key, &rate, "0 (off) to below 1")
}

fn weight(key: &'static str, value: f64) -> Result<(), Violation> {
    check(value >= 0.0 && value.is_finite(), key, &value, "0 or above")
}

fn blocks(min_block: u32, max_block: u32, most: i64) -> Result<(), Violation> {
    check(
        min_block >= 1 && i64::from(min_block) <= most,
        "objective.mask.min_block",
        &min_block,
        format!("1 to {most}"),
    )?;
    check(
        max_block >= min_block,
        "objective.mask.max_block",
        &max_block,
        format!("at least objective.mask.min_block = {min_block}"),
    )
}

impl SplitMaskConfig {
    fn validate(&self, patches: i64, batch: u32) -> Result<(), Violation> {
        match self.mask {
            MaskSpec::BlockwiseSplit { min_block, max_block } => {
                check(
                    patches % 2 == 0,
                    "objective.mask.kind",
                    &"blockwise-split",
                    format!("uniform-split for an odd number of patches (this model has {patches}), or another model.image"),
                )?;
                blocks(min_block, max_block, patches / 2)?;
            }
            MaskSpec::UniformSplit { keep } => {
                let seen = (f64::from(keep) * patches as f64).round() as i64;
                check(
                    keep > 0.0 && keep <= 0.5 && seen >= 1 && 2 * seen <= patches,
                    "objective.mask.keep",
                    &keep,
                    format!("above 0, at most 0.5, and at least one of {patches} patches for each set"),
                )?;
            }
            MaskSpec::BlockwiseMask { .. } => {
                return check(
                    false,
                    "objective.mask.kind",
                    &"blockwise-mask",
                    "blockwise-split or uniform-split: two sets are needed",
                );
            }
        }
        check(
            self.inpaint || self.match_,
            "objective.match",
            &"false",
            "true where objective.inpaint is false: nothing would be learnt",
        )?;
        weight("objective.inpaint_weight", self.inpaint_weight)?;
        weight("objective.match_weight", self.match_weight)?;
        let learnt = (self.inpaint && self.inpaint_weight > 0.0) || (self.match_ && self.match_weight > 0.0);
        check(
            learnt,
            "objective.inpaint_weight",
            &self.inpaint_weight,
            "above 0 where the match loss has no weight: nothing would be learnt",
        )?;
        check(
            self.temperature > 0.0 && self.temperature.is_finite(),
            "objective.temperature",
            &self.temperature,
            "above 0 (0.2 in the paper)",
        )?;
        check(
            !self.match_ || batch >= 2,
            "train.batch",
            &batch,
            "at least 2 images in each forward pass (train.batch ÷ train.accumulate), because objective.match compares them",
        )?;
        check(
            (1..=32).contains(&self.decoder_depth),
            "objective.decoder_depth",
            &self.decoder_depth,
            "1 to 32 (2 in the paper)",
        )?;
        drop_path("objective.drop_path", self.drop_path)?;
        drop_path("objective.decoder_drop_path", self.decoder_drop_path)
    }
}

impl BeitConfig {
    fn validate(&self, patches: i64) -> Result<(), Violation> {
        let MaskSpec::BlockwiseMask {
            count,
            min_block,
            max_block,
        } = self.mask
        else {
            let kind = if matches!(self.mask, MaskSpec::UniformSplit { .. }) {
                "uniform-split"
            } else {
                "blockwise-split"
            };
            return check(false, "objective.mask.kind", &kind, "blockwise-mask: BEiT masks one set");
        };
        check(
            count >= 1 && i64::from(count) < patches,
            "objective.mask.count",
            &count,
            format!("1 to {} (the model has {patches} patches)", patches - 1),
        )?;
        blocks(min_block, max_block, i64::from(count))?;
        drop_path("objective.drop_path", self.drop_path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objective::OBJECTIVES;

    fn key(config: SplitMaskConfig, model: &VitConfig, batch: u32) -> &'static str {
        ObjectiveConfig::Splitmask(config).validate(model, batch).unwrap_err().0
    }

    #[test]
    fn defaults_are_valid_and_registered_under_their_kind() {
        for entry in OBJECTIVES {
            let config = (entry.default)();
            assert_eq!(config.kind(), entry.name);
            assert_eq!(config.validate(&VitConfig::default(), 2), Ok(()));
            let plan = config.views(&VitConfig::default(), CropConfig::default(), ColourConfig::default());
            assert_eq!(plan.patches(), 196);
        }
    }

    #[test]
    fn violations_name_their_key() {
        let d = SplitMaskConfig::default;
        let m = VitConfig::default();
        assert_eq!(key(SplitMaskConfig { temperature: 0.0, ..d() }, &m, 2), "objective.temperature");
        assert_eq!(
            key(
                SplitMaskConfig {
                    inpaint: false,
                    match_: false,
                    ..d()
                },
                &m,
                2
            ),
            "objective.match"
        );
        assert_eq!(
            key(
                SplitMaskConfig {
                    inpaint_weight: 0.0,
                    match_: false,
                    ..d()
                },
                &m,
                2
            ),
            "objective.inpaint_weight"
        );
        assert_eq!(key(d(), &m, 1), "train.batch");
        assert_eq!(key(SplitMaskConfig { decoder_depth: 0, ..d() }, &m, 2), "objective.decoder_depth");
        assert_eq!(key(SplitMaskConfig { drop_path: 1.0, ..d() }, &m, 2), "objective.drop_path");
        assert_eq!(
            key(
                SplitMaskConfig {
                    mask: MaskSpec::UniformSplit { keep: 0.6 },
                    ..d()
                },
                &m,
                2
            ),
            "objective.mask.keep"
        );
        assert_eq!(
            key(
                SplitMaskConfig {
                    mask: MaskSpec::UniformSplit { keep: f32::NAN },
                    ..d()
                },
                &m,
                2
            ),
            "objective.mask.keep"
        );
        let odd = VitConfig {
            image: 48,
            ..VitConfig::default()
        };
        assert_eq!(key(d(), &odd, 2), "objective.mask.kind");
        let few = VitConfig {
            image: 64,
            ..VitConfig::default()
        };
        assert_eq!(key(d(), &few, 2), "objective.mask.min_block");
        let beit = ObjectiveConfig::Beit(BeitConfig::default());
        assert_eq!(beit.validate(&few, 1).unwrap_err().0, "objective.mask.count");
    }

    #[test]
    fn settings_go_through_toml() {
        let text = "kind = \"splitmask\"\nmatch = false\n[mask]\nkind = \"uniform-split\"\nkeep = 0.25\n";
        let config: ObjectiveConfig = toml::from_str(text).unwrap();
        assert_eq!(config.mask(), MaskSpec::UniformSplit { keep: 0.25 });
        assert!(toml::from_str::<ObjectiveConfig>("kind = \"splitmask\"\nmatchh = false\n").is_err());
        for entry in OBJECTIVES {
            let config = (entry.default)();
            assert_eq!(
                toml::from_str::<ObjectiveConfig>(&toml::to_string(&config).unwrap()).unwrap(),
                config
            );
        }
    }
}
