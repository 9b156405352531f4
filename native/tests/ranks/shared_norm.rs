//! Batch normalisation over all ranks is that of one process with the whole batch, values and gradients.

use std::time::{Duration, Instant};

use tch::{Device, Kind, Tensor};
use torch_ext::ranks::{Part, Ranks, RanksError, Reduce, Reducer};

use crate::child::{join, leave_for, report, together};
use crate::cluster::Cluster;
use crate::model::relative;

/// Images of a batch; each has two rows, one in each group.
const BATCH: i64 = 12;
const WIDTHS: [i64; 3] = [6, 9, 5];
const EPSILON: f64 = 1e-5;

pub(crate) fn play(scenario: &str) -> bool {
    match scenario {
        "normalised" => together(normalised),
        "lost-in-norm" => lost(&join()),
        "late-in-norm" => together(late),
        _ => return false,
    }
    true
}

/// Two layers, each with a batch normalisation.
struct Net {
    kind: Kind,
    weights: Vec<(String, Tensor)>,
}

impl Net {
    fn new(kind: Kind) -> Self {
        tch::manual_seed(4);
        let weight = |i: usize| {
            let w = Tensor::randn([WIDTHS[i + 1], WIDTHS[i]], (Kind::Double, Device::Cpu)).to_kind(kind);
            (format!("layer.{i}"), w.set_requires_grad(true))
        };
        Self {
            kind,
            weights: vec![weight(0), weight(1)],
        }
    }

    /// Rows of `groups` groups one behind the other. A new network's rows lie around 30, far from where a variance by squares would still be exact.
    fn batch(&self) -> Tensor {
        tch::manual_seed(5);
        let x = Tensor::randn([2, BATCH, WIDTHS[0]], (Kind::Double, Device::Cpu)) + 30.0;
        x.to_kind(self.kind)
    }

    /// A loss whose gradient has no symmetry, mean over the rows; `norm` normalises a layer's rows.
    fn loss(&self, x: &Tensor, norm: &dyn Fn(&Tensor) -> Tensor) -> Tensor {
        let rows = x.flatten(0, 1);
        let first = norm(&rows.matmul(&self.weights[0].1.tr())).relu();
        let second = norm(&first.matmul(&self.weights[1].1.tr()));
        let slopes = Tensor::arange(WIDTHS[2], (self.kind, Device::Cpu)) + 1.0;
        (second.tanh() * slopes + second.square() * &second).mean(self.kind)
    }

    fn grads(&self) -> Tensor {
        let grads: Vec<Tensor> = self.weights.iter().map(|(_, w)| w.grad().flatten(0, -1)).collect();
        Tensor::cat(&grads, 0)
    }
}

/// libtorch's, of two groups in one process.
fn alone(x: &Tensor) -> Tensor {
    let normal = |x: &Tensor| x.batch_norm::<Tensor>(None, None, None, None, true, 0.1, EPSILON, false);
    Tensor::cat(&x.chunk(2, 0).iter().map(normal).collect::<Vec<_>>(), 0)
}

fn normalised(ranks: &Ranks) {
    let (r, w) = (ranks.rank() as i64, ranks.world() as i64);
    for (kind, limit) in [(Kind::Float, 5e-5), (Kind::Double, 1e-12)] {
        let (own, whole) = (Net::new(kind), Net::new(kind));
        let mut reducer = Reducer::new(ranks, &own.weights, 1 << 20).unwrap();
        let x = whole.batch();
        let want = whole.loss(&x, &alone);
        want.backward();
        let mine = x.slice(1, r, None, w);
        reducer.begin().unwrap();
        let loss = own.loss(&mine, &|x| ranks.normalised(x, 2, EPSILON).unwrap().0);
        reducer.backward(&loss, Part::Last).unwrap();
        let error = relative(&own.grads(), &whole.grads());
        report(&format!("{kind:?}"), error);
        assert!(error < limit, "{kind:?}: gradients differ by {error} from one process's");

        let (rows, statistics) = ranks.normalised(&mine.flatten(0, 1), 2, EPSILON).unwrap();
        assert!(!rows.requires_grad());
        let (var, mean) = x.var_mean_dim([1i64].as_slice(), false, false);
        assert!(relative(&statistics, &Tensor::stack(&[mean, var], 0)) < limit);
        let all = alone(&x.flatten(0, 1)).view([2, BATCH, -1]).slice(1, r, None, w);
        assert!(relative(&rows.view_as(&all), &all) < limit);
    }
    let x = Tensor::zeros([4, 3], (Kind::Float, Device::Cpu));
    for (x, groups) in [(&x, 3), (&x, 0), (&x.view([-1]), 1), (&x.to_kind(Kind::Int64), 1)] {
        assert!(matches!(ranks.normalised(x, groups, EPSILON), Err(RanksError::Usage { .. })));
    }
    assert_eq!(ranks.tick(&[r]).unwrap(), [w - 1]);
}

