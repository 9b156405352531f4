//! What every objective must do; iterates the registry and asks each plan what it requests and reports, never what it is called.

use std::collections::BTreeMap;

use tch::{Device, Kind, Tensor, nn};
use toml::Value;

use splitmask::model::config::VitConfig;
use splitmask::objective::{Column, OBJECTIVES, ObjectiveConfig, Role, StepContext, Unit};
use splitmask::optim::AdamW;
use splitmask::optim::config::OptimConfig;
use splitmask::setting::Class;
use splitmask::tensor::StepInput;

use crate::subjects::{BATCH, VOCABULARY, all, built, changed, input, model, named, scope, total, value, with};
use crate::{alone, evaluation, training};

#[test]
fn loss_at_the_start_is_the_one_that_the_plan_names() {
    let _alone = alone();
    let model = model();
    for config in all() {
        // At a temperature of 1 nobody is sure of anything. A teacher with a lower one is sure from the start, if of nothing that is right.
        let table = config.table();
        let temperatures = table.keys().filter(|key| key.contains("temperature"));
        let config = with(&config, temperatures.map(|key| (key.clone(), Value::Float(1.0))));
        let (_vs, objective) = built(&config, &model);
        let losses = objective.forward(&input(&config), &evaluation()).unwrap();
        assert!(value(&losses.total).is_finite());
        assert!(!losses.terms.is_empty());
        for (name, loss) in &losses.terms {
            let Some(want) = config.at_start(name, &scope(&model)) else {
                continue;
            };
            // Descriptors of a random network are not quite alike.
            assert!(
                (value(loss) - want).abs() < 0.35,
                "{config:?} {name}: {} instead of {want}",
                value(loss)
            );
        }
    }
}

#[test]
fn every_number_is_declared_with_its_role_and_unit() {
    let _alone = alone();
    for config in all() {
        let (_vs, objective) = built(&config, &model());
        let losses = objective.forward(&input(&config), &evaluation()).unwrap();
        let declared = |name: &str| {
            let found = config.kind().numbers.iter().find(|n| n.name == name);
            found.unwrap_or_else(|| panic!("{} reports {name} and does not declare it", config.kind().name))
        };
        for (name, _) in &losses.terms {
            assert_eq!(declared(name).role, Role::Term, "{name}");
        }
        for (name, stat) in losses.stats.iter().chain(&losses.shares) {
            let number = declared(name);
            assert_eq!(number.role, Role::Measure, "{name}");
            assert!(
                number.unit != Unit::Share || (0.0..=1.0).contains(&value(stat)),
                "{name}: {}",
                value(stat)
            );
        }
        for (name, counts) in &losses.counts {
            assert_eq!((declared(name).unit, counts.kind()), (Unit::Count, Kind::Int64), "{name}");
        }
    }
}

#[test]
fn gradients_reach_every_parameter() {
    let _alone = alone();
    let with_scale = VitConfig {
        layer_scale: 0.1,
        ..model()
    };
    let with_both = VitConfig {
        relative_bias: true,
        ..with_scale
    };
    let models = [model(), with_scale, with_both];
    for (config, model) in all().iter().flat_map(|config| models.iter().map(move |model| (config, model))) {
        // Who cannot have a relative bias must say so.
        if let [refused, ..] = config.check(&scope(model)).as_slice() {
            assert_eq!((refused.key.as_str(), model.relative_bias), ("model.relative_bias", true));
            continue;
        }
        let (vs, objective) = built(config, model);
        objective.forward(&input(config), &training(0)).unwrap().total.backward();
        for (name, t) in named(&vs).iter().filter(|(_, t)| t.requires_grad()) {
            assert!(torch_ext::has_grad(t), "{config:?}: {name} has no gradient");
            let size = value(&t.grad().abs().sum(Kind::Double));
            assert!(size > 0.0 && size.is_finite(), "{config:?}: gradient of {name} is {size}");
        }
    }
}

#[test]
fn a_seed_gives_one_loss() {
    let _alone = alone();
    for config in all() {
        let loss = || {
            let (_vs, objective) = built(&config, &model());
            let input = input(&config);
            tch::manual_seed(13);
            value(&objective.forward(&input, &training(0)).unwrap().total)
        };
        assert_eq!(loss(), loss(), "{config:?}");
    }
}

