//! The start, the centre, parts of a batch.

use std::collections::BTreeMap;

use tch::{Device, nn};

use super::*;
use crate::model::BatchRows;
use crate::model::config::VitConfig;
use crate::optim::cosine;
use crate::tensor::{HiddenPatches, NamedView};

const IMAGES: i64 = 8;

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

fn small() -> DinoConfig {
    DinoConfig {
        local_crops: 2,
        local_size: 8,
        prototypes: 24,
        hidden: 16,
        bottleneck: 8,
        freeze_last_layer_steps: 0,
        ..DinoConfig::default()
    }
}

fn built(config: &DinoConfig) -> (nn::VarStore, Dino) {
    tch::manual_seed(21);
    let (vs, model) = (nn::VarStore::new(Device::Cpu), model());
    let dino = Dino::new(&vs.root(), config, &Scope::new(&model, IMAGES as u32, 0));
    (vs, dino)
}

/// The options of DINOv2.
fn with_patches() -> DinoConfig {
    DinoConfig {
        ibot_weight: 0.7,
        ..small()
    }
}

/// Hidden patches of the batch's images `start..start + len`: each crop of 16 hides another number of its first patches, every third one none.
fn hidden(start: i64, len: i64) -> HiddenPatches {
    let of_crop = |image: i64, crop: i64| match (2 * image + crop) % 3 {
        0 => 0,
        n => n + image % 5,
    };
    let crops = (start..start + len).flat_map(|image| [(image, 0), (image, 1)]);
    let rows: Vec<i64> = crops
        .flat_map(|(image, crop)| (0..of_crop(image, crop)).map(move |patch| ((image - start) * 2 + crop) * 16 + patch))
        .collect();
    HiddenPatches {
        patches: 32,
        rows: Tensor::from_slice(&rows),
    }
}

/// Images `rows` of a batch.
fn input(start: i64, len: i64) -> StepInput {
    tch::manual_seed(22);
    let view = |name: &'static str, side: i64| NamedView {
        name: name.into(),
        pixels: Tensor::randn([IMAGES, 3, side, side], (Kind::Float, Device::Cpu)).narrow(0, start, len),
    };
    StepInput {
        len,
        views: [(GLOBAL, 16), (GLOBAL, 16), (LOCAL, 8), (LOCAL, 8)]
            .map(|(name, side)| view(name, side))
            .into(),
        words: None,
        largest_word: 0,
        sets: None,
        hidden: Some(hidden(start, len)),
        maps: None,
        objects: None,
        labels: Tensor::full([len], -1, (Kind::Int64, Device::Cpu)),
    }
}

fn context(step: u64, start: i64, len: i64) -> StepContext {
    StepContext {
        train: true,
        rows: BatchRows {
            start,
            len,
            total: IMAGES,
            stride: 1,
        },
        ..StepContext::evaluation(step, 100, len)
    }
}

fn values(vs: &nn::VarStore) -> BTreeMap<String, Tensor> {
    vs.variables().into_iter().map(|(name, t)| (name, t.detach().copy())).collect()
}

fn far(a: &Tensor, b: &Tensor) -> f64 {
    (a - b).abs().max().double_value(&[])
}

/// Not ln K: ln K + 1/(2 d ts²) − ρ/(d tt ts), d the bottleneck's width, ts and tt the temperatures, ρ the cosine of student and teacher there. The
/// outputs of random prototypes are normal with variance 1/d; the second term is the logarithm of the student's normaliser, the third what the surer
/// teacher agrees with.
#[test]
fn the_loss_at_the_start_is_that_of_theory() {
    let _turn = crate::tensor::alone();
    let config = DinoConfig {
        prototypes: 8192,
        bottleneck: 256,
        ..small()
    };
    let (_vs, dino) = built(&config);
    let x = input(0, IMAGES);
    let losses = dino.forward(&x, &context(1, 0, IMAGES)).unwrap();
    let unit = |network: &Network, name: &str| {
        let views: Vec<&Tensor> = x.views_named(name).collect();
        network.head.bottleneck(&network.describe(&views, false)).view([2, IMAGES, 256])
    };
    let rho = tch::no_grad(|| {
        let (seen, global, local) = (unit(&dino.teacher, GLOBAL), unit(&dino.student, GLOBAL), unit(&dino.student, LOCAL));
        let cosine =
            |teacher: i64, of: &Tensor, crop: i64| (seen.get(teacher) * of.get(crop)).sum(Kind::Double).double_value(&[]) / IMAGES as f64;
        let pairs = [
            cosine(0, &global, 1),
            cosine(1, &global, 0),
            cosine(0, &local, 0),
            cosine(0, &local, 1),
            cosine(1, &local, 0),
            cosine(1, &local, 1),
        ];
        pairs.iter().sum::<f64>() / 6.0
    });
    let (d, ts, tt) = (256.0, config.student_temperature, config.teacher_temperature);
    let want = 8192f64.ln() + 1.0 / (2.0 * d * ts * ts) - rho / (d * tt * ts);
    let got = losses.total.double_value(&[]);
    assert!((got / want - 1.0).abs() < 0.05, "{got} instead of {want}, ρ = {rho}");
}

