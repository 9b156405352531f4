//! Mask R-CNN and its parts against torchvision (tests/fixtures/make_mask_rcnn.py).

use std::collections::BTreeMap;

use splitmask::head::mask_rcnn::{
    Anchors, Bitmap, BoxCoder, Corners, Found, Level, MaskRcnn, MaskRcnnConfig, Match, Objects, ProposalRules, Quota, Region, RoiAlign,
    Rules, Sampling, Thresholds, blocks_taken, level_of, matched, overlap, pasted, suppressed,
};
use splitmask::model::Vit;
use splitmask::model::config::VitConfig;
use splitmask_pipeline::request::IMAGE;
use tch::{Kind, Tensor, nn};
use torch_ext::ranks::Ranks;

use crate::alone;
use crate::fixture::{Fixture, assert_grads, assert_near, device, set_params};

fn floats(x: &Tensor) -> Vec<f32> {
    Vec::try_from(x.to_kind(Kind::Float).to_device(tch::Device::Cpu).flatten(0, -1)).unwrap()
}

fn whole(x: &Tensor) -> Vec<i64> {
    Vec::try_from(x.to_kind(Kind::Int64).to_device(tch::Device::Cpu).flatten(0, -1)).unwrap()
}

fn corners(x: &Tensor) -> Vec<Corners> {
    floats(x).as_chunks().0.to_vec()
}

fn tensor(rows: &[Corners]) -> Tensor {
    Tensor::from_slice(rows.as_flattened()).view([-1, 4]).to_device(device())
}

#[test]
fn regions_are_read_off_as_by_torchvision_with_their_gradient() {
    let _alone = alone();
    let fixture = Fixture::read("mask_rcnn");
    let rois = floats(fixture.get("roi.rois"));
    let regions: Vec<Region> = rois
        .as_chunks::<5>()
        .0
        .iter()
        .map(|&[picture, left, top, right, bottom]| Region {
            picture: picture as usize,
            corners: [left, top, right, bottom],
        })
        .collect();
    for (name, samples, aligned) in [
        ("plain", Some(2), false),
        ("aligned", Some(2), true),
        ("adaptive", None, false),
        ("adaptive_aligned", None, true),
    ] {
        let align = RoiAlign { side: 3, samples, aligned };
        let maps = fixture.get("roi.maps").copy().set_requires_grad(true);
        let level = Level { maps: &maps, scale: 0.125 };
        let pooled = align.pooled(&[level], &regions, &vec![0; regions.len()]);
        assert_near(name, &pooled, fixture.get(&format!("roi.{name}")), 1e-5);
        (pooled * fixture.get("roi.weights")).sum(Kind::Float).backward();
        let want = fixture.get(&format!("roi.{name}.grad"));
        assert_near(&format!("{name}: gradient"), &maps.grad(), want, 1e-5);
    }
}

