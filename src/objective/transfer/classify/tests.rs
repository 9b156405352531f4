use std::collections::BTreeMap;

use splitmask_pipeline::request::IMAGE;
use tch::nn::VarStore;
use tch::{Device, Kind as Dtype, Tensor};

use super::*;
use crate::model::config::VitConfig;
use crate::model::is_backbone_name;
use crate::objective::StepContext;
use crate::optim::AdamW;
use crate::optim::config::OptimConfig;
use crate::tensor::{NamedView, StepInput};

fn model(change: impl FnOnce(&mut VitConfig)) -> VitConfig {
    let mut model = VitConfig {
        image: 16,
        patch: 4,
        width: 32,
        depth: 2,
        heads: 2,
        ..VitConfig::default()
    };
    change(&mut model);
    model
}

fn config(change: impl FnOnce(&mut ClassifyConfig)) -> ClassifyConfig {
    let mut config = ClassifyConfig {
        classes: 5,
        drop_path: 0.0,
        ..ClassifyConfig::default()
    };
    change(&mut config);
    config
}

fn built(config: &ClassifyConfig, model: &VitConfig) -> (VarStore, Box<dyn Objective>) {
    tch::manual_seed(3);
    let vs = VarStore::new(Device::Cpu);
    let objective = config.build(&vs.root(), &Scope::new(model, 8, 0));
    (vs, objective)
}

fn input() -> StepInput {
    tch::manual_seed(4);
    StepInput {
        len: 8,
        views: vec![NamedView {
            name: IMAGE.into(),
            pixels: Tensor::randn([8, 3, 16, 16], (Dtype::Float, Device::Cpu)),
        }],
        words: None,
        largest_word: 0,
        hidden: None,
        sets: None,
        maps: None,
        objects: None,
        labels: Tensor::arange(8, (Dtype::Int64, Device::Cpu)).remainder(5),
    }
}

fn weights(vs: &VarStore) -> BTreeMap<String, Tensor> {
    vs.variables().into_iter().map(|(name, t)| (name, t.detach().copy())).collect()
}

/// Trains on one batch.
fn train(config: &ClassifyConfig, vs: &VarStore, objective: &dyn Objective, steps: u64) -> (f64, f64) {
    let mut adamw = AdamW::new(vs.variables(), |n, d| objective.rule(n, d), &OptimConfig::default());
    let mut losses = vec![];
    for step in 0..steps {
        let ctx = StepContext {
            train: true,
            seed: 17 + step,
            ..StepContext::evaluation(step, steps, 8)
        };
        let loss = objective.forward(&input(), &ctx).unwrap().total;
        adamw.zero_grad().unwrap();
        loss.backward();
        adamw.step(3e-3, 0.05).unwrap();
        losses.push(loss.double_value(&[]));
    }
    assert!(losses.iter().all(|loss| loss.is_finite()), "{config:?}");
    (losses[0], losses[losses.len() - 1])
}

#[test]
fn a_frozen_encoder_keeps_every_bit_and_the_head_learns() {
    let _turn = crate::tensor::alone();
    let with_extras = model(|m| (m.layer_scale, m.relative_bias) = (0.1, true));
    for (pool, model) in [(Pool::Mean, model(|_| {})), (Pool::Class, model(|_| {})), (Pool::Mean, with_extras)] {
        let config = config(|c| (c.pool, c.freeze, c.mixup, c.cutmix) = (pool, Freeze::Encoder, 0.0, 0.0));
        let (vs, objective) = built(&config, &model);
        let before = weights(&vs);
        let (first, last) = train(&config, &vs, objective.as_ref(), 40);
        assert!(last < first, "{pool:?}: {first} {last}");
        let mut moved = vec![];
        for (name, after) in weights(&vs) {
            if before[&name] != after {
                moved.push(name);
            } else {
                assert!(is_backbone_name(&name), "{name} learns nothing");
            }
        }
        moved.sort();
        let mut want = vec!["head.bias", "head.weight"];
        if pool == Pool::Mean {
            want.splice(0..0, ["fc_norm.bias", "fc_norm.weight"]);
        }
        assert_eq!(moved, want);
    }
}

