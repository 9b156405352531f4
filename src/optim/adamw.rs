//! AdamW (arXiv 1711.05101) with parameter groups, by libtorch's fused kernel.

use std::collections::BTreeMap;

use tch::{Kind, Tensor};
use torch_ext::AdamWLists;

use crate::optim::OptimError;
use crate::optim::clip::{ClipBy, Clipped, clip, grads};
use crate::optim::config::OptimConfig;

/// How one parameter is treated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ParamRule {
    /// Whether weight decay applies.
    pub decay: bool,
    /// Layers below the top, for layer-wise learning rates.
    pub layers_below_top: u32,
}

impl ParamRule {
    /// BEiT's rule: biases, norms and everything else of one dimension, class token and position tables do not decay; a mask
    /// token does.
    #[must_use]
    pub fn by_name(name: &str, dims: &[i64], layers_below_top: u32) -> Self {
        let last = name.rsplit('.').next().unwrap_or(name);
        let table = ["cls_token", "pos_embed", "relative_position_bias_table"].contains(&last);
        Self {
            decay: dims.len() > 1 && !table && !last.ends_with("bias"),
            layers_below_top,
        }
    }
}

/// The parameters that share a rule, with their moments; lists of one length, by name.
#[derive(Debug, Default)]
struct Group {
    names: Vec<String>,
    params: Vec<Tensor>,
    exp_avgs: Vec<Tensor>,
    exp_avg_sqs: Vec<Tensor>,
    steps: Vec<Tensor>,
}

impl Group {
    /// Adds the members that have a gradient to the lists of a fused call.
    fn add_to(&self, lists: &mut [Vec<Tensor>; 5]) {
        for i in (0..self.params.len()).filter(|&i| torch_ext::has_grad(&self.params[i])) {
            let row = [
                &self.params[i],
                &self.params[i].grad(),
                &self.exp_avgs[i],
                &self.exp_avg_sqs[i],
                &self.steps[i],
            ];
            for (list, t) in lists.iter_mut().zip(row) {
                list.push(t.shallow_clone());
            }
        }
    }
}

/// What a guarded step answers: scalars on the device, not read by the host.
#[derive(Debug)]
pub struct Stepped {
    /// Global gradient norm before clipping.
    pub norm: Tensor,
    /// f32: 1 if loss or norm was not finite and nothing was changed, else 0.
    pub skipped: Tensor,
}

/// Optimizer of named parameters. Weights and state are f32 on the parameters' device.
#[derive(Debug)]
pub struct AdamW {
    groups: BTreeMap<ParamRule, Group>,
    beta1: f64,
    beta2: f64,
    eps: f64,
    layer_decay: f64,
    clip_by: ClipBy,
}

impl AdamW {
    /// State of zeros for the trainable ones of `params`, grouped by what `rule` says of (name, shape).
    #[must_use]
    pub fn new(params: impl IntoIterator<Item = (String, Tensor)>, rule: impl Fn(&str, &[i64]) -> ParamRule, config: &OptimConfig) -> Self {
        // Sorted, because a variable store answers in random order and the order of a norm's sum must not change between runs.
        let params: BTreeMap<String, Tensor> = params.into_iter().filter(|(_, t)| t.requires_grad()).collect();
        let mut groups: BTreeMap<ParamRule, Group> = BTreeMap::new();
        for (name, param) in params {
            let group = groups.entry(rule(&name, &param.size())).or_default();
            tch::no_grad(|| {
                group.exp_avgs.push(param.zeros_like());
                group.exp_avg_sqs.push(param.zeros_like());
                group.steps.push(Tensor::zeros([], (Kind::Float, param.device())));
            });
            group.names.push(name);
            group.params.push(param);
        }
        Self {
            groups,
            beta1: config.beta1,
            beta2: config.beta2,
            eps: config.eps,
            layer_decay: config.layer_decay,
            clip_by: config.clip_by,
        }
    }