#[test]
fn loss_falls_on_one_batch() {
    let _alone = alone();
    for config in all() {
        let (vs, objective) = built(&config, &model());
        let input = input(&config);
        let mut adamw = AdamW::new(named(&vs), |n, d| objective.rule(n, d), &OptimConfig::default());
        let mut trace = Vec::new();
        for step in 0..60 {
            let ctx = training(step);
            let losses = objective.forward(&input, &ctx).unwrap();
            adamw.zero_grad().unwrap();
            losses.total.backward();
            // Without `after_step`: a teacher that moved would move the target, and nothing would have to fall.
            adamw.step_unless_nonfinite(3e-3, 0.05, 3.0, &losses.total).unwrap();
            trace.push(value(&losses.total));
        }
        let (first, last) = (trace[0], trace[trace.len() - 1]);
        assert!(last < 0.8 * first, "{config:?}: {first} → {last}");
    }
}

#[test]
fn a_step_that_is_not_finite_changes_nothing_and_one_that_is_changes_what_is_trained() {
    let _alone = alone();
    for config in all() {
        let (vs, mut objective) = built(&config, &model());
        let mut adamw = AdamW::new(named(&vs), |n, d| objective.rule(n, d), &OptimConfig::default());
        let weights = || -> BTreeMap<String, Tensor> { named(&vs).into_iter().map(|(n, t)| (n, t.detach().copy())).collect() };
        let mut step = |step: u64, factor: f64| {
            let mut input = input(&config);
            for view in &mut input.views {
                view.pixels = &view.pixels * factor;
            }
            let ctx = training(step);
            let losses = objective.forward(&input, &ctx).unwrap();
            adamw.zero_grad().unwrap();
            losses.total.backward();
            let stepped = adamw.step_unless_nonfinite(3e-3, 0.05, 3.0, &losses.total).unwrap();
            objective.after_step(&ctx, &stepped.skipped).unwrap();
        };
        let before = weights();
        step(0, f64::NAN);
        assert_eq!(weights(), before, "{config:?}");
        step(1, 1.0);
        let after = weights();
        for (name, t) in named(&vs).iter().filter(|(_, t)| t.requires_grad()) {
            assert_ne!(&before[name], t, "{config:?}: {name}");
        }
        assert_eq!(before.len(), after.len());
    }
}

#[test]
fn saved_weights_give_the_same_loss() {
    let _alone = alone();
    for config in all() {
        let (vs, objective) = built(&config, &model());
        let input = input(&config);
        let before = total(objective.as_ref(), &input);
        let file = tempfile::Builder::new().suffix(".safetensors").tempfile().unwrap();
        vs.save(file.path()).unwrap();
        tch::manual_seed(99);
        let mut other = nn::VarStore::new(Device::Cpu);
        let restored = config.build(&other.root(), &scope(&model()));
        assert_ne!(total(restored.as_ref(), &input), before);
        other.load(file.path()).unwrap();
        assert_eq!(total(restored.as_ref(), &input), before, "{config:?}");
    }
}

#[test]
fn batches_that_lack_something_are_refused_by_name() {
    let _alone = alone();
    for config in all() {
        let (_vs, objective) = built(&config, &model());
        let request = config.request(&scope(&model()));
        let refusal = |change: &dyn Fn(&mut StepInput)| {
            let mut input = input(&config);
            change(&mut input);
            objective.forward(&input, &evaluation()).map(|_| ()).map_err(|e| e.to_string())
        };
        let names = |change: &dyn Fn(&mut StepInput), word: &str| {
            let e = refusal(change).unwrap_err();
            assert!(e.contains(word) && e.contains(config.kind().name), "{e}");
        };
        names(&|i| i.views.clear(), "no view");
        names(
            &|i| i.views[0].pixels = i.views[0].pixels.narrow(3, 0, 8),
            "the view is [8, 3, 16, 8]",
        );
        if let Some(mask) = &request.mask {
            names(&|i| i.sets = None, "no mask");
            if mask.spec.counts(16).1 > 0 {
                names(
                    &|i| {
                        let sets = i.sets.as_mut().unwrap();
                        sets.b = sets.b.narrow(1, 0, 3);
                    },
                    "set B of the mask is [8, 3]",
                );
            }
        }
        if request.hidden.is_some() {
            names(&|i| i.hidden = None, "no hidden patches");
            names(&|i| i.hidden.as_mut().unwrap().patches = 15, "may be hidden is [15]");
        }
        if request.objects.is_some() {
            names(&|i| i.objects = None, "no objects");
            names(&|i| i.objects = Some(vec![]), "the list of objects is [0]");
        }
        if request.words.is_some() {
            names(&|i| i.words = None, "no visual words");
            names(&|i| i.largest_word = VOCABULARY as u32, "visual word 64");
        }
    }
}

