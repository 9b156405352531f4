//! DINO against PyTorch: two steps with teacher, centre and optimizer, and the same with each gradient clipped by itself
//! (`tests/fixtures/make_dino.py`).

use std::collections::BTreeMap;

use splitmask::model::config::VitConfig;
use splitmask::objective::pretrain::dino::DinoConfig;
use splitmask::objective::{Losses, Objective, Plan, Scope, StepContext};
use splitmask::optim::config::OptimConfig;
use splitmask::optim::{AdamW, ClipBy, Stepped};
use splitmask::tensor::{NamedView, StepInput};
use tch::{Kind, Tensor, nn};

use crate::fixture::{Fixture, assert_near, device, measured, model, set_params};
use crate::{alone, training};

const LOSSES: f64 = 1e-6;
const GRADIENTS: f64 = 1e-5;

fn config() -> DinoConfig {
    DinoConfig {
        local_crops: 2,
        local_size: 8,
        prototypes: 20,
        hidden: 24,
        bottleneck: 16,
        fixed_gain: false,
        freeze_last_layer_steps: 2,
        teacher_temperature_start: 0.04,
        teacher_temperature: 0.07,
        teacher_warmup_steps: 4,
        momentum: 0.9,
        drop_path: 0.0,
        ..DinoConfig::default()
    }
}

/// A training that begins where the fixture's does.
struct Training {
    fixture: Fixture,
    objective: Box<dyn Objective>,
    adamw: AdamW,
    /// Weights of both networks and the centre.
    named: BTreeMap<String, Tensor>,
}

impl Training {
    fn begin(clip_by: ClipBy) -> Self {
        let fixture = Fixture::read("dino");
        let model = VitConfig { width: 32, ..model() };
        let vs = nn::VarStore::new(device());
        let objective = config().build(&vs.root(), &Scope::new(&model, 4, 0));
        set_params(&vs, &fixture.under("param"));
        let optim = OptimConfig {
            eps: 1e-2,
            clip_by,
            ..OptimConfig::default()
        };
        let adamw = AdamW::new(vs.variables(), |n, d| objective.rule(n, d), &optim);
        Self {
            fixture,
            objective,
            adamw,
            named: vs.variables().into_iter().collect(),
        }
    }

    /// The student's parameters, by the names of the fixture.
    fn student(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.named.iter().filter_map(|(name, t)| Some((name.strip_prefix("student.")?, t)))
    }

    /// Norms of the student's gradients as they are.
    fn norms(&self) -> BTreeMap<String, Tensor> {
        let with_grad = self.student().filter(|(_, t)| torch_ext::has_grad(t));
        with_grad.map(|(name, t)| (name.to_owned(), t.grad().norm())).collect()
    }

    /// Forward and backward.
    fn pass(&self, ctx: &StepContext) -> Losses {
        let losses = self.objective.forward(&input(&self.fixture), ctx).unwrap();
        self.adamw.zero_grad().unwrap();
        losses.total.backward();
        losses
    }

    /// Compares the student's gradients with those of the fixture.
    fn compare_gradients(&self, step: u64) {
        let wanted = self.fixture.under(&format!("{step}.grad"));
        for (name, t) in self.student() {
            // The last layer has none in the first step.
            assert_eq!(torch_ext::has_grad(t), wanted.contains_key(name), "step {step}: {name}");
            if let Some(want) = wanted.get(name) {
                assert_near(&format!("step {step}: gradient of {name}"), &t.grad(), want, GRADIENTS);
            }
        }
    }

    /// What comes after, as the trainer does it.
    fn update(&mut self, ctx: &StepContext, losses: &Losses, clip: f64) -> Stepped {
        let stepped = self.adamw.step_unless_nonfinite(3e-3, 0.2, clip, &losses.total).unwrap();
        self.objective.after_step(ctx, &stepped.skipped).unwrap();
        stepped
    }
}

fn context(step: u64) -> StepContext {
    StepContext {
        total: 10,
        ..training(step)
    }
}

fn input(fixture: &Fixture) -> StepInput {
    let view = |name: &'static str, n: usize| NamedView {
        name: name.into(),
        pixels: fixture.get(&format!("crop.{name}.{n}")).shallow_clone(),
    };
    StepInput {
        len: 4,
        views: vec![view("global", 0), view("global", 1), view("local", 0), view("local", 1)],
        words: None,
        largest_word: 0,
        hidden: None,
        sets: None,
        maps: None,
        objects: None,
        labels: Tensor::full([4], -1, (Kind::Int64, device())),
    }
}

#[test]
fn two_steps_follow_pytorch() {
    let _alone = alone();
    let mut run = Training::begin(ClipBy::All);
    for step in [1, 2] {
        let ctx = context(step);
        let losses = run.pass(&ctx);
        for (name, value) in measured(&losses).filter(|(name, _)| *name != "descriptor_spread") {
            assert_near(
                &format!("step {step}: {name}"),
                value,
                run.fixture.get(&format!("{step}.{name}")),
                LOSSES,
            );
        }
        run.compare_gradients(step);
        run.update(&ctx, &losses, 0.0);
        assert_near("centre", &run.named["centre"], run.fixture.get(&format!("{step}.centre")), LOSSES);
    }
    for (name, want) in run.fixture.under("end") {
        assert_near(name, &run.named[name], want, LOSSES);
    }
}

/// PyTorch's side clips the last layer's gradient too, and then drops it in the first step: the others must not notice.
#[test]
fn two_steps_with_each_gradient_clipped_by_itself_follow_pytorch() {
    let _alone = alone();
    let mut run = Training::begin(ClipBy::Tensor);
    let longest = run.fixture.get("clipped.longest").double_value(&[]);
    for step in [1, 2] {
        let ctx = context(step);
        let losses = run.pass(&ctx);
        let before = run.norms();
        for (name, norm) in &before {
            let want = run.fixture.get(&format!("clipped.{step}.norm.{name}"));
            assert_near(&format!("step {step}: norm of the gradient of {name}"), norm, want, GRADIENTS);
        }
        let cut = before.values().filter(|norm| norm.double_value(&[]) > longest).count();
        assert!(cut > 10 && cut < before.len(), "step {step}: {cut} of {}", before.len());
        let stepped = run.update(&ctx, &losses, longest);
        let all = Tensor::stack(&before.values().collect::<Vec<_>>(), 0).norm();
        assert_near(&format!("step {step}: norm of all gradients"), &stepped.norm, &all, LOSSES);
        for (name, norm) in run.norms() {
            let want = before[&name].clamp_max(longest);
            assert_near(&format!("step {step}: clipped gradient of {name}"), &norm, &want, GRADIENTS);
        }
    }
    for (name, want) in run.fixture.under("clipped.end") {
        assert_near(name, &run.named[name], want, LOSSES);
    }
}
