//! Settings, schedules and rules of collapse.

use std::collections::BTreeMap;

use super::*;
use crate::model::config::VitConfig;

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
    assert!(told(&d, 512, 0.0)[0].contains("augment.colour.jitter"));
    let warm = DinoConfig {
        teacher_temperature: 0.09,
        ..d
    };
    assert!(told(&warm, 512, 0.8)[0].contains("0.09"));
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
