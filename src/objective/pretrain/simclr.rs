//! SimCLR: recognise the other view of an image among the batch (arXiv 2002.05709; for ViTs arXiv 2104.02057).

mod network;

use serde::{Deserialize, Serialize};
use splitmask_pipeline::request::{ColourConfig, SampleRequest, ViewRequest};
use tch::Tensor;
use tch::nn::Path;
use toml::Table;

use crate::head::ProjectionConfig;
use crate::model::{Positions, block_flops, linear_flops};
use crate::objective::{Better, CollapseRule, Kind, Number, Objective, Plan, Role, Scope, Unit, read, table};
use crate::setting::Class::Restart;
use crate::setting::{Findings, Fitting, Key, Violation, key, settings};

/// The row of the registry.
pub static KIND: Kind = Kind {
    name: "simclr",
    doc: "recognise the other view of an image among the views of a batch",
    reference: "arXiv 2002.05709, for ViTs 2104.02057",
    keys: &[VIEW_KEYS, SimclrConfig::KEYS, ProjectionConfig::KEYS],
    numbers: &[
        Number {
            name: "contrast",
            help: "Contrastive loss between the two views of an image, in nats.",
            role: Role::Term,
            unit: Unit::Nats,
            better: Better::Lower,
            baseline: None,
        },
        Number {
            name: "contrast_accuracy",
            help: "Share of views whose partner was recognised among the batch, 0 to 1.",
            role: Role::Measure,
            unit: Unit::Share,
            better: Better::Higher,
            baseline: None,
        },
        Number {
            name: "projection_rank",
            help: "Dimensions that the projections of a batch use, effectively (participation ratio of their covariance); 1 = all lie on a line.",
            role: Role::Measure,
            unit: Unit::Count,
            better: Better::Higher,
            baseline: None,
        },
    ],
    collapse: &[
        CollapseRule {
            name: "contrast_at_chance",
            help: "the accuracy of the match is under twice that of guessing: all images have the same projection",
            remedy: "lower `optim.lr`, raise `train.batch` or `objective.temperature`; identical or blank images do it too",
            holds: |at| {
                let chance = (at.chance)("contrast_accuracy").unwrap_or(0.0);
                at.mean("contrast_accuracy").is_some_and(|accuracy| accuracy < 2.0 * chance)
            },
        },
        CollapseRule {
            name: "projections_on_a_line",
            help: "the projections use fewer than 2 dimensions, effectively: images are told apart by one property alone",
            remedy: "stronger colour changes in `objective.first` and `objective.second`, lower `optim.lr`, raise `objective.temperature`",
            holds: |at| at.mean("projection_rank").is_some_and(|rank| rank < FEW_DIMENSIONS),
        },
    ],
    sheets: &[],
    variants: || vec![Box::new(SimclrConfig::default())],
    read: read::<SimclrConfig>,
};

/// Dimensions, effectively, under which projections have collapsed.
const FEW_DIMENSIONS: f64 = 2.0;

/// Names of the views.
const FIRST: &str = "first";
const SECOND: &str = "second";

/// The keys of `[objective.first]` and `[objective.second]`.
const VIEW_KEYS: &[Key] = &[
    key(Restart, "first.jitter", "probability of colour jitter in the first view"),
    key(
        Restart,
        "first.jitter_strength",
        "strengths of brightness, contrast, saturation, hue",
    ),
    key(Restart, "first.greyscale", "probability of greyscale"),
    key(Restart, "first.blur", "probability of Gaussian blur"),
    key(Restart, "first.blur_sigma", "range of the blur's sigma, pixels"),
    key(Restart, "first.solarise", "probability of solarisation"),
    key(Restart, "second.jitter", "probability of colour jitter in the second view"),
    key(
        Restart,
        "second.jitter_strength",
        "strengths of brightness, contrast, saturation, hue",
    ),
    key(Restart, "second.greyscale", "probability of greyscale"),
    key(Restart, "second.blur", "probability of Gaussian blur"),
    key(Restart, "second.blur_sigma", "range of the blur's sigma, pixels"),
    key(Restart, "second.solarise", "probability of solarisation"),
];

