//! Batches as tensors: shapes, parts, refusals.

use splitmask_pipeline::cursor::Cursor;
use splitmask_pipeline::types::PatchSet::{A, B, Neither};
use splitmask_pipeline::types::SampleId;

use super::*;

const PLAIN: Normalise = Normalise {
    mean: [0.0, 0.5, 0.5],
    std: [1.0, 0.5, 0.25],
};

fn view(name: &'static str, size: u32, pixels: Vec<u8>) -> View {
    View {
        name: name.into(),
        size,
        pixels,
    }
}

fn batch() -> Batch {
    Batch {
        len: 2,
        views: vec![view("image", 2, (0..24).map(|i| if i < 12 { 255 } else { 0 }).collect())],
        target: None,
        words: vec![1, 2, 3, 4, 5, 6, 7, 8],
        sets: vec![A, B, B, A, Neither, A, A, B],
        hidden: vec![Neither, A, A, Neither],
        maps: vec![],
        objects: vec![],
        object_offsets: vec![],
        labels: vec![3, -1],
        ids: vec![
            SampleId {
                epoch: 0,
                shard: 0,
                member: 0
            };
            2
        ],
        cursor: Cursor::default(),
    }
}

fn rows_of(t: &Tensor) -> Vec<Vec<i64>> {
    Vec::<Vec<i64>>::try_from(t).unwrap()
}

#[test]
fn pixels_are_normalised_by_channel() {
    let s = step_input(&batch(), 0..2, Device::Cpu, &PLAIN).err();
    assert_eq!(
        s,
        Some(TensorError::RaggedSets {
            sample: 1,
            set: B,
            got: 1,
            want: 2
        })
    );
    let mut b = batch();
    b.sets.clear();
    let s = step_input(&b, 0..2, Device::Cpu, &PLAIN).unwrap();
    let x = s.view("image").unwrap();
    assert_eq!(x.size(), [2, 3, 2, 2]);
    let at = |i, c| x.double_value(&[i, c, 0, 0]);
    assert_eq!(
        [at(0, 0), at(0, 1), at(0, 2), at(1, 0), at(1, 1), at(1, 2)],
        [1.0, 1.0, 2.0, 0.0, -1.0, -2.0]
    );
    assert_eq!((s.largest_word, s.len), (8, 2));
}

#[test]
fn normalised_pixels_become_the_bytes_they_were() {
    let mut b = batch();
    b.sets.clear();
    b.views[0].pixels = (0..24).map(|i| i * 11).collect();
    let x = step_input(&b, 0..2, Device::Cpu, &PLAIN).unwrap().views.remove(0).pixels;
    assert_eq!(Vec::<u8>::try_from(PLAIN.undone(&x).flatten(0, -1)).unwrap(), b.views[0].pixels);
    let far = PLAIN.undone(&(x * 1e3));
    assert!(
        Vec::<u8>::try_from(far.flatten(0, -1))
            .unwrap()
            .iter()
            .all(|v| [0, 255].contains(v))
    );
}

#[test]
fn index_lists_are_ascending_and_complementary() {
    let mut b = batch();
    b.sets = vec![A, B, B, A, A, B, A, B];
    let p = step_input(&b, 0..2, Device::Cpu, &PLAIN).unwrap().sets.unwrap();
    assert_eq!(rows_of(&p.a), [[0, 3], [0, 2]]);
    assert_eq!(rows_of(&p.b), [[1, 2], [1, 3]]);
    assert_eq!(rows_of(&p.not_a), [[1, 2], [1, 3]]);
    assert_eq!(rows_of(&p.not_b), [[0, 3], [0, 2]]);
}

#[test]
fn a_range_takes_those_samples() {
    let s = step_input(&batch(), 1..2, Device::Cpu, &PLAIN).unwrap();
    assert_eq!(rows_of(s.words.as_ref().unwrap()), [[5, 6, 7, 8]]);
    let p = s.sets.unwrap();
    assert_eq!((rows_of(&p.a), rows_of(&p.not_b)), (vec![vec![1, 2]], vec![vec![0, 1, 2]]));
    assert_eq!(Vec::<i64>::try_from(&s.labels).unwrap(), [-1]);
    let hidden = s.hidden.unwrap();
    assert_eq!((hidden.patches, Vec::<i64>::try_from(&hidden.rows).unwrap()), (2, vec![0]));
    assert!(matches!(
        step_input(&batch(), 1..3, Device::Cpu, &PLAIN),
        Err(TensorError::BadRange { len: 2, .. })
    ));
}

#[test]
fn the_target_comes_by_itself_and_raw() {
    let mut b = batch();
    b.sets.clear();
    b.target = Some(view("target", 1, vec![1, 2, 3, 4, 5, 6]));
    let sent = SentBatch::send(&b, 0..2, Device::Cpu).unwrap();
    assert_eq!(sent.input(1..2, &PLAIN).unwrap().views.len(), 1);
    let target = sent.target().unwrap();
    assert_eq!(target.size(), [2, 3, 1, 1]);
    assert_eq!(Vec::<u8>::try_from(target.get(1).flatten(0, -1)).unwrap(), [4, 5, 6]);
}

#[test]
fn views_are_found_by_their_names() {
    let mut b = batch();
    b.sets.clear();
    b.views = vec![
        view("global", 2, vec![0; 24]),
        view("global", 2, vec![255; 24]),
        view("local", 1, vec![51; 6]),
    ];
    let s = step_input(&b, 0..2, Device::Cpu, &PLAIN).unwrap();
    let reds: Vec<f64> = s.views_named("global").map(|v| v.double_value(&[1, 0, 1, 1])).collect();
    assert_eq!(reds, [0.0, 1.0]);
    assert_eq!(s.view("local").unwrap().size(), [2, 3, 1, 1]);
    assert!(s.view("image").is_none());
}

#[test]
fn wrong_buffers_are_named() {
    let mut b = batch();
    b.views[0].pixels.pop();
    let e = step_input(&b, 0..1, Device::Cpu, &PLAIN).unwrap_err();
    assert_eq!(e.to_string(), "batch: image (2×3×2×2) holds 23 values, its shape asks for 24");
}
