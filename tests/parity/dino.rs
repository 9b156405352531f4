//! DINO against PyTorch: two steps with teacher, centre and optimizer (`tests/fixtures/make_dino.py`).

use std::collections::BTreeMap;

use splitmask::model::config::VitConfig;
use splitmask::objective::pretrain::dino::DinoConfig;
use splitmask::objective::{Plan, Scope, StepContext};
use splitmask::optim::AdamW;
use splitmask::optim::config::OptimConfig;
use splitmask::tensor::{NamedView, StepInput};
use tch::{Kind, Tensor, nn};

use crate::fixture::{Fixture, assert_near, device, model, set_params};
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

#[test]
fn two_steps_follow_pytorch() {
    let _alone = alone();
    let fixture = Fixture::read("dino");
    let model = VitConfig { width: 32, ..model() };
    let vs = nn::VarStore::new(device());
    let mut objective = config().build(&vs.root(), &Scope::new(&model, 4, 0));
    set_params(&vs, &fixture.under("param"));
    let optim = OptimConfig {
        eps: 1e-2,
        ..OptimConfig::default()
    };
    let mut adamw = AdamW::new(vs.variables(), |n, d| objective.rule(n, d), &optim);
    let view = |name: &'static str, n: usize| NamedView {
        name: name.into(),
        pixels: fixture.get(&format!("crop.{name}.{n}")).shallow_clone(),
    };
    let x = StepInput {
        len: 4,
        views: vec![view("global", 0), view("global", 1), view("local", 0), view("local", 1)],
        words: None,
        largest_word: 0,
        hidden: None,
        sets: None,
        maps: None,
        objects: None,
        labels: Tensor::full([4], -1, (Kind::Int64, device())),
    };
    let named: BTreeMap<String, Tensor> = vs.variables().into_iter().collect();
    for step in [1, 2] {
        let ctx = StepContext {
            total: 10,
            ..training(step)
        };
        let losses = objective.forward(&x, &ctx).unwrap();
        for (name, value) in losses
            .terms
            .iter()
            .chain(&losses.stats)
            .filter(|(name, _)| *name != "descriptor_spread")
        {
            assert_near(
                &format!("step {step}: {name}"),
                value,
                fixture.get(&format!("{step}.{name}")),
                LOSSES,
            );
        }
        adamw.zero_grad().unwrap();
        losses.total.backward();
        let wanted = fixture.under(&format!("{step}.grad"));
        for (name, t) in named.iter().filter_map(|(name, t)| Some((name.strip_prefix("student.")?, t))) {
            // The last layer has none in the first step.
            assert_eq!(torch_ext::has_grad(t), wanted.contains_key(name), "step {step}: {name}");
            if let Some(want) = wanted.get(name) {
                assert_near(&format!("step {step}: gradient of {name}"), &t.grad(), want, GRADIENTS);
            }
        }
        let stepped = adamw.step_unless_nonfinite(3e-3, 0.2, 0.0, &losses.total).unwrap();
        objective.after_step(&ctx, &stepped.skipped).unwrap();
        assert_near("centre", &named["centre"], fixture.get(&format!("{step}.centre")), LOSSES);
    }
    for (name, want) in fixture.under("end") {
        assert_near(name, &named[name], want, LOSSES);
    }
}