/// The last rank ends between forward and backward: the others wait for it inside of backward.
fn lost(ranks: &Ranks) {
    let net = Net::new(Kind::Float);
    let mut reducer = Reducer::new(ranks, &net.weights, 1 << 20).unwrap();
    reducer.begin().unwrap();
    let loss = net.loss(&net.batch(), &|x| ranks.normalised(x, 2, EPSILON).unwrap().0);
    // All have their statistics.
    ranks.tick(&[0]).unwrap();
    if ranks.rank() == 1 {
        std::thread::sleep(Duration::from_millis(200));
        ranks.last_words().say("no more paper").unwrap();
        torch_ext::ranks::leave_at_once(9);
    }
    leave_for(&reducer.backward(&loss, Part::Last).unwrap_err())
}

/// How late rank 1 comes, each time.
const LATE: Duration = Duration::from_millis(800);

/// Rank 1 is late to a normalisation's forward, to its backward and to a sum: tells how long each rank waited in each, and how long each took it.
fn late(ranks: &Ranks) {
    let (before, began) = (std::cell::Cell::new(Duration::ZERO), std::cell::Cell::new(Instant::now()));
    let waited = |name: &str| {
        let now = ranks.waited();
        report(name, (now - before.replace(now)).as_secs_f64());
        report(&format!("{name}-wall"), began.replace(Instant::now()).elapsed().as_secs_f64());
    };
    let come = || {
        if ranks.rank() == 1 {
            std::thread::sleep(LATE);
        }
    };
    let net = Net::new(Kind::Float);
    let mut reducer = Reducer::new(ranks, &net.weights, 1 << 20).unwrap();
    reducer.begin().unwrap();
    come();
    ranks.tick(&[0]).unwrap();
    waited("between");
    come();
    let loss = net.loss(&net.batch(), &|x| ranks.normalised(x, 2, EPSILON).unwrap().0);
    waited("forward");
    come();
    reducer.backward(&loss, Part::Last).unwrap();
    waited("backward");
    come();
    ranks.all_reduce(&[(&Tensor::from(1f32), Reduce::Sum)]).unwrap();
    waited("sum");
}

/// Waiting is counted inside of a backward too, and once. What is waited between two steps is not that of a step.
#[test]
fn the_time_that_a_rank_waits_for_a_late_one_is_counted() {
    let outcomes = Cluster::new(2).succeed("late-in-norm");
    let of = |rank: usize, name: &str| [outcomes[rank].number(name), outcomes[rank].number(&format!("{name}-wall"))];
    let half = LATE.as_secs_f64() / 2.0;
    for name in ["forward", "backward", "sum"] {
        let ([waits, whole], [late, late_whole]) = (of(0, name), of(1, name));
        assert!(waits > half && waits <= whole + 0.01, "{name}: {waits} of {whole} s");
        assert!(late < late_whole - half, "{name}: {late} of {late_whole} s");
    }
    assert_eq!(of(0, "between")[0], 0.0);
}

#[test]
fn batch_normalisation_over_all_ranks_has_one_processs_values_and_gradients() {
    for world in [2, 4] {
        for (name, value) in &Cluster::new(world).succeed("normalised")[0].reports {
            eprintln!("{world} ranks: {name} {value}");
        }
    }
}

#[test]
fn a_rank_lost_inside_of_a_normalisations_backward_is_named() {
    let outcomes = Cluster::new(2).play("lost-in-norm");
    let first = &outcomes[0];
    assert_eq!((first.code, first.report("kind")), (Some(75), "lost"), "{}", first.output);
    let error = first.report("error");
    assert!(error.contains("rank 1 on host") && error.contains("no more paper"), "{error}");
}
