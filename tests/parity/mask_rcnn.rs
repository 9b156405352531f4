//! Mask R-CNN as a whole against torchvision (tests/fixtures/make_mask_rcnn.py).

use std::collections::BTreeMap;

use splitmask::head::mask_rcnn::{
    Bitmap, Corners, Found, MaskRcnn, MaskRcnnConfig, Objects, ProposalRules, Quota, RegionRules, Rules, Sampling, blocks_taken,
};
use splitmask::model::Vit;
use splitmask::model::config::VitConfig;
use splitmask_pipeline::request::IMAGE;
use tch::{Kind, Tensor, nn};
use torch_ext::ranks::Ranks;

use crate::alone;
use crate::fixture::{Fixture, assert_grads, assert_near, device, set_params};
use crate::mask_rcnn_parts::{corners, on_picture, whole};

fn tensor(rows: &[Corners]) -> Tensor {
    Tensor::from_slice(rows.as_flattened()).view([-1, 4]).to_device(device())
}

const PATCH: i64 = 8;
const SIDE: i64 = 64;

struct Built {
    vs: nn::VarStore,
    vit: Vit,
    detector: MaskRcnn,
}

fn built() -> Built {
    let model = VitConfig {
        width: 12,
        depth: 3,
        image: SIDE as u32,
        patch: PATCH as u32,
        mlp_ratio: 2.0,
        ..crate::fixture::model()
    };
    let config = MaskRcnnConfig {
        channels: 6,
        box_width: 12,
        mask_depth: 2,
        mask_width: 5,
        box_side: 5,
        mask_side: 5,
        canonical: 56.0,
        ..MaskRcnnConfig::of_classes(3)
    };
    let vs = nn::VarStore::new(device());
    let vit = Vit::new(&vs.root(), &model, 0.0);
    vit.freeze_norm();
    let detector = MaskRcnn::new(&vs.root(), vit.dim(), SIDE, PATCH, &config);
    Built { vs, vit, detector }
}

fn rules() -> Rules {
    Rules {
        proposals: ProposalRules {
            before: [100, 80],
            after: [60, 40],
            ..ProposalRules::default()
        },
        regions: RegionRules {
            most: 6,
            ..Default::default()
        },
    }
}

/// Objects of the fixture, with their masks cut to the boxes around them.
struct Truth {
    boxes: Vec<Corners>,
    labels: Vec<i64>,
    masks: Vec<([u32; 4], Vec<u8>)>,
    counts: Vec<usize>,
}

impl Truth {
    fn read(fixture: &Fixture) -> Self {
        let packed = whole(fixture.get("objects.masks"));
        let bits: Vec<u8> = packed
            .iter()
            .flat_map(|byte| (0..8).map(move |bit| (byte >> (7 - bit) & 1) as u8))
            .collect();
        let side = SIDE as usize;
        let cut = |canvas: &[u8]| {
            let set: Vec<(usize, usize)> = (0..side * side).filter(|n| canvas[*n] == 1).map(|n| (n % side, n / side)).collect();
            let [left, right] = [set.iter().map(|p| p.0).min().unwrap(), set.iter().map(|p| p.0).max().unwrap()];
            let [top, bottom] = [set.iter().map(|p| p.1).min().unwrap(), set.iter().map(|p| p.1).max().unwrap()];
            let pixels = (top..=bottom)
                .flat_map(|y| canvas[y * side + left..=y * side + right].to_vec())
                .collect();
            ([left, top, right + 1 - left, bottom + 1 - top].map(|n| n as u32), pixels)
        };
        Self {
            boxes: corners(fixture.get("objects.boxes")),
            labels: whole(fixture.get("objects.labels")),
            masks: bits.chunks_exact(side * side).map(cut).collect(),
            counts: whole(fixture.get("objects.counts")).into_iter().map(|n| n as usize).collect(),
        }
    }