/// A bitmap in its box is the same as on a whole canvas, at its edges too.
#[test]
fn a_bitmap_in_its_box_gives_what_it_gives_on_the_canvas() {
    let _alone = alone();
    let (canvas, [left, top, width, height]) = (20usize, [12u32, 0, 8, 9]);
    let pixels: Vec<u8> = (0..width * height).map(|n| u8::from(n * n % 7 < 3)).collect();
    let mut all = vec![0f32; canvas * canvas];
    for (n, &pixel) in pixels.iter().enumerate() {
        let (row, column) = (n as u32 / width + top, n as u32 % width + left);
        all[row as usize * canvas + column as usize] = f32::from(pixel);
    }
    let bitmap = Bitmap {
        left,
        top,
        width,
        height,
        pixels: &pixels,
    };
    let boxes = [
        [10.5, -3.0, 20.0, 11.2],
        [13.0, 2.0, 13.4, 2.1],
        [0.0, 0.0, 20.0, 20.0],
        [0.0, 12.0, 5.0, 20.0],
    ];
    let align = RoiAlign {
        side: 6,
        samples: None,
        aligned: false,
    };
    let maps = Tensor::from_slice(&all)
        .view([1, 1, canvas as i64, canvas as i64])
        .to_device(device());
    let regions: Vec<Region> = boxes.iter().map(|&corners| Region { picture: 0, corners }).collect();
    let want = align.pooled(&[Level { maps: &maps, scale: 1.0 }], &regions, &[0; 4]).squeeze_dim(1);
    let regions: Vec<(Bitmap<'_>, Corners)> = boxes.iter().map(|&corners| (bitmap, corners)).collect();
    let got = align.of_bitmaps(&regions, canvas, device());
    assert_near("bitmap", &got, &want, 1e-6);
    assert!(want.get(3).abs().max().double_value(&[]) == 0.0 && want.get(0).abs().max().double_value(&[]) > 0.5);
}

#[test]
fn anchors_and_coded_boxes_are_torchvisions() {
    let _alone = alone();
    let fixture = Fixture::read("mask_rcnn");
    let sides = whole(fixture.get("anchors.sides"));
    let levels: Vec<(i64, f32)> = sides.iter().enumerate().map(|(n, &side)| (side, (16 << n) as f32)).collect();
    let anchors = Anchors::new(64, &levels);
    assert_eq!(anchors.boxes.len() as i64, whole(fixture.get("anchors.count"))[0]);
    assert_eq!(anchors.of_level.iter().sum::<usize>(), anchors.boxes.len());
    let some: Vec<Corners> = anchors.boxes.iter().step_by(97).copied().collect();
    assert_eq!(some, corners(fixture.get("anchors.every_97th")));

    let get = |name: &str| fixture.get(&format!("coder.{name}"));
    for (name, weights) in [("rpn", [1.0; 4]), ("box", [10.0, 10.0, 5.0, 5.0])] {
        let coder = BoxCoder(weights);
        assert_near(
            name,
            &coder.encode(get("some"), get("other")),
            get(&format!("{name}.encoded")),
            1e-6,
        );
        let decoded = coder.decode(&get("codes").view([20, 3, 4]), get("other")).view([20, 12]);
        assert_near(name, &decoded, get(&format!("{name}.decoded")), 1e-6);
    }
}

#[test]
fn matches_are_torchvisions_ties_too() {
    let fixture = Fixture::read("mask_rcnn");
    let (candidates, objects) = (corners(fixture.get("matcher.candidates")), corners(fixture.get("matcher.objects")));
    let overlaps: Vec<f32> = objects
        .iter()
        .flat_map(|&o| candidates.iter().map(move |&c| overlap(o, c)))
        .collect();
    assert_eq!(overlaps, floats(fixture.get("matcher.overlaps")), "to the bit");
    let number = |found: Match| match found {
        Match::Object(n) => n as i64,
        Match::Background => -1,
        Match::Unclear => -2,
    };
    for (name, object, background, best_of_each) in [("rpn", 0.7, 0.3, true), ("box", 0.5, 0.5, false)] {
        let thresholds = Thresholds {
            object,
            background,
            best_of_each,
        };
        let got: Vec<i64> = matched(&objects, &candidates, thresholds).into_iter().map(number).collect();
        let want = whole(fixture.get(&format!("matcher.{name}")));
        assert_eq!(got, want, "{name}");
        assert!(want.iter().any(|n| *n >= 0) && want.contains(&-1), "{name}");
        assert_eq!(matched(&[], &candidates, thresholds), vec![Match::Background; candidates.len()]);
        assert_eq!(matched(&objects, &[], thresholds), []);
    }
}

#[test]
fn suppression_is_torchvisions_and_takes_milliseconds() {
    let fixture = Fixture::read("mask_rcnn");
    let (boxes, scores) = (corners(fixture.get("nms.boxes")), floats(fixture.get("nms.scores")));
    let groups: Vec<usize> = whole(fixture.get("nms.groups")).into_iter().map(|g| g as usize).collect();
    let kept: Vec<i64> = suppressed(&boxes, &scores, &groups, 0.5).into_iter().map(|n| n as i64).collect();
    assert_eq!(kept, whole(fixture.get("nms.kept")));
    // An overlap of exactly the limit stays; of equal scores the first does. Threshold 0.7 lies between two f32.
    let halves = [[0.0, 0.0, 4.0, 3.0], [0.0, 0.0, 4.0, 6.0], [0.0, 0.0, 4.0, 6.0]];
    assert_eq!(suppressed(&halves, &[0.5; 3], &[0; 3], 0.5), [0, 1]);
    assert_eq!(suppressed(&halves, &[0.5; 3], &[0, 1, 2], 0.1), [0, 1, 2]);
    let tenths = [[0.0, 0.0, 10.0, 7.0], [0.0, 0.0, 10.0, 10.0]];
    assert_eq!(overlap(tenths[0], tenths[1]), 0.7f32);
    assert_eq!(suppressed(&tenths, &[0.9, 0.8], &[0; 2], 0.7), [0, 1]);
    assert_eq!(suppressed(&[], &[], &[], 0.5), [0usize; 0]);

    let far: Vec<Corners> = (0..1000).map(|n| [n as f32 * 20.0, 0.0, n as f32 * 20.0 + 10.0, 10.0]).collect();
    let scores: Vec<f32> = (0..1000).map(|n| n as f32).collect();
    let best = (0..5)
        .map(|_| {
            let begin = std::time::Instant::now();
            // The worst case: all stay, and each is compared with all behind it.
            assert_eq!(suppressed(&far, &scores, &vec![0; 1000], 0.5).len(), 1000);
            begin.elapsed()
        })
        .min();
    // Half a millisecond where the compiler optimises for speed; this program was built without, on a machine with others.
    assert!(best.unwrap().as_millis() < 300, "{best:?}");
}

#[test]
fn masks_are_pasted_as_by_torchvision() {
    let fixture = Fixture::read("mask_rcnn");
    let (masks, want) = (floats(fixture.get("paste.masks")), floats(fixture.get("paste.pasted")));
    for (n, place) in corners(fixture.get("paste.boxes")).into_iter().enumerate() {
        let got = on_picture(&masks[n * 49..(n + 1) * 49], 7, place, [18, 22]);
        let far = got
            .iter()
            .zip(&want[n * got.len()..])
            .map(|(a, b)| (a - b).abs())
            .fold(0.0, f32::max);
        assert!(far < 1e-6, "mask {n}: {far}");
        assert!(n == 5 || got.iter().any(|p| *p > 0.0), "mask {n}");
    }
    // A box beyond the picture shows nothing of its mask.
    assert_eq!(pasted(&masks[..49], 7, [30.0, 5.0, 40.0, 9.0], [18, 22]).cells, [0f32; 0]);
    assert_eq!(pasted(&masks[..49], 7, [-40.0, -50.0, -30.0, -9.0], [18, 22]).cells, [0f32; 0]);
}

/// All of a picture, row by row.
fn on_picture(mask: &[f32], side: usize, place: Corners, [width, height]: [usize; 2]) -> Vec<f32> {
    let part = pasted(mask, side, place, [width, height]);
    let mut all = vec![0.0; width * height];
    for row in 0..part.height {
        let from = (part.top + row) * width + part.left;
        all[from..from + part.width].copy_from_slice(&part.cells[row * part.width..(row + 1) * part.width]);
    }
    all
}

#[test]
fn a_region_is_read_off_the_level_of_its_size() {
    let of = |side: f32| level_of([10.0, 10.0, 10.0 + side, 10.0 + side], 224.0, 0.25, 4);
    assert_eq!([1.0, 111.9, 112.0, 223.9, 224.0, 448.0, 2000.0].map(of), [0, 0, 1, 1, 2, 3, 3]);
    assert_eq!(level_of([5.0, 5.0, 5.0, 9.0], 224.0, 0.25, 4), 0, "no area");
    // Patches of 8 pixels: the finest map has a cell for every 2, and 16 pixels a cell is the fourth.
    assert_eq!(level_of([0.0, 0.0, 224.0, 224.0], 224.0, 0.5, 4), 3);
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
        regions: splitmask::head::mask_rcnn::RegionRules {
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
    let blocks = vit.features_behind(&x.views[0].pixels, &blocks_taken(3), true);
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
    // Batch normalisation takes away what a bias before it adds: its gradient is nothing but rounding, in PyTorch too.
    let mut gradients = fixture.under("grad");
    let before_norm = vs.variables()["neck.0.0.bias"].grad();
    assert!(gradients["neck.0.0.bias"].abs().max().double_value(&[]) < 1e-12);
    assert!(before_norm.abs().max().double_value(&[]) < 1e-6);
    gradients.insert("neck.0.0.bias", &before_norm);
    assert_grads("mask_rcnn", &vs, &gradients, 1e-4);
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
    let blocks = tch::no_grad(|| vit.features_behind(&x.views[0].pixels, &blocks_taken(3), false));
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
        for (name, value) in built().vs.variables() {
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
        let blocks = vit.features_behind(&x.views[0].pixels, &blocks_taken(3), true);
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
    for (name, variable) in vs.variables() {
        if variable.requires_grad() {
            assert!(
                variable.grad().defined() && !variable.grad().isnan().any().int64_value(&[]).eq(&1),
                "{name}"
            );
        }
    }
}
