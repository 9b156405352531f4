//! Gradients over several ranks are those of one process that sees the whole batch.

use tch::{Kind, Tensor};
use torch_ext::ranks::{Part, Ranks, RanksError, Reduce, Reducer};
use torch_ext::{AdamW, AdamWLists, fused_adamw};

use crate::child::{join, leave_for, report, together};
use crate::cluster::Cluster;
use crate::model::{Model, descriptors, info_nce, relative};

/// Images in a whole batch.
const BATCH: i64 = 24;
/// Small, so that there are several.
const BUCKET: usize = 16 << 10;

pub(crate) fn play(scenario: &str) -> bool {
    match scenario {
        "gradients" => together(gradients),
        "coupled" => together(coupled),
        "missing" => missing(&join()),
        "other-parameters" => together(other_parameters),
        _ => return false,
    }
    true
}

/// What f32 sums in another order may differ by, and what f64 sums show: that it is the same sum.
fn limits() -> [(Kind, f64); 2] {
    [(Kind::Float, 5e-7), (Kind::Double, 1e-14)]
}

/// This rank's images of part `part` of `parts`: r, r + W, …, in order.
fn mine(ranks: &Ranks, part: i64, parts: i64) -> Vec<i64> {
    let (r, w) = (ranks.rank() as i64, ranks.world() as i64);
    let own: Vec<i64> = (r..BATCH).step_by(w as usize).collect();
    let n = own.len() / parts as usize;
    own[part as usize * n..(part as usize + 1) * n].to_vec()
}

fn rows(t: &Tensor, rows: &[i64]) -> Tensor {
    t.index_select(1, &Tensor::from_slice(rows))
}

struct Moments {
    m: Vec<Tensor>,
    v: Vec<Tensor>,
    steps: Vec<Tensor>,
}

impl Moments {
    fn of(model: &Model) -> Self {
        let zeros = || model.params().iter().map(|p| p.detach().zeros_like()).collect();
        let steps = model.params().iter().map(|_| Tensor::from(0f32)).collect();
        Self {
            m: zeros(),
            v: zeros(),
            steps,
        }
    }

    fn step(&self, model: &Model) {
        let params = model.params();
        let grads: Vec<Tensor> = params.iter().map(Tensor::grad).collect();
        let lists = AdamWLists {
            params: &params,
            grads: &grads,
            exp_avgs: &self.m,
            exp_avg_sqs: &self.v,
            steps: &self.steps,
        };
        let numbers = AdamW {
            lr: 1e-2,
            beta1: 0.9,
            beta2: 0.95,
            weight_decay: 0.05,
            eps: 1e-8,
        };
        fused_adamw(lists, numbers, None, None).unwrap();
    }
}

