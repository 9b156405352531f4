use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::*;
use crate::file::sha256;

const SIDE: usize = 40;

/// The pictures of `tests/fixtures/make_rand_augment.py`, as planes.
fn picture(k: usize) -> Vec<u8> {
    let level = |y: usize, x: usize, c: usize| match k {
        0 => ((((y * SIDE + x) * 3 + c) as u64 * 2_654_435_761) as u32 >> 24) as u8,
        _ => [40 + 3 * x + (7 * x + 13 * y) % 5, 30 + 4 * y, 210 - x - 2 * y][c] as u8,
    };
    let places = |c: usize| (0..SIDE * SIDE).map(move |i| level(i / SIDE, i % SIDE, c));
    (0..3).flat_map(places).collect()
}

fn named(name: &str, argument: f64) -> Operation {
    let factor = argument as f32;
    match name {
        "auto-contrast" => Operation::AutoContrast,
        "equalize" => Operation::Equalize,
        "invert" => Operation::Invert,
        "rotate" => Operation::Rotate(argument),
        "posterize" => Operation::Posterize(argument as u32),
        "solarise" => Operation::Solarise(argument as u32),
        "solarise-add" => Operation::SolariseAdd(argument as u32),
        "colour" => Operation::Colour(factor),
        "contrast" => Operation::Contrast(factor),
        "brightness" => Operation::Brightness(factor),
        "sharpness" => Operation::Sharpness(factor),
        "shear-x" => Operation::ShearX(argument),
        "shear-y" => Operation::ShearY(argument),
        "translate-x" => Operation::TranslateX(argument),
        "translate-y" => Operation::TranslateY(argument),
        other => panic!("{other}"),
    }
}

#[test]
fn every_operation_gives_pillows_bytes() {
    let mut copy = vec![];
    let mut kinds = std::collections::BTreeSet::new();
    let mut wrong = vec![];
    for line in include_str!("pillow.tsv").lines() {
        let [name, argument, k, want] = line.split('\t').collect::<Vec<_>>()[..] else {
            panic!("{line}")
        };
        let mut view = picture(k.parse().unwrap());
        named(name, argument.parse().unwrap()).apply(&mut view, SIDE, &mut copy);
        if sha256(&view) != want {
            wrong.push(format!("{name} {argument} of picture {k}"));
        }
        kinds.insert(name.to_owned());
    }
    assert_eq!(wrong, [""; 0]);
    assert_eq!(kinds.len(), OPERATIONS);
}

#[test]
fn arguments_are_those_of_timm_at_magnitude_nine() {
    let at = |which, negative| Operation::at(which, 9.0, negative);
    let near = |operation: Operation, want: f64| {
        let (Operation::Rotate(x) | Operation::ShearX(x) | Operation::ShearY(x) | Operation::TranslateX(x) | Operation::TranslateY(x)) =
            operation
        else {
            let (Operation::Colour(x) | Operation::Contrast(x) | Operation::Brightness(x) | Operation::Sharpness(x)) = operation else {
                panic!("{operation:?}")
            };
            return assert!((f64::from(x) - want).abs() < 1e-6, "{operation:?}");
        };
        assert!((x - want).abs() < 1e-12, "{operation:?}");
    };
    for (which, want) in [(3, 27.0), (11, 0.27), (12, 0.27), (13, 0.405), (14, 0.405)] {
        near(at(which, false), want);
        near(at(which, true), -want);
    }
    for which in 7..=10 {
        near(at(which, false), 1.81);
        near(at(which, true), 0.19);
    }
    near(Operation::at(8, 10.0, true), 0.1);
    assert_eq!(
        [4, 5, 6].map(|which| at(which, true)),
        [Operation::Posterize(1), Operation::Solarise(26), Operation::SolariseAdd(99)]
    );
    assert_eq!(Operation::at(4, 10.0, false), Operation::Posterize(1));
    assert_eq!(
        [4, 5, 6].map(|which| Operation::at(which, 0.0, true)),
        [Operation::Posterize(4), Operation::Solarise(256), Operation::SolariseAdd(0)]
    );
}

#[test]
fn each_operation_comes_equally_often_and_every_other_one_is_applied() {
    let asked = RandAugment {
        magnitude: 9.0,
        deviation: 0.5,
    };
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    let (mut kinds, mut angles) = (std::collections::BTreeMap::<_, usize>::new(), vec![]);
    for _ in 0..20_000 {
        for operation in RandAugmentDraw::random(Some(&asked), &mut rng).0.into_iter().flatten() {
            let name = format!("{operation:?}");
            *kinds.entry(name.split('(').next().unwrap().to_owned()).or_default() += 1;
            if let Operation::Rotate(degrees) = operation {
                angles.push(degrees);
            }
        }
    }
    // 40,000 draws, half of them applied: 1333 of each, with a standard deviation of 36.
    assert_eq!(kinds.len(), OPERATIONS);
    assert!(kinds.values().all(|n| (1180..1490).contains(n)), "{kinds:?}");
    let mean = angles.iter().map(|a| a.abs()).sum::<f64>() / angles.len() as f64;
    assert!((mean - 27.0).abs() < 0.2 && angles.iter().all(|a| a.abs() <= 30.0), "{mean}");
    let negative = angles.iter().filter(|a| **a < 0.0).count() as f64 / angles.len() as f64;
    assert!((negative - 0.5).abs() < 0.06, "{negative}");
    let mut untouched = ChaCha8Rng::seed_from_u64(5);
    assert_eq!(RandAugmentDraw::random(None, &mut untouched), RandAugmentDraw::default());
    assert_eq!(untouched, ChaCha8Rng::seed_from_u64(5), "nothing is drawn where none is asked for");
}