    /// Takes changed betas, epsilon, layer decay and way of clipping over; the state stays.
    pub fn reconfigure(&mut self, config: &OptimConfig) {
        (self.beta1, self.beta2, self.eps, self.layer_decay) = (config.beta1, config.beta2, config.eps, config.layer_decay);
        self.clip_by = config.clip_by;
    }

    /// All parameters, in the order of the groups.
    #[must_use]
    pub fn params(&self) -> Vec<Tensor> {
        self.groups
            .values()
            .flat_map(|g| g.params.iter().map(Tensor::shallow_clone))
            .collect()
    }

    /// Names of the parameters that decay.
    #[must_use]
    pub fn decaying(&self) -> Vec<&str> {
        self.groups
            .iter()
            .filter(|(rule, _)| rule.decay)
            .flat_map(|(_, g)| g.names.iter().map(String::as_str))
            .collect()
    }

    /// Drops all gradients.
    ///
    /// # Errors
    /// What libtorch said.
    pub fn zero_grad(&self) -> Result<(), OptimError> {
        Ok(torch_ext::clear_grads(&self.params())?)
    }

    /// Updates every parameter that has a gradient, as it is.
    ///
    /// # Errors
    /// What libtorch said.
    pub fn step(&mut self, lr: f64, weight_decay: f64) -> Result<(), OptimError> {
        self.update(lr, weight_decay, None)
    }

    /// Clips the gradients to the norm `max_norm` (0 = no clipping), all together or each by itself as `optim.clip_by` says, updates, and answers
    /// their global norm before clipping: a scalar on the device. If it is not finite, nothing changes. No host sync; all together they cost no pass of
    /// their own, because the fused kernel scales.
    ///
    /// # Errors
    /// No gradients, or what libtorch said.
    pub fn clipped_step(&mut self, lr: f64, weight_decay: f64, max_norm: f64) -> Result<Tensor, OptimError> {
        self.guarded_step(lr, weight_decay, max_norm, None).map(|done| done.norm)
    }

    /// As [`AdamW::clipped_step`]; a `loss` (a scalar on the device) that is not finite holds the step back too.
    ///
    /// # Errors
    /// No gradients, or what libtorch said.
    pub fn step_unless_nonfinite(&mut self, lr: f64, weight_decay: f64, max_norm: f64, loss: &Tensor) -> Result<Stepped, OptimError> {
        self.guarded_step(lr, weight_decay, max_norm, Some(loss))
    }

    fn guarded_step(&mut self, lr: f64, weight_decay: f64, max_norm: f64, loss: Option<&Tensor>) -> Result<Stepped, OptimError> {
        let Clipped { norm, divisor } = clip(&grads(&self.params())?, max_norm, self.clip_by)?;
        let skipped = tch::no_grad(|| {
            let finite = loss.map_or_else(|| norm.isfinite(), |l| norm.isfinite().logical_and(&l.detach().isfinite()));
            finite.logical_not().to_kind(Kind::Float)
        });
        self.update(lr, weight_decay, Some((divisor.as_ref(), &skipped)))?;
        Ok(Stepped { norm, skipped })
    }

    /// The lists of each fused call, by the bits of its rate and its decay: groups that are treated alike share a call, because on a GPU each has launches
    /// of its own.
    fn calls(&self, lr: f64, weight_decay: f64) -> BTreeMap<[u64; 2], [Vec<Tensor>; 5]> {
        let mut calls: BTreeMap<[u64; 2], [Vec<Tensor>; 5]> = BTreeMap::new();
        for (rule, group) in &self.groups {
            let rate = lr * self.layer_decay.powf(f64::from(rule.layers_below_top));
            let decay = if rule.decay { weight_decay } else { 0.0 };
            group.add_to(calls.entry([rate, decay].map(f64::to_bits)).or_default());
        }
        calls
    }