/// Five steps with and without extra parts; the reference is trained beside it by this process alone.
fn gradients(ranks: &Ranks) {
    for (kind, limit) in limits() {
        for parts in [1, 3] {
            let (model, whole) = (Model::new(kind, 3 + ranks.rank() as i64), Model::new(kind, 3));
            ranks.broadcast(&model.params()).unwrap();
            let mut reducer = Reducer::new(ranks, &model.named(), BUCKET).unwrap();
            let (own, one) = (Moments::of(&model), Moments::of(&whole));
            let (x, y) = whole.batch(BATCH);
            let mut worst: f64 = 0.0;
            for step in 0..5 {
                whole.clear();
                whole.word_loss(&whole.features(&x), &y).backward();
                model.clear();
                reducer.begin().unwrap();
                for part in 0..parts {
                    let take = mine(ranks, part, parts);
                    let loss = model.word_loss(&model.features(&rows(&x, &take)), &rows(&y, &take)) / parts as f64;
                    let last = part + 1 == parts;
                    let sent = reducer.traffic();
                    reducer.backward(&loss, if last { Part::Last } else { Part::More }).unwrap();
                    if !last {
                        assert_eq!(reducer.traffic(), sent, "an earlier part sends nothing");
                    }
                }
                worst = worst.max(relative(&model.flat_grads(), &whole.flat_grads()));
                // The same bits on all ranks.
                let all = ranks.gather(&model.flat_grads()).unwrap();
                for r in 1..ranks.world() as i64 {
                    assert!(
                        all.get(r).equal(&all.get(0)),
                        "step {step}: gradients of rank {r} differ from rank 0's"
                    );
                }
                let t = reducer.traffic();
                let bytes: usize = model.params().iter().map(|p| p.numel() * kind.elt_size_in_bytes()).sum();
                assert_eq!(t.bytes, bytes as u64);
                assert!(t.buckets > 2 && t.first <= t.last && t.last <= t.whole, "{t:?}");
                if step == 4 && ranks.rank() == 0 {
                    let ms = |d: std::time::Duration| d.as_secs_f64() * 1e3;
                    let name = format!("traffic-{kind:?}-{parts}");
                    report(
                        &name,
                        format!(
                            "{} buckets, {:.2} to {:.2} of {:.2} ms",
                            t.buckets,
                            ms(t.first),
                            ms(t.last),
                            ms(t.whole)
                        ),
                    );
                }
                own.step(&model);
                one.step(&whole);
                // Weights drift apart by rounding; gradients are compared from the same ones.
                for (p, q) in model.params().iter().zip(whole.params()) {
                    tch::no_grad(|| p.shallow_clone().copy_(&q));
                }
            }
            ranks.compare(&model.named()).unwrap();
            report(&format!("{kind:?}-{parts}"), worst);
            assert!(
                worst < limit,
                "{kind:?}, {parts} parts: gradients differ by {worst} from one process's"
            );
        }
    }
}

/// InfoNCE over the images of all ranks, the graph cut at the descriptors; in parts by the gradient cache (arXiv 2101.06983).
fn coupled(ranks: &Ranks) {
    let (r, w) = (ranks.rank() as i64, ranks.world() as i64);
    for (kind, limit) in limits() {
        for parts in [1, 3] {
            let (model, whole) = (Model::new(kind, 3), Model::new(kind, 3));
            let mut reducer = Reducer::new(ranks, &model.named(), BUCKET).unwrap();
            let (x, y) = whole.batch(BATCH);
            let features = whole.features(&x);
            let total = whole.word_loss(&features, &y) + info_nce(&descriptors(&features)) * 0.7;
            total.backward();
            for detached in [false, true] {
                model.clear();
                reducer.begin().unwrap();
                let own = tch::no_grad(|| {
                    let each: Vec<Tensor> = (0..parts)
                        .map(|part| descriptors(&model.features(&rows(&x, &mine(ranks, part, parts)))))
                        .collect();
                    Tensor::cat(&each, 1)
                });
                // W×2×n×D → 2×B×D.
                let n = BATCH / w;
                let all = ranks
                    .gather(&own)
                    .unwrap()
                    .transpose(0, 1)
                    .reshape([2, BATCH, -1])
                    .set_requires_grad(true);
                let couple = info_nce(&all) * 0.7;
                couple.backward();
                let g = all.grad().narrow(1, r * n, n);
                let mut words = 0.0;
                for part in 0..parts {
                    let take = mine(ranks, part, parts);
                    let features = model.features(&rows(&x, &take));
                    let described = descriptors(&features);
                    let word_loss = model.word_loss(&features, &rows(&y, &take)) / parts as f64;
                    words += word_loss.double_value(&[]);
                    let slice = g.narrow(1, part * n / parts, n / parts);
                    let pulled = (described * slice).sum(kind) * w as f64;
                    // Without the pull: descriptors gathered without gradient.
                    let loss = if detached { word_loss } else { word_loss + pulled };
                    reducer
                        .backward(&loss, if part + 1 == parts { Part::Last } else { Part::More })
                        .unwrap();
                }
                let error = relative(&model.flat_grads(), &whole.flat_grads());
                if detached {
                    assert!(error > 0.01, "the coupling term must weigh enough to be missed: {error}");
                    continue;
                }
                report(&format!("{kind:?}-{parts}"), error);
                // The gathered descriptors pass through f32 once more, which adds a rounding.
                assert!(
                    error < 2.0 * limit,
                    "{kind:?}, {parts} parts: gradients differ by {error} from one process's"
                );
                // The log's loss: means over the ranks.
                let logged = Tensor::from_slice(&[words + couple.double_value(&[])]);
                ranks.all_reduce(&[(&logged, Reduce::Mean)]).unwrap();
                assert!((logged.double_value(&[0]) - total.double_value(&[])).abs() < 10.0 * limit);
            }
        }
    }
}

