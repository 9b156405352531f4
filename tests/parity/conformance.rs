//! What every objective must do; iterates the registry.

use std::collections::BTreeMap;

use splitmask_pipeline::types::{ColourConfig, CropConfig, MaskSpec};
use tch::{Device, Kind, Tensor, nn};

use splitmask::model::config::{VitConfig, VitSize};
use splitmask::objective::config::{ObjectiveConfig, SplitMaskConfig};
use splitmask::objective::{OBJECTIVES, Objective, build};
use splitmask::optim::AdamW;
use splitmask::optim::config::OptimConfig;
use splitmask::tensor::{Parts, StepInput};

use crate::alone;

const VOCABULARY: i64 = 64;
const BATCH: i64 = 8;

/// 16 patches, so that the default masks of 224-pixel images must shrink.
fn model() -> VitConfig {
    VitConfig {
        size: VitSize::Nano,
        image: 16,
        patch: 4,
        width: 32,
        depth: 3,
        heads: 2,
        ..VitConfig::default()
    }
}

fn fitted(mut config: ObjectiveConfig) -> ObjectiveConfig {
    match &mut config {
        ObjectiveConfig::Splitmask(c) => {
            c.mask = MaskSpec::BlockwiseSplit {
                min_block: 2,
                max_block: 8,
            }
        }
        ObjectiveConfig::Beit(c) => {
            c.mask = MaskSpec::BlockwiseMask {
                count: 6,
                min_block: 2,
                max_block: 6,
            }
        }
    }
    config.validate(&model(), BATCH as u32).unwrap();
    config
}

/// All registered objectives, and the switches of SplitMask.
fn all() -> Vec<ObjectiveConfig> {
    let mut out: Vec<_> = OBJECTIVES.iter().map(|e| fitted((e.default)())).collect();
    let d = SplitMaskConfig::default;
    let variants = [
        SplitMaskConfig { split: false, ..d() },
        SplitMaskConfig {
            split: false,
            decoder_positions_on_seen: false,
            ..d()
        },
        SplitMaskConfig { inpaint: false, ..d() },
        SplitMaskConfig { match_: false, ..d() },
        SplitMaskConfig {
            decoder_positions_on_seen: false,
            both_branch_negatives: true,
            ..d()
        },
    ];
    out.extend(variants.map(|c| fitted(ObjectiveConfig::Splitmask(c))));
    out
}

fn built(config: &ObjectiveConfig, model: &VitConfig) -> (nn::VarStore, Box<dyn Objective>) {
    tch::manual_seed(11);
    let vs = nn::VarStore::new(Device::Cpu);
    let objective = build(config, model, VOCABULARY, &vs.root());
    (vs, objective)
}

/// Random pictures and words, with sets of the sizes that `config` asks for.
fn input(config: &ObjectiveConfig) -> StepInput {
    tch::manual_seed(12);
    let n = model().patches();
    let order = Tensor::rand([BATCH, n], (Kind::Float, Device::Cpu)).argsort(-1, false);
    let (a, b) = match config.mask() {
        MaskSpec::BlockwiseMask { count, .. } => (i64::from(count), 0),
        _ => (n / 2, n / 2),
    };
    let sorted = |t: Tensor| t.sort(-1, false).0;
    let parts = Parts {
        patches: n,
        seen_a: sorted(order.narrow(1, 0, a)),
        absent_a: sorted(order.narrow(1, a, n - a)),
        seen_b: sorted(order.narrow(1, n - b, b)),
        absent_b: sorted(order.narrow(1, 0, n - b)),
    };
    StepInput {
        len: BATCH,
        views: vec![Tensor::randn([BATCH, 3, 16, 16], (Kind::Float, Device::Cpu))],
        words: Some(Tensor::randint(VOCABULARY, [BATCH, n], (Kind::Int64, Device::Cpu))),
        largest_word: VOCABULARY as u32 - 1,
        parts: Some(parts),
        labels: Tensor::full([BATCH], -1, (Kind::Int64, Device::Cpu)),
    }
}

fn named(vs: &nn::VarStore) -> BTreeMap<String, Tensor> {
    vs.variables().into_iter().collect()
}

fn value(t: &Tensor) -> f64 {
    t.double_value(&[])
}

