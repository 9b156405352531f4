//! MoCo v3 against PyTorch: three steps with momentum encoder, BatchNorm and optimizer (`tests/fixtures/make_moco.py`).

use std::collections::BTreeMap;

use splitmask::head::ProjectionConfig;
use splitmask::model::config::VitConfig;
use splitmask::objective::pretrain::moco_v3::MocoV3Config;
use splitmask::objective::{Plan, Scope, StepContext};
use splitmask::optim::AdamW;
use splitmask::optim::config::OptimConfig;
use tch::{Tensor, nn};

use crate::fixture::{Fixture, assert_grads, assert_near, device, measured, set_params};
use crate::{alone, training};

const LOSSES: f64 = 2e-6;
/// PyTorch's own float32 is off by half of it in the last step.
const GRADIENTS: f64 = 3e-5;

/// All tensors under a prefix of the fixture are those of the run; a mean of 0 is one but for rounding.
fn compare(what: &str, named: &BTreeMap<String, Tensor>, under: &str, want: &BTreeMap<&str, &Tensor>) {
    assert!(want.len() > 30, "{what}: {}", want.len());
    for (name, want) in want {
        let have = &named[&format!("{under}{name}")];
        if want.abs().max().double_value(&[]) == 0.0 {
            assert!(have.abs().max().double_value(&[]) < 1e-6, "{what}: {name}");
        } else {
            assert_near(&format!("{what}: {name}"), have, want, LOSSES);
        }
    }
}

#[test]
fn three_steps_follow_pytorch() {
    let _alone = alone();
    let fixture = Fixture::read("moco_v3");
    let model = VitConfig {
        width: 32,
        ..crate::fixture::model()
    };
    let config = MocoV3Config {
        projection: ProjectionConfig {
            layers: 3,
            hidden: 24,
            out: 16,
        },
        momentum: 0.6,
        ..MocoV3Config::default()
    };
    let x = fixture.input_of(&[("first", "first"), ("second", "second")], None, None);
    let vs = nn::VarStore::new(device());
    let mut objective = config.build(&vs.root(), &Scope::new(&model, 16, 0));
    set_params(&vs, &fixture.under("param"));
    let optim = OptimConfig {
        eps: 1e-2,
        ..OptimConfig::default()
    };
    let mut adamw = AdamW::new(vs.variables(), |n, d| objective.rule(n, d), &optim);
    let named: BTreeMap<String, Tensor> = vs.variables().into_iter().collect();
    for step in 0..3 {
        let ctx = StepContext {
            total: 10,
            ..training(step)
        };
        let losses = objective.forward(&x, &ctx).unwrap();
        let mut numbers = vec![("total", &losses.total)];
        numbers.extend(measured(&losses));
        for (name, value) in numbers.into_iter().filter(|(name, _)| *name != "projection_rank") {
            assert_near(
                &format!("step {step}: {name}"),
                value,
                fixture.get(&format!("{step}.{name}")),
                LOSSES,
            );
        }
        adamw.zero_grad().unwrap();
        losses.total.backward();
        // BatchNorm takes away what the last bias of the encoder adds: its gradient is rounding alone.
        let largest = |name: &str| named[name].grad().abs().max().double_value(&[]);
        assert!(largest("norm.bias") < 1e-5 * largest("norm.weight"));
        let zeros = Tensor::zeros_like(&named["norm.bias"]);
        let mut grads = fixture.under(&format!("{step}.grad"));
        grads.insert("norm.bias", &zeros);
        let _ = named["norm.bias"].grad().zero_();
        assert_grads(&format!("step {step}"), &vs, &grads, GRADIENTS);
        if step > 0 {
            // PyTorch averaged at the beginning of this step; its running statistics have moved in this step already.
            let mut keys_of = fixture.under(&format!("{step}.keys_of"));
            keys_of.retain(|name, _| !name.contains(".running_"));
            compare(&format!("step {step}, momentum encoder"), &named, "momentum.", &keys_of);
        }
        let stepped = adamw.step_unless_nonfinite(3e-3, 0.1, 0.0, &losses.total).unwrap();
        objective.after_step(&ctx, &stepped.skipped).unwrap();
        if step > 0 {
            let mut keys_of = fixture.under(&format!("{step}.keys_of"));
            keys_of.retain(|name, _| name.contains(".running_"));
            assert_eq!(keys_of.len(), 6);
            for (name, want) in keys_of {
                assert_near(
                    &format!("step {step}: momentum.{name}"),
                    &named[&format!("momentum.{name}")],
                    want,
                    LOSSES,
                );
            }
        }
    }
    compare("at the end", &named, "", &fixture.under("end"));
}
