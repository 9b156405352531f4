//! Without a GPU a recording is imitated: the launch computes on a second network of the same weights, from the recording's own input and with the step that
//! was recorded. So whatever reaches a pass by another way than its input, weights and generator is as stale as it would be in a graph.

use splitmask_pipeline::request::MaskSpec;
use tch::{Device, nn};
use torch_ext::{TorchError, rng_state, set_rng_state};

use super::*;
use crate::objective::pretrain::beit::BeitConfig;
use crate::objective::pretrain::dino::DinoConfig;
use crate::objective::pretrain::mae::MaeConfig;
use crate::objective::pretrain::splitmask::SplitMaskConfig;
use crate::objective::{Objective, ObjectiveConfig};
use crate::trainer::spec::TrainerSpec;
use crate::trainer::step::pass::tests::{batch, spec};

/// Words of the codebook.
const WORDS: usize = 32;

fn pass<'a>(objective: &'a dyn Objective, spec: &'a TrainerSpec, step: u64) -> Pass<'a> {
    Pass {
        objective,
        spec,
        device: Device::Cpu,
        step,
        consumed: step + 1,
        micro_batches: 1,
        words: None,
        sent: None,
        peers: None,
        rank: 0,
    }
}

fn trained(vars: &nn::VarStore) -> Vec<Tensor> {
    let mut named: Vec<(String, Tensor)> = vars.variables().into_iter().filter(|(_, t)| t.requires_grad()).collect();
    named.sort_by(|a, b| a.0.cmp(&b.0));
    named.into_iter().map(|(_, t)| t).collect()
}

fn imitation(of: &Pass<'_>, input: &Rc<StepInput>, ctx: &StepContext, params: &[Tensor]) -> Result<(Scalars, Launch), TrainError> {
    let before = rng_state(Device::Cpu)?;
    let scalars = of.whole(input, ctx)?;
    let vars = nn::VarStore::new(Device::Cpu);
    let twin = of.spec.objective.build(&vars.root(), &of.spec.scope(WORDS));
    set_rng_state(Device::Cpu, &before)?;

    let copies = |of: &[Tensor]| of.iter().map(Tensor::shallow_clone).collect::<Vec<_>>();
    let (own, weights) = (trained(&vars), copies(params));
    let grads: Vec<Tensor> = params.iter().map(Tensor::grad).collect();
    let numbers: Vec<Tensor> = scalars.iter().map(|(_, value)| value.shallow_clone()).collect();
    // A recording has no numbers before its first launch.
    grads.iter().chain(&numbers).for_each(|t| {
        let _ = t.shallow_clone().fill_(f64::NAN);
    });
    let (spec, input, ctx) = (of.spec.clone(), Rc::clone(input), ctx.clone());
    let launch = move || {
        let fill =
            |to: &[Tensor], from: &[Tensor]| tch::no_grad(|| to.iter().zip(from).for_each(|(to, from)| to.shallow_clone().copy_(from)));
        fill(&own, &weights);
        let found = pass(twin.as_ref(), &spec, ctx.step).whole(&input, &ctx)?;
        fill(&grads, &own.iter().map(Tensor::grad).collect::<Vec<_>>());
        fill(&numbers, &found.into_iter().map(|(_, value)| value).collect::<Vec<_>>());
        Ok(torch_ext::clear_grads(&own)?)
    };
    Ok((scalars, Box::new(launch)))
}

fn failing(pass: &Pass<'_>, input: &Rc<StepInput>, ctx: &StepContext, _: &[Tensor]) -> Result<(Scalars, Launch), TrainError> {
    // It was half recorded, and left gradients.
    pass.whole(input, ctx)?;
    Err(TorchError {
        call: "graph_end",
        message: "operation not permitted when stream is capturing".into(),
    }
    .into())
}

fn panicking(pass: &Pass<'_>, input: &Rc<StepInput>, ctx: &StepContext, _: &[Tensor]) -> Result<(Scalars, Launch), TrainError> {
    pass.whole(input, ctx)?;
    panic!("CUDA error: operation not permitted when stream is capturing");
}

/// The batch of a step: other pixels, words and patches in each.
fn batch_of(step: u64) -> Batch {
    let mut batch = batch();
    let turn = 1 + step as usize;
    for view in &mut batch.views {
        view.pixels.rotate_left(turn * 37);
    }
    batch.words.rotate_left(turn * 5);
    batch.sets.chunks_mut(16).for_each(|sets| sets.rotate_left(turn));
    batch
}

