use splitmask_pipeline::cursor::Cursor;
use splitmask_pipeline::request::{IMAGE, MaskSpec};
use splitmask_pipeline::types::{PatchSet, SampleId, View};
use tch::nn;

use super::*;
use crate::objective::ObjectiveConfig;
use crate::objective::pretrain::beit::BeitConfig;
use crate::objective::pretrain::dino::{Centring, DinoConfig};
use crate::objective::pretrain::splitmask::SplitMaskConfig;
use crate::objective::pretrain::supervised::SupervisedConfig;
use crate::objective::transfer::classify::{ClassifyConfig, Freeze};
use crate::trainer::spec::{Precision, TrainConfig};

const IMAGES: usize = 12;

pub(in crate::trainer) fn spec(objective: ObjectiveConfig) -> TrainerSpec {
    TrainerSpec {
        seed: 0,
        run_dir: Default::default(),
        lock: None,
        codebook: Default::default(),
        init_from: None,
        init_partial: false,
        data: Default::default(),
        pipeline: Default::default(),
        augment: Default::default(),
        model: crate::model::config::VitConfig {
            image: 16,
            patch: 4,
            width: 24,
            depth: 3,
            heads: 2,
            ..Default::default()
        },
        objective,
        optim: Default::default(),
        ema: Default::default(),
        train: TrainConfig {
            precision: Precision::F32,
            ..Default::default()
        },
        ranks: Default::default(),
        stability: Default::default(),
        debug: Default::default(),
        checkpoint: Default::default(),
        eval: Default::default(),
        picture: Default::default(),
        log: Default::default(),
        grace: Default::default(),
        labels: Default::default(),
        config_toml: String::new(),
    }
}

pub(in crate::trainer) fn batch() -> Batch {
    let sets = |i: usize| (0..16).map(move |p| [PatchSet::A, PatchSet::B][(p * 7 + i * 3) % 16 / 8]);
    let hidden = |crop: usize| (0..16).map(move |p| [PatchSet::Neither, PatchSet::A][usize::from(p * 5 % 16 < crop * 3 % 8)]);
    Batch {
        len: IMAGES,
        views: [(IMAGE, 16), ("global", 16), ("global", 16), ("local", 8)]
            .iter()
            .enumerate()
            .map(|(n, (name, size))| View {
                name: (*name).into(),
                size: *size,
                pixels: (0..IMAGES * 3 * (size * size) as usize)
                    .map(|i| (((i + n * 7919) * 2_654_435_761) >> 7) as u8)
                    .collect(),
            })
            .collect(),
        target: None,
        words: (0..IMAGES as u32 * 16).map(|i| i * 7919 % 32).collect(),
        sets: (0..IMAGES).flat_map(sets).collect(),
        // A crop hides none of its 16 patches, or up to 7.
        hidden: (0..2 * IMAGES).flat_map(hidden).collect(),
        maps: vec![],
        objects: vec![],
        object_offsets: vec![],
        // One image has none.
        labels: (0..IMAGES as i64).map(|i| i * 5 % 9 - 1).collect(),
        ids: vec![
            SampleId {
                epoch: 0,
                shard: 0,
                member: 0
            };
            IMAGES
        ],
        cursor: Cursor::default(),
    }
}

type ByName<T> = Vec<(String, T)>;

/// Gradients and scalars of one batch in that many micro-batches.
fn pass(spec: &TrainerSpec, micro_batches: usize) -> (ByName<Tensor>, ByName<f64>) {
    pass_of(spec, micro_batches, None)
}

fn pass_of(spec: &TrainerSpec, micro_batches: usize, sent: Option<&SentBatch>) -> (ByName<Tensor>, ByName<f64>) {
    tch::manual_seed(1);
    let vars = nn::VarStore::new(Device::Cpu);
    let objective = spec.objective.build(&vars.root(), &spec.scope(32));
    let pass = Pass {
        objective: objective.as_ref(),
        spec,
        device: Device::Cpu,
        step: 5,
        consumed: 6,
        micro_batches,
        words: None,
        sent,
        peers: None,
        rank: 0,
    };
    let scalars = pass.gradients(&batch(), |_| {}).unwrap().scalars;
    let trained = vars.variables().into_iter().filter(|(_, t)| t.requires_grad());
    let mut grads: Vec<(String, Tensor)> = trained.map(|(n, t)| (n, t.grad())).collect();
    grads.sort_by(|a, b| a.0.cmp(&b.0));
    let scalars = scalars.into_iter().map(|(n, t)| (n.to_owned(), t.double_value(&[]))).collect();
    (grads, scalars)
}

