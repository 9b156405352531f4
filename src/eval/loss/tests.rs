use std::sync::Arc;

use splitmask_pipeline::cursor::Cursor;
use splitmask_pipeline::request::{IMAGE, MaskSpec};
use splitmask_pipeline::types::{PatchSet, SampleId, View};
use tch::{Device, nn};

use super::*;
use crate::eval::data::{Sets, TrainingPass};
use crate::eval::features::ValFeatures;
use crate::model::config::VitConfig;
use crate::objective::pretrain::splitmask::SplitMaskConfig;
use crate::objective::{ObjectiveConfig, Scope};
use crate::tensor::Normalise;
use crate::words::Words;

const IMAGES: usize = 12;

fn batch(len: usize) -> Batch {
    let sets = |i: usize| (0..16).map(move |p| [PatchSet::A, PatchSet::B][(p * 7 + i * 3) % 16 / 8]);
    Batch {
        len,
        views: vec![View {
            name: IMAGE.into(),
            size: 16,
            pixels: (0..len * 3 * 256).map(|i| ((i * 2_654_435_761) >> 7) as u8).collect(),
        }],
        target: None,
        words: (0..len as u32 * 16).map(|i| i * 7919 % 32).collect(),
        sets: (0..len).flat_map(sets).collect(),
        hidden: vec![],
        maps: vec![],
        objects: vec![],
        object_offsets: vec![],
        labels: vec![-1; len],
        ids: vec![
            SampleId {
                epoch: 0,
                shard: 0,
                member: 0
            };
            len
        ],
        cursor: Cursor::default(),
    }
}

#[test]
fn the_loss_is_that_of_the_whole_batch_in_any_number_of_micro_batches() {
    let _turn = crate::tensor::alone();
    let model = VitConfig {
        image: 16,
        patch: 4,
        width: 24,
        depth: 3,
        heads: 2,
        ..VitConfig::default()
    };
    let config = ObjectiveConfig::from(SplitMaskConfig {
        mask: MaskSpec::UniformSplit { keep: 0.5 },
        drop_path: 0.3,
        ..SplitMaskConfig::default()
    });
    tch::manual_seed(1);
    let vars = nn::VarStore::new(Device::Cpu);
    let scope = Scope::new(&model, IMAGES as u32, 32);
    let objective = config.build(&vars.root(), &scope);
    let request = Arc::new(config.request(&scope));
    let (data, pipeline, eval) = Default::default();
    let loss = |micro_batches: usize, batch: &Batch| {
        let subject = Subject {
            objective: objective.as_ref(),
            device: Device::Cpu,
            bf16: false,
            normalise: Normalise {
                mean: [0.485, 0.456, 0.406],
                std: [0.229, 0.224, 0.225],
            },
            eval: &eval,
            sets: Sets {
                data: &data,
                pipeline: &pipeline,
                image: 16,
                crop_ratio: 0.875,
                seed: 0,
            },
            training: TrainingPass {
                words: &Words::Unused,
                request: &request,
                batch: IMAGES,
                micro_batches,
                step: 5,
                total_steps: 100,
                classes: None,
                outputs: 0,
            },
            val_features: &ValFeatures::new(),
            helpers: None,
            places: Vec::new(),
        };
        batch_loss(&subject, batch).unwrap()
    };
    let whole = loss(1, &batch(IMAGES));
    for micro_batches in [2, 3, 12] {
        let have = loss(micro_batches, &batch(IMAGES));
        // Measured one by one, the match term would be lower by ln(micro_batches).
        assert!((have - whole).abs() < 1e-5 * whole, "{micro_batches}: {have} {whole}");
    }
    // A set of 7 images: micro-batches of 4 leave a rest of 3.
    let (one, three) = (loss(1, &batch(7)), loss(3, &batch(7)));
    assert!((one - three).abs() < 1e-5 * one, "{one} {three}");
}
