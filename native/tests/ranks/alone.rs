//! One rank pays nothing for the others that could be.

use std::fs;

use tch::Tensor;
use torch_ext::ranks::{Backend, Part, Ranks, Reduce, Reducer};

use crate::child::{join, report};
use crate::cluster::Cluster;
use crate::model::Model;

pub(crate) fn play(scenario: &str) -> bool {
    if scenario != "alone" {
        return false;
    }
    // What libtorch itself starts at its first backward is there before counting begins.
    let bare = train(None);
    let before = footprint();
    let ranks = join();
    let with = train(Some(&ranks));
    let x = Tensor::from_slice(&[1f32, 2.0]);
    ranks.all_reduce(&[(&x, Reduce::Mean)]).unwrap();
    assert_eq!(Vec::<f32>::try_from(&x).unwrap(), [1.0, 2.0]);
    assert_eq!(ranks.gather(&x).unwrap().size(), [1, 2]);
    assert_eq!(ranks.gather_bytes(b"abc").unwrap(), [b"abc"]);
    assert_eq!(ranks.tick(&[5, -5]).unwrap(), [5, -5]);
    ranks.broadcast(&[x.shallow_clone()]).unwrap();
    ranks.agree("anything", "x").unwrap();
    ranks.compare(&[("x".into(), x)]).unwrap();
    ranks.last_words().say("nobody listens").unwrap();
    assert!(ranks.last_words().heard().is_empty() && ranks.members().is_empty());
    assert_eq!((ranks.rank(), ranks.world()), (0, 1));
    assert_eq!(footprint(), before, "threads and open files");
    ranks.leave().unwrap();
    assert_eq!(footprint(), before, "threads and open files");
    assert_eq!(with, bare, "losses and gradients, bit for bit");
    report("steps", bare.len());
    true
}

#[test]
fn a_group_of_one_rank_is_tried_with_gloo_and_nccl_says_why_it_is_not() {
    let taken = Ranks::rehearse(tch::Device::Cpu, Backend::Gloo).unwrap();
    assert!(taken.as_secs_f64() < 10.0, "{taken:?}");
    let refused = Ranks::rehearse(tch::Device::Cpu, Backend::Nccl).unwrap_err().to_string();
    assert!(refused.contains("NCCL without CUDA"), "{refused}");
}

/// Threads, and what each open file is.
fn footprint() -> (usize, Vec<String>) {
    let threads = fs::read_dir("/proc/self/task").unwrap().count();
    let files = fs::read_dir("/proc/self/fd").unwrap().flatten();
    // The listing itself is a file that is gone now.
    let mut files: Vec<String> = files
        .filter_map(|f| fs::read_link(f.path()).ok())
        .map(|p| p.display().to_string())
        .filter(|p| !p.starts_with("/proc/"))
        .collect();
    files.sort();
    (threads, files)
}

/// Losses and gradients of three steps in two parts, as bits.
fn train(ranks: Option<&Ranks>) -> Vec<u64> {
    let model = Model::new(tch::Kind::Float, 5);
    let (x, y) = model.batch(8);
    let mut reducer = ranks.map(|r| Reducer::new(r, &model.named(), 1 << 14).unwrap());
    let mut bits = Vec::new();
    for _ in 0..3 {
        model.clear();
        if let Some(r) = &mut reducer {
            r.begin().unwrap();
        }
        for (i, part) in [Part::More, Part::Last].into_iter().enumerate() {
            let rows: Vec<i64> = (0..4).map(|k| k + 4 * i as i64).collect();
            let loss = model.word_loss(&model.features(&rows_of(&x, &rows)), &rows_of(&y, &rows)) / 2.0;
            match &mut reducer {
                Some(r) => r.backward(&loss, part).unwrap(),
                None => loss.backward(),
            }
            bits.push(loss.double_value(&[]).to_bits());
        }
        let grads: Vec<f32> = Vec::try_from(model.flat_grads()).unwrap();
        bits.extend(grads.iter().map(|g| u64::from(g.to_bits())));
    }
    bits
}

fn rows_of(t: &Tensor, rows: &[i64]) -> Tensor {
    t.index_select(1, &Tensor::from_slice(rows))
}

#[test]
fn a_world_of_one_has_no_thread_no_socket_and_the_same_gradients_bit_for_bit() {
    Cluster::new(1).succeed("alone");
}
