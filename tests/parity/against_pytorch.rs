//! Numbers of one step and of a short training against PyTorch.

use splitmask::loss::info_nce;
use splitmask::model::config::VitConfig;
use splitmask::model::{QkvBias, Vit, VitOptions};
use splitmask::objective::pretrain::beit::BeitConfig;
use splitmask::objective::pretrain::splitmask::SplitMaskConfig;
use splitmask::objective::{Losses, Objective, Plan, Scope};
use splitmask::optim::config::OptimConfig;
use splitmask::optim::{AdamW, ParamRule, clip_grad_norm, learning_rate};
use tch::{Kind, Tensor, nn};

use crate::fixture::{Fixture, VOCABULARY, assert_grads, assert_near, device, model, set_params};
use crate::{alone, evaluation, training};

const TIGHT: f64 = 1e-5;

#[test]
fn vit_forward_and_backward() {
    let _alone = alone();
    let fixture = Fixture::read("vit");
    let extras = VitConfig {
        layer_scale: 0.1,
        relative_bias: true,
        ..model()
    };
    let beit = VitOptions {
        qkv_bias: QkvBias::QueryValue,
        ..VitOptions::plain(0.0)
    };
    for (kind, config, options) in [
        ("plain", model(), VitOptions::plain(0.0)),
        ("extras", extras, VitOptions::plain(0.0)),
        ("beit", model(), beit),
    ] {
        let vs = nn::VarStore::new(device());
        let vit = Vit::with(&vs.root(), &config, &options);
        set_params(&vs, &fixture.under(&format!("{kind}.param")));
        let features = vit.forward_features(fixture.get("x"), true);
        assert_near(kind, &features, fixture.get(&format!("{kind}.features")), TIGHT);
        (features * fixture.get("w")).sum(Kind::Float).backward();
        assert_grads(kind, &vs, &fixture.under(&format!("{kind}.grad")), TIGHT);
        if kind == "plain" {
            let larger = vit.forward_features(fixture.get("x_large"), false);
            assert_near("interpolated positions", &larger, fixture.get("plain.features_large"), TIGHT);
        }
    }
}

fn built(plan: &dyn Plan, model: &VitConfig, vs: &nn::VarStore) -> Box<dyn Objective> {
    plan.build(&vs.root(), &Scope::new(model, 4, VOCABULARY))
}

fn check_losses(what: &str, losses: &Losses, fixture: &Fixture, prefix: &str) {
    for (name, value) in losses.terms.iter().chain(&losses.stats) {
        assert_near(&format!("{what}: {name}"), value, fixture.get(&format!("{prefix}{name}")), TIGHT);
    }
}

#[test]
fn splitmask_losses_and_gradients() {
    let _alone = alone();
    let fixture = Fixture::read("splitmask");
    let d = || SplitMaskConfig {
        drop_path: 0.0,
        ..SplitMaskConfig::default()
    };
    let with_bias = VitConfig {
        relative_bias: true,
        ..model()
    };
    let variants = [
        ("default", "parts_half", d(), model()),
        ("quarter", "parts_quarter", d(), model()),
        (
            "both",
            "parts_half",
            SplitMaskConfig {
                both_branch_negatives: true,
                ..d()
            },
            model(),
        ),
        (
            "absent_positions",
            "parts_half",
            SplitMaskConfig {
                decoder_positions_on_seen: false,
                ..d()
            },
            model(),
        ),
        ("unsplit", "parts_half", SplitMaskConfig { split: false, ..d() }, model()),
        ("relative", "parts_quarter", d(), with_bias),
    ];
    for (name, parts, config, model) in variants {
        let vs = nn::VarStore::new(device());
        let objective = built(&config, &model, &vs);
        set_params(&vs, &fixture.under("param"));
        let losses = objective.forward(&fixture.input("pixels", "words", parts), &training(0)).unwrap();
        assert_eq!(losses.terms.iter().map(|t| t.0).collect::<Vec<_>>(), ["inpaint", "match"]);
        check_losses(name, &losses, &fixture, &format!("{name}."));
        losses.total.backward();
        assert_grads(name, &vs, &fixture.under(&format!("{name}.grad")), TIGHT);
    }
}

#[test]
fn one_term_alone_is_the_same_term() {
    let _alone = alone();
    let fixture = Fixture::read("splitmask");
    let input = fixture.input("pixels", "words", "parts_half");
    for (config, term) in [
        (
            SplitMaskConfig {
                match_: false,
                inpaint_weight: 2.0,
                ..SplitMaskConfig::default()
            },
            "inpaint",
        ),
        (
            SplitMaskConfig {
                inpaint: false,
                match_weight: 2.0,
                ..SplitMaskConfig::default()
            },
            "match",
        ),
    ] {
        let vs = nn::VarStore::new(device());
        let objective = built(&config, &model(), &vs);
        set_params(&vs, &fixture.under("param"));
        let losses = objective.forward(&input, &evaluation()).unwrap();
        check_losses(term, &losses, &fixture, "default.");
        assert_near(term, &(losses.total / 2.0), fixture.get(&format!("default.{term}")), TIGHT);
    }
}

