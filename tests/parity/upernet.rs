//! UperNet against transformers (tests/fixtures/make_upernet.py).

use splitmask::model::config::VitConfig;
use splitmask::objective::transfer::segment::{Freeze, Head, SegmentConfig};
use splitmask::objective::{Objective, Plan, Scope};
use splitmask::tensor::StepInput;
use splitmask_pipeline::request::IMAGE;
use tch::{Kind, Tensor, nn};

use crate::fixture::{Fixture, assert_grads, assert_near, device, set_params};
use crate::{alone, evaluation, training};

const CLASSES: u32 = 5;

fn model() -> VitConfig {
    VitConfig {
        width: 32,
        depth: 4,
        image: 32,
        patch: 8,
        ..crate::fixture::model()
    }
}

fn config() -> SegmentConfig {
    SegmentConfig {
        classes: CLASSES,
        head: Head::Upernet,
        width: 16,
        auxiliary_width: 8,
        dropout: 0.0,
        drop_path: 0.0,
        freeze: Freeze::None,
        ..SegmentConfig::default()
    }
}

fn built(config: &SegmentConfig) -> (nn::VarStore, Box<dyn Objective>) {
    tch::manual_seed(9);
    let (model, vs) = (model(), nn::VarStore::new(device()));
    let scope = Scope::new(&model, 3, 0);
    assert_eq!(config.check(&scope), []);
    let objective = config.build(&vs.root(), &scope);
    (vs, objective)
}

fn input(fixture: &Fixture) -> StepInput {
    StepInput {
        maps: Some(fixture.get("maps").shallow_clone()),
        ..fixture.input_of(&[(IMAGE, "pixels")], None, None)
    }
}

#[test]
fn logits_losses_gradients_and_running_statistics_are_transformers() {
    let _alone = alone();
    let fixture = Fixture::read("upernet");
    let x = input(&fixture);
    let (vs, mut objective) = built(&config());
    set_params(&vs, &fixture.under("param"));
    let logits = objective.pixel_logits(&x.views[0].pixels).unwrap();
    assert_near("logits", &logits, fixture.get("eval.logits"), 1e-5);
    for (when, ctx) in [("eval", evaluation()), ("train", training(0))] {
        let losses = objective.forward(&x, &ctx).unwrap();
        for (name, loss) in &losses.terms {
            assert_near(&format!("{when} {name}"), loss, fixture.get(&format!("{when}.{name}")), 1e-5);
        }
        assert_eq!(losses.terms.len(), 2);
        assert_near(&format!("{when} total"), &losses.total, fixture.get(&format!("{when}.total")), 1e-5);
        if when == "train" {
            losses.total.backward();
        }
    }
    assert_grads("a step", &vs, &fixture.under("grad"), 1e-4);
    let taken = Tensor::from(0f32).to_device(device());
    objective.after_step(&training(0), &taken).unwrap();
    let variables = vs.variables();
    for (name, want) in fixture.under("end") {
        assert_near(&format!("at the end: {name}"), &variables[name], want, 1e-5);
    }
}

/// Dropout leaves a tenth of the channels out in training and none in an evaluation; a new network's loss is that of guessing, 1.4 times.
#[test]
fn a_new_network_guesses_and_drops_channels_in_training_alone() {
    let _alone = alone();
    let fixture = Fixture::read("upernet");
    let x = input(&fixture);
    let config = SegmentConfig { dropout: 0.1, ..config() };
    let (_vs, objective) = built(&config);
    let guess = 1.4 * f64::from(CLASSES).ln();
    let loss = |ctx: &_, seed: i64| {
        tch::manual_seed(seed);
        objective.forward(&x, ctx).unwrap().total.double_value(&[])
    };
    for ctx in [evaluation(), training(0)] {
        let first = loss(&ctx, 1);
        assert!((first / guess - 1.0).abs() < 0.05, "{first}, guessing costs {guess}");
        assert_eq!(first, loss(&ctx, 1));
        assert_eq!(first == loss(&ctx, 2), !ctx.train, "what is dropped in a step is drawn");
    }
}

