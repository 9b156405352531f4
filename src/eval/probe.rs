//! Linear probes of frozen features, layer by layer (arXiv 2112.10740 Fig. 5; arXiv 2106.08254 App. D; docs/method.md §5).
//!
//! One softmax regression a layer on standardised features (the role of the batch norm without scale in front of published probes). Its
//! loss is convex and is minimised over the whole set at once, so there is no learning rate, batch order or seed; only the weight decay is
//! swept, and chosen on a fifth of the *training* images that the sweep does not see. So is the best layer: the validation set chooses
//! nothing.

use serde::Serialize;
use tch::{Kind, Tensor};

use super::baseline::Baseline;
use super::classes::Matched;
use super::error::EvalError;
use super::features::Layered;
use super::lbfgs::minimise;
use super::pool::Pool;

/// Weight decays of the sweep, strong to weak: each fit starts from the one before. The weakest is chosen most often; two weaker ones (1e-5, 1e-6) gave five
/// encoders at most one point more on held-out images, and one of them five points less on validation images of another origin.
const DECAYS: [f64; 4] = [1e-1, 1e-2, 1e-3, 1e-4];
/// Of so many images of a class, the last one is held out to choose the weight decay.
const HOLD_OUT: usize = 5;
/// Iterations of a fit at most.
const ITERATIONS: u32 = 100;

/// The probe of one layer.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Probe {
    /// Layer, from 1; the last one is taken after the final norm.
    pub layer: usize,
    /// What of its tokens.
    pub pool: Pool,
    /// Chosen weight decay.
    pub weight_decay: f64,
    /// Accuracy on the held-out fifth of the training images, at that weight decay.
    pub held_out: f64,
    /// Accuracy on the validation images, after a fit to all training images.
    pub top1: f64,
}

/// Outcome of a linear evaluation.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Probes {
    /// One per layer and pool.
    pub probes: Vec<Probe>,
    /// The probe with the highest held-out accuracy.
    pub best: Probe,
    /// What they are held against.
    #[serde(flatten)]
    pub baseline: Baseline,
}

/// Indices (fitted, held out): every [`HOLD_OUT`]th image of each class is held out.
fn divide(labels: &[i64], classes: usize) -> (Tensor, Tensor) {
    let mut seen = vec![0usize; classes];
    let (mut fitted, mut held) = (Vec::new(), Vec::new());
    for (i, label) in labels.iter().enumerate() {
        seen[*label as usize] += 1;
        if seen[*label as usize].is_multiple_of(HOLD_OUT) {
            held.push(i as i64);
        } else {
            fitted.push(i as i64);
        }
    }
    (Tensor::from_slice(&fitted), Tensor::from_slice(&held))
}

/// Softmax regression: weights (D+1)×C, the bias last and free of weight decay. `x_nd` has a last column of ones.
struct Regression<'a> {
    x_nd: &'a Tensor,
    labels: &'a Tensor,
    classes: i64,
}

impl Regression<'_> {
    fn fit(&self, decay: f64, start: &Tensor, mut go_on: impl FnMut() -> bool) -> Result<Tensor, EvalError> {
        let n = self.x_nd.size()[0] as f64;
        let target = self.labels.one_hot(self.classes).to_kind(Kind::Float);
        let features = start.size()[0] - 1;
        let loss = |w: &Tensor| {
            let logits = self.x_nd.matmul(w);
            let log_p = logits.log_softmax(1, Kind::Float);
            let matrix = w.narrow(0, 0, features);
            let nll = -(&log_p * &target).sum(Kind::Double).double_value(&[]) / n;
            let penalty = 0.5 * decay * (&matrix * &matrix).sum(Kind::Double).double_value(&[]);
            let gradient = self.x_nd.tr().matmul(&(log_p.exp() - &target)) / n;
            let mut part = gradient.narrow(0, 0, features);
            part += matrix * decay;
            (nll + penalty, gradient)
        };
        let found = minimise(start, ITERATIONS, loss, &mut go_on).ok_or(EvalError::OutOfTime)?;
        Ok(found.at)
    }

    fn accuracy(&self, w: &Tensor) -> f64 {
        if self.x_nd.size()[0] == 0 {
            return f64::NAN;
        }
        let said = self.x_nd.matmul(w).argmax(1, false);
        said.eq_tensor(self.labels)
            .to_kind(Kind::Double)
            .mean(Kind::Double)
            .double_value(&[])
    }
}