/// As for crops, over the hidden patches, for the share of crops that hide some.
#[test]
fn the_loss_of_hidden_patches_at_the_start_is_that_of_theory() {
    let _turn = crate::tensor::alone();
    let config = DinoConfig {
        bottleneck: 256,
        separate_heads: true,
        ibot_prototypes: 8192,
        ..with_patches()
    };
    let (_vs, dino) = built(&config);
    let x = input(0, IMAGES);
    let losses = dino.forward(&x, &context(1, 0, IMAGES)).unwrap();
    let seen = dino.seen(&x).unwrap();
    let hidden = seen.hidden.as_ref().unwrap();
    let (share, rho) = tch::no_grad(|| {
        let unit = |network: &Network, features: &Tensor| network.head_of_patches().bottleneck(&hidden.tokens(features));
        let of_teacher = unit(&dino.teacher, &dino.teacher.features(&seen.global, false));
        let of_student = unit(&dino.student, &dino.student_features(&seen, false));
        let cosines = (of_teacher * of_student).sum_dim_intlist([-1i64].as_slice(), false, Kind::Float);
        (hidden.share().double_value(&[]), hidden.mean(&cosines).double_value(&[]))
    });
    let (d, ts, tt) = (256.0, config.student_temperature, config.teacher_temperature);
    let want = share * (8192f64.ln() + 1.0 / (2.0 * d * ts * ts)) - rho / (d * tt * ts);
    let (name, got) = &losses.terms[1];
    let got = got.double_value(&[]);
    assert!(
        *name == "ibot" && (got / want - 1.0).abs() < 0.05,
        "{got} instead of {want}, ρ = {rho}"
    );
    let whole = losses.terms[0].1.double_value(&[]) + 0.7 * got;
    assert!((losses.total.double_value(&[]) / whole - 1.0).abs() < 1e-6);
}

#[test]
fn the_student_does_not_see_what_is_hidden_and_the_teacher_does() {
    let _turn = crate::tensor::alone();
    let (vs, dino) = built(&with_patches());
    let features = |change: bool| {
        let x = input(0, IMAGES);
        if change {
            // Image 1 hides the first patch of its first crop, 4 × 4 pixels; image 0 hides nothing there.
            let _ = x.views[0].pixels.narrow(2, 0, 4).narrow(3, 0, 4).fill_(9.0);
        }
        let seen = dino.seen(&x).unwrap();
        tch::no_grad(|| (dino.student_features(&seen, false), dino.teacher.features(&seen.global, false)))
    };
    let ((student, teacher), (changed, of_teacher)) = (features(false), features(true));
    assert_eq!(student.get(1), changed.get(1));
    assert_ne!(student.get(0), changed.get(0));
    assert_ne!(teacher.get(1), of_teacher.get(1));
    // The mask token is the student's alone, and is trained.
    let named: BTreeMap<String, Tensor> = vs.variables().into_iter().collect();
    assert!(named["student.mask_token"].requires_grad() && !named.contains_key("mask_token"));
    let mut unsaid = input(0, IMAGES);
    unsaid.hidden = None;
    let e = dino.forward(&unsaid, &context(1, 0, IMAGES)).unwrap_err();
    assert_eq!(
        e.to_string(),
        "objective dino: the batch has no hidden patches; it must be made as the objective requests"
    );
}

