use splitmask_pipeline::request::IMAGE;
use tch::nn::VarStore;
use tch::{Device, Kind, Tensor};

use super::*;
use crate::model::BatchRows;
use crate::model::config::VitConfig;
use crate::objective::{Judged, StepContext};
use crate::tensor::{NamedView, StepInput};

fn model() -> VitConfig {
    VitConfig {
        image: 16,
        patch: 4,
        width: 32,
        depth: 2,
        heads: 2,
        ..VitConfig::default()
    }
}

fn built(config: &SupervisedConfig, counts: &[u64]) -> (VarStore, Box<dyn Objective>) {
    tch::manual_seed(3);
    let model = model();
    let vs = VarStore::new(Device::Cpu);
    let at = Scope {
        label_counts: counts,
        ..Scope::new(&model, 8, 0)
    };
    let objective = config.build(&vs.root(), &at);
    (vs, objective)
}

fn input(labels: &[i64]) -> StepInput {
    tch::manual_seed(4);
    let len = labels.len() as i64;
    StepInput {
        len,
        views: vec![NamedView {
            name: IMAGE.into(),
            pixels: Tensor::randn([len, 3, 16, 16], (Kind::Float, Device::Cpu)),
        }],
        words: None,
        largest_word: 0,
        hidden: None,
        sets: None,
        maps: None,
        objects: None,
        labels: Tensor::from_slice(labels),
    }
}

fn training() -> StepContext {
    StepContext {
        train: true,
        seed: 17,
        ..StepContext::evaluation(0, 100, 8)
    }
}

fn number(losses: &crate::objective::Losses, name: &str) -> Option<f64> {
    let mut all = losses.terms.iter().chain(&losses.stats).chain(&losses.shares);
    all.find(|(n, _)| *n == name).map(|(_, value)| value.double_value(&[]))
}

#[test]
fn violations_name_their_key() {
    let d = SupervisedConfig::default;
    let cases = [
        (SupervisedConfig { classes: 1, ..d() }, "objective.classes"),
        (SupervisedConfig { smoothing: 1.0, ..d() }, "objective.smoothing"),
        (SupervisedConfig { mixup: -0.1, ..d() }, "objective.mixup"),
        (SupervisedConfig { mixup: 0.001, ..d() }, "objective.mixup"),
        (SupervisedConfig { cutmix: f64::NAN, ..d() }, "objective.cutmix"),
        (SupervisedConfig { cutmix_share: 1.1, ..d() }, "objective.cutmix_share"),
        (SupervisedConfig { repeats: 0, ..d() }, "objective.repeats"),
        (SupervisedConfig { repeats: 17, ..d() }, "objective.repeats"),
        (SupervisedConfig { erasing: 2.0, ..d() }, "objective.erasing"),
        (SupervisedConfig { drop_path: 1.0, ..d() }, "objective.drop_path"),
    ];
    let model = model();
    let wrong = |config: &SupervisedConfig| -> Vec<String> {
        let found = config.check(&Scope::new(&model, 2, 0));
        found.into_iter().map(|v| v.key).collect()
    };
    for (config, key) in cases {
        assert_eq!(wrong(&config), [key]);
    }
    let off = SupervisedConfig {
        mixup: 0.0,
        cutmix: 0.0,
        erasing: 0.0,
        smoothing: 0.0,
        ..d()
    };
    assert_eq!(wrong(&off), [""; 0]);
}

#[test]
fn a_new_network_pays_ln_k() {
    let _turn = crate::tensor::alone();
    for classes in [2u32, 35, 1000] {
        let config = SupervisedConfig {
            classes,
            ..SupervisedConfig::default()
        };
        let (_vs, objective) = built(&config, &[]);
        let labels: Vec<i64> = (0..64).map(|i| i * 7 % i64::from(classes)).collect();
        let model = model();
        let want = config.at_start("classification", &Scope::new(&model, 64, 0)).unwrap();
        assert_eq!(want, f64::from(classes).ln());
        for ctx in [training(), StepContext::evaluation(0, 100, 64)] {
            let loss = objective.forward(&input(&labels), &ctx).unwrap().total.double_value(&[]);
            assert!((loss / want - 1.0).abs() < 0.05, "{classes} classes: {loss} instead of {want}");
        }
    }
}

#[test]
fn the_classes_are_those_that_were_counted_unless_a_number_is_set() {
    let model = model();
    let at = Scope {
        label_counts: &[30, 0, 10],
        ..Scope::new(&model, 8, 0)
    };
    let config = SupervisedConfig::default();
    assert_eq!(config.chance("class_accuracy", &at), Some(1.0 / 3.0));
    assert_eq!(
        config.chance("class_accuracy", &Scope::new(&model, 8, 0)),
        None,
        "not known when a config is checked"
    );
    let set = SupervisedConfig { classes: 10, ..config };
    assert_eq!(set.chance("class_accuracy", &Scope::new(&model, 8, 0)), Some(0.1));
}