    fn update(&mut self, lr: f64, weight_decay: f64, guard: Option<(Option<&Tensor>, &Tensor)>) -> Result<(), OptimError> {
        for (numbers, [params, grads, exp_avgs, exp_avg_sqs, steps]) in self.calls(lr, weight_decay) {
            let [lr, weight_decay] = numbers.map(f64::from_bits);
            let lists = AdamWLists {
                params: &params,
                grads: &grads,
                exp_avgs: &exp_avgs,
                exp_avg_sqs: &exp_avg_sqs,
                steps: &steps,
            };
            let numbers = torch_ext::AdamW {
                lr,
                beta1: self.beta1,
                beta2: self.beta2,
                weight_decay,
                eps: self.eps,
            };
            torch_ext::fused_adamw(lists, numbers, guard.and_then(|g| g.0), guard.map(|g| g.1))?;
        }
        Ok(())
    }

    fn state_slots(&self) -> impl Iterator<Item = (String, &Tensor)> {
        self.groups.values().flat_map(|g| {
            (0..g.names.len()).flat_map(move |i| {
                [
                    ("exp_avg", &g.exp_avgs[i]),
                    ("exp_avg_sq", &g.exp_avg_sqs[i]),
                    ("step", &g.steps[i]),
                ]
                .map(|(kind, t)| (format!("{kind}.{}", g.names[i]), t))
            })
        })
    }

    /// The whole state by name: `exp_avg.NAME`, `exp_avg_sq.NAME`, `step.NAME`. Shares storage with the optimizer.
    #[must_use]
    pub fn state(&self) -> Vec<(String, Tensor)> {
        self.state_slots().map(|(name, t)| (name, t.shallow_clone())).collect()
    }