#[test]
fn sinkhorn_keeps_no_centre_and_its_losses_are_those_of_the_whole_batch() {
    let _turn = crate::tensor::alone();
    let config = DinoConfig {
        centring: Centring::Sinkhorn,
        koleo_weight: 0.1,
        separate_heads: true,
        drop_path: 0.0,
        ..with_patches()
    };
    let (vs, dino) = built(&config);
    assert!(vs.variables().keys().all(|name| !name.contains("centre")));
    let whole = dino.forward(&input(0, IMAGES), &context(3, 0, IMAGES)).unwrap();
    let names: Vec<&str> = whole.terms.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, ["distillation", "ibot", "koleo"]);
    // A pass that was broken off after its first part leaves nothing behind.
    let _ = dino.descriptors(&input(4, 4), &context(3, 0, 4)).unwrap();
    let parts = [0, 2, 4, 6].map(|start| (input(start, 2), context(3, start, 2)));
    let described: Vec<Tensor> = parts.iter().map(|(x, ctx)| dino.descriptors(x, ctx).unwrap()).collect();
    let mut total = dino
        .compare(&Tensor::cat(&described, 1), &context(3, 0, 4))
        .unwrap()
        .total
        .double_value(&[]);
    for (x, ctx) in &parts {
        total += dino.describe(x, ctx).unwrap().0.total.double_value(&[]) / 4.0;
    }
    let want = whole.total.double_value(&[]);
    assert!((total / want - 1.0).abs() < 1e-5, "{total} {want}");
}

#[test]
fn a_batch_in_parts_has_the_gradients_and_the_centres_of_the_whole() {
    a_batch_in_parts(&small());
    a_batch_in_parts(&with_patches());
    a_batch_in_parts(&DinoConfig {
        separate_heads: true,
        ibot_prototypes: 12,
        ..with_patches()
    });
}

fn a_batch_in_parts(config: &DinoConfig) {
    let _turn = crate::tensor::alone();
    let run = |parts: i64| {
        let (vs, mut dino) = built(config);
        let len = IMAGES / parts;
        for part in 0..parts {
            let x = input(part * len, len);
            let ctx = context(3, part * len, len);
            tch::manual_seed(23);
            let _rows = ctx.rows.enter();
            (dino.forward(&x, &ctx).unwrap().total / parts as f64).backward();
        }
        let trained = vs.variables().into_iter().filter(|(_, t)| t.requires_grad());
        let gradients: BTreeMap<String, Tensor> = trained.map(|(name, t)| (name, t.grad())).collect();
        dino.after_step(&context(3, 0, IMAGES), &Tensor::from(0f32)).unwrap();
        let centres = values(&vs).into_iter().filter(|(name, _)| name.ends_with("centre"));
        (gradients, centres.collect::<Vec<_>>())
    };
    let (gradients, centres) = run(1);
    assert_eq!(centres.len(), 1 + usize::from(config.learns_patches()));
    assert!(centres.iter().all(|(_, centre)| centre.abs().max().double_value(&[]) > 0.0));
    for parts in [2, 8] {
        let (others, other) = run(parts);
        assert!(centres.iter().zip(&other).all(|((_, a), (_, b))| far(a, b) < 1e-6));
        for (name, want) in &gradients {
            let off = far(&others[name], want) / want.abs().max().double_value(&[]).max(1e-6);
            assert!(off < 1e-4, "{parts} parts, {name}: {off}");
        }
    }
}

