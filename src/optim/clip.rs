//! Gradient clipping: by the norm of all gradients together, or of each by itself.

use serde::{Deserialize, Serialize};
use tch::Tensor;

use crate::optim::OptimError;

/// What `optim.clip` is the largest norm of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ClipBy {
    /// All gradients together, which keep their direction: PyTorch's `clip_grad_norm_`.
    All,
    /// The gradient of each parameter by itself: `clip_gradients` in the code of DINO (arXiv 2104.14294).
    Tensor,
}

/// What is known of gradients before they are clipped, and what is left to do; scalars on the device, not read by the host.
pub(super) struct Clipped {
    /// Their global 2-norm before. It is not finite if one of them is not, however they are clipped.
    pub(super) norm: Tensor,
    /// What the update must still divide all of them by, at least 1.
    pub(super) divisor: Option<Tensor>,
}

/// Clips gradients to the norm `max_norm` (0 = not at all) without a host sync. All together they are left to the update, whose kernel divides on its way;
/// each by itself they are scaled here, in one more pass with a kernel for each.
///
/// # Errors
/// What libtorch said.
pub(super) fn clip(grads: &[Tensor], max_norm: f64, by: ClipBy) -> Result<Clipped, OptimError> {
    let (each, norm) = torch_ext::norms(grads)?;
    let divisor = match by {
        _ if max_norm <= 0.0 => None,
        ClipBy::All => Some(excess(&norm, max_norm)),
        ClipBy::Tensor => {
            torch_ext::scale_each(grads, &excess(&each, max_norm).reciprocal())?;
            None
        }
    };
    Ok(Clipped { norm, divisor })
}

/// How many times too long norms are, at least 1. PyTorch multiplies by min(1, max/(norm + 1e-6)); this is the inverse.
fn excess(norms: &Tensor, max_norm: f64) -> Tensor {
    tch::no_grad(|| ((norms + 1e-6) / max_norm).clamp_min(1.0))
}

/// The gradients of those of `params` that have one.
///
/// # Errors
/// None has.
pub(super) fn grads(params: &[Tensor]) -> Result<Vec<Tensor>, OptimError> {
    let grads: Vec<Tensor> = params.iter().filter(|p| torch_ext::has_grad(p)).map(Tensor::grad).collect();
    if grads.is_empty() {
        return Err(OptimError::NoGradient);
    }
    Ok(grads)
}

/// Scales the gradients so that their global 2-norm is at most `max_norm`, as PyTorch's `clip_grad_norm_`; answers the norm before, a
/// scalar on the device.
///
/// # Errors
/// No gradients, or what libtorch said.
pub fn clip_grad_norm(params: &[Tensor], max_norm: f64) -> Result<Tensor, OptimError> {
    let grads = grads(params)?;
    let norm = torch_ext::global_norm(&grads)?;
    let factor = tch::no_grad(|| ((&norm + 1e-6).reciprocal() * max_norm).clamp_max(1.0));
    torch_ext::scale(&grads, &factor)?;
    Ok(norm)
}

#[cfg(test)]
mod tests {
    use tch::Kind;

    use super::*;
    use crate::optim::config::OptimConfig;
    use crate::optim::{AdamW, ParamRule};

    fn variable(values: &[f32]) -> Tensor {
        Tensor::from_slice(values).set_requires_grad(true)
    }

    /// Begins with clipping by the global norm and changes to `by`, as a reload does. Epsilon is large, so that the lengths of gradients matter.
    fn optimizer(params: [(&str, &Tensor); 2], by: ClipBy) -> AdamW {
        let config = OptimConfig {
            eps: 0.1,
            ..OptimConfig::default()
        };
        let named = params.map(|(name, t)| (name.to_owned(), t.shallow_clone()));
        let mut adamw = AdamW::new(named, |n, d| ParamRule::by_name(n, d, 0), &config);
        adamw.reconfigure(&OptimConfig { clip_by: by, ..config });
        adamw
    }