/// What the projection head sees of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pool {
    /// Mean of the patch tokens.
    Mean,
    /// Class token.
    Class,
}

impl Pool {
    /// Tokens B×(1+N)×D to B×D.
    fn of(self, tokens: &Tensor) -> Tensor {
        match self {
            Self::Class => tokens.select(1, 0),
            Self::Mean => {
                let patches = tokens.narrow(1, 1, tokens.size()[1] - 1);
                patches.mean_dim([1i64].as_slice(), false, tch::Kind::Float)
            }
        }
    }
}

/// Colours of MoCo v3's views: they differ in blur and solarisation (arXiv 2104.02057 §5, from BYOL).
const fn colours(blur: f32, solarise: f32) -> ColourConfig {
    ColourConfig {
        jitter: 0.8,
        jitter_strength: [0.4, 0.4, 0.2, 0.1],
        greyscale: 0.2,
        blur,
        blur_sigma: [0.1, 2.0],
        solarise,
    }
}

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
        found.need(
            self.temperature > 0.0 && self.temperature.is_finite(),
            "objective.temperature",
            self.temperature,
            "above 0 (0.2 for ViTs)",
        );
        found.need(
            at.batch >= 2,
            "train.batch",
            at.batch,
            "at least 2 images with objective.kind = \"simclr\", which compares them",
        );
        self.first.check("objective.first", &mut found);
        self.second.check("objective.second", &mut found);
        self.projection.check(&mut found);
        self.positions.check("model.width", at.model.dim(), &mut found);
        found.found()
    }

    fn oddities(&self, at: &Scope<'_>) -> Vec<String> {
        let mut odd = Vec::new();
        if at.colour != ColourConfig::default() {
            odd.push("augment.colour is not used: the colours of the two views are objective.first and objective.second".to_owned());
        }
        if self.first.is_off() && self.second.is_off() {
            odd.push(
                "objective.first and objective.second change no colour: two crops of an image are then recognised by their colours alone"
                    .to_owned(),
            );
        }
        odd
    }

    fn request(&self, at: &Scope<'_>) -> SampleRequest {
        let view = |name, colour| ViewRequest {
            crop: at.crop,
            colour,
            ..ViewRequest::new(name, at.model.image)
        };
        SampleRequest::of_views(vec![view(FIRST, self.first), view(SECOND, self.second)])
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

    fn forward_flops(&self, at: &Scope<'_>) -> f64 {
        let m = at.model;
        let (n, d) = (m.patches(), m.dim());
        let encoder = linear_flops(n, 3 * i64::from(m.patch).pow(2), d) + m.layers() as f64 * block_flops(1 + n, d, m.hidden());
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
    use crate::objective::Judged;

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
            assert_eq!(wrong(&config, 2), [key]);
        }
        assert_eq!(wrong(&d(), 1), ["train.batch"], "one image has no other to be told from");
        assert_eq!(wrong(&d(), 2), [""; 0]);
        let model = VitConfig {
            width: 126,
            heads: 2,
            ..VitConfig::default()
        };
        let found = d().check(&Scope::new(&model, 2, 0));
        assert_eq!(found[0].key, "model.width", "{found:?}");
    }

    #[test]
    fn colours_that_are_not_used_are_told() {
        let model = VitConfig::default();
        let plain = Scope::new(&model, 8, 0);
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

    #[test]
    fn collapse_is_told_by_accuracy_and_by_dimensions() {
        let holds = |rule: &str, name: &str, value: f64| {
            let means = [(name.to_owned(), value)];
            let chance = |name: &str| (name == "contrast_accuracy").then_some(1.0 / 255.0);
            let judged = Judged {
                means: &means.into(),
                chance: &chance,
            };
            let found = KIND.collapse.iter().find(|r| r.name == rule);
            (found.expect("the rule exists").holds)(&judged)
        };
        let accuracy = |value| holds("contrast_at_chance", "contrast_accuracy", value);
        assert!(accuracy(1.9 / 255.0) && !accuracy(2.1 / 255.0) && !accuracy(f64::NAN));
        let rank = |value| holds("projections_on_a_line", "projection_rank", value);
        assert!(rank(1.1) && !rank(2.0) && !rank(f64::NAN));
    }
}
