//! Settings, schedules and rules of collapse.

use std::collections::BTreeMap;

use super::*;
use crate::model::config::VitConfig;
use crate::objective::Judged;

#[test]
fn violations_name_their_key() {
    let d = DinoConfig::default;
    let model = VitConfig::default();
    let wrong = |config: &DinoConfig, model: &VitConfig| -> Vec<String> {
        config.check(&Scope::new(model, 512, 0)).into_iter().map(|v| v.key).collect()
    };
    let cases = [
        (
            DinoConfig {
                teacher_temperature: 0.2,
                ..d()
            },
            "objective.teacher_temperature",
        ),
        (
            DinoConfig {
                teacher_temperature_start: f64::NAN,
                ..d()
            },
            "objective.teacher_temperature_start",
        ),
        (DinoConfig { local_size: 8, ..d() }, "objective.local_size"),
        (DinoConfig { local_size: 100, ..d() }, "objective.local_size"),
        (
            DinoConfig {
                local_area: [0.4, 0.05],
                ..d()
            },
            "objective.local_area",
        ),
        (
            DinoConfig {
                blur: [1.0, 0.1, 1.5],
                ..d()
            },
            "objective.blur",
        ),
        (DinoConfig { prototypes: 1, ..d() }, "objective.prototypes"),
        (DinoConfig { momentum: 1.5, ..d() }, "objective.momentum"),
        (DinoConfig { drop_path: 1.0, ..d() }, "objective.drop_path"),
        (DinoConfig { ibot_weight: -1.0, ..d() }, "objective.ibot_weight"),
        (
            DinoConfig {
                ibot_weight: f64::NAN,
                ..d()
            },
            "objective.ibot_weight",
        ),
        (
            DinoConfig {
                koleo_weight: f64::INFINITY,
                ..d()
            },
            "objective.koleo_weight",
        ),
        (
            DinoConfig {
                ibot_mask_probability: 0.0,
                ..DinoConfig::with_patches()
            },
            "objective.ibot_mask_probability",
        ),
        (
            DinoConfig {
                ibot_mask_ratio: [0.5, 0.1],
                ..DinoConfig::with_patches()
            },
            "objective.ibot_mask_ratio",
        ),
        (
            DinoConfig {
                ibot_prototypes: 1,
                ..DinoConfig::of_dinov2()
            },
            "objective.ibot_prototypes",
        ),
    ];
    for (config, key) in cases {
        assert_eq!(wrong(&config, &model), [key]);
    }
    let relative = VitConfig {
        relative_bias: true,
        ..model
    };
    assert_eq!(wrong(&d(), &relative), ["model.relative_bias"]);
    assert_eq!(wrong(&DinoConfig { local_crops: 0, ..d() }, &relative), [""; 0]);
    assert_eq!(wrong(&d(), &model), [""; 0]);
    let alone = DinoConfig::of_dinov2().check(&Scope::new(&model, 1, 0));
    assert_eq!(alone[0].to_string().split(':').next(), Some("train.batch = 1"), "{alone:?}");
    let one_patch = VitConfig {
        image: 16,
        ..VitConfig::default()
    };
    let config = DinoConfig {
        local_crops: 0,
        ..DinoConfig::with_patches()
    };
    let found = config.check(&Scope::new(&one_patch, 8, 0));
    assert!(
        found[0]
            .to_string()
            .starts_with("objective.ibot_weight = 1: expected 0: an image of one patch"),
        "{found:?}"
    );
}

