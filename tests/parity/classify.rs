//! Fine-tuning against timm and PyTorch (tests/fixtures/make_classify.py).

use std::collections::BTreeMap;

use splitmask::model::config::VitConfig;
use splitmask::model::is_backbone_name;
use splitmask::objective::transfer::classify::{ClassifyConfig, Freeze};
use splitmask::objective::{Objective, Plan, Scope, StepContext};
use splitmask::optim::AdamW;
use splitmask::optim::config::OptimConfig;
use splitmask::tensor::StepInput;
use splitmask_pipeline::request::IMAGE;
use tch::{Tensor, nn};

use crate::fixture::{Fixture, assert_grads, assert_near, device, set_params};
use crate::{alone, evaluation, training};

fn built(fixture: &Fixture, freeze: Freeze) -> (nn::VarStore, Box<dyn Objective>) {
    let model = VitConfig {
        width: 32,
        ..crate::fixture::model()
    };
    let config = ClassifyConfig {
        classes: 7,
        drop_path: 0.0,
        freeze,
        ..ClassifyConfig::default()
    };
    let vs = nn::VarStore::new(device());
    let objective = config.build(&vs.root(), &Scope::new(&model, 4, 0));
    // timm's network has no norm before its mean; ours keeps the encoder's, which nothing goes through.
    let variables = vs.variables();
    let mut params = fixture.under("param");
    let unused = ["norm.weight", "norm.bias"];
    params.extend(unused.map(|name| (name, &variables[name])));
    set_params(&vs, &params);
    (vs, objective)
}

fn input(fixture: &Fixture) -> StepInput {
    StepInput {
        maps: None,
        objects: None,
        labels: Tensor::from_slice(&[2i64, 0, -1, 6]).to_device(device()),
        ..fixture.input_of(&[(IMAGE, "pixels")], None, None)
    }
}

#[test]
fn three_steps_with_learning_rates_by_layer_are_timms() {
    let _alone = alone();
    let fixture = Fixture::read("classify");
    let x = input(&fixture);
    let (vs, objective) = built(&fixture, Freeze::None);
    let variables = vs.variables();
    for (name, want) in fixture.under("below") {
        let rule = objective.rule(name, &variables[name].size());
        let decays = fixture.get(&format!("decays.{name}")).int64_value(&[]) == 1;
        assert_eq!(
            (i64::from(rule.layers_below_top), rule.decay),
            (want.int64_value(&[]), decays),
            "{name}"
        );
    }
    let optim = OptimConfig {
        eps: 1e-2,
        layer_decay: 0.65,
        ..OptimConfig::default()
    };
    let mut adamw = AdamW::new(vs.variables(), |n, d| objective.rule(n, d), &optim);
    let logits = objective.class_logits(&x.views[0].pixels).unwrap();
    assert_near("logits", &logits, fixture.get("logits"), 1e-5);
    let evaluated = objective.forward(&x, &evaluation()).unwrap().total;
    assert_near("cross-entropy", &evaluated, fixture.get("evaluated"), 1e-5);
    for step in 0..3 {
        let ctx = StepContext {
            seed: fixture.get(&format!("{step}.seed")).int64_value(&[]) as u64,
            ..training(step)
        };
        let losses = objective.forward(&x, &ctx).unwrap();
        assert_near(
            &format!("step {step}"),
            &losses.total,
            fixture.get(&format!("{step}.classification")),
            1e-5,
        );
        adamw.zero_grad().unwrap();
        losses.total.backward();
        assert_grads(&format!("step {step}"), &vs, &fixture.under(&format!("{step}.grad")), 1e-5);
        adamw.step_unless_nonfinite(3e-3, 0.1, 0.0, &losses.total).unwrap();
    }
    for (name, want) in fixture.under("end") {
        assert_near(&format!("at the end: {name}"), &variables[name], want, 1e-5);
    }
}

/// Only the head has gradients, and they are those that it has when everything learns.
#[test]
fn a_frozen_encoder_gives_the_head_the_same_gradients() {
    let _alone = alone();
    let fixture = Fixture::read("classify");
    let (vs, objective) = built(&fixture, Freeze::Encoder);
    let ctx = StepContext {
        seed: fixture.get("0.seed").int64_value(&[]) as u64,
        ..training(0)
    };
    objective.forward(&input(&fixture), &ctx).unwrap().total.backward();
    let all = fixture.under("0.grad");
    let head: BTreeMap<&str, &Tensor> = all.into_iter().filter(|(name, _)| !is_backbone_name(name)).collect();
    assert_eq!(head.len(), 4);
    assert_grads("head", &vs, &head, 1e-5);
}