/// Without a weight there is no auxiliary head, and with frozen blocks only the head learns.
#[test]
fn what_is_turned_off_is_not_there() {
    let _alone = alone();
    let fixture = Fixture::read("upernet");
    let x = input(&fixture);
    let off = SegmentConfig {
        auxiliary_weight: 0.0,
        freeze: Freeze::Encoder,
        ..config()
    };
    let (vs, objective) = built(&off);
    let losses = objective.forward(&x, &training(0)).unwrap();
    assert_eq!(losses.terms.iter().map(|(name, _)| *name).collect::<Vec<_>>(), ["segmentation"]);
    losses.total.backward();
    for (name, t) in crate::subjects::named(&vs) {
        let learns = name.starts_with("head.upernet.") && !name.contains("running_");
        assert!(!name.contains("auxiliary"), "{name}");
        assert_eq!(torch_ext::has_grad(&t), learns, "{name}");
        assert!(!learns || t.grad().abs().sum(Kind::Double).double_value(&[]) > 0.0, "{name}");
    }
}

#[test]
fn what_does_not_fit_is_refused_by_key() {
    let check = |config: SegmentConfig, model: VitConfig, batch: u32| -> Vec<String> {
        let found = config.check(&Scope::new(&model, batch, 0));
        found.into_iter().map(|violation| violation.to_string()).collect()
    };
    let blocks = |blocks: &[u32]| SegmentConfig {
        blocks: blocks.to_vec(),
        ..config()
    };
    assert_eq!(check(blocks(&[1, 2, 3, 4]), model(), 2), [""; 0]);
    for (config, model, batch, words) in [
        (
            config(),
            VitConfig { depth: 3, ..model() },
            2,
            "model.depth = 3: expected 4 or more",
        ),
        (
            blocks(&[1, 2, 3]),
            model(),
            2,
            "objective.blocks = [1, 2, 3]: expected none, or four",
        ),
        (blocks(&[1, 3, 3, 4]), model(), 2, "objective.blocks"),
        (blocks(&[0, 1, 2, 4]), model(), 2, "objective.blocks"),
        (blocks(&[1, 2, 3, 5]), model(), 2, "objective.blocks"),
        (blocks(&[1, 2, 3, 4]), VitConfig { depth: 5, ..model() }, 2, "5 as the last one"),
        (
            config(),
            VitConfig { image: 8, ..model() },
            2,
            "model.image = 8: expected 16 or more",
        ),
        (config(), model(), 1, "train.batch = 1: expected 2 or more"),
        (SegmentConfig { dropout: 1.0, ..config() }, model(), 2, "objective.dropout = 1"),
        (
            SegmentConfig {
                auxiliary_weight: -1.0,
                ..config()
            },
            model(),
            2,
            "objective.auxiliary_weight",
        ),
        (
            SegmentConfig {
                auxiliary_width: 0,
                ..config()
            },
            model(),
            2,
            "objective.auxiliary_width",
        ),
    ] {
        let found = check(config, model, batch);
        assert!(found.len() == 1 && found[0].contains(words), "{words:?}: {found:?}");
    }
    // The other head has none of these, and does not pass over them.
    let deconv = |config: SegmentConfig| SegmentConfig {
        head: Head::Deconv,
        ..config
    };
    let found = check(deconv(blocks(&[1, 2, 3, 4])), model(), 2);
    for key in ["objective.blocks", "objective.auxiliary_width", "objective.dropout"] {
        assert!(found.iter().any(|line| line.starts_with(key)), "{key}: {found:?}");
    }
    assert_eq!(found.len(), 3, "{found:?}");
    // Any patch will do for the pyramid.
    let odd = VitConfig {
        patch: 14,
        image: 70,
        ..model()
    };
    assert_eq!(check(config(), odd.clone(), 2), [""; 0]);
    assert!(
        check(
            SegmentConfig {
                classes: 5,
                ..SegmentConfig::default()
            },
            odd,
            2
        )[0]
        .contains("model.patch = 14")
    );
}
