use std::fs;
use std::path::Path;
use std::sync::Arc;

use prometheus::Registry;
use proptest::prelude::*;
use splitmask_pipeline::request::MaskSpec;

use super::*;
use crate::checkpoint::{newest_good, save};
use crate::eval::config::Watched;
use crate::eval::patience::Way;
use crate::objective::ObjectiveConfig;
use crate::objective::pretrain::splitmask::SplitMaskConfig;
use crate::trainer::feed::Supply;
use crate::trainer::ranks::launching::Launching;
use crate::trainer::setup::Setup;
use crate::trainer::step::pass::tests::spec;

/// What happens to a run.
#[derive(Debug, Clone)]
enum Act {
    /// A step with these numbers; those that are not finite are skipped by the optimizer, and seen by everyone else.
    Step { loss: f64, norm: f64, word: u32 },
    /// A stability check.
    Check,
    /// A log line: the interval begins anew.
    Log,
    /// An evaluation.
    Evaluate(bool, f64),
    /// Weights and moments become these bits, whatever they are.
    Spoil(u32, u32),
    /// A lack of memory.
    Split,
}

/// Any bits, the odd ones often.
fn number() -> impl Strategy<Value = f64> {
    let odd = [
        f64::NAN,
        -f64::NAN,
        f64::INFINITY,
        f64::NEG_INFINITY,
        -0.0,
        f64::MIN_POSITIVE / 3.0,
        f64::MAX,
    ];
    prop_oneof![
        any::<u64>().prop_map(f64::from_bits),
        prop::sample::select(odd.to_vec()),
        -20.0..20.0f64
    ]
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        6 => (number(), number(), 0..9u32).prop_map(|(loss, norm, word)| Act::Step { loss, norm, word }),
        1 => Just(Act::Check),
        1 => Just(Act::Log),
        1 => (any::<bool>(), number()).prop_map(|(loss, value)| Act::Evaluate(loss, value)),
        1 => (any::<u32>(), any::<u32>()).prop_map(|(a, b)| Act::Spoil(a, b)),
        1 => Just(Act::Split),
    ]
}

fn setup(ema: bool) -> Setup {
    let mut spec = spec(ObjectiveConfig::from(SplitMaskConfig {
        mask: MaskSpec::UniformSplit { keep: 0.5 },
        ..SplitMaskConfig::default()
    }));
    spec.ema.decay = if ema { 0.9 } else { 0.0 };
    spec.stability.window = 10;
    Setup {
        own_pipeline: spec.pipeline.clone(),
        request: Arc::new(spec.objective.request(&spec.scope(8))),
        spec,
        device: Device::Cpu,
        words: Words::Unused.into(),
        supply: Supply::Bucket,
        launching: Launching::alone(),
        peers: None,
    }
}

fn happen(act: &Act, state: &mut RunState, setup: &Setup) {
    let spoilt = |t: &Tensor, bits: u32| {
        let values = vec![f32::from_bits(bits); t.numel()];
        Tensor::from_slice(&values).view(t.size().as_slice()).to_kind(t.kind())
    };
    match act {
        Act::Step { loss, norm, word } => {
            let (loss, norm) = (Tensor::from(*loss), Tensor::from(*norm));
            state.meter.step();
            state.meter.add("total", &loss);
            state.meter.add("grad_norm", &norm.nan_to_num(0.0, 0.0, 0.0));
            state.ladder.observe(&loss, &norm);
            state.usage.observe(&[*word; 16]);
            state.trail.push_back(state.cursor);
            state.cursor.taken += 1;
            state.step += 1;
        }
        Act::Check => {
            state.ladder.read(setup.spec.stability.window).unwrap();
            state.ladder.judge(&setup.spec.stability);
        }
        Act::Log => drop(state.meter.take()),
        Act::Evaluate(loss, value) => {
            let watched = if *loss { Watched::Loss } else { Watched::Knn };
            state.patience.observe((watched, Way::default()), *value, state.step, 2);
        }
        Act::Spoil(weights, moments) => {
            tch::no_grad(|| state.vars.variables().values_mut().for_each(|t| t.copy_(&spoilt(t, *weights))));
            let moments: Vec<(String, Tensor)> = state
                .optimizer
                .state()
                .into_iter()
                .map(|(n, t)| (n, spoilt(&t, *moments)))
                .collect();
            state.optimizer.load_state(moments).unwrap();
        }
        Act::Split => state.micro_batches = 4,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]
    /// All files of the checkpoint that the resumed run would write at once are those of the checkpoint that it resumed from, byte for byte.
    #[test]
    fn every_reachable_state_is_saved_and_gone_on_from(acts in proptest::collection::vec(act(), 0..60), ema: bool) {
        let _turn = crate::tensor::alone();
        let dir = tempfile::tempdir().unwrap();
        let (setup, metrics) = (setup(ema), TrainMetrics::new(&Registry::new()).unwrap());
        let mut state = RunState::new(&setup.spec, Device::Cpu, &setup.words);
        state.usage = WordUsage::new(8);
        state.begin_averages(Path::new(""), &[], &setup.spec).unwrap();
        for act in &acts {
            happen(act, &mut state, &setup);
        }
        state.ladder.read(setup.spec.stability.window).unwrap();
        let (first, second) = (dir.path().join("first"), dir.path().join("second"));
        let written = save(&first, &state.snapshot(&setup.spec, &setup.words, &metrics)).unwrap();
        let good = newest_good(&first).unwrap().good.expect("it can be read");
        let mut resumed = RunState::new(&setup.spec, Device::Cpu, &setup.words);
        let snapshot = good.with_tensors().unwrap();
        resumed.restore(&written, &snapshot, &setup.spec, &setup.words).unwrap();
        let cursor = snapshot.progress.cursor;
        resumed.take_progress(snapshot.progress, cursor, setup.spec.train.batch, &setup.spec);
        let again = save(&second, &resumed.snapshot(&setup.spec, &setup.words, &metrics)).unwrap();
        for entry in fs::read_dir(&written).unwrap().flatten() {
            let (have, want) = (fs::read(again.join(entry.file_name())).unwrap(), fs::read(entry.path()).unwrap());
            prop_assert!(have == want, "{:?} differs", entry.file_name());
        }
    }
}
