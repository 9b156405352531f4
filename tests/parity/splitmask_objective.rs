//! What is SplitMask's own: its terms, its pairs of patches and words, its halves.

use splitmask_pipeline::request::{IMAGE, MaskSpec};
use tch::{Device, Kind, Tensor};

use splitmask::model::config::VitConfig;
use splitmask::objective::ObjectiveConfig;
use splitmask::objective::pretrain::splitmask::SplitMaskConfig;
use splitmask::tensor::{NamedView, PatchSets, StepInput};

use crate::subjects::{BATCH, VOCABULARY, built, fitted, input, model, named, scope, total, value};
use crate::{alone, evaluation, training};

#[test]
fn a_weight_that_is_turned_off_in_a_run_takes_its_term_out() {
    let _alone = alone();
    let config = fitted(&SplitMaskConfig::default().into());
    let (_vs, mut objective) = built(&config, &model());
    let input = input(&config);
    let losses = objective.forward(&input, &evaluation()).unwrap();
    let matching = losses
        .terms
        .iter()
        .find(|(name, _)| *name == "match")
        .map(|(_, t)| value(t))
        .unwrap();
    let off = SplitMaskConfig {
        match_weight: 0.0,
        inpaint: false,
        ..SplitMaskConfig::default()
    };
    objective.take_live(&off).unwrap();
    let after = total(objective.as_ref(), &input);
    assert!((value(&losses.total) - after - matching).abs() < 1e-5, "{after} {matching}");
}

#[test]
fn patches_and_targets_stay_paired() {
    let _alone = alone();
    // Moving patches together with their positions and words must not change the loss: an MAE decoder that reads its tokens without putting them
    // back in order trains on wrong positions and still learns something (lucidrains/vit-pytorch#242).
    let config = fitted(&SplitMaskConfig::default().into());
    let (vs, objective) = built(&config, &model());
    let original = input(&config);
    let before = total(objective.as_ref(), &original);
    let perm: Vec<i64> = (0..16).map(|i| (i * 5 + 3) % 16).collect();
    let mut inverse = vec![0i64; 16];
    for (to, &from) in perm.iter().enumerate() {
        inverse[from as usize] = to as i64;
    }
    let (perm, inverse) = (Tensor::from_slice(&perm), Tensor::from_slice(&inverse));
    let shuffled = original.views[0]
        .pixels
        .reshape([BATCH, 3, 4, 4, 4, 4])
        .permute([0, 2, 4, 1, 3, 5])
        .reshape([BATCH, 16, 48])
        .index_select(1, &perm);
    let image = shuffled
        .reshape([BATCH, 4, 4, 3, 4, 4])
        .permute([0, 3, 1, 4, 2, 5])
        .reshape([BATCH, 3, 16, 16]);
    let sets = original.sets.as_ref().unwrap();
    let moved = |t: &Tensor| inverse.index_select(0, &t.flatten(0, 1)).view_as(t).sort(-1, false).0;
    let moved = StepInput {
        len: BATCH,
        views: vec![NamedView {
            name: IMAGE.into(),
            pixels: image,
        }],
        words: Some(original.words.as_ref().unwrap().index_select(1, &perm)),
        largest_word: original.largest_word,
        hidden: None,
        sets: Some(PatchSets {
            patches: 16,
            a: moved(&sets.a),
            b: moved(&sets.b),
            not_a: moved(&sets.not_a),
            not_b: moved(&sets.not_b),
        }),
        maps: None,
        objects: None,
        labels: original.labels.shallow_clone(),
    };
    assert!((total(objective.as_ref(), &moved) - before).abs() > 1e-6, "positions must matter");
    for name in ["pos_embed", "decoder.pos_embed"] {
        let mut table = named(&vs).remove(name).unwrap();
        let rows = Tensor::cat(&[Tensor::from_slice(&[0i64]), &perm + 1], 0);
        tch::no_grad(|| table.copy_(&table.index_select(1, &rows)));
    }
    let after = total(objective.as_ref(), &moved);
    assert!((after - before).abs() < 1e-5, "{before} {after}");
}

#[test]
fn half_of_an_odd_grid_is_learnt_from_too() {
    let _alone = alone();
    let model = VitConfig {
        image: 12,
        patch: 4,
        ..model()
    };
    for mask in [
        MaskSpec::UniformSplit { keep: 0.5 },
        MaskSpec::BlockwiseSplit {
            min_block: 1,
            max_block: 4,
        },
    ] {
        let config = ObjectiveConfig::from(SplitMaskConfig {
            mask,
            ..SplitMaskConfig::default()
        });
        assert_eq!(config.check(&scope(&model)), []);
        let index = |columns: &[i64]| Tensor::from_slice(columns).view([1, -1]).repeat([BATCH, 1]);
        // Patch 4 is in neither set: both branches predict it.
        let sets = PatchSets {
            patches: 9,
            a: index(&[0, 1, 2, 3]),
            not_a: index(&[4, 5, 6, 7, 8]),
            b: index(&[5, 6, 7, 8]),
            not_b: index(&[0, 1, 2, 3, 4]),
        };
        let (_vs, objective) = built(&config, &model);
        let x = StepInput {
            len: BATCH,
            views: vec![NamedView {
                name: IMAGE.into(),
                pixels: Tensor::randn([BATCH, 3, 12, 12], (Kind::Float, Device::Cpu)),
            }],
            words: Some(Tensor::randint(VOCABULARY, [BATCH, 9], (Kind::Int64, Device::Cpu))),
            largest_word: 63,
            hidden: None,
            sets: Some(sets),
            maps: None,
            objects: None,
            labels: Tensor::full([BATCH], -1, (Kind::Int64, Device::Cpu)),
        };
        let losses = objective.forward(&x, &training(0)).unwrap();
        losses.total.backward();
        assert!(value(&losses.total).is_finite());
        let predicted: i64 = losses.counts.iter().map(|(_, c)| c.sum(Kind::Int64).int64_value(&[])).sum();
        assert_eq!(predicted, 2 * BATCH * 5);
    }
}
