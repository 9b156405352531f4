//! Classify: a pre-trained encoder and a new head learn the classes of labelled images, as BEiT is fine-tuned (arXiv 2106.08254 §2.6, appendix H). The
//! measure of arXiv 2112.10740 (§4, Table 9).

use splitmask_pipeline::request::SampleRequest;
use tch::nn::Path;
use toml::Table;

use crate::objective::classes::{self, Classifier, Parts, Recipe};
use crate::objective::two_views::Pool;
use crate::objective::{Kind, Objective, Plan, Scope, Start, read, settings as settings_of, table};
use crate::setting::{Findings, Fitting, Violation, settings};

pub use super::freeze::Freeze;

/// The row of the registry.
pub static KIND: Kind = Kind {
    name: "classify",
    doc: "fine-tune a pre-trained encoder with labels: a new head tells the class of an image",
    reference: "arXiv 2112.10740 table 9, arXiv 2106.08254 §2.6",
    keys: &[ClassifyConfig::KEYS],
    numbers: classes::NUMBERS,
    collapse: classes::COLLAPSE,
    sheets: &[],
    variants: || vec![Box::new(ClassifyConfig::default())],
    read: read::<ClassifyConfig>,
};

settings! {
    /// Fine-tuning's settings (arXiv 2112.10740 table 9; arXiv 2106.08254 appendix H). The encoder is that of `run.init_from`; learning rates by layer are
    /// `optim.layer_decay`.
    pub struct ClassifyConfig in "objective" {
        /// Classes of the labels, the outputs of the head; 0 = those that the manifest of `data.train` names.
        Frozen classes: u32 = 0,
        /// What the head sees of an image: the `mean` of the patches, through a new norm, or the `class` token. `mean` for SplitMask, BEiT and MAE, `class` for DINO, MoCo v3 and supervised.
        Frozen pool: Pool = Pool::Mean,
        /// What does not learn: `none`, or the `encoder`, so that the head alone does.
        Frozen freeze: Freeze = Freeze::None,
        /// Share of a target that is spread over all classes.
        Live smoothing: f64 = 0.1,
        /// Parameter of the Beta distribution that images are blended by (mixup, arXiv 1710.09412); 0 = never.
        Live mixup: f64 = 0.8,
        /// Parameter of the Beta distribution of the part that another image covers (CutMix, arXiv 1905.04899); 0 = never.
        Live cutmix: f64 = 1.0,
        /// Share of the steps that take CutMix where mixup is on too.
        Live cutmix_share: f64 = 0.5,
        /// Views of each image in a batch, drawn each anew: repeated augmentation (arXiv 1901.09335); 3 in DeiT. `train.batch` counts images, so a step takes so many times their work.
        Restart repeats: u32 = 1,
        /// Magnitude of RandAugment, 0 to 10 (arXiv 1909.13719; timm's operations, increasing); 0 = off.
        Restart rand_augment: f64 = 9.0,
        /// Standard deviation of an operation's own magnitude.
        Restart rand_augment_deviation: f64 = 0.5,
        /// Probability that a rectangle of an image becomes noise (arXiv 1708.04896); 0.25 in BEiT's recipe, not listed in SplitMask's.
        Live erasing: f64 = 0.0,
        /// Drop path of the encoder, linear over depth.
        Restart drop_path: f64 = 0.1,
    }
}

/// Deviation of the head's weights at the start: 0.02, all of it times 0.001, as in BEiT's code.
const HEAD_DEVIATION: f64 = 0.02 * 0.001;

impl ClassifyConfig {
    fn recipe(&self) -> Recipe {
        Recipe {
            classes: self.classes,
            smoothing: self.smoothing,
            mixup: self.mixup,
            cutmix: self.cutmix,
            cutmix_share: self.cutmix_share,
            repeats: self.repeats,
            rand_augment: self.rand_augment,
            rand_augment_deviation: self.rand_augment_deviation,
            erasing: self.erasing,
            drop_path: self.drop_path,
        }
    }
}

impl Plan for ClassifyConfig {
    fn kind(&self) -> &'static Kind {
        &KIND
    }

    fn table(&self) -> Table {
        table(self)
    }

    fn fit(&mut self, _: &Scope<'_>, fitting: &mut Fitting<'_>) {
        self.freeze.fit(&mut self.drop_path, fitting);
    }

    fn check(&self, _: &Scope<'_>) -> Vec<Violation> {
        let mut found = Findings::default();
        self.recipe().check(&mut found);
        self.freeze.check(self.drop_path, &mut found);
        found.found()
    }

    fn oddities(&self, at: &Scope<'_>) -> Vec<String> {
        self.recipe().oddities(at)
    }

    fn start(&self) -> Start {
        self.freeze.start()
    }

    fn request(&self, at: &Scope<'_>) -> SampleRequest {
        self.recipe().request(at)
    }

    fn build(&self, vs: &Path<'_>, at: &Scope<'_>) -> Box<dyn Objective> {
        let parts = Parts {
            kind: KIND.name,
            pool: self.pool,
            fresh_norm: true,
            frozen: self.freeze.is_encoder(),
            head_deviation: HEAD_DEVIATION,
            recipe: self.recipe(),
            recipe_of: |plan| Ok(settings_of::<Self>(plan, &KIND)?.recipe()),
        };
        Box::new(Classifier::new(vs, parts, at))
    }

    fn classes(&self) -> Option<u32> {
        Some(self.classes)
    }

    /// Mixed images, smoothed labels and the like are of the training alone.
    fn judged_by(&self) -> Table {
        Table::new()
    }

    fn class_pool(&self) -> Option<Pool> {
        Some(self.pool)
    }

    fn over_ranks(&self) -> Result<(), &'static str> {
        Ok(())
    }

    fn chance(&self, number: &str, at: &Scope<'_>) -> Option<f64> {
        self.recipe().chance(number, at)
    }

    fn forward_flops(&self, at: &Scope<'_>) -> f64 {
        self.recipe().forward_flops(at, self.freeze.forward_share())
    }
}

#[cfg(test)]
mod tests;
