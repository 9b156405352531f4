//! The start, and what follows a step.

use std::collections::BTreeMap;

use tch::{Device, Kind, nn};

use super::*;
use crate::head::ProjectionConfig;
use crate::model::config::VitConfig;
use crate::objective::two_views::{FIRST, SECOND};
use crate::tensor::NamedView;

fn small() -> (VitConfig, MocoV3Config) {
    let model = VitConfig {
        image: 16,
        patch: 4,
        width: 16,
        depth: 1,
        heads: 2,
        ..VitConfig::default()
    };
    let config = MocoV3Config {
        projection: ProjectionConfig {
            layers: 2,
            hidden: 32,
            out: 128,
        },
        momentum: 0.9,
        ..MocoV3Config::default()
    };
    (model, config)
}

fn built(config: &MocoV3Config, model: &VitConfig) -> (nn::VarStore, MocoV3) {
    tch::manual_seed(31);
    let vs = nn::VarStore::new(Device::Cpu);
    let objective = MocoV3::new(&vs.root(), config, &Scope::new(model, 64, 0));
    (vs, objective)
}

fn noise(images: i64) -> StepInput {
    let view = |name: &'static str| NamedView {
        name: name.into(),
        pixels: Tensor::randn([images, 3, 16, 16], (Kind::Float, Device::Cpu)),
    };
    StepInput {
        len: images,
        views: vec![view(FIRST), view(SECOND)],
        words: None,
        largest_word: 0,
        hidden: None,
        sets: None,
        maps: None,
        objects: None,
        labels: Tensor::full([images], -1, (Kind::Int64, Device::Cpu)),
    }
}

fn training(step: u64) -> StepContext {
    StepContext {
        train: true,
        ..StepContext::evaluation(step, 100, 8)
    }
}

fn named(vs: &nn::VarStore) -> BTreeMap<String, Tensor> {
    vs.variables().into_iter().collect()
}

fn values(vs: &nn::VarStore) -> BTreeMap<String, Tensor> {
    named(vs).into_iter().map(|(name, t)| (name, t.detach().copy())).collect()
}

/// 4τ ln B: 0.8 ln B at a temperature of 0.2, 3.88 for 128 images.
#[test]
fn a_new_network_pays_four_temperatures_of_the_log_of_the_batch() {
    let _turn = crate::tensor::alone();
    let (model, config) = small();
    for predictor_layers in [0, 2] {
        let config = MocoV3Config {
            predictor_layers,
            ..config.clone()
        };
        let (_vs, objective) = built(&config, &model);
        let losses = objective.forward(&noise(128), &training(0)).unwrap();
        let (contrast, total) = (losses.terms[0].1.double_value(&[]), losses.total.double_value(&[]));
        assert!((total / contrast - 0.8).abs() < 1e-6);
        // Behind a predictor queries and keys lie in unrelated directions of the 128. Without one they lie in the same r, and chance similarities of
        // variance 1/r cost half of that ÷ τ².
        let rank = losses.stats[1].1.double_value(&[]);
        let dimensions = if predictor_layers == 0 { rank } else { 128.0 };
        let want = 0.8 * (128f64.ln() + 0.5 / (dimensions * 0.04));
        assert!(
            (total / want - 1.0).abs() < 0.05,
            "{predictor_layers} layers: {total} instead of {want}, rank {rank}"
        );
    }
}

#[test]
fn names_and_rules() {
    let _turn = crate::tensor::alone();
    let (model, config) = small();
    let (vs, objective) = built(&config, &model);
    let named = named(&vs);
    let moving: Vec<&String> = named.iter().filter(|(_, t)| t.requires_grad()).map(|(name, _)| name).collect();
    assert!(moving.iter().all(|name| !name.starts_with("momentum.")));
    let twins = named.keys().filter_map(|name| name.strip_prefix("momentum."));
    assert!(twins.clone().count() > 20 && twins.into_iter().all(|name| named.contains_key(name)));
    assert!(!named.contains_key("momentum.predictor.linear.0.weight") && !named.contains_key("predictor.norm.1.weight"));
    assert_eq!(named["predictor.linear.1.weight"].size(), [128, 32]);
    assert!(moving.iter().all(|name| objective.rule(name, &named[*name].size()).decay));
    assert_eq!(objective.rule("cls_token", &[1, 1, 16]).layers_below_top, 2);
}

#[test]
fn a_skipped_step_changes_nothing_and_a_taken_one_moves_average_and_statistics() {
    let _turn = crate::tensor::alone();
    let (model, config) = small();
    let (vs, mut objective) = built(&config, &model);
    let before = values(&vs);
    let mut spoilt = noise(8);
    let _ = spoilt.views[0].pixels.fill_(f64::INFINITY);
    for input in [&spoilt, &noise(8)] {
        let _ = objective.forward(input, &training(4)).unwrap();
        objective.after_step(&training(4), &Tensor::from(1f32)).unwrap();
        assert_eq!(values(&vs), before);
    }
    let _ = objective.forward(&noise(8), &training(4)).unwrap();
    // As an optimizer would.
    let _ = tch::no_grad(|| named(&vs)["norm.weight"].shallow_clone().fill_(3.0));
    objective.after_step(&training(4), &Tensor::from(0f32)).unwrap();
    let after = values(&vs);
    let kept = config.momentum_at(5, 100);
    let average = after["momentum.norm.weight"].double_value(&[0]);
    assert!(
        (average - (kept + (1.0 - kept) * 3.0)).abs() < 1e-6,
        "{average}: the momentum of the next step"
    );
    let moved: Vec<&str> = after
        .iter()
        .filter(|(name, t)| before[*name] != **t)
        .map(|(name, _)| name.as_str())
        .collect();
    let statistics = |prefix: &str, norm: u32| ["mean", "var"].map(|what| format!("{prefix}.norm.{norm}.running_{what}"));
    let heads = ["projection", "momentum.projection", "predictor"];
    let mut want: Vec<String> = heads
        .iter()
        .flat_map(|head| [0, 1].map(|n| statistics(head, n)))
        .flatten()
        .collect();
    want.extend(["norm.weight", "momentum.norm.weight"].map(str::to_owned));
    want.sort();
    assert_eq!(moved, want);
}

#[test]
fn before_the_first_step_the_momentum_encoder_takes_the_base_encoders_weights() {
    let _turn = crate::tensor::alone();
    let (model, config) = small();
    let (vs, objective) = built(&config, &model);
    let named = named(&vs);
    // As run.init_from does: the encoder at the root; the patch embedding is not trained and must come along too.
    let names = ["norm.weight", "patch_embed.proj.bias"];
    for name in names {
        let _ = tch::no_grad(|| named[name].shallow_clone().fill_(3.0));
    }
    let equal = || names.map(|name| named[name].equal(&named[&format!("momentum.{name}")]));
    let _ = objective.forward(&noise(8), &StepContext::evaluation(0, 100, 8)).unwrap();
    let _ = objective.forward(&noise(8), &training(1)).unwrap();
    assert_eq!(equal(), [false; 2]);
    let _ = objective.forward(&noise(8), &training(0)).unwrap();
    assert_eq!(equal(), [true; 2]);
}
