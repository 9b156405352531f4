//! Rotation: say by how many quarter turns an image was turned (RotNet, arXiv 1803.07728 §2).

use splitmask_pipeline::request::{IMAGE, SampleRequest, ViewRequest};
use tch::nn::{self, Path};
use tch::{Reduction, Tensor};
use toml::Table;

use splitmask::loss::token_accuracy;
use splitmask::model::{Init, Vit, block_flops, linear, linear_flops, through};
use splitmask::objective::{Better, Kind, Losses, Number, Objective, ObjectiveError, Plan, Role, Scope, StepContext, Unit};
use splitmask::objective::{image, read, settings, table};
use splitmask::setting::{Findings, Violation, settings};
use splitmask::tensor::StepInput;

/// The row of the registry.
pub static KIND: Kind = Kind {
    name: "rotation",
    doc: "say by how many quarter turns an image was turned",
    reference: "arXiv 1803.07728 §2",
    keys: &[RotationConfig::KEYS],
    numbers: &[
        Number {
            name: "rotation",
            help: "Cross-entropy of the quarter turns, in nats.",
            role: Role::Term,
            unit: Unit::Nats,
            better: Better::Lower,
            baseline: None,
        },
        Number {
            name: "rotation_accuracy",
            help: "Share of turned images whose turn was recognised, 0 to 1.",
            role: Role::Measure,
            unit: Unit::Share,
            better: Better::Higher,
            baseline: None,
        },
    ],
    collapse: &[],
    sheets: &[],
    variants: || vec![Box::new(RotationConfig::default())],
    read: read::<RotationConfig>,
};

settings! {
    /// Rotation's settings.
    pub struct RotationConfig in "objective" {
        /// Drop path of the encoder, linear over depth.
        Restart drop_path: f64 = 0.0,
        /// Share of the target that is spread over all turns.
        Live smoothing: f64 = 0.1,
    }
}

impl Plan for RotationConfig {
    fn kind(&self) -> &'static Kind {
        &KIND
    }

    fn table(&self) -> Table {
        table(self)
    }

    fn check(&self, _: &Scope<'_>) -> Vec<Violation> {
        let mut found = Findings::default();
        for (key, share) in [("objective.drop_path", self.drop_path), ("objective.smoothing", self.smoothing)] {
            found.need((0.0..1.0).contains(&share), key, share, "0 (off) to below 1");
        }
        found.found()
    }

    fn request(&self, at: &Scope<'_>) -> SampleRequest {
        SampleRequest::of_views(vec![ViewRequest {
            crop: at.crop,
            colour: at.colour,
            ..ViewRequest::new(IMAGE, at.model.image)
        }])
    }

    fn build(&self, vs: &Path<'_>, at: &Scope<'_>) -> Box<dyn Objective> {
        let vit = Vit::new(vs, at.model, self.drop_path);
        let head = linear(&(vs / "rotation_head"), vit.dim(), 4, true, Init::Normal { std: 0.02 });
        Box::new(Rotation {
            vit,
            head,
            config: self.clone(),
        })
    }

    fn chance(&self, number: &str, _: &Scope<'_>) -> Option<f64> {
        match number {
            "rotation" => Some(4f64.ln()),
            "rotation_accuracy" => Some(0.25),
            _ => None,
        }
    }

    fn forward_flops(&self, at: &Scope<'_>) -> f64 {
        let m = at.model;
        let (n, d) = (m.patches(), m.dim());
        let patches = linear_flops(n, 3 * i64::from(m.patch).pow(2), d);
        let blocks = m.layers() as f64 * block_flops(1 + n, d, m.hidden());
        4.0 * (patches + blocks + linear_flops(1, d, 4))
    }
}

/// The encoder sees each image in all four turns; a linear head tells them apart by the mean of the patches.
#[derive(Debug)]
struct Rotation {
    vit: Vit,
    head: nn::Linear,
    config: RotationConfig,
}

impl Objective for Rotation {
    fn forward(&self, x: &StepInput, ctx: &StepContext) -> Result<Losses, ObjectiveError> {
        let image = image(KIND.name, x, &self.vit)?;
        // 4B×3×S×S, and how often each was turned.
        let turned = Tensor::cat(&[0, 1, 2, 3].map(|quarters| image.rot90(quarters, [2, 3])), 0);
        let turns = Tensor::arange(4, (tch::Kind::Int64, image.device())).repeat_interleave_self_int(x.len, None, None);
        let features = self.vit.forward_features(&turned, ctx.train);
        let patches = features.narrow(1, 1, features.size()[1] - 1);
        let logits = through(&self.head, &patches.mean_dim([1i64].as_slice(), false, None));
        let loss = logits.cross_entropy_loss(&turns, None::<Tensor>, Reduction::Mean, -100, self.config.smoothing);
        Ok(Losses {
            stats: vec![("rotation_accuracy", token_accuracy(&logits.argmax(-1, false), &turns))],
            ..Losses::of_term("rotation", loss)
        })
    }

    fn encoder(&self) -> &Vit {
        &self.vit
    }

    fn take_live(&mut self, plan: &dyn Plan) -> Result<(), ObjectiveError> {
        self.config.smoothing = settings::<RotationConfig>(plan, &KIND)?.smoothing;
        Ok(())
    }
}
