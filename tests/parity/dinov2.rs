//! DINO with the options of DINOv2 against PyTorch (`tests/fixtures/make_dinov2.py`): Sinkhorn-Knopp and KoLeo by themselves, and two steps with hidden
//! patches, once with running means and one head, once with everything.

use std::collections::BTreeMap;

use splitmask::loss::{koleo, sinkhorn_centre};
use splitmask::objective::pretrain::dino::{Centring, DinoConfig};
use splitmask::objective::{Plan, Scope};
use splitmask::optim::AdamW;
use splitmask::optim::config::OptimConfig;
use splitmask::tensor::{HiddenPatches, NamedView, StepInput};
use tch::{Kind, Tensor, nn};
use torch_ext::ranks::Ranks;

use crate::fixture::{Fixture, assert_near, device, measured, model, set_params};
use crate::{alone, training};

const LOSSES: f64 = 1e-6;
const GRADIENTS: f64 = 1e-5;
const IMAGES: i64 = 4;

fn config() -> DinoConfig {
    DinoConfig {
        local_crops: 1,
        local_size: 8,
        prototypes: 12,
        hidden: 16,
        bottleneck: 8,
        freeze_last_layer_steps: 2,
        teacher_temperature_start: 0.07,
        teacher_temperature: 0.07,
        momentum: 0.9,
        momentum_end: 0.9,
        drop_path: 0.0,
        ibot_weight: 0.7,
        ..DinoConfig::default()
    }
}

fn input(fixture: &Fixture, name: &str) -> StepInput {
    let view = |crop: &'static str, n: usize| NamedView {
        name: crop.into(),
        pixels: fixture.get(&format!("{name}.{crop}.{n}")).shallow_clone(),
    };
    let hidden = fixture.get(&format!("{name}.hidden"));
    StepInput {
        len: IMAGES,
        views: vec![view("global", 0), view("global", 1), view("local", 0)],
        words: None,
        largest_word: 0,
        sets: None,
        hidden: Some(HiddenPatches {
            patches: 32,
            rows: hidden.flatten(0, -1).nonzero().squeeze_dim(1),
        }),
        maps: None,
        objects: None,
        labels: Tensor::full([IMAGES], -1, (Kind::Int64, device())),
    }
}

/// Two steps as the trainer takes them.
fn two_steps(name: &str, config: &DinoConfig, numbers: usize) {
    let fixture = Fixture::read("dinov2");
    let (model, vs) = (model(), nn::VarStore::new(device()));
    let mut objective = config.build(&vs.root(), &Scope::new(&model, IMAGES as u32, 0));
    set_params(&vs, &fixture.under(&format!("{name}.param")));
    let optim = OptimConfig {
        eps: 1e-2,
        ..OptimConfig::default()
    };
    let mut adamw = AdamW::new(vs.variables(), |n, d| objective.rule(n, d), &optim);
    let x = input(&fixture, name);
    let named: BTreeMap<String, Tensor> = vs.variables().into_iter().collect();
    for step in [1, 2] {
        let ctx = training(step);
        let losses = objective.forward(&x, &ctx).unwrap();
        let values = measured(&losses)
            .filter(|(n, _)| *n != "descriptor_spread")
            .chain([("total", &losses.total)]);
        let mut compared = 0;
        for (number, value) in values {
            let want = fixture.get(&format!("{name}.{step}.{number}"));
            assert_near(&format!("{name}, step {step}: {number}"), value, want, LOSSES);
            compared += 1;
        }
        assert_eq!(compared, numbers, "{name}");
        adamw.zero_grad().unwrap();
        losses.total.backward();
        let wanted = fixture.under(&format!("{name}.{step}.grad"));
        for (parameter, t) in named.iter().filter_map(|(n, t)| Some((n.strip_prefix("student.")?, t))) {
            // The last layers have none in the first step.
            assert_eq!(
                torch_ext::has_grad(t),
                wanted.contains_key(parameter),
                "{name}, step {step}: {parameter}"
            );
            if let Some(want) = wanted.get(parameter) {
                assert_near(&format!("{name}, step {step}: gradient of {parameter}"), &t.grad(), want, GRADIENTS);
            }
        }
        let stepped = adamw.step_unless_nonfinite(3e-3, 0.2, 0.0, &losses.total).unwrap();
        objective.after_step(&ctx, &stepped.skipped).unwrap();
    }
    let end = fixture.under(&format!("{name}.end"));
    assert_eq!(end.len(), named.len(), "{name}: weights and centres");
    for (parameter, want) in end {
        assert_near(&format!("{name}: {parameter}"), &named[parameter], want, LOSSES);
    }
}

#[test]
fn hidden_patches_with_one_head_and_running_means_follow_pytorch() {
    let _alone = alone();
    two_steps("shared", &config(), 8);
}

#[test]
fn all_options_follow_pytorch() {
    let _alone = alone();
    let config = DinoConfig {
        centring: Centring::Sinkhorn,
        koleo_weight: 0.3,
        separate_heads: true,
        ibot_prototypes: 10,
        ..config()
    };
    two_steps("all", &config, 9);
}

#[test]
fn sinkhorn_assigns_as_pytorch_in_one_piece_and_in_parts() {
    let _alone = alone();
    let fixture = Fixture::read("dinov2");
    let rows = fixture.get("sinkhorn.rows");
    let whole = sinkhorn_centre(1, |_| rows.shallow_clone(), 0.1, &Ranks::alone()).unwrap();
    let parts = sinkhorn_centre(3, |part| rows.narrow(0, 8 * part as i64, 8), 0.1, &Ranks::alone()).unwrap();
    for centre in [whole, parts] {
        let assigned = ((rows - centre) / 0.1).softmax(-1, Kind::Float);
        assert_near("assignments", &assigned, fixture.get("sinkhorn.assigned"), LOSSES);
    }
}

#[test]
fn koleo_and_its_gradient_are_pytorchs() {
    let _alone = alone();
    let fixture = Fixture::read("dinov2");
    let tokens = fixture.get("koleo.tokens").copy().set_requires_grad(true);
    let loss = koleo(&tokens);
    assert_near("loss", &loss, fixture.get("koleo.loss"), LOSSES);
    loss.backward();
    assert_near("gradient", &tokens.grad(), fixture.get("koleo.grad"), GRADIENTS);
}