/// A parameter that the last part does not use, on rank 1 only, though an earlier part did.
fn missing(ranks: &Ranks) {
    let model = Model::new(Kind::Float, 3);
    let extra = Tensor::zeros([3], (Kind::Float, tch::Device::Cpu)).set_requires_grad(true);
    let mut named = model.named();
    named.push(("unused.scale".into(), extra.shallow_clone()));
    let mut reducer = Reducer::new(ranks, &named, BUCKET).unwrap();
    let (x, y) = model.batch(4);
    for step in 0..2 {
        model.clear();
        torch_ext::clear_grads(&[extra.shallow_clone()]).unwrap();
        reducer.begin().unwrap();
        for part in [Part::More, Part::Last] {
            let mut loss = model.word_loss(&model.features(&x), &y);
            if part == Part::More || ranks.rank() != 1 || step == 0 {
                loss += extra.sum(Kind::Float);
            }
            if let Err(e) = reducer.backward(&loss, part) {
                report("step", step);
                leave_for(&e);
            }
        }
    }
}

fn other_parameters(ranks: &Ranks) {
    let mut named = Model::new(Kind::Float, 3).named();
    if ranks.rank() == 1 {
        let w = Tensor::zeros([50, 48], (Kind::Float, tch::Device::Cpu)).set_requires_grad(true);
        *named.iter_mut().find(|(name, _)| name == "head").unwrap() = ("head".into(), w);
    }
    match Reducer::new(ranks, &named, BUCKET).unwrap_err() {
        e @ RanksError::Misfit(_) => report("error", e),
        e => panic!("{e}"),
    }
    let usage = |named: &[(String, Tensor)]| match Reducer::new(ranks, named, BUCKET).unwrap_err() {
        RanksError::Usage { reason, .. } => reason,
        e => panic!("{e}"),
    };
    named.push(("frozen".into(), Tensor::from(1f32)));
    assert_eq!(usage(&named), "frozen needs no gradient");
    let twice = [named[0].0.clone(), named[0].0.clone()].map(|n| (n, named[0].1.shallow_clone()));
    assert_eq!(usage(&twice), "two parameters are called embed");
    assert_eq!(usage(&[]), "no parameters");
    // Nothing of this was a failure of a collective.
    assert_eq!(ranks.tick(&[1]).unwrap(), [1]);
}

fn on_two_and_four(scenario: &str) {
    for world in [2, 4] {
        for o in Cluster::new(world).succeed(scenario).iter().take(1) {
            for (name, value) in &o.reports {
                eprintln!("{scenario}, {world} ranks: {name} {value}");
            }
        }
    }
}

#[test]
fn gradients_are_those_of_one_process_with_and_without_extra_parts() {
    on_two_and_four("gradients");
}

#[test]
fn info_nce_over_all_ranks_is_exact_and_leaving_its_gradient_out_shows() {
    on_two_and_four("coupled");
}

#[test]
fn a_parameter_without_gradient_is_named_to_all() {
    for (rank, o) in Cluster::new(2).play("missing").iter().enumerate() {
        assert_eq!((o.code, o.report("step")), (Some(75), "1"), "{}", o.output);
        assert_eq!(o.report("kind"), if rank == 1 { "no-gradient" } else { "lost" });
        let error = o.report("error");
        assert!(error.contains("no gradient reached unused.scale in this backward"), "{error}");
        assert_eq!(error.starts_with("rank 1 on host "), rank == 0, "{error}");
    }
}

#[test]
fn a_rank_with_other_parameters_is_named_before_anything_is_sent() {
    for o in Cluster::new(2).succeed("other-parameters") {
        let error = o.report("error");
        assert!(
            error.contains("rank 1 on host ") && error.contains("has parameters \"head [50, 48] Float\""),
            "{error}"
        );
        assert!(error.contains("rank 0 has \"head [50, 32] Float\""), "{error}");
    }
}
