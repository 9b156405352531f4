//! Exponential moving average of the weights.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use crate::optim::OptimError;
use crate::setting::{Findings, settings};

/// Prefix of an averaged weight's name in a checkpoint: `ema.blocks.0.norm1.weight`.
pub const EMA_PREFIX: &str = "ema.";

/// Which weights of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Weights {
    /// Those that are trained.
    #[default]
    Raw,
    /// Their moving average.
    Ema,
}

impl Weights {
    /// Its value in configs and on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Ema => "ema",
        }
    }
}

settings! {
    /// `[ema]`: averaged weights beside the trained ones.
    pub struct EmaConfig in "ema" {
        /// Share of the averaged weights that a step keeps; 0 = no averaging; turning it on or off is a restart.
        Live (Restart at 0) decay: f64 = 0.0,
    }
}

impl EmaConfig {
    /// Checks ranges.
    pub fn check(&self, found: &mut Findings) {
        found.need((0.0..1.0).contains(&self.decay), "ema.decay", self.decay, "0 (off) to below 1");
    }
}

/// Averages of parameters, f32 on their device: after each step that was not skipped, average ← decay · average + (1 − decay) · weight.
#[derive(Debug)]
pub struct Ema {
    names: Vec<String>,
    weights: Vec<Tensor>,
    averages: Vec<Tensor>,
}

impl Ema {
    /// Averages that begin as the weights are now.
    #[must_use]
    pub fn new(params: impl IntoIterator<Item = (String, Tensor)>) -> Self {
        let mut params: Vec<(String, Tensor)> = params.into_iter().collect();
        params.sort_by(|a, b| a.0.cmp(&b.0));
        let (names, weights): (Vec<_>, Vec<_>) = params.into_iter().unzip();
        let mut ema = Self {
            averages: Vec::with_capacity(weights.len()),
            names,
            weights,
        };
        ema.averages = tch::no_grad(|| ema.weights.iter().map(|w| w.detach().copy()).collect());
        ema
    }

    /// Takes a step's weights in; where the scalar `skipped` (f32, on the device) is 1, nothing changes. No host sync.
    ///
    /// # Errors
    /// What libtorch said.
    pub fn update(&self, decay: f64, skipped: &Tensor) -> Result<(), OptimError> {
        let weight = tch::no_grad(|| (1.0 - skipped.to_kind(Kind::Float)) * (1.0 - decay));
        Ok(torch_ext::lerp(&self.averages, &self.weights, &weight)?)
    }

    /// Exchanges weights and averages; a second call takes that back, bit for bit.
    ///
    /// # Errors
    /// What libtorch said (no memory for the copy of one weight); everything is then as before.
    pub fn swap(&mut self) -> Result<(), OptimError> {
        for i in 0..self.weights.len() {
            if let Err(e) = self.exchange(i) {
                (0..i).try_for_each(|done| self.exchange(done))?;
                return Err(e);
            }
        }
        Ok(())
    }

    fn exchange(&mut self, i: usize) -> Result<(), OptimError> {
        tch::no_grad(|| {
            let (weight, average) = (&mut self.weights[i], &mut self.averages[i]);
            let mut before = weight.f_empty_like()?;
            before.f_copy_(weight)?;
            weight.f_copy_(average)?;
            average.f_copy_(&before)?;
            Ok(())
        })
    }

    /// The averages under [`EMA_PREFIX`] and their weight's name. Shares storage.
    #[must_use]
    pub fn state(&self) -> Vec<(String, Tensor)> {
        let named = self.names.iter().zip(&self.averages);
        named.map(|(name, t)| (format!("{EMA_PREFIX}{name}"), t.shallow_clone())).collect()
    }

    /// Copies the averages out of a checkpoint's tensors; without any there, they begin as the weights are now. Answers whether there were any.
    ///
    /// # Errors
    /// Some are there and one is missing or of another shape.
    pub fn load(&mut self, saved: &[(String, Tensor)]) -> Result<bool, OptimError> {
        let there = saved.iter().any(|(name, _)| name.starts_with(EMA_PREFIX));
        let mut from = Vec::new();
        for (name, weight) in self.names.iter().zip(&self.weights) {
            let name = format!("{EMA_PREFIX}{name}");
            from.push(match saved.iter().find(|(n, _)| *n == name) {
                Some((_, t)) if t.size() == weight.size() => t.shallow_clone(),
                Some((_, t)) => {
                    return Err(OptimError::Shape {
                        name,
                        got: t.size(),
                        want: weight.size(),
                    });
                }
                None if there => return Err(OptimError::Missing(name)),
                None => weight.detach(),
            });
        }
        tch::no_grad(|| self.averages.iter_mut().zip(&from).for_each(|(average, t)| average.copy_(t)));
        Ok(there)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(ema: &Ema) -> f64 {
        ema.state()[0].1.double_value(&[0])
    }

    #[test]
    fn equals_the_closed_formula_and_rests_on_skipped_steps() {
        let mut w = Tensor::from_slice(&[1f32]).set_requires_grad(true);
        let mut ema = Ema::new([("w".to_owned(), w.shallow_clone())]);
        let decay: f64 = 0.9;
        let values = [3.0, -2.0, 5.0, 0.5, 4.0];
        for value in values {
            let _ = tch::no_grad(|| w.fill_(value));
            ema.update(decay, &Tensor::from(0f32)).unwrap();
            ema.update(decay, &Tensor::from(1f32)).unwrap();
        }
        // decay^n · start + (1 − decay) Σ decay^(n−i) · value_i
        let n = values.len() as i32;
        let sum: f64 = (1..).zip(values).map(|(i, v)| decay.powi(n - i) * v).sum();
        let want = decay.powi(n) * 1.0 + (1.0 - decay) * sum;
        assert!((one(&ema) - want).abs() < 1e-6, "{} {want}", one(&ema));
        ema.swap().unwrap();
        assert!((w.double_value(&[0]) - want).abs() < 1e-6);
        assert_eq!(one(&ema), 4.0);
        ema.swap().unwrap();
        assert_eq!(w.double_value(&[0]), 4.0);
    }

    #[test]
    fn a_state_goes_round_and_none_begins_with_the_weights() {
        let w = Tensor::from_slice(&[1f32]);
        let named = || [("w".to_owned(), w.shallow_clone())];
        let mut ema = Ema::new(named());
        let saved = vec![
            ("w".to_owned(), Tensor::from_slice(&[1f32])),
            ("ema.w".to_owned(), Tensor::from_slice(&[7f32])),
        ];
        assert!(ema.load(&saved).unwrap());
        assert_eq!((one(&ema), w.double_value(&[0])), (7.0, 1.0));
        assert!(!ema.load(&saved[..1]).unwrap());
        assert_eq!(one(&ema), 1.0);
        let wrong = vec![("ema.w".to_owned(), Tensor::from_slice(&[7f32, 8.0]))];
        assert!(matches!(ema.load(&wrong), Err(OptimError::Shape { .. })));
        let other = vec![("ema.v".to_owned(), Tensor::from_slice(&[7f32]))];
        assert!(matches!(ema.load(&other), Err(OptimError::Missing(_))));
    }
}