#[test]
fn beit_loss_and_gradients() {
    let _alone = alone();
    let fixture = Fixture::read("beit");
    let vs = nn::VarStore::new(device());
    let config = BeitConfig {
        drop_path: 0.0,
        ..BeitConfig::default()
    };
    let objective = built(&config, &model(), &vs);
    set_params(&vs, &fixture.under("param"));
    let losses = objective.forward(&fixture.input("pixels", "words", "parts"), &training(0)).unwrap();
    check_losses("beit", &losses, &fixture, "");
    losses.total.backward();
    assert_grads("beit", &vs, &fixture.under("grad"), TIGHT);
}

#[test]
fn info_nce_and_gradients() {
    let _alone = alone();
    let fixture = Fixture::read("contrast");
    for kind in ["other", "both"] {
        let leaf = |name: &str| fixture.get(name).copy().set_requires_grad(true);
        let (a, b) = (leaf("a"), leaf("b"));
        let contrast = info_nce(&a, &b, 0.2, kind == "both");
        assert_near(kind, &contrast.loss, fixture.get(&format!("{kind}.loss")), TIGHT);
        assert_near(kind, &contrast.accuracy, fixture.get(&format!("{kind}.accuracy")), TIGHT);
        contrast.loss.backward();
        assert_near(kind, &a.grad(), fixture.get(&format!("{kind}.grad_a")), TIGHT);
        assert_near(kind, &b.grad(), fixture.get(&format!("{kind}.grad_b")), TIGHT);
    }
}

/// 20 steps with groups, a changing rate and clipping; gradients handed in.
#[test]
fn adamw_and_clipping() {
    let _alone = alone();
    let fixture = Fixture::read("adamw");
    let clip = fixture.get("clip").double_value(&[]);
    for inside in [true, false] {
        let params: Vec<(String, Tensor)> = fixture
            .under("start")
            .into_iter()
            .map(|(name, t)| (name.to_owned(), t.copy().set_requires_grad(true)))
            .collect();
        let named = params.iter().map(|(n, t)| (n.clone(), t.shallow_clone()));
        let mut adamw = AdamW::new(named, |n, d| ParamRule::by_name(n, d, 0), &OptimConfig::default());
        assert_eq!(adamw.decaying(), ["lin.weight"]);
        for step in 0..20u8 {
            adamw.zero_grad().unwrap();
            let grads = fixture.under(&format!("grad.{step}"));
            // A loss whose gradient is the one that is wanted.
            let loss: Tensor = params.iter().map(|(name, p)| (p * grads[name.as_str()]).sum(Kind::Float)).sum();
            loss.backward();
            let lr = 3e-3 * (1.0 + f64::from(step) / 10.0);
            let norm = if inside {
                adamw.clipped_step(lr, 0.05, clip).unwrap()
            } else {
                let norm = clip_grad_norm(&adamw.params(), clip).unwrap();
                adamw.step(lr, 0.05).unwrap();
                norm
            };
            assert_near("norm", &norm, &fixture.get("norms").get(i64::from(step)), TIGHT);
            if step == 15 {
                for (name, p) in &params {
                    assert_near(
                        &format!("clipped gradient of {name}"),
                        &p.grad(),
                        fixture.get(&format!("clipped.{name}")),
                        TIGHT,
                    );
                }
            }
        }
        for (name, p) in &params {
            assert_near(name, p, fixture.get(&format!("end.{name}")), TIGHT);
        }
        for (name, t) in adamw.state() {
            assert_near(&name, &t, fixture.get(&name), TIGHT);
        }
    }
}

#[test]
fn schedule_is_pytorchs_linear_then_cosine() {
    let fixture = Fixture::read("adamw");
    let config = OptimConfig {
        lr: 1.5e-3,
        min_lr: 1e-5,
        warmup_steps: 6,
        total_steps: 40,
        ..OptimConfig::default()
    };
    let rates: Vec<f64> = (0..40).map(|s| learning_rate(&config, s)).collect();
    assert_near("learning rates", &Tensor::from_slice(&rates), fixture.get("schedule"), 1e-6);
}

/// The whole of it: 50 steps of training on two batches in turn, loss by loss.
#[test]
fn fifty_steps_follow_pytorch() {
    let _alone = alone();
    let fixture = Fixture::read("trace");
    let vs = nn::VarStore::new(device());
    let config = SplitMaskConfig {
        drop_path: 0.0,
        ..SplitMaskConfig::default()
    };
    let objective = built(&config, &model(), &vs);
    set_params(&vs, &fixture.under("param"));
    let optim = OptimConfig {
        lr: 2e-3,
        min_lr: 1e-5,
        warmup_steps: 5,
        total_steps: 50,
        clip: 1.0,
        ..OptimConfig::default()
    };
    let mut adamw = AdamW::new(vs.variables(), |n, d| objective.rule(n, d), &optim);
    let batches = [0, 1].map(|i| fixture.input(&format!("{i}.pixels"), &format!("{i}.words"), &format!("{i}.parts")));
    for step in 0..50 {
        let losses = objective.forward(&batches[step % 2], &training(step as u64)).unwrap();
        adamw.zero_grad().unwrap();
        losses.total.backward();
        let norm = adamw
            .clipped_step(learning_rate(&optim, step as u64), optim.weight_decay, optim.clip)
            .unwrap();
        assert_near(
            &format!("loss of step {step}"),
            &losses.total,
            &fixture.get("loss").get(step as i64),
            1e-4,
        );
        assert_near(
            &format!("gradient norm of step {step}"),
            &norm,
            &fixture.get("norm").get(step as i64),
            1e-2,
        );
    }
}
