//! bf16 autocast against PyTorch's numbers in f32: the loss and the direction of the gradients, with what 8 bits of mantissa leave of them.

use std::collections::BTreeMap;

use splitmask::model::config::VitConfig;
use splitmask::objective::pretrain::beit::BeitConfig;
use splitmask::objective::pretrain::splitmask::SplitMaskConfig;
use splitmask::objective::{Objective, Plan, Scope};
use splitmask::tensor::StepInput;
use tch::{Device, Kind, Tensor, nn};
use torch_ext::Autocast;

use crate::fixture::{Fixture, VOCABULARY, device, model, relative_error, set_params};
use crate::{alone, training};

/// Largest relative difference of a loss.
const LOSS: f64 = 0.02;
/// Least cosine between all gradients and those in f32.
const DIRECTION: f64 = 0.97;

fn flat(t: &Tensor) -> Tensor {
    t.to_device(Device::Cpu).to_kind(Kind::Double).flatten(0, -1)
}

fn cosine(a: &Tensor, b: &Tensor) -> f64 {
    let norm = |t: &Tensor| t.norm().double_value(&[]).max(1e-30);
    a.dot(b).double_value(&[]) / (norm(a) * norm(b))
}

fn check(plan: &dyn Plan, fixture: &Fixture, input: &StepInput, prefix: &str) {
    let model: VitConfig = model();
    let vs = nn::VarStore::new(device());
    let objective: Box<dyn Objective> = plan.build(&vs.root(), &Scope::new(&model, 4, VOCABULARY));
    set_params(&vs, &fixture.under("param"));
    let losses = {
        let _bf16 = Autocast::bf16(device()).unwrap();
        objective.forward(input, &training(0)).unwrap()
    };
    for (name, value) in &losses.terms {
        let error = relative_error(value, fixture.get(&format!("{prefix}{name}")));
        assert!(error < LOSS, "{name}: relative error {error:.2e}, allowed {LOSS}");
        assert!(error > 1e-6, "{name}: nothing was computed in bf16");
    }
    losses.total.backward();
    let variables: BTreeMap<String, Tensor> = vs.variables().into_iter().filter(|(_, t)| t.requires_grad()).collect();
    let (mut got, mut want) = (Vec::new(), Vec::new());
    for (name, grad) in fixture.under(&format!("{prefix}grad")) {
        got.push(flat(&variables[name].grad()));
        want.push(flat(grad));
    }
    let all = cosine(&Tensor::cat(&got, 0), &Tensor::cat(&want, 0));
    assert!(all > DIRECTION, "cosine of all gradients {all:.4}, at least {DIRECTION}");
}

#[test]
fn losses_and_directions_of_gradients() {
    let _alone = alone();
    let splitmask = SplitMaskConfig {
        drop_path: 0.0,
        ..SplitMaskConfig::default()
    };
    let fixture = Fixture::read("splitmask");
    check(&splitmask, &fixture, &fixture.input("pixels", "words", "parts_half"), "default.");
    let beit = BeitConfig {
        drop_path: 0.0,
        ..BeitConfig::default()
    };
    let fixture = Fixture::read("beit");
    check(&beit, &fixture, &fixture.input("pixels", "words", "parts"), "");
}
