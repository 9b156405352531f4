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

    /// An ill-conditioned quadratic has its minimum where algebra says.
    #[test]
    fn finds_the_minimum_of_a_quadratic() {
        let scale = Tensor::from_slice(&[1.0f32, 10.0, 300.0, 0.05]);
        let centre = Tensor::from_slice(&[3.0f32, -2.0, 0.5, 40.0]);
        let function = |x: &Tensor| {
            let off = x - &centre;
            (dot(&(&off * &scale), &off) / 2.0, &off * &scale)
        };
        let start = Tensor::zeros([4], (Kind::Float, Device::Cpu));
        let found = minimise(&start, 100, function, || true).unwrap();
        let off = (&found.at - &centre).abs().max().double_value(&[]);
        assert!(off < 1e-2 && found.iterations < 60, "{off} after {}", found.iterations);
        assert!(minimise(&start, 100, function, || false).is_none());
    }
}
