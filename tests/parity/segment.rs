//! Segmentation against timm and PyTorch (tests/fixtures/make_segment.py).

use splitmask::eval::segment::stitched;
use splitmask::model::config::VitConfig;
use splitmask::objective::transfer::segment::{Freeze, SegmentConfig};
use splitmask::objective::{Objective, Plan, Scope};
use splitmask::optim::AdamW;
use splitmask::optim::config::OptimConfig;
use splitmask::tensor::StepInput;
use splitmask_pipeline::request::IMAGE;
use tch::{Kind, Tensor, nn};

use crate::fixture::{Fixture, assert_grads, assert_near, device, set_params};
use crate::{alone, evaluation, training};

const CLASSES: u32 = 5;

fn built(fixture: &Fixture, freeze: Freeze) -> (nn::VarStore, Box<dyn Objective>) {
    let model = VitConfig {
        width: 32,
        image: 64,
        patch: 16,
        ..crate::fixture::model()
    };
    let config = SegmentConfig {
        classes: CLASSES,
        width: 8,
        drop_path: 0.0,
        freeze,
        ..SegmentConfig::default()
    };
    let vs = nn::VarStore::new(device());
    let objective = config.build(&vs.root(), &Scope::new(&model, 3, 0));
    set_params(&vs, &fixture.under("param"));
    (vs, objective)
}

fn input(fixture: &Fixture) -> StepInput {
    StepInput {
        maps: Some(fixture.get("maps").shallow_clone()),
        ..fixture.input_of(&[(IMAGE, "pixels")], None, None)
    }
}

fn stat(stats: &[(&'static str, Tensor)], name: &str) -> Tensor {
    let found = stats.iter().find(|(n, _)| *n == name);
    found.unwrap_or_else(|| panic!("no {name}")).1.shallow_clone()
}

#[test]
fn two_steps_with_their_running_statistics_are_pytorchs() {
    let _alone = alone();
    let fixture = Fixture::read("segment");
    let x = input(&fixture);
    let (vs, mut objective) = built(&fixture, Freeze::None);
    let variables = vs.variables();
    let logits = objective.pixel_logits(&x.views[0].pixels).unwrap();
    assert_near("logits", &logits, fixture.get("logits"), 1e-5);
    let evaluated = objective.forward(&x, &evaluation()).unwrap();
    assert_near("cross-entropy", &evaluated.total, fixture.get("evaluated"), 1e-5);
    assert_near("accuracy", &stat(&evaluated.stats, "pixel_accuracy"), fixture.get("accuracy"), 1e-6);
    let unlabelled = fixture.get("maps").lt(0).to_kind(Kind::Float).mean(Kind::Float);
    assert_near("unlabelled", &stat(&evaluated.shares, "unlabelled_pixels"), &unlabelled, 1e-6);
    let optim = OptimConfig {
        eps: 1e-2,
        layer_decay: 1.0,
        ..OptimConfig::default()
    };
    let mut adamw = AdamW::new(vs.variables(), |n, d| objective.rule(n, d), &optim);
    for step in 0..2 {
        let losses = objective.forward(&x, &training(step)).unwrap();
        let want = fixture.get(&format!("{step}.segmentation"));
        assert_near(&format!("step {step}"), &losses.total, want, 1e-5);
        adamw.zero_grad().unwrap();
        losses.total.backward();
        assert_grads(&format!("step {step}"), &vs, &fixture.under(&format!("{step}.grad")), 1e-5);
        adamw.step_unless_nonfinite(3e-3, 0.1, 0.0, &losses.total).unwrap();
        let taken = Tensor::from(0f32).to_device(device());
        objective.after_step(&training(step), &taken).unwrap();
    }
    for (name, want) in fixture.under("end") {
        assert_near(&format!("at the end: {name}"), &variables[name], want, 1e-5);
    }
}

/// Numbers beyond the classes are left out as unlabelled pixels are, and told.
#[test]
fn pixels_of_unknown_classes_are_left_out_and_counted() {
    let _alone = alone();
    let fixture = Fixture::read("segment");
    let (_vs, objective) = built(&fixture, Freeze::Encoder);
    let beyond = |unlabelled: i64| {
        let maps = fixture.get("maps");
        StepInput {
            maps: Some(maps.where_scalarother(&maps.ge(0), unlabelled)),
            ..input(&fixture)
        }
    };
    let known = objective.forward(&beyond(-1), &evaluation()).unwrap();
    let unknown = objective.forward(&beyond(i64::from(CLASSES) + 7), &evaluation()).unwrap();
    assert_near("the same loss", &unknown.total, &known.total, 1e-6);
    assert_near(
        "told",
        &stat(&unknown.shares, "unknown_class_pixels"),
        &stat(&known.shares, "unlabelled_pixels"),
        1e-6,
    );
    let none = objective.forward(
        &StepInput {
            maps: Some(fixture.get("maps").full_like(-1)),
            ..input(&fixture)
        },
        &evaluation(),
    );
    assert_eq!(
        none.unwrap().total.double_value(&[]),
        0.0,
        "nothing to learn from is no loss and no NaN"
    );
}

#[test]
fn windows_that_overlap_are_averaged_as_by_numpy() {
    let _alone = alone();
    let fixture = Fixture::read("segment");
    let places = Vec::<i64>::try_from(fixture.get("slide.places").flatten(0, -1)).unwrap();
    let places: Vec<(i64, i64)> = places.chunks_exact(2).map(|place| (place[0], place[1])).collect();
    let mut asked = vec![];
    let windows = |at: &[(i64, i64)]| -> Result<Tensor, ()> {
        asked.extend_from_slice(at);
        Ok(fixture
            .get("slide.windows")
            .narrow(0, (asked.len() - at.len()) as i64, at.len() as i64))
    };
    let mean = stitched((40, 56), 32, 21, windows).unwrap();
    assert_eq!(asked, places);
    assert_near("mean of windows", &mean, fixture.get("slide.mean"), 1e-6);
}