#[test]
fn options_without_effect_are_told_with_what_makes_them_idle() {
    let model = VitConfig::default();
    let told = |config: DinoConfig| {
        let mut at = Scope::new(&model, 512, 0);
        at.colour.jitter = 0.8;
        config.oddities(&at)
    };
    let d = DinoConfig::default;
    for config in [d(), DinoConfig::with_patches(), DinoConfig::of_dinov2()] {
        assert_eq!(told(config), [""; 0]);
    }
    let cases = [
        (
            DinoConfig {
                separate_heads: true,
                ..d()
            },
            "objective.separate_heads has no effect with objective.ibot_weight = 0",
        ),
        (
            DinoConfig {
                ibot_prototypes: 64,
                ..DinoConfig::with_patches()
            },
            "objective.ibot_prototypes has no effect",
        ),
        (
            DinoConfig {
                ibot_mask_ratio: [0.2, 0.5],
                ..d()
            },
            "objective.ibot_mask_probability or .ibot_mask_ratio has no effect",
        ),
        (
            DinoConfig {
                centre_momentum: 0.8,
                ..DinoConfig::of_dinov2()
            },
            "objective.centre_momentum has no effect with objective.centring = \"sinkhorn\"",
        ),
    ];
    for (config, words) in cases {
        let told = told(config);
        assert!(told.len() == 1 && told[0].starts_with(words), "{told:?}");
    }
}

#[test]
fn masks_are_asked_for_with_the_loss_of_patches_alone() {
    let model = VitConfig::default();
    let at = Scope::new(&model, 512, 0);
    let d = DinoConfig::default();
    assert_eq!((d.request(&at).hidden, d.chance("koleo", &at)), (None, None));
    let config = DinoConfig {
        ibot_prototypes: 1024,
        ..DinoConfig::of_dinov2()
    };
    let hidden = config.request(&at).hidden.unwrap();
    assert_eq!(
        (hidden.view, hidden.side, hidden.probability, hidden.ratio),
        (GLOBAL, 14, 0.5, [0.1, 0.5])
    );
    assert_eq!(config.chance("ibot", &at), Some(0.5 * 1024f64.ln()));
    // Heads of patches cost: 2 crops × 196 patches × 0.15, for the student and a third of it for the teacher.
    let head = linear_flops(1, 384, 2048) + linear_flops(1, 2048, 2048) + linear_flops(1, 2048, 256) + linear_flops(1, 256, 1024);
    let want = d.forward_flops(&at) + 2.0 * 196.0 * 0.15 * head * 4.0 / 3.0;
    assert!((config.forward_flops(&at) / want - 1.0).abs() < 1e-9);
}

#[test]
fn what_probably_is_not_meant_is_told() {
    let model = VitConfig::default();
    let told = |config: &DinoConfig, batch: u32, jitter: f32| {
        let mut at = Scope::new(&model, batch, 0);
        at.colour.jitter = jitter;
        config.oddities(&at)
    };
    let d = DinoConfig::default();
    assert_eq!(told(&d, 512, 0.8), [""; 0]);
    assert!(told(&d, 128, 0.8)[0].contains("objective.prototypes = 65536"));
    let patches = DinoConfig {
        prototypes: 1024,
        ibot_prototypes: 65_536,
        ..DinoConfig::of_dinov2()
    };
    assert!(told(&patches, 128, 0.8)[0].starts_with("objective.ibot_prototypes = 65536 is more than 128"));
    assert!(told(&d, 512, 0.0)[0].contains("augment.colour.jitter"));
    let warm = DinoConfig {
        teacher_temperature: 0.09,
        ..d
    };
    assert!(told(&warm, 512, 0.8)[0].contains("0.09"));
    let short = |config: &DinoConfig| {
        let mut at = Scope::new(&model, 512, 0);
        at.colour.jitter = 0.8;
        at.steps = 1000;
        config.oddities(&at)
    };
    assert!(short(&d)[0].starts_with("objective.freeze_last_layer_steps = 1250 is not below optim.total_steps = 1000"));
    let quick = DinoConfig {
        freeze_last_layer_steps: 10,
        teacher_warmup_steps: 1001,
        teacher_temperature: 0.06,
        momentum_end: 0.99,
        ..d
    };
    let found = short(&quick);
    assert!(
        found[0].contains("never comes to objective.teacher_temperature = 0.06"),
        "{found:?}"
    );
    assert!(found[1].starts_with("objective.momentum_end = 0.99 is below"), "{found:?}");
    let few = DinoConfig { prototypes: 1024, ..d };
    assert!(told(&few, 32, 0.8)[0].contains("train.batch = 32"));
}

