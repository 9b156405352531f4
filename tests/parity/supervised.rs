//! The supervised objective against PyTorch (tests/fixtures/make_supervised.py), and what is its own among the objectives.

use splitmask::model::config::VitConfig;
use splitmask::objective::pretrain::supervised::SupervisedConfig;
use splitmask::objective::{Objective, Plan, Scope, StepContext};
use splitmask::optim::AdamW;
use splitmask::optim::config::OptimConfig;
use splitmask::tensor::StepInput;
use splitmask_pipeline::request::IMAGE;
use tch::{Device, Tensor, nn};

use crate::fixture::{Fixture, assert_grads, assert_near, device, set_params};
use crate::{alone, evaluation, training};

/// Images of each class in the fixture.
const COUNTS: [u64; 7] = [5, 0, 9, 2, 7, 1, 3];

fn built(erasing: f64, device: Device) -> (nn::VarStore, Box<dyn Objective>) {
    let model = VitConfig {
        width: 32,
        ..crate::fixture::model()
    };
    let config = SupervisedConfig {
        erasing,
        drop_path: 0.0,
        ..SupervisedConfig::default()
    };
    let at = Scope {
        label_counts: &COUNTS,
        ..Scope::new(&model, 4, 0)
    };
    let vs = nn::VarStore::new(device);
    let objective = config.build(&vs.root(), &at);
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
fn two_steps_are_pytorchs() {
    let _alone = alone();
    let fixture = Fixture::read("supervised");
    let x = input(&fixture);
    let (vs, objective) = built(0.0, device());
    set_params(&vs, &fixture.under("param"));
    let optim = OptimConfig {
        eps: 1e-2,
        ..OptimConfig::default()
    };
    let mut adamw = AdamW::new(vs.variables(), |n, d| objective.rule(n, d), &optim);
    for step in 0..2 {
        let ctx = StepContext {
            seed: fixture.get(&format!("{step}.seed")).int64_value(&[]) as u64,
            ..training(step)
        };
        let losses = objective.forward(&x, &ctx).unwrap();
        assert_eq!(losses.stats.len(), 3);
        let unlabelled = &losses.shares[0].1;
        assert_near(
            &format!("step {step}: unlabelled"),
            unlabelled,
            fixture.get(&format!("{step}.unlabelled")),
            1e-6,
        );
        let counted = losses.counted.as_ref().expect("some images may have no label");
        assert_near(&format!("step {step}: counted"), &(1.0 - counted), unlabelled, 1e-6);
        for (name, value) in losses.terms.iter().chain(&losses.stats) {
            assert_near(&format!("step {step}: {name}"), value, fixture.get(&format!("{step}.{name}")), 1e-6);
        }
        adamw.zero_grad().unwrap();
        losses.total.backward();
        assert_grads(&format!("step {step}"), &vs, &fixture.under(&format!("{step}.grad")), 1e-5);
        adamw.step_unless_nonfinite(3e-3, 0.1, 0.0, &losses.total).unwrap();
    }
    let variables = vs.variables();
    for (name, want) in fixture.under("end") {
        assert_near(&format!("at the end: {name}"), &variables[name], want, 1e-6);
    }
}

#[test]
fn an_evaluation_sees_images_and_classes_as_they_are() {
    let _alone = alone();
    let fixture = Fixture::read("supervised");
    let (vs, objective) = built(0.5, device());
    set_params(&vs, &fixture.under("param"));
    let losses = objective.forward(&input(&fixture), &evaluation()).unwrap();
    assert_near("cross-entropy", &losses.total, fixture.get("evaluated"), 1e-6);
}

/// The noise is that of the device's generator, and PyTorch's numbers are of the CPU: this one is always compared there.
#[test]
fn erased_images_are_pytorchs() {
    let _alone = alone();
    let fixture = Fixture::read("supervised");
    let (vs, objective) = built(0.5, Device::Cpu);
    set_params(&vs, &fixture.under("param"));
    let mut x = input(&fixture);
    x.labels = x.labels.to_device(Device::Cpu);
    for view in &mut x.views {
        view.pixels = view.pixels.to_device(Device::Cpu);
    }
    let ctx = StepContext {
        seed: fixture.get("1.seed").int64_value(&[]) as u64,
        ..training(1)
    };
    let losses = objective.forward(&x, &ctx).unwrap();
    assert_near("loss", &losses.total, &fixture.get("erased").to_device(Device::Cpu), 1e-6);
}