#[test]
fn images_without_a_usable_label_change_neither_loss_nor_gradients() {
    let _turn = crate::tensor::alone();
    let config = SupervisedConfig {
        classes: 4,
        mixup: 0.0,
        cutmix: 0.0,
        erasing: 0.0,
        drop_path: 0.0,
        ..SupervisedConfig::default()
    };
    let gradient = |x: &StepInput| {
        let (vs, objective) = built(&config, &[3, 1, 1, 1]);
        let losses = objective.forward(x, &training()).unwrap();
        losses.total.backward();
        (losses, vs.variables()["blocks.0.attn.qkv.weight"].grad())
    };
    // No label, and one beyond the classes.
    let some = input(&[0, 3, -1, 0, 4, 2]);
    let rows = Tensor::from_slice(&[0i64, 1, 3, 5]);
    let labelled = StepInput {
        len: 4,
        views: vec![NamedView {
            name: IMAGE.into(),
            pixels: some.views[0].pixels.index_select(0, &rows),
        }],
        maps: None,
        objects: None,
        labels: some.labels.index_select(0, &rows),
        ..input(&[0])
    };
    let ((all, gradient_of_all), (alone, gradient_alone)) = (gradient(&some), gradient(&labelled));
    assert!((&gradient_of_all - &gradient_alone).abs().max().double_value(&[]) < 1e-6);
    for name in ["classification", "class_accuracy", "frequency_guess", "commonest_class"] {
        let (all, alone) = (number(&all, name).unwrap(), number(&alone, name).unwrap());
        assert!((all - alone).abs() < 1e-5, "{name}: {all} {alone}");
    }
    assert!((number(&all, "unlabelled").unwrap() - 1.0 / 3.0).abs() < 1e-6);
    assert_eq!(number(&all, "commonest_class"), Some(0.5));
    // A step without any label is no bad step.
    let (none, gradient_of_none) = gradient(&input(&[-1, -1]));
    assert_eq!(
        (number(&none, "classification"), number(&none, "unlabelled")),
        (Some(0.0), Some(1.0))
    );
    assert_eq!(gradient_of_none.abs().max().double_value(&[]), 0.0);
}

/// A batch whose images come in `views` views each.
fn in_views(labels: &[i64], views: usize) -> StepInput {
    let mut x = input(labels);
    let more = (1..views).map(|n| NamedView {
        name: IMAGE.into(),
        pixels: &x.views[0].pixels * 0.5 + n as f64,
    });
    let more: Vec<NamedView> = more.collect();
    x.views.extend(more);
    x
}

#[test]
fn repeated_images_are_learnt_from_as_if_each_view_were_an_image() {
    let _turn = crate::tensor::alone();
    let config = SupervisedConfig {
        classes: 4,
        mixup: 0.0,
        cutmix: 0.0,
        erasing: 0.0,
        drop_path: 0.0,
        repeats: 3,
        ..SupervisedConfig::default()
    };
    assert_eq!(config.request(&Scope::new(&model(), 8, 0)).views.len(), 3);
    let gradient = |config: &SupervisedConfig, x: &StepInput| {
        let (vs, objective) = built(config, &[]);
        let losses = objective.forward(x, &training()).unwrap();
        losses.total.backward();
        (losses, vs.variables()["blocks.0.attn.qkv.weight"].grad())
    };
    let repeated = in_views(&[0, 3, -1, 1], 3);
    let all: Vec<&Tensor> = repeated.views.iter().map(|view| &view.pixels).collect();
    let apart = StepInput {
        views: vec![NamedView {
            name: IMAGE.into(),
            pixels: Tensor::cat(&all, 0),
        }],
        ..input(&[0, 3, -1, 1, 0, 3, -1, 1, 0, 3, -1, 1])
    };
    let (have, gradient_have) = gradient(&config, &repeated);
    let (want, gradient_want) = gradient(&SupervisedConfig { repeats: 1, ..config }, &apart);
    for name in ["classification", "class_accuracy", "frequency_guess", "unlabelled"] {
        let (have, want) = (number(&have, name).unwrap(), number(&want, name).unwrap());
        assert!((have - want).abs() < 1e-6, "{name}: {have} {want}");
    }
    assert!((&gradient_have - &gradient_want).abs().max().double_value(&[]) < 1e-6);
    // An evaluation sees each image once.
    let (_vs, objective) = built(&config, &[]);
    let once = StepInput {
        views: vec![NamedView {
            name: IMAGE.into(),
            pixels: repeated.views[0].pixels.shallow_clone(),
        }],
        ..input(&[0, 3, -1, 1])
    };
    let evaluated = |x: &StepInput| {
        objective
            .forward(x, &StepContext::evaluation(0, 100, 4))
            .unwrap()
            .total
            .double_value(&[])
    };
    assert_eq!(evaluated(&repeated), evaluated(&once));
    let error = objective.forward(&once, &training()).unwrap_err().to_string();
    assert!(error.contains("number of views"), "{error}");
}

