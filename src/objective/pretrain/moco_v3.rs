//! MoCo v3: find the key that a running average of the encoder makes of the other view of an image (arXiv 2104.02057).

mod network;

use splitmask_pipeline::request::{ColourConfig, Filter, SampleRequest};
use tch::nn::Path;
use toml::Table;

use crate::head::ProjectionConfig;
use crate::model::{Positions, encoder_flops};
use crate::objective::teacher::{TEACHER_MOMENTUM, odd_momentum};
use crate::objective::two_views::{self, CONTRAST, CONTRAST_ACCURACY, CONTRAST_AT_CHANCE, PROJECTION_RANK, PROJECTIONS_ON_A_LINE};
use crate::objective::two_views::{Pool, VIEW_KEYS, colours};
use crate::objective::{Kind, Objective, Plan, Scope, read, table};
use crate::optim::cosine;
use crate::setting::{Findings, Fitting, Violation, settings};

/// The row of the registry.
pub static KIND: Kind = Kind {
    name: "moco-v3",
    doc: "find the key that a momentum encoder makes of the other view of an image among the keys of a batch",
    reference: "arXiv 2104.02057",
    keys: &[VIEW_KEYS, MocoV3Config::KEYS, ProjectionConfig::KEYS],
    numbers: &[CONTRAST, CONTRAST_ACCURACY, PROJECTION_RANK, TEACHER_MOMENTUM],
    collapse: &[CONTRAST_AT_CHANCE, PROJECTIONS_ON_A_LINE],
    sheets: &[],
    variants: || vec![Box::new(MocoV3Config::default())],
    read: read::<MocoV3Config>,
};

settings! {
    /// MoCo v3's settings (arXiv 2104.02057 §5 and the authors' code; docs/method.md §9 says which are sure).
    pub struct MocoV3Config in "objective" {
        /// Temperature of the loss.
        Live temperature: f64 = 0.2,
        /// Share of the momentum encoder that a step keeps, at the start.
        Restart momentum: f64 = 0.99,
        /// The same at the end of a cosine over all steps.
        Live momentum_end: f64 = 1.0,
        /// What the head sees of an image: the `class` token, or the `mean` of the patches.
        Frozen pool: Pool = Pool::Class,
        /// Positions of the encoder: `sin-cos` (fixed) or `learned`.
        Frozen positions: Positions = Positions::SinCos,
        /// Leave the patch embedding as it was drawn, against instability.
        Frozen freeze_patches: bool = true,
        /// Layers of the predictor, as wide as the projection head; 0 = none.
        Frozen predictor_layers: u32 = 2,
    }
    tables {
        /// Colours of the first view.
        first: ColourConfig = colours(1.0, 0.0),
        /// Colours of the second view.
        second: ColourConfig = colours(0.1, 0.2),
        /// The projection head.
        projection: ProjectionConfig = ProjectionConfig::default(),
    }
}

/// Width of ViT-S, and the heads that MoCo v3's has (the authors' issue 7); other ViT-S have 6.
const SMALL_WIDTH: i64 = 384;
const SMALL_HEADS: i64 = 12;

impl MocoV3Config {
    /// Share of the momentum encoder that step `step` of `total` keeps.
    fn momentum_at(&self, step: u64, total: u64) -> f64 {
        cosine(self.momentum, self.momentum_end, step as f64 / total.max(1) as f64)
    }

    /// The predictor's layers, if there are any: from the projections' width back to it.
    fn predictor(&self) -> Option<ProjectionConfig> {
        (self.predictor_layers > 0).then_some(ProjectionConfig {
            layers: self.predictor_layers,
            ..self.projection
        })
    }
}

impl Plan for MocoV3Config {
    fn kind(&self) -> &'static Kind {
        &KIND
    }

    fn table(&self) -> Table {
        table(self)
    }

    fn fit(&mut self, at: &Scope<'_>, fitting: &mut Fitting<'_>) {
        self.projection.fit(at.model.dim(), fitting);
    }

    fn check(&self, at: &Scope<'_>) -> Vec<Violation> {
        let mut found = Findings::default();
        two_views::check(KIND.name, [&self.first, &self.second], self.temperature, at, &mut found);
        for (key, momentum) in [("objective.momentum", self.momentum), ("objective.momentum_end", self.momentum_end)] {
            found.share(key, momentum);
        }
        let layers = self.predictor_layers;
        found.need(layers <= 8, "objective.predictor_layers", layers, "0 (none) to 8 (2 in the paper)");
        self.projection.check(&mut found);
        self.positions.check("model.width", at.model.dim(), &mut found);
        found.found()
    }

    fn oddities(&self, at: &Scope<'_>) -> Vec<String> {
        let mut odd = two_views::oddities(KIND.name, [&self.first, &self.second], at);
        let heads = at.model.head_count();
        if at.model.dim() == SMALL_WIDTH && heads != SMALL_HEADS {
            odd.push(format!(
                "model.heads = {heads}: the ViT-S of MoCo v3 has {SMALL_HEADS} heads, and its published numbers are of that one"
            ));
        }
        odd.extend(odd_momentum(self.momentum, self.momentum_end));
        odd
    }

    fn request(&self, at: &Scope<'_>) -> SampleRequest {
        two_views::request([self.first, self.second], Filter::Bilinear, at)
    }

    fn build(&self, vs: &Path<'_>, at: &Scope<'_>) -> Box<dyn Objective> {
        Box::new(network::MocoV3::new(vs, self, at))
    }

    fn chance(&self, number: &str, at: &Scope<'_>) -> Option<f64> {
        match number {
            "contrast" => Some(f64::from(at.batch).ln()),
            "contrast_accuracy" => Some(1.0 / f64::from(at.batch)),
            _ => None,
        }
    }

    fn learns_by(&self) -> &'static [Pool] {
        self.pool.alone()
    }

    /// The teacher's schedule moves weights, not what is held against what.
    fn judged_by(&self) -> Table {
        let mut table = self.table();
        table.remove("momentum");
        table.remove("momentum_end");
        table
    }

    fn over_ranks(&self) -> Result<(), &'static str> {
        Ok(())
    }

    fn forward_flops(&self, at: &Scope<'_>) -> f64 {
        let m = at.model;
        let (n, d) = (m.patches(), m.dim());
        let encoder = encoder_flops(m, n, n);
        let network = 2.0 * encoder + self.projection.flops(2, d);
        let predictor = self.predictor().map_or(0.0, |head| head.flops(2, i64::from(self.projection.out)));
        // A backward pass is counted as two forward ones beside this, and the momentum encoder has none.
        network + predictor + network / 3.0
    }

    fn whole_batch(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests;