    /// Copies a state back in; extra names are ignored. Nothing changes on an error.
    ///
    /// # Errors
    /// A tensor is missing or of another shape.
    pub fn load_state(&mut self, state: impl IntoIterator<Item = (String, Tensor)>) -> Result<(), OptimError> {
        let state: BTreeMap<String, Tensor> = state.into_iter().collect();
        for (name, slot) in self.state_slots() {
            let saved = state.get(&name).ok_or_else(|| OptimError::Missing(name.clone()))?;
            if saved.size() != slot.size() {
                return Err(OptimError::Shape {
                    name,
                    got: saved.size(),
                    want: slot.size(),
                });
            }
        }
        tch::no_grad(|| {
            for (name, slot) in self.state_slots() {
                slot.shallow_clone().copy_(&state[&name]);
            }
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;

    fn variable(values: &[f32], dims: &[i64]) -> Tensor {
        Tensor::from_slice(values).view(dims).set_requires_grad(true)
    }

    fn optimizer(params: &[(&str, &Tensor)], config: &OptimConfig) -> AdamW {
        let named = params.iter().map(|(n, t)| ((*n).to_owned(), t.shallow_clone()));
        AdamW::new(named, |n, d| ParamRule::by_name(n, d, u32::from(n == "low.weight")), config)
    }

    #[test]
    fn who_decays() {
        let decays = |name: &str, dims: &[i64]| ParamRule::by_name(name, dims, 0).decay;
        assert!(decays("blocks.0.attn.qkv.weight", &[6, 2]) && decays("decoder.mask_token", &[1, 1, 2]));
        for (name, dims) in [
            ("norm.weight", vec![2]),
            ("cls_token", vec![1, 1, 2]),
            ("decoder.pos_embed", vec![1, 5, 2]),
            ("blocks.0.attn.q_bias", vec![2]),
        ] {
            assert!(!decays(name, &dims), "{name}");
        }
    }

    #[test]
    fn layers_that_learn_at_one_rate_are_updated_by_one_call() {
        let params: Vec<Tensor> = (0..6).map(|_| variable(&[1.0], &[1, 1])).collect();
        let sum = params.iter().fold(Tensor::from(0f32), |sum, w| sum + w);
        sum.sum(Kind::Float).backward();
        for (layer_decay, calls) in [(1.0, 1), (0.5, 6)] {
            let config = OptimConfig {
                layer_decay,
                ..Default::default()
            };
            let named = params.iter().enumerate().map(|(n, t)| (n.to_string(), t.shallow_clone()));
            let layer = |name: &str, _: &[i64]| ParamRule {
                decay: true,
                layers_below_top: name.parse().unwrap(),
            };
            let found = AdamW::new(named, layer, &config).calls(0.1, 0.05);
            assert_eq!(found.len(), calls, "layer decay {layer_decay}");
            assert_eq!(found.values().map(|[params, ..]| params.len()).sum::<usize>(), 6);
        }
    }

    #[test]
    fn decay_and_layer_rates_apply_by_group() {
        let (w, low, b) = (variable(&[1.0], &[1, 1]), variable(&[1.0], &[1, 1]), variable(&[1.0], &[1]));
        let config = OptimConfig {
            layer_decay: 0.5,
            ..Default::default()
        };
        let mut o = optimizer(&[("w.weight", &w), ("low.weight", &low), ("b", &b)], &config);
        (&w * 2.0 + &low * 2.0 + &b * 2.0).sum(Kind::Float).backward();
        o.step(0.1, 0.1).unwrap();
        let near = |t: &Tensor, want: f64| assert!((t.sum(Kind::Double).double_value(&[]) - want).abs() < 1e-6, "{t} {want}");
        near(&w, 0.99 - 0.1);
        near(&low, 0.995 - 0.05);
        near(&b, 0.9);
    }

    #[test]
    fn a_non_finite_gradient_changes_nothing() {
        for (clip_by, factor) in [(ClipBy::All, f64::NAN), (ClipBy::Tensor, f64::NAN), (ClipBy::Tensor, f64::INFINITY)] {
            let (w, other) = (variable(&[1.0], &[1, 1]), variable(&[1.0], &[1, 1]));
            let config = OptimConfig {
                clip_by,
                ..OptimConfig::default()
            };
            let mut o = optimizer(&[("w", &w), ("other", &other)], &config);
            (&w * factor + &other * 5.0).sum(Kind::Float).backward();
            let norm = o.clipped_step(0.1, 0.05, 3.0).unwrap();
            assert!(!norm.double_value(&[]).is_finite());
            assert_eq!([&w, &other].map(|t| t.double_value(&[0, 0])), [1.0, 1.0]);
            assert!(o.state().iter().all(|(_, t)| t.sum(Kind::Float).double_value(&[]) == 0.0));
        }
    }

    #[test]
    fn a_non_finite_loss_holds_back_finite_gradients() {
        let w = variable(&[1.0], &[1, 1]);
        let mut o = optimizer(&[("w", &w)], &OptimConfig::default());
        let step = |o: &mut AdamW, loss| {
            o.zero_grad().unwrap();
            (&w * 2.0).sum(Kind::Float).backward();
            o.step_unless_nonfinite(0.1, 0.05, 3.0, &Tensor::from(loss))
                .unwrap()
                .skipped
                .double_value(&[])
        };
        assert_eq!(step(&mut o, f64::INFINITY), 1.0);
        assert_eq!(w.double_value(&[0, 0]), 1.0);
        assert_eq!(step(&mut o, 4.0), 0.0);
        assert!(w.double_value(&[0, 0]) < 1.0);
    }

    #[test]
    fn state_goes_round_and_refuses_strangers() {
        let w = variable(&[1.0], &[1, 1]);
        let mut o = optimizer(&[("w", &w)], &OptimConfig::default());
        (&w * 2.0).sum(Kind::Float).backward();
        o.step(0.1, 0.0).unwrap();
        let saved: Vec<_> = o.state().into_iter().map(|(n, t)| (n, t.copy())).collect();
        let mut other = optimizer(&[("w", &w)], &OptimConfig::default());
        other.load_state(saved.iter().map(|(n, t)| (n.clone(), t.shallow_clone()))).unwrap();
        for ((name, got), (_, want)) in other.state().iter().zip(&saved) {
            assert_eq!(got, want, "{name}");
        }
        let e = other.load_state([]).unwrap_err();
        assert_eq!(
            e.to_string(),
            "optimizer state: exp_avg.w is missing; the checkpoint is of another model or objective"
        );
        let wrong = saved
            .iter()
            .map(|(n, _)| (n.clone(), Tensor::zeros([3], (Kind::Float, Device::Cpu))));
        assert!(matches!(other.load_state(wrong), Err(OptimError::Shape { .. })));
    }
}