#[test]
fn repeated_images_in_parts_have_the_losses_of_the_whole_batch() {
    let _turn = crate::tensor::alone();
    for mix in [(0.8, 0.0), (0.0, 1.0)] {
        let config = SupervisedConfig {
            classes: 4,
            mixup: mix.0,
            cutmix: mix.1,
            erasing: 0.5,
            drop_path: 0.0,
            repeats: 2,
            ..SupervisedConfig::default()
        };
        let (_vs, objective) = built(&config, &[]);
        let labels = [0, 3, -1, 1, 2, 2, 0, 1];
        let whole = in_views(&labels, 2);
        let part = |start: i64, len: i64| StepInput {
            len,
            views: whole
                .views
                .iter()
                .map(|view| NamedView {
                    name: IMAGE.into(),
                    pixels: view.pixels.narrow(0, start, len),
                })
                .collect(),
            labels: whole.labels.narrow(0, start, len),
            ..input(&[0])
        };
        let mixed = objective.mixed_images().unwrap();
        let losses = [0, 4].map(|start| {
            let ctx = StepContext {
                rows: BatchRows {
                    start,
                    len: 4,
                    stride: 1,
                    total: 8,
                },
                ..training()
            };
            let losses = mixed
                .forward_part(&part(start, 4), &part(4 - start, 4), &whole.labels, &ctx)
                .unwrap();
            losses.total.double_value(&[])
        });
        let want = objective.forward(&whole, &training()).unwrap().total.double_value(&[]);
        assert!((losses.iter().sum::<f64>() / 2.0 - want).abs() < 1e-5, "{losses:?} {want}");
    }
}

#[test]
fn a_guess_by_frequency_pays_the_entropy_of_the_classes() {
    let _turn = crate::tensor::alone();
    let config = SupervisedConfig {
        smoothing: 0.0,
        ..SupervisedConfig::default()
    };
    let counts = [4999u64, 1999, 2999];
    let (_vs, objective) = built(&config, &counts);
    let labels: Vec<i64> = [vec![0; 5], vec![1; 2], vec![2; 3]].concat();
    let losses = objective.forward(&input(&labels), &StepContext::evaluation(0, 1, 10)).unwrap();
    let entropy: f64 = [0.5f64, 0.2, 0.3].iter().map(|p| -p * p.ln()).sum();
    assert!((number(&losses, "frequency_guess").unwrap() - entropy).abs() < 1e-5);
    assert_eq!(number(&losses, "commonest_class"), Some(0.5));
    let (_vs, unknown) = built(&SupervisedConfig { classes: 3, ..config }, &[]);
    let losses = unknown.forward(&input(&labels), &StepContext::evaluation(0, 1, 10)).unwrap();
    assert!((number(&losses, "frequency_guess").unwrap() - 3f64.ln()).abs() < 1e-5);
    assert_eq!(number(&losses, "commonest_class"), None);
}

#[test]
fn a_run_that_sees_nothing_or_few_labels_is_told() {
    let holds = |rule: usize, numbers: &[(&str, f64)]| {
        let means = numbers.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect();
        let judged = Judged {
            means: &means,
            chance: &|_| None,
        };
        (KIND.collapse[rule].holds)(&judged)
    };
    let losses = |loss, guess| holds(0, &[("classification", loss), ("frequency_guess", guess)]);
    assert!(losses(3.5, 3.5) && !losses(3.0, 3.5) && !losses(f64::NAN, 3.5) && !losses(0.0, 0.0));
    assert!(holds(1, &[("unlabelled", 0.8)]) && !holds(1, &[("unlabelled", 0.2)]) && !holds(1, &[]));
}

#[test]
fn rand_augment_is_asked_for_with_its_magnitude_and_refused_beyond_ten() {
    let model = VitConfig::default();
    let at = Scope::new(&model, 8, 0);
    let with = |rand_augment, rand_augment_deviation| SupervisedConfig {
        rand_augment,
        rand_augment_deviation,
        ..SupervisedConfig::default()
    };
    assert_eq!(SupervisedConfig::default().request(&at).views[0].rand_augment, None);
    let asked = with(9.0, 0.5).request(&at).views[0].rand_augment.unwrap();
    assert_eq!((asked.magnitude, asked.deviation), (9.0, 0.5));
    let told = |config: SupervisedConfig| config.check(&at).iter().map(ToString::to_string).collect::<String>();
    assert_eq!(told(with(9.0, 0.5)), "");
    assert!(told(with(11.0, 0.5)).contains("objective.rand_augment = 11: expected 0 (off) to 10"));
    assert!(told(with(f64::NAN, 0.5)).contains("objective.rand_augment = NaN"));
    assert!(told(with(9.0, -1.0)).contains("objective.rand_augment_deviation = -1: expected 0 to 10"));
    let mut jittered = at;
    jittered.colour.jitter = 0.3;
    assert_eq!(with(0.0, 0.5).oddities(&jittered), [""; 0]);
    let odd = with(9.0, 0.5).oddities(&jittered);
    assert!(
        odd[0].contains("augment.colour.jitter = 0.3 beside objective.rand_augment = 9"),
        "{odd:?}"
    );
}