#[test]
fn loss_at_the_start_is_the_log_of_the_candidates() {
    let _alone = alone();
    for config in all() {
        let (_vs, objective) = built(&config, &model());
        let losses = objective.forward_t(&input(&config), false).unwrap();
        assert!(value(&losses.total).is_finite());
        assert!(!losses.terms.is_empty());
        for (name, loss) in &losses.terms {
            let both = matches!(&config, ObjectiveConfig::Splitmask(c) if c.both_branch_negatives);
            let candidates = if *name == "inpaint" {
                VOCABULARY
            } else {
                BATCH + i64::from(both) * (BATCH - 1)
            };
            let want = (candidates as f64).ln();
            // Descriptors of a random network are not quite alike.
            let tolerance = if *name == "inpaint" { 0.1 } else { 0.35 };
            assert!(
                (value(loss) - want).abs() < tolerance,
                "{config:?} {name}: {} instead of {want}",
                value(loss)
            );
        }
        for (name, stat) in &losses.stats {
            assert!((0.0..=1.0).contains(&value(stat)), "{name}");
        }
    }
}

#[test]
fn gradients_reach_every_parameter() {
    let _alone = alone();
    let with_extras = VitConfig {
        relative_bias: true,
        layer_scale: 0.1,
        ..model()
    };
    for (config, model) in all().iter().flat_map(|c| [(c, model()), (c, with_extras.clone())]) {
        let (vs, objective) = built(config, &model);
        objective.forward_t(&input(config), true).unwrap().total.backward();
        for (name, t) in named(&vs) {
            assert!(torch_ext::has_grad(&t), "{config:?}: {name} has no gradient");
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
            value(&objective.forward_t(&input, true).unwrap().total)
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
        let mut adamw = AdamW::new(named(&vs), |n, d| objective.param_rule(n, d), &OptimConfig::default());
        let mut trace = Vec::new();
        for _ in 0..60 {
            let losses = objective.forward_t(&input, true).unwrap();
            adamw.zero_grad().unwrap();
            losses.total.backward();
            let _ = adamw.clipped_step(3e-3, 0.05, 3.0).unwrap();
            trace.push(value(&losses.total));
        }
        let (first, last) = (trace[0], trace[trace.len() - 1]);
        assert!(last < 0.8 * first, "{config:?}: {first} → {last}");
    }
}

#[test]
fn saved_weights_give_the_same_loss() {
    let _alone = alone();
    for config in all() {
        let (vs, objective) = built(&config, &model());
        let input = input(&config);
        let before = value(&objective.forward_t(&input, false).unwrap().total);
        let file = tempfile::Builder::new().suffix(".safetensors").tempfile().unwrap();
        vs.save(file.path()).unwrap();
        tch::manual_seed(99);
        let mut other = nn::VarStore::new(Device::Cpu);
        let restored = build(&config, &model(), VOCABULARY, &other.root());
        assert_ne!(value(&restored.forward_t(&input, false).unwrap().total), before);
        other.load(file.path()).unwrap();
        assert_eq!(value(&restored.forward_t(&input, false).unwrap().total), before, "{config:?}");
    }
}

#[test]
fn batches_that_lack_something_are_refused_by_name() {
    let _alone = alone();
    for config in all() {
        let (_vs, objective) = built(&config, &model());
        let refusal = |change: &dyn Fn(&mut StepInput)| {
            let mut input = input(&config);
            change(&mut input);
            objective.forward_t(&input, false).map(|_| ()).map_err(|e| e.to_string())
        };
        let names = |change: &dyn Fn(&mut StepInput), word: &str| {
            let e = refusal(change).unwrap_err();
            assert!(e.contains(word) && e.contains(objective.name()), "{e}");
        };
        names(&|i| i.views.clear(), "no view");
        names(&|i| i.parts = None, "no mask");
        names(&|i| i.views[0] = i.views[0].narrow(3, 0, 8), "view 0 is [8, 3, 16, 8]");
        if config.needs_words() {
            names(&|i| i.words = None, "no visual words");
            names(&|i| i.largest_word = VOCABULARY as u32, "visual word 64");
        } else {
            assert_eq!(refusal(&|i| i.words = None), Ok(()));
        }
        if objective.name() == "splitmask" {
            names(
                &|i| {
                    let parts = i.parts.as_mut().unwrap();
                    parts.seen_b = parts.seen_b.narrow(1, 0, 3);
                },
                "set B of the mask is [8, 3]",
            );
        }
    }
}

#[test]
fn predictions_cover_every_patch_of_each_branch() {
    let _alone = alone();
    for config in all() {
        let (_vs, objective) = built(&config, &model());
        let prediction = objective.predict(&input(&config)).unwrap();
        assert_eq!(prediction.is_some(), config.needs_words());
        for branch in prediction.into_iter().flat_map(|p| p.branches) {
            assert_eq!(branch.words.size(), [BATCH, 16]);
            assert_eq!(branch.words.kind(), Kind::Int64);
            assert!(branch.words.max().int64_value(&[]) < VOCABULARY && branch.seen.size()[1] < 16);
        }
    }
}

#[test]
fn live_settings_change_the_loss_and_other_kinds_are_refused() {
    let _alone = alone();
    let first = fitted((OBJECTIVES[0].default)());
    let (_vs, mut objective) = built(&first, &model());
    let input = input(&first);
    let total = |o: &dyn Objective| value(&o.forward_t(&input, false).unwrap().total);
    let before = total(objective.as_ref());
    let terms = objective.forward_t(&input, false).unwrap().terms;
    let matching = terms.iter().find(|(name, _)| *name == "match").map(|(_, t)| value(t)).unwrap();
    let ObjectiveConfig::Splitmask(c) = &first else {
        panic!("the first objective is SplitMask")
    };
    objective
        .apply_live(&ObjectiveConfig::Splitmask(SplitMaskConfig {
            match_weight: 0.0,
            inpaint: false,
            ..c.clone()
        }))
        .unwrap();
    let after = total(objective.as_ref());
    assert!((before - after - matching).abs() < 1e-5, "{before} {after} {matching}");
    let e = objective.apply_live(&(OBJECTIVES[1].default)()).unwrap_err();
    assert!(e.to_string().contains("objective.kind = \"beit\""), "{e}");
}

#[test]
fn patches_and_targets_stay_paired() {
    let _alone = alone();
    // Moving patches together with their positions and words must not change the loss (spec §7, wrong-positions trap).
    let config = fitted((OBJECTIVES[0].default)());
    let (vs, objective) = built(&config, &model());
    let original = input(&config);
    let before = value(&objective.forward_t(&original, false).unwrap().total);
    let perm: Vec<i64> = (0..16).map(|i| (i * 5 + 3) % 16).collect();
    let mut inverse = vec![0i64; 16];
    for (to, &from) in perm.iter().enumerate() {
        inverse[from as usize] = to as i64;
    }
    let (perm, inverse) = (Tensor::from_slice(&perm), Tensor::from_slice(&inverse));
    let shuffled = original.views[0]
        .reshape([BATCH, 3, 4, 4, 4, 4])
        .permute([0, 2, 4, 1, 3, 5])
        .reshape([BATCH, 16, 48])
        .index_select(1, &perm);
    let image = shuffled
        .reshape([BATCH, 4, 4, 3, 4, 4])
        .permute([0, 3, 1, 4, 2, 5])
        .reshape([BATCH, 3, 16, 16]);
    let parts = original.parts.as_ref().unwrap();
    let moved = |t: &Tensor| inverse.index_select(0, &t.flatten(0, 1)).view_as(t).sort(-1, false).0;
    let moved = StepInput {
        len: BATCH,
        views: vec![image],
        words: Some(original.words.as_ref().unwrap().index_select(1, &perm)),
        largest_word: original.largest_word,
        parts: Some(Parts {
            patches: 16,
            seen_a: moved(&parts.seen_a),
            seen_b: moved(&parts.seen_b),
            absent_a: moved(&parts.absent_a),
            absent_b: moved(&parts.absent_b),
        }),
        labels: original.labels.shallow_clone(),
    };
    assert!(
        (value(&objective.forward_t(&moved, false).unwrap().total) - before).abs() > 1e-6,
        "positions must matter"
    );
    for name in ["pos_embed", "decoder.pos_embed"] {
        let mut table = named(&vs).remove(name).unwrap();
        let rows = Tensor::cat(&[Tensor::from_slice(&[0i64]), &perm + 1], 0);
        tch::no_grad(|| table.copy_(&table.index_select(1, &rows)));
    }
    let after = value(&objective.forward_t(&moved, false).unwrap().total);
    assert!((after - before).abs() < 1e-5, "{before} {after}");
}

#[test]
fn the_view_plan_is_the_models() {
    let _alone = alone();
    for config in all() {
        let (_vs, objective) = built(&config, &model());
        let plan = objective.views(CropConfig::default(), ColourConfig::default());
        assert_eq!((plan.views.len(), plan.views[0].size, plan.patches()), (1, 16, 16));
        assert_eq!(plan.words.is_some(), config.needs_words());
    }
}
