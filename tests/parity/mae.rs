//! MAE against PyTorch (tests/fixtures/make_mae.py), and what is its own among the objectives.

use splitmask::loss::patch_pixels;
use splitmask::model::config::VitConfig;
use splitmask::model::sin_cos_positions;
use splitmask::objective::pretrain::mae::{DecoderShape, MaeConfig};
use splitmask::objective::{Column, Objective, Plan, Scope};
use splitmask::optim::AdamW;
use splitmask::optim::config::OptimConfig;
use splitmask::tensor::StepInput;
use splitmask_pipeline::request::IMAGE;
use tch::{Kind, Tensor, nn};

use crate::fixture::{Fixture, assert_grads, assert_near, device, set_params};
use crate::{alone, evaluation, training};

/// Geometry of the fixture.
fn model() -> VitConfig {
    VitConfig {
        width: 32,
        ..crate::fixture::model()
    }
}

fn config(norm_pixels: bool) -> MaeConfig {
    MaeConfig {
        norm_pixels,
        decoder: DecoderShape {
            layers: 2,
            width: 24,
            heads: 3,
        },
        ..MaeConfig::default()
    }
}

fn built(norm_pixels: bool) -> (nn::VarStore, Box<dyn Objective>) {
    let vs = nn::VarStore::new(device());
    let model = model();
    let objective = config(norm_pixels).build(&vs.root(), &Scope::new(&model, 4, 0));
    (vs, objective)
}

fn input(fixture: &Fixture) -> StepInput {
    fixture.input_of(&[(IMAGE, "pixels")], None, Some("sets"))
}

#[test]
fn losses_and_gradients_are_pytorchs() {
    let _alone = alone();
    let fixture = Fixture::read("mae");
    for (kind, norm_pixels) in [("normalised", true), ("raw", false)] {
        let (vs, objective) = built(norm_pixels);
        set_params(&vs, &fixture.under("param"));
        let losses = objective.forward(&input(&fixture), &training(0)).unwrap();
        for (name, value) in losses.terms.iter().chain(&losses.stats) {
            assert_near(&format!("{kind}: {name}"), value, fixture.get(&format!("{kind}.{name}")), 1e-6);
        }
        losses.total.backward();
        assert_grads(kind, &vs, &fixture.under(&format!("{kind}.grad")), 1e-5);
    }
}

#[test]
fn positions_of_encoder_and_decoder_are_maes() {
    let fixture = Fixture::read("mae");
    for (name, width) in [("pos_embed", 32), ("decoder.pos_embed", 24)] {
        assert_near(name, &sin_cos_positions(4, width), fixture.get(&format!("param.{name}")), 1e-6);
    }
}

#[test]
fn a_new_network_pays_its_own_variance_on_top_of_that_of_the_targets() {
    let _alone = alone();
    tch::manual_seed(5);
    let model = VitConfig {
        image: 32,
        width: 64,
        ..model()
    };
    let config = MaeConfig {
        decoder: DecoderShape {
            layers: 2,
            width: 128,
            heads: 4,
        },
        ..MaeConfig::default()
    };
    let at = Scope::new(&model, 64, 0);
    let vs = nn::VarStore::new(device());
    let objective = config.build(&vs.root(), &at);
    let order = Tensor::rand([64, 64], (Kind::Float, device())).argsort(-1, false);
    let part = |start, len| order.narrow(1, start, len).sort(-1, false).0;
    let none = Tensor::zeros([64, 0], (Kind::Int64, device()));
    let x = StepInput {
        len: 64,
        views: vec![splitmask::tensor::NamedView {
            name: IMAGE.into(),
            pixels: Tensor::randn([64, 3, 32, 32], (Kind::Float, device())),
        }],
        words: None,
        largest_word: 0,
        hidden: None,
        sets: Some(splitmask::tensor::PatchSets {
            patches: 64,
            a: part(0, 48),
            not_a: part(48, 16),
            b: none.shallow_clone(),
            not_b: none,
        }),
        maps: None,
        objects: None,
        labels: Tensor::full([64], -1, (Kind::Int64, device())),
    };
    let loss = objective.forward(&x, &evaluation()).unwrap().total.double_value(&[]);
    let want = config.at_start("reconstruction", &at).unwrap();
    assert!((loss / want - 1.0).abs() < 0.05, "{loss} instead of {want}");
}

#[test]
fn class_and_mask_token_decay_and_fixed_positions_are_not_trained() {
    let _alone = alone();
    let (vs, objective) = built(true);
    let adamw = AdamW::new(vs.variables(), |n, d| objective.rule(n, d), &OptimConfig::default());
    let decaying = adamw.decaying();
    for name in ["cls_token", "decoder.mask_token", "decoder.pred.weight", "blocks.0.attn.qkv.weight"] {
        assert!(decaying.contains(&name), "{name}");
    }
    assert!(
        decaying.iter().all(|name| !name.ends_with("bias") && !name.contains("norm")),
        "{decaying:?}"
    );
    assert!(adamw.state().iter().all(|(name, _)| !name.ends_with("pos_embed")));
}

#[test]
fn the_picture_shows_what_was_seen_as_it_is_and_undoes_the_normalisation() {
    let _alone = alone();
    let fixture = Fixture::read("mae");
    let x = input(&fixture);
    let picture = |norm_pixels| {
        let (vs, objective) = built(norm_pixels);
        set_params(&vs, &fixture.under("param"));
        // A decoder that predicts 0 everywhere.
        for name in ["decoder.pred.weight", "decoder.pred.bias"] {
            let _ = tch::no_grad(|| vs.variables()[name].shallow_clone().zero_());
        }
        let mut sheet = objective.pictures(&x).unwrap().remove(0);
        match sheet.columns.pop() {
            Some(Column::Pixels(pixels)) => patch_pixels(&pixels, 4),
            other => panic!("{other:?}"),
        }
    };
    let (normalised, raw) = (picture(true), picture(false));
    let own = patch_pixels(x.view(IMAGE).unwrap(), 4);
    let sets = x.sets.as_ref().unwrap();
    let of = |pixels: &Tensor, places: &Tensor| pixels.gather(1, &places.unsqueeze(2).expand([-1, -1, 48], false), false);
    for picture in [&normalised, &raw] {
        assert_eq!(of(picture, &sets.not_a), of(&own, &sets.not_a));
    }
    assert_eq!(of(&raw, &sets.a).abs().max().double_value(&[]), 0.0);
    let masked = of(&own, &sets.a);
    let means = masked.mean_dim([-1i64].as_slice(), true, None).expand_as(&masked);
    assert_near("a patch's mean", &of(&normalised, &sets.a), &means, 1e-6);
}