/// Numbers and gradients of ten steps of gradient descent; `change` is made to the settings before the eighth. Also how many graphs there are then.
fn ten_steps(mut spec: TrainerSpec, record: Record, change: impl Fn(&mut TrainerSpec)) -> (Vec<Vec<f64>>, usize) {
    tch::manual_seed(1);
    let vars = nn::VarStore::new(Device::Cpu);
    let mut objective = spec.objective.build(&vars.root(), &spec.scope(WORDS));
    let mut held = Recordings::default();
    let mut found = Vec::new();
    for step in 0..10 {
        if step == 7 {
            change(&mut spec);
            objective.take_live(spec.objective.plan()).unwrap();
        }
        let params = trained(&vars);
        let outcome = Recorder {
            record: Some(record),
            held: &mut held,
        }
        .gradients(&pass(objective.as_ref(), &spec, step), || trained(&vars), &batch_of(step), |_| {})
        .unwrap();
        let mut numbers: Vec<f64> = outcome.scalars.iter().map(|(_, value)| value.double_value(&[])).collect();
        for param in params.iter().filter(|param| torch_ext::has_grad(param)) {
            numbers.extend(Vec::<f64>::try_from(param.grad().flatten(0, -1).to_kind(tch::Kind::Double)).unwrap());
            let _ = tch::no_grad(|| param.shallow_clone().subtract_(&(param.grad() * 0.05)));
        }
        torch_ext::clear_grads(&params).unwrap();
        assert!(numbers.iter().all(|n| n.is_finite()), "step {step}");
        found.push(numbers);
    }
    (found, held.all.len())
}

fn graphed(plan: impl Into<ObjectiveConfig>) -> TrainerSpec {
    let mut spec = spec(plan.into());
    spec.train.cuda_graph = true;
    spec
}

fn eager(mut spec: TrainerSpec) -> TrainerSpec {
    spec.train.cuda_graph = false;
    spec
}

fn splitmask(temperature: f64) -> SplitMaskConfig {
    SplitMaskConfig {
        mask: MaskSpec::UniformSplit { keep: 0.5 },
        drop_path: 0.3,
        decoder_drop_path: 0.2,
        temperature,
        ..SplitMaskConfig::default()
    }
}

#[test]
fn a_recorded_step_gives_what_a_step_gives() {
    let _turn = crate::tensor::alone();
    let beit = BeitConfig {
        drop_path: 0.3,
        ..BeitConfig::default()
    };
    let specs = [graphed(splitmask(0.2)), graphed(beit), graphed(MaeConfig::default())];
    for spec in specs {
        let kind = spec.objective.kind().name;
        let (want, none) = ten_steps(eager(spec.clone()), imitation, |_| {});
        let (got, graphs) = ten_steps(spec, imitation, |_| {});
        assert_eq!((none, graphs), (0, 1), "{kind}");
        assert!(got == want, "{kind}: numbers or gradients differ");
    }
}

#[test]
fn changed_settings_are_recorded_anew() {
    let _turn = crate::tensor::alone();
    let cooler = |spec: &mut TrainerSpec| spec.objective = graphed(splitmask(0.05)).objective;
    let (want, _) = ten_steps(eager(graphed(splitmask(0.2))), imitation, cooler);
    let (got, _) = ten_steps(graphed(splitmask(0.2)), imitation, cooler);
    assert!(got == want);
    // Switched off in a run, too.
    let off = |spec: &mut TrainerSpec| spec.train.cuda_graph = false;
    let (want, _) = ten_steps(eager(graphed(splitmask(0.2))), imitation, |_| {});
    let (got, graphs) = ten_steps(graphed(splitmask(0.2)), imitation, off);
    assert!(got == want && graphs == 0);
}

#[test]
fn a_recording_that_fails_costs_nothing_else() {
    let _turn = crate::tensor::alone();
    let (want, _) = ten_steps(eager(graphed(splitmask(0.2))), imitation, |_| {});
    for record in [failing, panicking] {
        let (got, graphs) = ten_steps(graphed(splitmask(0.2)), record, |_| {});
        assert!(got == want && graphs == 0);
    }
}

#[test]
fn recordings_make_room_once_and_are_not_made_again() {
    let _turn = crate::tensor::alone();
    let spec = graphed(splitmask(0.2));
    let vars = nn::VarStore::new(Device::Cpu);
    let objective = spec.objective.build(&vars.root(), &spec.scope(WORDS));
    let mut held = Recordings::default();
    assert!(!held.make_room(), "nothing was recorded yet");
    let graphs_after = |steps: std::ops::Range<u64>, held: &mut Recordings| {
        for step in steps {
            Recorder {
                record: Some(imitation),
                held,
            }
            .gradients(&pass(objective.as_ref(), &spec, step), || trained(&vars), &batch_of(step), |_| {})
            .unwrap();
            torch_ext::clear_grads(&trained(&vars)).unwrap();
        }
        held.all.len()
    };
    assert_eq!(graphs_after(0..5, &mut held), 1);
    assert!(held.make_room());
    assert_eq!(graphs_after(5..8, &mut held), 0);
    assert!(!held.make_room());
}

#[test]
fn an_objective_that_changes_from_step_to_step_is_not_recorded() {
    let _turn = crate::tensor::alone();
    let dino = DinoConfig {
        local_crops: 1,
        local_size: 8,
        freeze_last_layer_steps: 3,
        ..DinoConfig::default()
    };
    let (got, graphs) = ten_steps(graphed(dino), imitation, |_| {});
    assert_eq!((got.len(), graphs), (10, 0));
}