/// Columns to mean 0 and deviation 1 over the references, and a column of ones.
fn standardised(references: &Tensor, queries: &Tensor) -> (Tensor, Tensor) {
    let mean = references.mean_dim([0i64].as_slice(), true, Kind::Float);
    let std = (references - &mean)
        .square()
        .mean_dim([0i64].as_slice(), true, Kind::Float)
        .sqrt()
        .clamp_min(1e-6);
    let of = |x: &Tensor| {
        let ones = Tensor::ones([x.size()[0], 1], (Kind::Float, x.device()));
        Tensor::cat(&[(x - &mean) / &std, ones], 1)
    };
    (of(references), of(queries))
}

/// Probes every layer of `references` and `queries`, among the classes that count. `go_on` hears (probes done, probes in all) before every iteration and
/// may end it.
///
/// # Errors
/// [`EvalError::OutOfTime`] once `go_on` says no; what libtorch said.
pub fn probe(
    references: &Layered,
    queries: &Layered,
    matched: &Matched,
    mut go_on: impl FnMut(usize, usize) -> bool,
) -> Result<Probes, EvalError> {
    let (rows, labels): (Vec<i64>, Vec<i64>) = matched.references.iter().copied().unzip();
    let (query_rows, query_labels): (Vec<i64>, Vec<i64>) = matched.queries.iter().copied().unzip();
    let (fitted, held) = divide(&labels, matched.classes.len());
    let classes = matched.classes.len() as i64;
    let device = references.vectors[0].device();
    let on_device = |numbers: &[i64]| Tensor::from_slice(numbers).to_device(device);
    let (rows, query_rows) = (on_device(&rows), on_device(&query_rows));
    let (labels, query_labels) = (on_device(&labels), on_device(&query_labels));
    let (fitted, held) = (fitted.to_device(device), held.to_device(device));
    let (fitted_labels, held_labels) = (labels.index_select(0, &fitted), labels.index_select(0, &held));
    let of = references.vectors.len();
    let mut probes: Vec<Probe> = Vec::with_capacity(of);
    for (done, (place, (train, val))) in references
        .places
        .iter()
        .zip(references.vectors.iter().zip(&queries.vectors))
        .enumerate()
    {
        let (train, val) = standardised(&train.f_index_select(0, &rows)?, &val.f_index_select(0, &query_rows)?);
        let (x_fitted, x_held) = (train.index_select(0, &fitted), train.index_select(0, &held));
        let part = Regression {
            x_nd: &x_fitted,
            labels: &fitted_labels,
            classes,
        };
        let unseen = Regression {
            x_nd: &x_held,
            labels: &held_labels,
            classes,
        };
        let mut w = Tensor::zeros([train.size()[1], classes], (Kind::Float, device));
        let mut chosen: Option<(f64, f64, Tensor)> = None;
        for decay in DECAYS {
            w = part.fit(decay, &w, || go_on(done, of))?;
            let accuracy = unseen.accuracy(&w);
            // Ties go to the stronger weight decay.
            if chosen.as_ref().is_none_or(|(_, best, _)| accuracy > *best) {
                chosen = Some((decay, accuracy, w.shallow_clone()));
            }
        }
        let (weight_decay, held_out, start) = chosen.expect("there is a weight decay");
        let whole = Regression {
            x_nd: &train,
            labels: &labels,
            classes,
        };
        let w = whole.fit(weight_decay, &start, || go_on(done, of))?;
        let query = Regression {
            x_nd: &val,
            labels: &query_labels,
            classes,
        };
        probes.push(Probe {
            layer: place.0,
            pool: place.1,
            weight_decay,
            held_out,
            top1: query.accuracy(&w),
        });
    }
    let mut best = probes[0];
    for p in &probes {
        if p.held_out > best.held_out {
            best = *p;
        }
    }
    Ok(Probes {
        best,
        probes,
        baseline: Baseline::of(matched),
    })
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;
    use crate::eval::classes::{Labels, match_classes};

    /// Two layers: one whose features tell three classes apart by a line, one of noise.
    fn layered(n: i64, seed: i64) -> Layered {
        tch::manual_seed(seed);
        let options = (Kind::Float, Device::Cpu);
        // Labels with gaps, one of them absurd.
        let which = Tensor::arange(n, (Kind::Int64, Device::Cpu)).remainder(3);
        let labels = (0..n).map(|i| [2, 5, 4_000_000_000][(i % 3) as usize]).collect();
        let centres = Tensor::from_slice2(&[[9.0f32, 0.0, 100.0], [0.0, 9.0, 100.0], [-9.0, -9.0, 100.0]]);
        let good = centres.index_select(0, &which) + Tensor::randn([n, 3], options);
        let noise = Tensor::randn([n, 3], options);
        Layered {
            places: vec![(1, Pool::Mean), (2, Pool::Mean)],
            vectors: vec![noise, good],
            labels: Labels {
                of: labels,
                ..Labels::default()
            },
        }
    }

    fn probed(references: &Layered, queries: &Layered, go_on: bool) -> Result<Probes, EvalError> {
        let matched = match_classes(&references.labels, &queries.labels, 1)?;
        probe(references, queries, &matched, |_, _| go_on)
    }

    #[test]
    fn separable_classes_are_separated_and_noise_is_not() {
        let _turn = crate::tensor::alone();
        let (references, queries) = (layered(300, 1), layered(90, 2));
        let got = probed(&references, &queries, true).unwrap();
        let baseline = &got.baseline;
        assert_eq!((baseline.classes, baseline.references, baseline.queries), (3, 300, 90));
        assert!((baseline.majority - 1.0 / 3.0).abs() < 1e-9 && (baseline.chance - 1.0 / 3.0).abs() < 1e-9);
        assert_eq!(got.best.layer, 2);
        assert!(got.probes[1].top1 == 1.0 && got.probes[1].held_out == 1.0, "{got:?}");
        assert!(got.probes[0].top1 < 0.6, "{got:?}");
        assert_eq!(probed(&references, &queries, true).unwrap(), got, "the same again");
    }

    #[test]
    fn ends_when_told_and_leaves_out_classes_without_references() {
        let _turn = crate::tensor::alone();
        let (references, mut queries) = (layered(300, 1), layered(90, 2));
        assert!(matches!(probed(&references, &queries, false), Err(EvalError::OutOfTime)));
        queries.labels.of[..45].fill(12);
        let got = probed(&references, &queries, true).unwrap();
        assert_eq!((got.baseline.queries, got.probes[1].top1), (45, 1.0), "{got:?}");
        assert_eq!(
            (got.baseline.remarks.left_out.len(), got.baseline.remarks.left_out[0].number),
            (1, 45),
            "{got:?}"
        );
    }

    #[test]
    fn the_fit_is_the_minimum() {
        let _turn = crate::tensor::alone();
        let data = layered(300, 1);
        let (x, _) = standardised(&data.vectors[1], &data.vectors[1]);
        let matched = match_classes(&data.labels, &data.labels, 1).unwrap();
        let labels = Tensor::from_slice(&matched.references.iter().map(|(_, class)| *class).collect::<Vec<_>>());
        let regression = Regression {
            x_nd: &x,
            labels: &labels,
            classes: 3,
        };
        let start = Tensor::zeros([4, 3], (Kind::Float, Device::Cpu));
        let w = regression.fit(1e-2, &start, || true).unwrap();
        // Autograd agrees that there is no slope left.
        let w = w.detach().set_requires_grad(true);
        let matrix = w.narrow(0, 0, 3);
        let loss = x.matmul(&w).cross_entropy_for_logits(&labels) + (&matrix * &matrix).sum(Kind::Float) * 0.5e-2;
        loss.backward();
        let slope = w.grad().abs().max().double_value(&[]);
        assert!(slope < 2e-3, "{slope}");
    }
}
