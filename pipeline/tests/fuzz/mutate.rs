//! Mutated inputs from seeds, on a stable compiler: bounded in CI, longer by hand.
//!
//! `SPLITMASK_FUZZ_INPUTS=1000000` sets the number of inputs of each target, `SPLITMASK_FUZZ_FACTOR=1000` multiplies it, `SPLITMASK_FUZZ_SEED`
//! takes other ones. A failure names target, seed and number of the input and leaves the input in a file.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

const EDGES: [u8; 10] = [0, 1, 0x7f, 0x80, 0xff, b'0', b'7', b'/', b' ', b'\n'];

fn variable(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| {
        text.parse().unwrap_or_else(|_| panic!("{name} = {text:?} is no whole number"))
    })
}

/// Runs `check` on `count` inputs; each is a seed with one to eight changes.
pub(crate) fn fuzz(target: &str, seeds: &[Vec<u8>], count: u64, mut check: impl FnMut(&[u8])) {
    let seed = variable("SPLITMASK_FUZZ_SEED", 1);
    let count = variable("SPLITMASK_FUZZ_INPUTS", count) * variable("SPLITMASK_FUZZ_FACTOR", 1);
    println!("{target}: {count} inputs, SPLITMASK_FUZZ_SEED={seed}");
    for number in 0..count {
        let mut rng = ChaCha8Rng::seed_from_u64(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ number);
        let mut input = seeds[rng.random_range(0..seeds.len())].clone();
        for _ in 0..rng.random_range(1..=8) {
            change(&mut input, seeds, &mut rng);
        }
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| check(&input))) {
            let file = std::env::temp_dir().join(format!("splitmask-fuzz-{target}-{seed}-{number}"));
            let kept = std::fs::write(&file, &input).map_or_else(|e| e.to_string(), |()| file.display().to_string());
            eprintln!("{target}: input {number} of SPLITMASK_FUZZ_SEED={seed} fails; kept in {kept}");
            resume_unwind(panic);
        }
    }
}

fn change(input: &mut Vec<u8>, seeds: &[Vec<u8>], rng: &mut ChaCha8Rng) {
    if input.is_empty() {
        input.push(rng.random());
        return;
    }
    let at = rng.random_range(0..input.len());
    // Short pieces mostly, long ones sometimes.
    let longest = if rng.random_bool(0.2) {
        input.len() - at
    } else {
        (input.len() - at).min(16)
    };
    let end = at + rng.random_range(1..=longest);
    match rng.random_range(0..9) {
        0 => input[at] ^= 1 << rng.random_range(0..8),
        1 => input[at] = EDGES[rng.random_range(0..EDGES.len())],
        2 => input[at] = rng.random(),
        3 => drop(input.drain(at..end)),
        4 => {
            let piece = input[at..end].to_vec();
            let to = rng.random_range(0..=input.len());
            input.splice(to..to, piece);
        }
        5 => {
            // Another seed's piece over this one's.
            let other = &seeds[rng.random_range(0..seeds.len())];
            let from = rng.random_range(0..=other.len());
            let piece = &other[from..(from + end - at).min(other.len())];
            input.splice(at..(at + piece.len()).min(end), piece.iter().copied());
        }
        6 => input.truncate(at),
        // A digit in a number: sizes, lengths, counts.
        7 => {
            let digits: Vec<usize> = (0..input.len()).filter(|&i| input[i].is_ascii_digit()).collect();
            if !digits.is_empty() {
                input[digits[rng.random_range(0..digits.len())]] = b'0' + rng.random_range(0..10);
            }
        }
        _ => input[at..end].fill(EDGES[rng.random_range(0..EDGES.len())]),
    }
}
