//! SimCLR: recognise the other view of an image among the batch (arXiv 2002.05709; for ViTs arXiv 2104.02057).

mod network;

use splitmask_pipeline::request::{ColourConfig, Filter, SampleRequest};
use tch::nn::Path;
use toml::Table;

use crate::head::ProjectionConfig;
use crate::model::{Positions, encoder_flops};
use crate::objective::two_views::{self, CONTRAST, CONTRAST_ACCURACY, CONTRAST_AT_CHANCE, PROJECTION_RANK, PROJECTIONS_ON_A_LINE};
use crate::objective::two_views::{Pool, VIEW_KEYS, colours};
use crate::objective::{Kind, Objective, Plan, Scope, read, table};
use crate::setting::{Findings, Fitting, Violation, settings};

/// The row of the registry.
pub static KIND: Kind = Kind {
    name: "simclr",
    doc: "recognise the other view of an image among the views of a batch",
    reference: "arXiv 2002.05709, for ViTs 2104.02057",
    keys: &[VIEW_KEYS, SimclrConfig::KEYS, ProjectionConfig::KEYS],
    numbers: &[CONTRAST, CONTRAST_ACCURACY, PROJECTION_RANK],
    collapse: &[CONTRAST_AT_CHANCE, PROJECTIONS_ON_A_LINE],
    sheets: &[],
    variants: || vec![Box::new(SimclrConfig::default())],
    read: read::<SimclrConfig>,
};

settings! {
    /// SimCLR's settings as MoCo v3's authors ran it on ViTs (arXiv 2104.02057 table 4); docs/method.md §7 says what is known of that.
    pub struct SimclrConfig in "objective" {
        /// Temperature of the loss.
        Live temperature: f64 = 0.2,
        /// What the head sees of an image: the `class` token, or the `mean` of the patches.
        Frozen pool: Pool = Pool::Class,
        /// Positions of the encoder: `sin-cos` (fixed) or `learned`.
        Frozen positions: Positions = Positions::SinCos,
        /// Leave the patch embedding as it was drawn, against instability.
        Frozen freeze_patches: bool = true,
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

/// Projections that a view's partner is searched among: those of all other views of the batch.
fn candidates(batch: u32) -> f64 {
    2.0 * f64::from(batch) - 1.0
}

impl Plan for SimclrConfig {
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
        self.projection.check(&mut found);
        self.positions.check("model.width", at.model.dim(), &mut found);
        found.found()
    }

    fn oddities(&self, at: &Scope<'_>) -> Vec<String> {
        two_views::oddities(KIND.name, [&self.first, &self.second], at)
    }

    fn request(&self, at: &Scope<'_>) -> SampleRequest {
        two_views::request([self.first, self.second], Filter::Bicubic, at)
    }

    fn build(&self, vs: &Path<'_>, at: &Scope<'_>) -> Box<dyn Objective> {
        Box::new(network::Simclr::new(vs, self, at))
    }

    fn chance(&self, number: &str, at: &Scope<'_>) -> Option<f64> {
        match number {
            "contrast" => Some(candidates(at.batch).ln()),
            "contrast_accuracy" => Some(1.0 / candidates(at.batch)),
            _ => None,
        }
    }

    fn learns_by(&self) -> &'static [Pool] {
        self.pool.alone()
    }

    fn over_ranks(&self) -> Result<(), &'static str> {
        Ok(())
    }

    fn forward_flops(&self, at: &Scope<'_>) -> f64 {
        let m = at.model;
        let (n, d) = (m.patches(), m.dim());
        let encoder = encoder_flops(m, n, n);
        2.0 * encoder + self.projection.flops(2, d)
    }

    fn whole_batch(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::config::VitConfig;
    use crate::objective::two_views::{FIRST, SECOND};

    fn wrong(config: &SimclrConfig, batch: u32) -> Vec<String> {
        let model = VitConfig::default();
        let found = config.check(&Scope::new(&model, batch, 0));
        found.into_iter().map(|v| v.key).collect()
    }

    #[test]
    fn violations_name_their_key() {
        let d = SimclrConfig::default;
        let cases = [
            (SimclrConfig { temperature: 0.0, ..d() }, "objective.temperature"),
            (
                SimclrConfig {
                    temperature: f64::NAN,
                    ..d()
                },
                "objective.temperature",
            ),
            (
                SimclrConfig {
                    second: colours(1.5, 0.0),
                    ..d()
                },
                "objective.second.blur",
            ),
            (
                SimclrConfig {
                    projection: ProjectionConfig {
                        layers: 9,
                        ..ProjectionConfig::default()
                    },
                    ..d()
                },
                "objective.projection.layers",
            ),
        ];
        for (config, key) in cases {
            assert_eq!(wrong(&config, 4), [key]);
        }
        assert_eq!(wrong(&d(), 3), ["train.batch"], "three rows leave BatchNorm next to nothing");
        assert_eq!(wrong(&d(), 4), [""; 0]);
        let model = VitConfig {
            width: 126,
            heads: 2,
            ..VitConfig::default()
        };
        let found = d().check(&Scope::new(&model, 4, 0));
        assert_eq!(found[0].key, "model.width", "{found:?}");
    }

    #[test]
    fn colours_that_are_not_used_are_told() {
        let model = VitConfig::default();
        let plain = Scope::new(&model, 128, 0);
        let coloured = Scope {
            colour: colours(0.5, 0.0),
            ..plain
        };
        let config = SimclrConfig::default();
        assert_eq!(config.oddities(&plain), [""; 0]);
        assert!(config.oddities(&coloured)[0].starts_with("augment.colour is not used"));
        let off = SimclrConfig {
            first: ColourConfig::default(),
            second: ColourConfig::default(),
            ..config
        };
        assert_eq!(off.oddities(&plain).len(), 1);
    }

    #[test]
    fn guessing_is_among_all_other_views_of_the_batch() {
        let model = VitConfig::default();
        let at = Scope::new(&model, 128, 0);
        let config = SimclrConfig::default();
        assert_eq!(config.chance("contrast", &at), Some(255f64.ln()));
        assert_eq!(config.chance("contrast_accuracy", &at), Some(1.0 / 255.0));
        let views = config.request(&at).views;
        assert_eq!((views[0].name, views[1].name), (FIRST, SECOND));
        assert_eq!((views[0].colour.blur, views[1].colour.blur), (1.0, 0.1));
        assert!(config.whole_batch());
    }
}
