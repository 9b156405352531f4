//! Settings, schedule and what guessing scores.

use super::*;
use crate::model::config::{VitConfig, VitSize};
use crate::model::linear_flops;

fn wrong(config: &MocoV3Config, model: &VitConfig, batch: u32) -> Vec<String> {
    let found = config.check(&Scope::new(model, batch, 0));
    found.into_iter().map(|v| v.key).collect()
}

#[test]
fn violations_name_their_key() {
    let d = MocoV3Config::default;
    let model = VitConfig::default();
    let cases = [
        (MocoV3Config { temperature: -0.2, ..d() }, "objective.temperature"),
        (MocoV3Config { momentum: 1.5, ..d() }, "objective.momentum"),
        (
            MocoV3Config {
                momentum_end: f64::NAN,
                ..d()
            },
            "objective.momentum_end",
        ),
        (
            MocoV3Config {
                first: colours(-0.1, 0.0),
                ..d()
            },
            "objective.first.blur",
        ),
        (
            MocoV3Config {
                predictor_layers: 9,
                ..d()
            },
            "objective.predictor_layers",
        ),
        (
            MocoV3Config {
                projection: ProjectionConfig {
                    out: 1,
                    ..ProjectionConfig::default()
                },
                ..d()
            },
            "objective.projection.out",
        ),
    ];
    for (config, key) in cases {
        assert_eq!(wrong(&config, &model, 4), [key]);
    }
    assert_eq!(
        wrong(&d(), &model, 3),
        ["train.batch"],
        "three rows leave BatchNorm next to nothing"
    );
    assert_eq!(wrong(&d(), &model, 4), [""; 0]);
    let narrow = VitConfig {
        width: 126,
        heads: 2,
        ..model
    };
    assert_eq!(wrong(&d(), &narrow, 4), ["model.width"]);
    let learned = MocoV3Config {
        positions: Positions::Learned,
        ..d()
    };
    assert_eq!(wrong(&learned, &narrow, 4), [""; 0]);
}

#[test]
fn what_probably_is_not_meant_is_told() {
    let told = |model: &VitConfig, batch: u32, colour: ColourConfig| {
        let at = Scope {
            colour,
            ..Scope::new(model, batch, 0)
        };
        MocoV3Config::default().oddities(&at)
    };
    let plain = ColourConfig::default();
    let of = |size, heads| VitConfig {
        size,
        heads,
        ..VitConfig::default()
    };
    assert_eq!(told(&of(VitSize::Small, 12), 4096, plain), [""; 0]);
    assert!(told(&of(VitSize::Small, 0), 4096, plain)[0].contains("model.heads = 6"));
    assert_eq!(told(&of(VitSize::Base, 0), 4096, plain), [""; 0]);
    assert!(told(&of(VitSize::Base, 0), 64, plain)[0].contains("train.batch = 64"));
    assert!(told(&of(VitSize::Base, 0), 4096, colours(0.5, 0.0))[0].starts_with("augment.colour is not used"));
    let falling = MocoV3Config {
        momentum_end: 0.5,
        ..MocoV3Config::default()
    };
    let odd = falling.oddities(&Scope::new(&of(VitSize::Base, 0), 4096, 0));
    assert!(
        odd[0].starts_with("objective.momentum_end = 0.5 is below objective.momentum"),
        "{odd:?}"
    );
}

#[test]
fn guessing_is_among_the_keys_of_the_batch() {
    let model = VitConfig::default();
    let at = Scope::new(&model, 128, 0);
    let config = MocoV3Config::default();
    assert_eq!(config.chance("contrast", &at), Some(128f64.ln()));
    assert_eq!(config.chance("contrast_accuracy", &at), Some(1.0 / 128.0));
    let blurs: Vec<f32> = config.request(&at).views.iter().map(|view| view.colour.blur).collect();
    assert_eq!(blurs, [1.0, 0.1]);
    assert!(config.whole_batch());
}

#[test]
fn the_momentum_goes_to_its_end_over_a_cosine() {
    let config = MocoV3Config::default();
    for (step, want) in [(0, 0.99), (50, 0.995), (100, 1.0), (101, 1.0)] {
        let got = config.momentum_at(step, 100);
        assert!((got - want).abs() < 1e-12, "step {step}: {got}");
    }
}

#[test]
fn the_momentum_encoder_costs_a_forward_pass_more_and_the_predictor_its_layers() {
    let model = VitConfig::default();
    let at = Scope::new(&model, 128, 0);
    let config = MocoV3Config::default();
    let without = MocoV3Config {
        predictor_layers: 0,
        ..config
    };
    let (out, hidden) = (i64::from(config.projection.out), i64::from(config.projection.hidden));
    let predictor = linear_flops(2, out, hidden) + linear_flops(2, hidden, out);
    let more = config.forward_flops(&at) - without.forward_flops(&at);
    assert!((more / predictor - 1.0).abs() < 1e-6, "{more} {predictor}");
}
