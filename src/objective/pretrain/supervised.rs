//! Supervised: tell the class of an image, as DeiT learns it (arXiv 2012.12877). What the other objectives are compared with where there are labels.

use splitmask_pipeline::request::SampleRequest;
use tch::nn::Path;
use toml::Table;

use crate::objective::classes::{self, Classifier, Parts, Recipe};
use crate::objective::two_views::Pool;
use crate::objective::{Kind, Objective, Plan, Scope, read, settings as settings_of, table};
use crate::setting::{Findings, Violation, settings};

/// The row of the registry.
pub static KIND: Kind = Kind {
    name: "supervised",
    doc: "tell the class of an image, with labels: what learning without them is compared with",
    reference: "arXiv 2012.12877",
    keys: &[SupervisedConfig::KEYS],
    numbers: classes::NUMBERS,
    collapse: classes::COLLAPSE,
    sheets: &[],
    variants: || vec![Box::new(SupervisedConfig::default())],
    read: read::<SupervisedConfig>,
};

settings! {
    /// DeiT's settings (arXiv 2012.12877 table 9 and the authors' code; docs/method.md §10 says which are sure).
    pub struct SupervisedConfig in "objective" {
        /// Classes of the labels, the outputs of the head; 0 = those that the manifest of `data.train` names.
        Frozen classes: u32 = 0,
        /// What the head sees of an image: the `class` token, or the `mean` of the patches.
        Frozen pool: Pool = Pool::Class,
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
        /// Magnitude of RandAugment, 0 to 10 (arXiv 1909.13719; timm's operations, increasing); 0 = off, 9 in DeiT.
        Restart rand_augment: f64 = 0.0,
        /// Standard deviation of an operation's own magnitude.
        Restart rand_augment_deviation: f64 = 0.5,
        /// Probability that a rectangle of an image becomes noise (arXiv 1708.04896).
        Live erasing: f64 = 0.25,
        /// Drop path of the encoder, linear over depth.
        Restart drop_path: f64 = 0.1,
    }
}

impl SupervisedConfig {
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

impl Plan for SupervisedConfig {
    fn kind(&self) -> &'static Kind {
        &KIND
    }

    fn table(&self) -> Table {
        table(self)
    }

    fn check(&self, _: &Scope<'_>) -> Vec<Violation> {
        let mut found = Findings::default();
        self.recipe().check(&mut found);
        found.found()
    }

    fn oddities(&self, at: &Scope<'_>) -> Vec<String> {
        self.recipe().oddities(at)
    }

    fn request(&self, at: &Scope<'_>) -> SampleRequest {
        self.recipe().request(at)
    }

    fn build(&self, vs: &Path<'_>, at: &Scope<'_>) -> Box<dyn Objective> {
        let parts = Parts {
            kind: KIND.name,
            pool: self.pool,
            fresh_norm: false,
            frozen: false,
            head_deviation: 0.02,
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

    fn chance(&self, number: &str, at: &Scope<'_>) -> Option<f64> {
        self.recipe().chance(number, at)
    }

    fn over_ranks(&self) -> Result<(), &'static str> {
        Ok(())
    }

    fn forward_flops(&self, at: &Scope<'_>) -> f64 {
        self.recipe().forward_flops(at, 1.0)
    }
}

#[cfg(test)]
mod tests;