#[test]
fn pictures_have_a_cell_for_every_image() {
    let _alone = alone();
    for config in all() {
        let (_vs, objective) = built(&config, &model());
        let asked = |name: &str| config.request(&scope(&model())).place(name).is_some();
        for sheet in objective.pictures(&input(&config)).unwrap() {
            let caption = config.kind().sheets.iter().find(|(name, _)| *name == sheet.name);
            let (_, columns) = caption.expect("a sheet that the kind declares");
            assert_eq!(columns.split(" · ").count(), sheet.columns.len(), "{}", sheet.name);
            for column in sheet.columns {
                match column {
                    Column::View(name) => assert!(asked(name)),
                    Column::Objects(name, objects) => assert!(asked(name) && objects.len() as i64 == BATCH),
                    Column::Seen(name, seen) => assert!(asked(name) && seen.size()[0] == BATCH && (1..16).contains(&seen.size()[1])),
                    Column::Words(words) => {
                        assert_eq!((words.size(), words.kind()), (vec![BATCH, 16], Kind::Int64));
                        assert!(words.max().int64_value(&[]) < VOCABULARY);
                    }
                    Column::Classes(classes) => assert_eq!((classes.size(), classes.kind()), (vec![BATCH, 16, 16], Kind::Int64)),
                    Column::Pixels(pixels) => assert_eq!(pixels.size(), [BATCH, 3, 16, 16]),
                }
            }
        }
    }
}

/// The losses of some draws of a step, and all that is there behind it: what only averages and centres are made with shows in the latter.
fn stepped(config: &ObjectiveConfig, taken_over: Option<&ObjectiveConfig>, input: &StepInput) -> (f64, BTreeMap<String, Tensor>) {
    let (vs, mut objective) = built(config, &model());
    if let Some(new) = taken_over {
        objective.take_live(new.plan()).unwrap();
    }
    tch::manual_seed(17);
    tch::no_grad(|| {
        for mut trained in named(&vs).into_values().filter(|t| t.requires_grad()) {
            let _ = trained.g_add_(&(trained.randn_like() * 0.02));
        }
    });
    // Images are mixed and erased by chance.
    let drawn = |seed: u64| {
        let ctx = StepContext { seed, ..training(40) };
        value(&objective.forward(input, &ctx).unwrap().total)
    };
    let draws = if config.classes().is_some() { 8 } else { 1 };
    let total = (0..draws).map(drawn).sum();
    objective
        .after_step(&training(40), &Tensor::zeros([], (Kind::Float, Device::Cpu)))
        .unwrap();
    let behind = named(&vs).into_iter().map(|(name, t)| (name, t.detach())).collect();
    (total, behind)
}

#[test]
fn live_settings_taken_over_are_those_of_a_fresh_start_and_others_stay() {
    let _alone = alone();
    // Whether a key shows in a step of any variant.
    let mut shows: BTreeMap<String, bool> = BTreeMap::new();
    for config in all() {
        let input = input(&config);
        let old = stepped(&config, None, &input);
        for key in config.kind().keys().filter(|k| k.class == Class::Live) {
            let new = changed(&config, key.name);
            let (taken_over, fresh) = (stepped(&config, Some(&new), &input), stepped(&new, None, &input));
            assert!(taken_over == fresh, "{config:?}: {}", key.name);
            *shows.entry(format!("{}.{}", config.kind().name, key.name)).or_default() |= taken_over != old;
        }
        let stranger = OBJECTIVES.iter().find(|kind| kind.name != config.kind().name).unwrap();
        let (_vs, mut objective) = built(&config, &model());
        let e = objective.take_live(ObjectiveConfig::default_of(stranger).plan()).unwrap_err();
        assert!(e.to_string().contains(&format!("objective.kind = \"{}\"", stranger.name)), "{e}");
    }
    let idle: Vec<&String> = shows.iter().filter(|(_, shows)| !**shows).map(|(key, _)| key).collect();
    // Half of nothing is nothing; the others are what an evaluation finds objects by, and a share that so few anchors do not reach.
    let finding = [
        "anchor_share",
        "eval_candidates",
        "eval_proposals",
        "found",
        "found_overlap",
        "least_probability",
    ];
    let finding = finding.iter().map(|key| format!("detect.{key}"));
    let want: Vec<String> = ["classify.erasing".to_owned()].into_iter().chain(finding).collect();
    assert_eq!(idle, want.iter().collect::<Vec<_>>());
}