    #[test]
    fn by_tensor_only_those_that_are_too_long_are_cut() {
        let case = || [Tensor::from_slice(&[3f32, 4.0]).view([2, 1]), Tensor::from_slice(&[0.6f32, 0.8])];
        let near = |t: &Tensor, want: [f32; 2]| {
            let off = (t.flatten(0, -1) - Tensor::from_slice(&want)).abs().max();
            assert!(off.double_value(&[]) < 1e-5, "{t}, wanted {want:?}");
        };
        let long = case();
        let clipped = clip(&long, 2.0, ClipBy::Tensor).unwrap();
        assert!(clipped.divisor.is_none(), "nothing is left to the update");
        assert!((clipped.norm.double_value(&[]) - 26f64.sqrt()).abs() < 1e-5);
        near(&long[0], [1.2, 1.6]);
        assert_eq!(long[1], case()[1]);
        for (max_norm, by) in [(0.0, ClipBy::Tensor), (0.0, ClipBy::All), (2.0, ClipBy::All)] {
            let left = case();
            let clipped = clip(&left, max_norm, by).unwrap();
            assert_eq!(left, case(), "{by:?} at {max_norm}");
            let divisor = clipped.divisor.map(|t| t.double_value(&[]));
            assert_eq!(divisor.is_some_and(|d| (d - 26f64.sqrt() / 2.0).abs() < 1e-5), max_norm > 0.0);
        }
    }

    #[test]
    fn clipping_inside_the_step_equals_clipping_before() {
        let run = |by: ClipBy, inside: bool| {
            let (w, b) = (variable(&[1.0, -2.0]), variable(&[0.3]));
            let mut o = optimizer([("w", &w), ("b", &b)], by);
            for i in 0..3 {
                o.zero_grad().unwrap();
                ((&w * &w).sum(Kind::Float) * f64::from(i + 1) + (&b * &b).sum(Kind::Float)).backward();
                if inside {
                    let _ = o.clipped_step(0.1, 0.05, 0.7).unwrap();
                    continue;
                }
                let together = match by {
                    ClipBy::All => vec![o.params()],
                    ClipBy::Tensor => o.params().into_iter().map(|p| vec![p]).collect(),
                };
                for params in together {
                    let _ = clip_grad_norm(&params, 0.7).unwrap();
                }
                o.step(0.1, 0.05).unwrap();
            }
            Tensor::cat(&[w.detach(), b.detach()], 0)
        };
        let apart = |a: &Tensor, b: &Tensor| (a - b).abs().max().double_value(&[]);
        for by in [ClipBy::All, ClipBy::Tensor] {
            assert!(apart(&run(by, true), &run(by, false)) < 1e-6, "{by:?}");
        }
        assert!(apart(&run(ClipBy::All, true), &run(ClipBy::Tensor, true)) > 1e-3);
    }

    /// DINO's code clips every gradient and then drops that of its last layer (arXiv 2104.14294, `cancel_gradients_last_layer`); here that layer has none
    /// while it is frozen. By tensor it is the same, by the global norm it would not be.
    #[test]
    fn a_gradient_that_is_clipped_and_dropped_leaves_the_others_as_one_that_never_was() {
        let body_after = |by: ClipBy, dropped: bool| {
            let (body, last) = (variable(&[1.0, -2.0]), variable(&[3.0]));
            let mut o = optimizer([("body", &body), ("last", &last)], by);
            (&body * &body).sum(Kind::Float).backward();
            if dropped {
                (&last * 100.0).sum(Kind::Float).backward();
                match by {
                    ClipBy::All => drop(clip_grad_norm(&o.params(), 0.7).unwrap()),
                    ClipBy::Tensor => drop(clip(&grads(&o.params()).unwrap(), 0.7, by).unwrap()),
                }
                torch_ext::clear_grads(&[last.shallow_clone()]).unwrap();
                o.step(0.1, 0.05).unwrap();
            } else {
                let _ = o.clipped_step(0.1, 0.05, 0.7).unwrap();
            }
            assert_eq!(last.double_value(&[0]), 3.0);
            body.detach()
        };
        assert_eq!(body_after(ClipBy::Tensor, true), body_after(ClipBy::Tensor, false));
        assert_ne!(body_after(ClipBy::All, true), body_after(ClipBy::All, false));
    }

    #[test]
    fn no_gradient_is_an_error() {
        let w = variable(&[1.0]);
        assert!(matches!(clip_grad_norm(&[w], 1.0), Err(OptimError::NoGradient)));
    }
}