#[test]
fn the_centre_follows_the_teachers_outputs_and_a_skipped_step_changes_nothing() {
    let _turn = crate::tensor::alone();
    let (vs, mut dino) = built(&small());
    let x = input(0, IMAGES);
    // A step whose numbers are not finite.
    let mut broken = input(0, IMAGES);
    broken.views[0].pixels = &broken.views[0].pixels * f64::NAN;
    let before = values(&vs);
    let losses = dino.forward(&broken, &context(1, 0, IMAGES)).unwrap();
    assert!(losses.total.double_value(&[]).is_nan());
    dino.after_step(&context(1, 0, IMAGES), &Tensor::from(1f32)).unwrap();
    assert_eq!(values(&vs), before);

    // One that is taken: the mean of both crops' outputs comes in with a tenth.
    let _ = dino.forward(&x, &context(1, 0, IMAGES)).unwrap();
    let global: Vec<&Tensor> = x.views_named(GLOBAL).collect();
    let outputs = tch::no_grad(|| dino.teacher.head.forward(&dino.teacher.describe(&global, false), false));
    dino.after_step(&context(1, 0, IMAGES), &Tensor::from(0f32)).unwrap();
    let want = outputs.mean_dim([0i64].as_slice(), false, Kind::Float) * 0.1;
    assert!(far(&values(&vs)["centre"], &want) < 1e-6);

    // An evaluation is none.
    let after = values(&vs);
    let _ = dino.forward(&x, &StepContext::evaluation(2, 100, IMAGES)).unwrap();
    dino.after_step(&context(2, 0, IMAGES), &Tensor::from(0f32)).unwrap();
    assert_eq!(values(&vs)["centre"], after["centre"]);
}

#[test]
fn before_the_first_step_the_student_takes_the_teachers_weights() {
    let _turn = crate::tensor::alone();
    let (vs, dino) = built(&small());
    // As run.init_from does: the encoder at the root.
    let named: BTreeMap<String, Tensor> = vs.variables().into_iter().collect();
    let _ = tch::no_grad(|| named["norm.weight"].shallow_clone().fill_(3.0));
    let equal = || named["student.norm.weight"].equal(&named["norm.weight"]);
    let _ = dino.forward(&input(0, IMAGES), &StepContext::evaluation(0, 100, IMAGES)).unwrap();
    let _ = dino.forward(&input(0, IMAGES), &context(1, 0, IMAGES)).unwrap();
    assert!(!equal());
    let _ = dino.forward(&input(0, IMAGES), &context(0, 0, IMAGES)).unwrap();
    assert!(equal());
}

#[test]
fn the_last_layer_has_no_gradient_until_its_step_and_the_rules_are_dinos() {
    let _turn = crate::tensor::alone();
    let (vs, dino) = built(&DinoConfig {
        freeze_last_layer_steps: 5,
        fixed_gain: false,
        ..small()
    });
    let named: BTreeMap<String, Tensor> = vs.variables().into_iter().collect();
    let last = [&named["student.head.last.weight"], &named["student.head.last.gain"]];
    for (step, trained) in [(4, false), (5, true)] {
        dino.forward(&input(0, IMAGES), &context(step, 0, IMAGES)).unwrap().total.backward();
        assert!(last.iter().all(|t| torch_ext::has_grad(t) == trained), "step {step}");
        assert!(torch_ext::has_grad(&named["student.head.fc3.weight"]) && torch_ext::has_grad(&named["student.cls_token"]));
    }
    assert!(named.iter().all(|(name, t)| t.requires_grad() == name.starts_with("student.")));
    let rule = |name: &str| dino.rule(name, &named[name].size());
    for (name, decay, below) in [
        ("student.pos_embed", true, 3),
        ("student.cls_token", true, 3),
        ("student.blocks.0.attn.qkv.weight", true, 2),
        ("student.blocks.1.norm1.weight", false, 1),
        ("student.head.last.weight", true, 0),
        ("student.head.fc1.bias", false, 0),
    ] {
        assert_eq!((rule(name).decay, rule(name).layers_below_top), (decay, below), "{name}");
    }
}

#[test]
fn the_numbers_tell_what_a_live_change_made_of_the_teacher() {
    let config = DinoConfig { momentum: 0.9, ..small() };
    let (_vs, mut dino) = built(&config);
    let at = StepContext {
        train: true,
        ..StepContext::evaluation(50, 100, IMAGES)
    };
    let told = |dino: &Dino| {
        let losses = dino.forward(&input(0, IMAGES), &at).unwrap();
        let of = |name: &str| losses.stats.iter().find(|(n, _)| *n == name).unwrap().1.double_value(&[]);
        [of("teacher_temperature"), of("teacher_momentum")]
    };
    assert_eq!(told(&dino), [0.04, cosine(0.9, 1.0, 0.5)]);
    let warmer = DinoConfig {
        teacher_temperature: 0.06,
        momentum_end: 0.95,
        ..config
    };
    dino.take_live(&warmer).unwrap();
    assert_eq!(told(&dino), [0.06, cosine(0.9, 0.95, 0.5)]);
}
