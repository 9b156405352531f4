//! L-BFGS (Liu & Nocedal 1989) for smooth convex functions: deterministic, no learning rate to tune.

use std::collections::VecDeque;

use tch::Tensor;

/// Pairs of steps and gradient changes that are remembered.
const MEMORY: usize = 10;
/// Halvings of a step at most.
const HALVINGS: u32 = 20;
/// Share of the linear decrease that a step must reach (Armijo).
const SUFFICIENT: f64 = 1e-4;
/// Relative decrease below which an iteration counts as none.
const TOLERANCE: f64 = 1e-6;

/// What a minimisation came to.
#[derive(Debug)]
pub struct Minimum {
    /// The point.
    pub at: Tensor,
    /// The value there.
    pub value: f64,
    /// Iterations taken.
    pub iterations: u32,
}

/// Minimises `function` (a point to value and gradient, both of the point's shape) from `start`, for `most` iterations or until two in a
/// row gain next to nothing. `None` once `go_on` says no, asked before each iteration.
pub fn minimise(
    start: &Tensor,
    most: u32,
    mut function: impl FnMut(&Tensor) -> (f64, Tensor),
    mut go_on: impl FnMut() -> bool,
) -> Option<Minimum> {
    let mut at = start.shallow_clone();
    let (mut value, mut gradient) = function(&at);
    let mut pairs: VecDeque<(Tensor, Tensor, f64)> = VecDeque::new();
    let (mut iterations, mut idle) = (0, 0);
    while iterations < most && idle < 2 {
        if !go_on() {
            return None;
        }
        let mut direction = -descent(&gradient, &pairs);
        let mut slope = dot(&direction, &gradient);
        if !(slope < 0.0) {
            // Rounding has spoilt the memory: start over from steepest descent.
            pairs.clear();
            direction = -&gradient;
            slope = dot(&direction, &gradient);
        }
        let mut step = if pairs.is_empty() { (1.0 / (-slope).sqrt()).min(1.0) } else { 1.0 };
        let mut found = None;
        for _ in 0..HALVINGS {
            let next = &at + &direction * step;
            let (v, g) = function(&next);
            if v <= value + SUFFICIENT * step * slope {
                found = Some((next, v, g));
                break;
            }
            step *= 0.5;
        }
        let Some((next, v, g)) = found else { break };
        iterations += 1;
        let (s, y) = (&next - &at, &g - &gradient);
        let curvature = dot(&s, &y);
        if curvature > 1e-12 {
            if pairs.len() == MEMORY {
                pairs.pop_front();
            }
            pairs.push_back((s, y, curvature));
        }
        idle = if value - v <= TOLERANCE * value.abs() { idle + 1 } else { 0 };
        (at, value, gradient) = (next, v, g);
    }
    Some(Minimum { at, value, iterations })
}

/// The gradient times the approximate inverse Hessian of the remembered pairs: the two-loop recursion.
fn descent(gradient: &Tensor, pairs: &VecDeque<(Tensor, Tensor, f64)>) -> Tensor {
    let mut q = gradient.copy();
    let mut shares = Vec::with_capacity(pairs.len());
    for (s, y, curvature) in pairs.iter().rev() {
        let share = dot(s, &q) / curvature;
        q -= y * share;
        shares.push(share);
    }
    if let Some((_, y, curvature)) = pairs.back() {
        q *= curvature / dot(y, y);
    }
    for ((s, y, curvature), share) in pairs.iter().zip(shares.into_iter().rev()) {
        let back = dot(y, &q) / curvature;
        q += s * (share - back);
    }
    q
}

fn dot(a: &Tensor, b: &Tensor) -> f64 {
    (a * b).sum(tch::Kind::Double).double_value(&[])
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind};

    use super::*;

    #[derive(serde::Deserialize)]
    struct Fixture {
        x: Vec<[f64; 4]>,
        labels: Vec<i64>,
        solutions: Vec<Solution>,
    }

    #[derive(serde::Deserialize)]
    struct Solution {
        decay: f64,
        loss: f64,
        weights: Vec<[f64; 3]>,
    }

    /// Softmax regression over columns of very different size, as tests/fixtures/make_softmax_regression.py has it solved.
    #[test]
    fn softmax_regressions_end_where_those_of_scikit_learn_do() {
        let text = include_str!("../../tests/fixtures/softmax_regression.json");
        let Fixture { x, labels, solutions } = serde_json::from_str(text).unwrap();
        let n = x.len() as f64;
        let x = Tensor::cat(
            &[
                Tensor::from_slice2(&x),
                Tensor::ones([x.len() as i64, 1], (Kind::Double, Device::Cpu)),
            ],
            1,
        );
        let target = Tensor::from_slice(&labels).one_hot(3).to_kind(Kind::Double);
        assert_eq!(solutions.len(), 3);
        for solution in solutions {
            let function = |w: &Tensor| {
                let log_p = x.matmul(w).log_softmax(1, Kind::Double);
                let matrix = w.narrow(0, 0, 4);
                let value = -dot(&log_p, &target) / n + 0.5 * solution.decay * dot(&matrix, &matrix);
                let gradient = x.tr().matmul(&(log_p.exp() - &target)) / n;
                let _ = gradient.narrow(0, 0, 4).g_add_(&(matrix * solution.decay));
                (value, gradient)
            };
            let start = Tensor::zeros([5, 3], (Kind::Double, Device::Cpu));
            let found = minimise(&start, 1000, function, || true).unwrap();
            let excess = found.value / solution.loss - 1.0;
            let logits = x.matmul(&(&found.at - Tensor::from_slice2(&solution.weights)));
            let off = (&logits - logits.mean_dim([1i64].as_slice(), true, Kind::Double))
                .abs()
                .max()
                .double_value(&[]);
            assert!(
                (-1e-7..1e-4).contains(&excess) && off < 0.05 && found.iterations < 300,
                "decay {}: {excess:e} above scikit-learn's loss, logits differ by {off}, {} iterations",
                solution.decay,
                found.iterations
            );
            assert!(minimise(&start, 100, function, || false).is_none());
        }
    }
}