#[test]
fn what_the_head_does_not_see_through_is_not_trained() {
    let _turn = crate::tensor::alone();
    for (pool, still) in [(Pool::Mean, &["norm.bias", "norm.weight"][..]), (Pool::Class, &[])] {
        let config = config(|c| c.pool = pool);
        let (vs, objective) = built(&config, &model(|_| {}));
        let before = weights(&vs);
        train(&config, &vs, objective.as_ref(), 3);
        let mut same: Vec<String> = weights(&vs)
            .into_iter()
            .filter(|(name, t)| before[name] == *t)
            .map(|(name, _)| name)
            .collect();
        same.sort();
        assert_eq!(same, still, "{pool:?}");
        assert_eq!(vs.variables().contains_key("fc_norm.weight"), pool == Pool::Mean);
    }
}

/// BEiT's rule (arXiv 2106.08254's code): embeddings at the bottom, block i of L at L − i, all else at the top; timm's for a head on the mean of the
/// patches is the same (tests/parity/classify.rs).
#[test]
fn layers_are_told_apart_as_beit_does() {
    let _turn = crate::tensor::alone();
    let model = model(|m| (m.depth, m.relative_bias) = (3, true));
    let (vs, objective) = built(&config(|_| {}), &model);
    for (name, tensor) in vs.variables().into_iter().collect::<BTreeMap<_, _>>() {
        let want = match name.split('.').collect::<Vec<_>>()[..] {
            ["cls_token" | "pos_embed"] | ["patch_embed", ..] => 4,
            ["blocks", block, ..] => 3 - block.parse::<u32>().unwrap(),
            _ => 0,
        };
        assert_eq!(objective.rule(&name, &tensor.size()).layers_below_top, want, "{name}");
    }
}

#[test]
fn a_new_head_says_nothing_and_costs_ln_k() {
    let _turn = crate::tensor::alone();
    for pool in [Pool::Mean, Pool::Class] {
        let (vs, objective) = built(&config(|c| c.pool = pool), &model(|_| {}));
        let loss = objective.forward(&input(), &StepContext::evaluation(0, 1, 8)).unwrap().total;
        assert!((loss.double_value(&[]) - 5f64.ln()).abs() < 1e-3);
        let largest = vs.variables()["head.weight"].abs().max().double_value(&[]);
        assert!(largest > 1e-6 && largest < 2e-4, "{largest}");
        let logits = objective.class_logits(&input().views[0].pixels).unwrap();
        assert_eq!((logits.size(), logits.kind()), (vec![8, 5], Dtype::Float));
    }
}

#[test]
fn violations_name_their_key_and_a_frozen_encoder_drops_no_path() {
    let model = model(|_| {});
    let at = Scope::new(&model, 8, 0);
    let told = |config: &ClassifyConfig| config.check(&at).iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(told(&ClassifyConfig::default()), [""; 0]);
    for (wrong, key) in [
        (config(|c| c.classes = 1), "objective.classes = 1"),
        (config(|c| c.smoothing = 1.0), "objective.smoothing = 1"),
        (config(|c| c.rand_augment = 11.0), "objective.rand_augment = 11"),
        (config(|c| c.erasing = 1.5), "objective.erasing = 1.5"),
        (
            config(|c| (c.freeze, c.drop_path) = (Freeze::Encoder, 0.1)),
            "objective.drop_path = 0.1",
        ),
    ] {
        let found = told(&wrong);
        assert!(found.len() == 1 && found[0].starts_with(key), "{found:?}");
    }
    let nobody = |_: &str| false;
    let mut fitting = Fitting::new(&nobody);
    let mut frozen = ClassifyConfig {
        freeze: Freeze::Encoder,
        ..ClassifyConfig::default()
    };
    frozen.fit(&at, &mut fitting);
    assert_eq!((frozen.drop_path, fitting.fitted()[0].key.as_str()), (0.0, "objective.drop_path"));
    assert_eq!(frozen.start(), Start::Pretrained("objective.freeze = \"encoder\""));
    let known = |config: &ClassifyConfig| config.forward_flops(&at);
    assert!(known(&frozen) < 0.4 * known(&ClassifyConfig::default()));
}