    fn objects(&self) -> Vec<Objects<'_>> {
        let mut first = 0;
        let of_picture = |(row, &count): (usize, &usize)| {
            let own = first..first + count;
            first += count;
            Objects {
                row: row as u64,
                boxes: &self.boxes[own.clone()],
                labels: &self.labels[own.clone()],
                masks: self.masks[own]
                    .iter()
                    .map(|([left, top, width, height], pixels)| {
                        Some(Bitmap {
                            left: *left,
                            top: *top,
                            width: *width,
                            height: *height,
                            pixels,
                        })
                    })
                    .collect(),
            }
        };
        self.counts.iter().enumerate().map(of_picture).collect()
    }
}

#[test]
fn losses_and_gradients_are_torchvisions() {
    let _alone = alone();
    let fixture = Fixture::read("mask_rcnn");
    let Built { vs, vit, mut detector } = built();
    set_params(&vs, &fixture.under("param"));
    let truth = Truth::read(&fixture);
    let x = fixture.input_of(&[(IMAGE, "pixels")], None, None);
    let blocks = vit.outputs_of(&x.views[0].pixels, &blocks_taken(3), true);
    let ranks = Ranks::alone();
    let losses = detector
        .losses(&blocks, &truth.objects(), &rules(), Sampling::All, Some(&ranks))
        .unwrap();
    let regions = whole(fixture.get("regions.counts"));
    assert_eq!(losses.regions[0] as i64, regions.iter().sum::<i64>());
    for (name, loss) in losses.terms() {
        assert_near(name, loss, fixture.get(&format!("loss.{name}")), 1e-4);
    }
    let total = losses
        .terms()
        .into_iter()
        .map(|(_, loss)| loss.shallow_clone())
        .reduce(|a, b| a + b);
    total.unwrap().backward();
    assert_grads("mask_rcnn", &vs, &fixture.under("grad"), 1e-4);
    detector.after_step(&Tensor::from(0f32).to_device(device()));
    for (name, want) in fixture.under("after") {
        assert_near(name, &vs.variables()[name], want, 1e-5);
    }
}

#[test]
fn what_is_found_is_torchvisions() {
    let _alone = alone();
    let fixture = Fixture::read("mask_rcnn");
    let Built { vs, vit, detector } = built();
    set_params(&vs, &fixture.under("param"));
    let x = fixture.input_of(&[(IMAGE, "pixels")], None, None);
    let blocks = tch::no_grad(|| vit.outputs_of(&x.views[0].pixels, &blocks_taken(3), false));
    let found = detector.find(&blocks, &[[SIDE as f32; 2]; 3], &rules());
    let counts: Vec<i64> = found.iter().map(|f| f.boxes.len() as i64).collect();
    assert_eq!(counts, whole(fixture.get("found.counts")));
    let all = |of: fn(&Found) -> Vec<f32>| Tensor::from_slice(&found.iter().flat_map(of).collect::<Vec<_>>()).to_device(device());
    let labels: Vec<i64> = found.iter().flat_map(|f| f.labels.clone()).collect();
    assert_eq!(labels, whole(fixture.get("found.labels")));
    let boxes: Vec<Corners> = found.iter().flat_map(|f| f.boxes.clone()).collect();
    assert_near("boxes", &tensor(&boxes), fixture.get("found.boxes"), 1e-4);
    assert_near("scores", &all(|f| f.scores.clone()), fixture.get("found.scores"), 1e-4);
    let masks = fixture.get("found.masks");
    assert_near("masks", &all(|f| f.masks.clone()).view_as(masks), masks, 1e-4);
    let first = &found[0];
    let best = on_picture(first.mask(0), first.side, first.boxes[0], [SIDE as usize; 2]);
    let want = fixture.get("found.pasted");
    assert_near("pasted", &Tensor::from_slice(&best).view_as(want).to_device(device()), want, 1e-4);
}

