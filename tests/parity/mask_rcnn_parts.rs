//! The parts of Mask R-CNN against torchvision (tests/fixtures/make_mask_rcnn.py).

use splitmask::head::mask_rcnn::{
    Anchors, Bitmap, BoxCoder, Corners, Level, Match, Region, RoiAlign, Thresholds, level_of, matched, overlap, pasted, suppressed,
};
use tch::{Kind, Tensor};

use crate::alone;
use crate::fixture::{Fixture, assert_near, device};

pub(crate) fn floats(x: &Tensor) -> Vec<f32> {
    Vec::try_from(x.to_kind(Kind::Float).to_device(tch::Device::Cpu).flatten(0, -1)).unwrap()
}

pub(crate) fn whole(x: &Tensor) -> Vec<i64> {
    Vec::try_from(x.to_kind(Kind::Int64).to_device(tch::Device::Cpu).flatten(0, -1)).unwrap()
}

pub(crate) fn corners(x: &Tensor) -> Vec<Corners> {
    floats(x).as_chunks().0.to_vec()
}

/// All of a picture, row by row.
pub(crate) fn on_picture(mask: &[f32], side: usize, place: Corners, [width, height]: [usize; 2]) -> Vec<f32> {
    let part = pasted(mask, side, place, [width, height]);
    let mut all = vec![0.0; width * height];
    for row in 0..part.height {
        let from = (part.top + row) * width + part.left;
        all[from..from + part.width].copy_from_slice(&part.cells[row * part.width..(row + 1) * part.width]);
    }
    all
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

#[test]
fn a_region_is_read_off_the_level_of_its_size() {
    let of = |side: f32| level_of([10.0, 10.0, 10.0 + side, 10.0 + side], 224.0, 0.25, 4);
    assert_eq!([1.0, 111.9, 112.0, 223.9, 224.0, 448.0, 2000.0].map(of), [0, 0, 1, 1, 2, 3, 3]);
    assert_eq!(level_of([5.0, 5.0, 5.0, 9.0], 224.0, 0.25, 4), 0, "no area");
    // Patches of 8 pixels: the finest map has a cell for every 2, and 16 pixels a cell is the fourth.
    assert_eq!(level_of([0.0, 0.0, 224.0, 224.0], 224.0, 0.5, 4), 3);
}