#[test]
fn a_batch_in_micro_batches_has_the_gradients_of_the_whole() {
    let _turn = crate::tensor::alone();
    let mask = MaskSpec::UniformSplit { keep: 0.5 };
    let base = || SplitMaskConfig {
        mask,
        drop_path: 0.3,
        decoder_drop_path: 0.2,
        ..SplitMaskConfig::default()
    };
    let cases = [
        ("both terms", base()),
        (
            "match alone",
            SplitMaskConfig {
                inpaint_weight: 0.0,
                ..base()
            },
        ),
        (
            "inpaint alone",
            SplitMaskConfig {
                match_weight: 0.0,
                ..base()
            },
        ),
        (
            "all negatives",
            SplitMaskConfig {
                both_branch_negatives: true,
                match_weight: 2.5,
                ..base()
            },
        ),
    ];
    let cases = cases.map(|(name, c)| (name, ObjectiveConfig::from(c)));
    let beit = ObjectiveConfig::from(BeitConfig {
        mask: MaskSpec::BlockwiseMask {
            count: 8,
            min_block: 2,
            max_block: 6,
        },
        ..BeitConfig::default()
    });
    let supervised = |config: SupervisedConfig| {
        ObjectiveConfig::from(SupervisedConfig {
            classes: 8,
            drop_path: 0.3,
            erasing: 0.5,
            ..config
        })
    };
    let mixup = SupervisedConfig {
        cutmix: 0.0,
        ..SupervisedConfig::default()
    };
    let cutmix = SupervisedConfig {
        mixup: 0.0,
        ..SupervisedConfig::default()
    };
    let classify = |freeze| {
        ObjectiveConfig::from(ClassifyConfig {
            classes: 8,
            drop_path: if freeze == Freeze::None { 0.3 } else { 0.0 },
            erasing: 0.5,
            freeze,
            ..ClassifyConfig::default()
        })
    };
    let dino = |config: DinoConfig| {
        ObjectiveConfig::from(DinoConfig {
            local_crops: 1,
            local_size: 8,
            prototypes: 24,
            hidden: 16,
            bottleneck: 8,
            ibot_weight: 0.7,
            drop_path: 0.3,
            // Nobody is very sure, so that rounding stays small.
            teacher_temperature: 0.1,
            teacher_temperature_start: 0.1,
            freeze_last_layer_steps: 0,
            ..config
        })
    };
    let spread = || DinoConfig {
        koleo_weight: 0.3,
        ..DinoConfig::default()
    };
    let sinkhorn = || DinoConfig {
        centring: Centring::Sinkhorn,
        separate_heads: true,
        ibot_prototypes: 16,
        ..DinoConfig::default()
    };
    let both = DinoConfig {
        koleo_weight: 0.3,
        ..sinkhorn()
    };
    let further = [
        ("beit", beit),
        ("mixup", supervised(mixup)),
        ("cutmix", supervised(cutmix)),
        ("classify", classify(Freeze::None)),
        ("a head alone", classify(Freeze::Encoder)),
        ("patches", dino(DinoConfig::default())),
        ("patches and KoLeo", dino(spread())),
        ("Sinkhorn-Knopp", dino(sinkhorn())),
        ("all of DINOv2", dino(both)),
    ];
    for (name, objective) in cases.into_iter().chain(further) {
        let spec = spec(objective);
        let (whole, numbers) = pass(&spec, 1);
        for parts in [2, 3, 12] {
            let (grads, same) = pass(&spec, parts);
            for ((param, have), (_, want)) in grads.iter().zip(&whole) {
                let norm = |t: &Tensor| t.norm().double_value(&[]);
                let relative = norm(&(have - want)) / norm(want).max(1e-4);
                assert!(relative < 1e-5, "{name}, {parts} parts, {param}: {relative:e}");
            }
            // The spread is said of the images that are processed together.
            for (scalar, want) in numbers.iter().filter(|(scalar, _)| scalar != "descriptor_spread") {
                let have = same.iter().find(|(n, _)| n == scalar).unwrap().1;
                assert!(
                    (have - want).abs() < 1e-5 * want.abs().max(1.0),
                    "{name}, {parts} parts, {scalar}: {have} {want}"
                );
            }
        }
    }
}

#[test]
fn recomputed_activations_change_no_bit() {
    let _turn = crate::tensor::alone();
    let objective = ObjectiveConfig::from(SplitMaskConfig {
        mask: MaskSpec::UniformSplit { keep: 0.5 },
        drop_path: 0.3,
        decoder_drop_path: 0.2,
        ..SplitMaskConfig::default()
    });
    let mut spec = spec(objective);
    for (precision, parts) in [(Precision::F32, 1), (Precision::F32, 3), (Precision::Bf16, 2)] {
        spec.train.precision = precision;
        spec.model.checkpoint_activations = false;
        let kept = pass(&spec, parts);
        spec.model.checkpoint_activations = true;
        assert_eq!(pass(&spec, parts), kept, "{precision:?} in {parts} parts");
    }
}

#[test]
fn a_batch_that_was_sent_ahead_changes_no_bit() {
    let _turn = crate::tensor::alone();
    let spec = spec(ObjectiveConfig::from(SplitMaskConfig {
        mask: MaskSpec::UniformSplit { keep: 0.5 },
        drop_path: 0.3,
        ..SplitMaskConfig::default()
    }));
    for parts in [1, 3] {
        let sent = SentBatch::send(&batch(), 0..IMAGES, Device::Cpu).unwrap();
        assert_eq!(pass_of(&spec, parts, Some(&sent)), pass(&spec, parts), "{parts} parts");
    }
}