/// Over some draws, parameters are as large as torchvision's, and of distributions that reach as far; what starts at one value does so here too.
#[test]
fn parameters_start_as_torchvisions() {
    let _alone = alone();
    let fixture = Fixture::read("mask_rcnn");
    let draws = 20;
    // Mean square, largest value, number of values.
    let mut drawn = BTreeMap::<String, (f64, f64, usize)>::new();
    for seed in 0..draws {
        tch::manual_seed(seed);
        for (name, value) in built().vs.variables().into_iter().collect::<BTreeMap<_, _>>() {
            let of = drawn.entry(name).or_default();
            of.0 += value.square().mean(Kind::Double).double_value(&[]) / draws as f64;
            of.1 = of.1.max(value.abs().max().double_value(&[]));
            of.2 += value.numel();
        }
    }
    let starts = fixture.under("init");
    assert!(starts.len() > 30);
    for (name, want) in starts {
        let (square, largest, values) = drawn[name];
        let [want_size, want_largest] = [0, 1].map(|n| want.double_value(&[n]));
        let size = square.sqrt();
        if want_size == want_largest {
            assert_eq!([size, largest], [want_size; 2], "{name}: one value");
            continue;
        }
        // The size of n drawn values is off by a share of about 1/√(2n).
        let allowed = 5.0 / (2.0 * values as f64).sqrt();
        assert!(
            (size / want_size - 1.0).abs() < allowed,
            "{name}: {size}, torchvision's {want_size}"
        );
        // A uniform distribution reaches √3 times that far, a normal one farther.
        let reaches = [largest / size, want_largest / want_size].map(|reach| reach > 2.1);
        assert_eq!(reaches[0], reaches[1], "{name}: {largest}, torchvision's {want_largest}");
    }
}

/// What is drawn follows the seed alone, and a batch without any object still teaches every layer but those of boxes and masks.
#[test]
fn drawn_samples_follow_the_seed_and_pictures_without_objects_train() {
    let _alone = alone();
    let fixture = Fixture::read("mask_rcnn");
    let Built { vs, vit, detector } = built();
    set_params(&vs, &fixture.under("param"));
    let truth = Truth::read(&fixture);
    let x = fixture.input_of(&[(IMAGE, "pixels")], None, None);
    let ranks = Ranks::alone();
    let few = Rules {
        proposals: ProposalRules {
            quota: Quota { boxes: 16, objects: 0.5 },
            ..rules().proposals
        },
        ..rules()
    };
    let losses = |objects: &[Objects<'_>], seed: u64| {
        let blocks = vit.outputs_of(&x.views[0].pixels, &blocks_taken(3), true);
        detector
            .losses(&blocks, objects, &few, Sampling::Drawn { seed }, Some(&ranks))
            .unwrap()
    };
    let values = |seed: u64| losses(&truth.objects(), seed).terms().map(|(_, loss)| loss.double_value(&[]));
    assert_eq!(values(5), values(5), "to the bit");
    assert_ne!(values(5), values(6));
    let drawn = losses(&truth.objects(), 5);
    assert_eq!(drawn.anchors[0], 3 * 16);
    assert!(drawn.regions[1] >= 5, "the objects themselves are proposals");

    let nothing: Vec<Objects<'_>> = (0..3).map(|row| Objects { row, ..Objects::default() }).collect();
    let background = losses(&nothing, 5);
    assert_eq!([background.anchors[1], background.regions[1]], [0, 0]);
    for (name, loss) in background.terms() {
        let value = loss.double_value(&[]);
        assert!(value.is_finite(), "{name}");
        assert_eq!(value == 0.0, ["rpn_box_reg", "box_reg", "mask"].contains(&name), "{name}: {value}");
    }
    let total = background
        .terms()
        .into_iter()
        .map(|(_, loss)| loss.shallow_clone())
        .reduce(|a, b| a + b);
    total.unwrap().backward();
    for (name, variable) in vs.variables().into_iter().collect::<BTreeMap<_, _>>() {
        if variable.requires_grad() {
            assert!(
                variable.grad().defined() && !variable.grad().isnan().any().int64_value(&[]).eq(&1),
                "{name}"
            );
        }
    }
}