#[test]
fn a_small_image_gets_smaller_local_crops() {
    let fitted = |image, patch| {
        let model = VitConfig {
            image,
            patch,
            ..VitConfig::default()
        };
        let nobody = |_: &str| false;
        let mut config = DinoConfig::default();
        config.fit(&Scope::new(&model, 512, 0), &mut Fitting::new(&nobody));
        assert_eq!(config.check(&Scope::new(&model, 512, 0)), []);
        config.local_size
    };
    assert_eq!(
        [fitted(224, 16), fitted(224, 14), fitted(64, 8), fitted(16, 4), fitted(16, 16)],
        [96, 98, 24, 8, 16]
    );
}

#[test]
fn schedules_begin_and_end_where_they_should() {
    let config = DinoConfig {
        teacher_temperature: 0.07,
        teacher_warmup_steps: 30,
        ..DinoConfig::default()
    };
    let near = |a: f64, b: f64| assert!((a - b).abs() < 1e-12, "{a} {b}");
    near(config.teacher_temperature_at(0), 0.04);
    near(config.teacher_temperature_at(15), 0.055);
    near(config.teacher_temperature_at(30), 0.07);
    near(config.teacher_temperature_at(900), 0.07);
    near(config.momentum_at(0, 100), 0.996);
    near(config.momentum_at(50, 100), 0.998);
    near(config.momentum_at(100, 100), 1.0);
}

#[test]
fn patches_that_teach_nothing_and_class_tokens_that_are_alike_are_noticed() {
    // Of each ln K = 10; by chance a few more crops hide patches than asked for.
    let holding = |loss: f64, entropy: f64, koleo: f64| -> Vec<&str> {
        let means: BTreeMap<String, f64> = [
            ("ibot", 0.55 * loss),
            ("patch_teacher_entropy", 0.55 * entropy),
            ("ibot_guess", 0.55 * 10.0),
            ("koleo", koleo),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into();
        let chance = |_: &str| None;
        let at = Judged {
            means: &means,
            chance: &chance,
        };
        let rules = KIND.collapse.iter().filter(|rule| (rule.holds)(&at));
        rules.map(|rule| rule.name).collect()
    };
    assert_eq!(holding(10.0, 5.0, 1.0), ["patches_at_chance"]);
    assert_eq!(holding(11.0, 9.95, 1.0), ["patch_teacher_uniform"]);
    assert_eq!(holding(0.01, 0.005, 1.0), ["patch_teacher_constant"]);
    assert_eq!(holding(6.0, 3.0, 14.0), ["class_tokens_alike"]);
    assert_eq!(holding(6.0, 0.05, 13.0), [""; 0]);
    assert_eq!(holding(f64::NAN, f64::NAN, f64::NAN), [""; 0]);
}

#[test]
fn every_way_to_collapse_is_noticed_and_learning_is_none() {
    let holding = |loss: f64, entropy: f64| -> Vec<&str> {
        let means: BTreeMap<String, f64> = [
            ("distillation", loss),
            ("teacher_entropy", entropy),
            ("teacher_divergence", loss - entropy),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into();
        let chance = |number: &str| (number == "distillation").then_some(10.0);
        let at = Judged {
            means: &means,
            chance: &chance,
        };
        KIND.collapse
            .iter()
            .filter(|rule| (rule.holds)(&at))
            .map(|rule| rule.name)
            .collect()
    };
    assert_eq!(holding(10.0, 5.0), ["distillation_at_chance"]);
    assert_eq!(holding(11.0, 9.95), ["teacher_uniform"]);
    assert_eq!(holding(0.01, 0.005), ["teacher_constant"]);
    assert_eq!(holding(4.0, 3.0), [""; 0]);
    assert_eq!(holding(f64::NAN, f64::NAN), [""; 0]);
    // A teacher that is sure of each image, and a student that has yet to agree, are no collapse.
    assert_eq!(holding(6.0, 0.05), [""; 0]);
}
