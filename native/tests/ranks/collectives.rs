//! Each collective gives what it says, on 2 and 4 ranks.

use std::time::{Duration, Instant};

use tch::{Device, Kind, Tensor};
use torch_ext::ranks::{Ranks, RanksError, Reduce, TICK_WORDS};

use crate::child::{join, together};
use crate::cluster::Cluster;

pub(crate) fn play(scenario: &str) -> bool {
    match scenario {
        "ticks" => together(ticks),
        "reduce" => together(reduce),
        "move" => together(gather_and_broadcast),
        "agree" => together(agree),
        "orderly-end" => {
            for _ in 0..3 {
                join().leave().unwrap();
            }
        }
        _ => return false,
    }
    true
}

fn values<T: TryFrom<Tensor>>(t: &Tensor) -> T
where
    T::Error: std::fmt::Debug,
{
    T::try_from(t.flatten(0, -1).to_device(Device::Cpu)).unwrap()
}

fn ticks(ranks: &Ranks) {
    let (r, w) = (ranks.rank() as i64, ranks.world() as i64);
    assert_eq!(ranks.tick(&[r, -r, 7]).unwrap(), [w - 1, 0, 7]);
    assert!(ranks.tick(&[]).unwrap().is_empty());
    let full: Vec<i64> = (0..TICK_WORDS as i64).map(|i| i * r).collect();
    assert_eq!(
        ranks.tick(&full).unwrap(),
        (0..TICK_WORDS as i64).map(|i| i * (w - 1)).collect::<Vec<_>>()
    );
    assert_eq!(ranks.tick(&[i64::MIN, i64::MAX]).unwrap(), [i64::MIN, i64::MAX]);
    assert!(matches!(ranks.tick(&[0; TICK_WORDS + 1]), Err(RanksError::Usage { .. })));
    // On its way while other collectives run: it is answered without anybody waiting for it.
    let sum = || {
        let loss = Tensor::from(r as f32);
        ranks.all_reduce(&[(&loss, Reduce::Sum)]).unwrap();
        assert_eq!(loss.double_value(&[]), (w * (w - 1) / 2) as f64);
    };
    let tick = ranks.begin_tick(&[r]).unwrap();
    sum();
    let began = Instant::now();
    while !tick.is_ready() {
        assert!(began.elapsed() < Duration::from_secs(60), "no answer");
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(tick.finish().unwrap(), [w - 1]);
    // One rank begins when the others have looked: they have no answer before.
    if r == w - 1 {
        sum();
    }
    let tick = ranks.begin_tick(&[r]).unwrap();
    if r < w - 1 {
        assert!(!tick.is_ready());
        sum();
    }
    assert_eq!(tick.finish().unwrap(), [w - 1]);
}

fn reduce(ranks: &Ranks) {
    let (r, w) = (ranks.rank() as i64, ranks.world() as i64);
    let sum = w * (w - 1) / 2;
    let loss = Tensor::from(r as f32 + 0.5);
    let grid = Tensor::arange(6, (Kind::Float, Device::Cpu)).view([2, 3]) + r as f64;
    let words = Tensor::from_slice(&[r, 10 * r, 1]);
    let largest = Tensor::from_slice(&[-(r as f64), r as f64]);
    let half = Tensor::from_slice(&[r as f32, 1.0]).to_kind(Kind::BFloat16);
    // A view whose memory is not in order; what lies between must not change.
    let base = Tensor::zeros([3, 2], (Kind::Float, Device::Cpu));
    let column = base.select(1, 1);
    let _ = column.shallow_clone().fill_(r as f64);
    let leaf = Tensor::from(r as f32).set_requires_grad(true);
    ranks
        .all_reduce(&[
            (&loss, Reduce::Mean),
            (&grid, Reduce::Sum),
            (&words, Reduce::Sum),
            (&largest, Reduce::Max),
            (&half, Reduce::Sum),
            (&column, Reduce::Mean),
            (&leaf, Reduce::Max),
        ])
        .unwrap();
    let mean = sum as f64 / w as f64;
    assert_eq!(loss.double_value(&[]), mean + 0.5);
    assert_eq!(grid.size(), [2, 3]);
    assert_eq!(values::<Vec<f32>>(&grid), (0..6).map(|i| (i * w + sum) as f32).collect::<Vec<_>>());
    assert_eq!(values::<Vec<i64>>(&words), [sum, 10 * sum, w]);
    assert_eq!(values::<Vec<f64>>(&largest), [0.0, (w - 1) as f64]);
    assert_eq!(values::<Vec<f32>>(&half.to_kind(Kind::Float)), [sum as f32, w as f32]);
    assert_eq!(values::<Vec<f32>>(&base), [0.0, mean as f32].repeat(3));
    assert_eq!(leaf.double_value(&[]), (w - 1) as f64);
    assert!(leaf.requires_grad() && leaf.is_leaf());
    ranks.all_reduce(&[]).unwrap();
    // NaN on one rank reaches all.
    let loss = Tensor::from(if r == 1 { f32::NAN } else { 1.0 });
    ranks.all_reduce(&[(&loss, Reduce::Mean)]).unwrap();
    assert!(loss.double_value(&[]).is_nan());
    // What no rank can do is refused before anything is sent, and the ranks stay together.
    assert!(matches!(ranks.all_reduce(&[(&words, Reduce::Mean)]), Err(RanksError::Usage { .. })));
    let flag = Tensor::from(true);
    assert!(matches!(ranks.all_reduce(&[(&flag, Reduce::Max)]), Err(RanksError::Usage { .. })));
    assert_eq!(ranks.tick(&[r]).unwrap(), [w - 1]);
}

fn gather_and_broadcast(ranks: &Ranks) {
    let (r, w) = (ranks.rank(), ranks.world());
    let own = (Tensor::arange(6, (Kind::Float, Device::Cpu)).view([3, 2]) + 100.0 * r as f64).set_requires_grad(true);
    let all = ranks.gather(&own).unwrap();
    assert_eq!(all.size(), [w as i64, 3, 2]);
    assert!(!all.requires_grad());
    let wanted: Vec<f32> = (0..w).flat_map(|r| (0..6).map(move |i| (i + 100 * r) as f32)).collect();
    assert_eq!(values::<Vec<f32>>(&all), wanted);
    let turned = ranks.gather(&own.tr()).unwrap();
    assert_eq!(values::<Vec<f32>>(&turned.transpose(1, 2)), wanted);
    let brought = ranks.bring(&own).unwrap();
    assert_eq!(brought.is_some(), r == 0);
    if let Some(all) = brought {
        assert_eq!(values::<Vec<f32>>(&all), wanted);
    }
    // Images are mixed with the batch's in the reverse order, of which these are the partners.
    let with = w - 1 - r;
    let theirs = ranks.exchange(&own, with).unwrap();
    let wanted: Vec<f32> = (0..6).map(|i| (i + 100 * with) as f32).collect();
    assert_eq!((theirs.size(), values::<Vec<f32>>(&theirs)), (vec![3, 2], wanted));
    let bytes = ranks.exchange(&Tensor::from_slice(&[r as u8, 7]), with).unwrap();
    assert_eq!(values::<Vec<u8>>(&bytes), [with as u8, 7]);
    assert_eq!(ranks.exchange(&own, r).unwrap(), own);
    assert!(matches!(ranks.exchange(&own, w), Err(RanksError::Usage { .. })));
    let ids = ranks.gather(&Tensor::from(r as i64)).unwrap();
    assert_eq!(values::<Vec<i64>>(&ids), (0..w as i64).collect::<Vec<_>>());
    assert_eq!(
        ranks.gather(&Tensor::zeros([0, 4], (Kind::Float, Device::Cpu))).unwrap().size(),
        [w as i64, 0, 4]
    );

    let bytes = vec![r as u8; 3 * r];
    assert_eq!(
        ranks.gather_bytes(&bytes).unwrap(),
        (0..w).map(|r| vec![r as u8; 3 * r]).collect::<Vec<_>>()
    );
    assert_eq!(ranks.gather_bytes(&[]).unwrap(), vec![Vec::<u8>::new(); w]);

    // A model: many tensors of several kinds and layouts, leaves among them.
    let make = |seed: i64| -> Vec<Tensor> {
        tch::manual_seed(seed);
        let f = |shape: &[i64]| Tensor::randn(shape, (Kind::Float, Device::Cpu));
        let mut list: Vec<Tensor> = (0..40).map(|i| f(&[i + 1, 7]).set_requires_grad(i % 2 == 0)).collect();
        list.push(f(&[]));
        list.push(f(&[5, 4]).transpose(0, 1));
        list.push(f(&[6]).to_kind(Kind::Double));
        list.push(f(&[6]).to_kind(Kind::BFloat16));
        list.push(Tensor::randint(100, [9], (Kind::Int64, Device::Cpu)));
        list
    };
    let mine = make(r as i64);
    ranks.broadcast(&mine).unwrap();
    for (i, (got, wanted)) in mine.iter().zip(make(0)).enumerate() {
        assert!(got.equal(&wanted), "tensor {i}");
        assert_eq!(got.requires_grad(), wanted.requires_grad());
    }
    ranks.broadcast(&[]).unwrap();
}

fn agree(ranks: &Ranks) {
    let (r, w) = (ranks.rank(), ranks.world());
    ranks.agree("codebook", "f00").unwrap();
    let shards = if r == 1 { "a 1\nb 3\nc 1" } else { "a 1\nb 2\nc 1" };
    let text = ranks.agree("shard list", shards).unwrap_err().to_string();
    assert!(
        text.starts_with("the ranks do not fit together: rank 1 on host ")
            && text.ends_with("has shard list \"b 3\" (line 2), rank 0 has \"b 2\" (line 2)"),
        "{text}"
    );
    let named = |spoil: bool| -> Vec<(String, Tensor)> {
        let f = |name: &str, kind| {
            (
                name.to_owned(),
                Tensor::arange(12, (Kind::Float, Device::Cpu)).view([3, 4]).to_kind(kind),
            )
        };
        let list = vec![
            f("a", Kind::Float),
            f("b", Kind::BFloat16),
            f("c", Kind::Double),
            f("d", Kind::Int64),
            f("e", Kind::Float),
        ];
        if spoil {
            // One bit of one number.
            let number = f32::from_bits(7f32.to_bits() ^ 1);
            let _ = list[4].1.get(1).get(3).fill_(f64::from(number));
            let _ = list[2].1.get(0).get(0).fill_(-0.0);
        }
        list
    };
    ranks.compare(&named(false)).unwrap();
    let text = ranks.compare(&named(r == w - 1)).unwrap_err().to_string();
    assert!(
        text.contains(&format!("rank {} on host ", w - 1)) && text.contains("holds another c than rank 0"),
        "{text}"
    );
    // Two numbers exchanged.
    let x = Tensor::from_slice(if r == 1 { &[1f32, 2.0, 3.0] } else { &[2f32, 1.0, 3.0] });
    assert!(matches!(ranks.compare(&[("x".into(), x)]), Err(RanksError::Drift(_))));
    // A difference that was found is no failure of a call.
    ranks.compare(&named(false)).unwrap();
}

fn on_two_and_four(scenario: &str) {
    for world in [2, 4] {
        Cluster::new(world).succeed(scenario);
    }
}

#[test]
fn a_tick_gives_everybody_the_largest_while_other_things_run() {
    on_two_and_four("ticks");
}

#[test]
fn all_reduce_takes_sums_means_and_maxima_of_a_list_in_place() {
    on_two_and_four("reduce");
}

#[test]
fn gather_and_broadcast_move_every_shape_and_kind() {
    on_two_and_four("move");
}

#[test]
fn who_holds_something_else_is_named_to_all() {
    on_two_and_four("agree");
}

#[test]
fn an_orderly_end_disturbs_nobody_and_the_next_join_at_the_same_port_works() {
    on_two_and_four("orderly-end");
}

#[test]
fn the_same_calls_pass_when_they_are_checked() {
    let cluster = Cluster::new(2).env("TEST_CHECKED", "1");
    cluster.succeed("reduce");
    cluster.succeed("move");
}
