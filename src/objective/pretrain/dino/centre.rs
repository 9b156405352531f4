//! What the teacher's outputs lose before its temperature, so that it uses all of them: their running mean (arXiv 2104.14294 §3.1, Eq. 4), or what makes
//! them equally frequent in a batch (Sinkhorn-Knopp, arXiv 2006.09882 §3.1; DINOv2, arXiv 2304.07193 §4).

use std::cell::RefCell;

use serde::{Deserialize, Serialize};
use tch::nn::Path;
use tch::{Kind, Tensor};
use torch_ext::ranks::{Ranks, RanksError, Reduce};

use crate::loss::sinkhorn_centre;
use crate::objective::StepContext;

/// `objective.centring`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Centring {
    /// A running mean.
    Mean,
    /// Sinkhorn-Knopp.
    Sinkhorn,
}

/// The centre of the outputs of one head for one kind of token.
#[derive(Debug)]
pub(super) enum Centre {
    /// Kept from step to step.
    Mean(RunningMean),
    /// Found anew for each batch.
    Sinkhorn(Gathered),
}

/// Mean of the outputs of the steps before.
#[derive(Debug)]
pub(super) struct RunningMean {
    /// f32 K, a buffer.
    pub(super) mean: Tensor,
    /// Sum of the outputs over the parts so far of the step under way, f32 K, and how many there were. Written by passes, taken by
    /// [`Centre::after_step`].
    noted: RefCell<Option<(Tensor, i64)>>,
}

/// What a batch in parts needs for the centre of the whole.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    /// What the head's last layer sees of each part, M×bottleneck: outputs are many times as large, and one product away.
    vectors: RefCell<Vec<Tensor>>,
    /// The centre of all parts, f32 K.
    settled: RefCell<Option<Tensor>>,
}

impl Centre {
    /// Of `prototypes` outputs; a running mean is the buffer `name` under `vs`.
    pub(super) fn new(vs: &Path<'_>, name: &str, prototypes: u32, centring: Centring) -> Self {
        match centring {
            Centring::Mean => Self::Mean(RunningMean {
                mean: vs.zeros_no_train(name, &[i64::from(prototypes)]),
                noted: RefCell::new(None),
            }),
            Centring::Sinkhorn => Self::Sinkhorn(Gathered::default()),
        }
    }

    /// f32 K: what outputs M×K lose before that temperature. With `in_parts` they are a part of a batch whose centre was settled before; else they are
    /// all that this one of `ranks` has of it.
    ///
    /// # Errors
    /// Ranks that are no longer together.
    ///
    /// # Panics
    /// For a part of a batch that was not gathered.
    pub(super) fn of(&self, outputs: &Tensor, temperature: f64, in_parts: bool, ranks: &Ranks) -> Result<Tensor, RanksError> {
        Ok(match self {
            Self::Mean(centre) => centre.mean.shallow_clone(),
            Self::Sinkhorn(gathered) if in_parts => {
                let settled = gathered.settled.borrow();
                settled
                    .as_ref()
                    .expect("a batch is gathered before its parts are described")
                    .shallow_clone()
            }
            Self::Sinkhorn(_) => sinkhorn_centre(1, |_| outputs.shallow_clone(), temperature, ranks)?,
        })
    }

    /// Adds a part's outputs to those of the step under way. The first part begins anew: a step that failed for want of memory is taken again.
    pub(super) fn note(&self, outputs: &Tensor, ctx: &StepContext) {
        let Self::Mean(centre) = self else { return };
        let sum = outputs.sum_dim_intlist([0i64].as_slice(), false, Kind::Float);
        let rows = outputs.size()[0];
        let mut noted = centre.noted.borrow_mut();
        *noted = match noted.take() {
            Some((before, earlier)) if !ctx.rows.begin_a_step() => Some((before + sum, earlier + rows)),
            _ => Some((sum, rows)),
        };
    }

    /// Keeps what the head's last layer sees of a part until the centre of all is settled, if that is asked for; the `first` part begins anew.
    pub(super) fn gather(&self, vectors: impl FnOnce() -> Tensor, first: bool) {
        let Self::Sinkhorn(gathered) = self else { return };
        let mut all = gathered.vectors.borrow_mut();
        if first {
            all.clear();
        }
        all.push(vectors());
    }

    /// Finds the centre of the parts that all `ranks` have gathered, if there are any; `outputs` is the head's last layer.
    ///
    /// # Errors
    /// Ranks that are no longer together.
    pub(super) fn settle(&self, outputs: impl Fn(&Tensor) -> Tensor, temperature: f64, ranks: &Ranks) -> Result<(), RanksError> {
        let Self::Sinkhorn(gathered) = self else { return Ok(()) };
        let vectors = gathered.vectors.take();
        if !vectors.is_empty() {
            let centre = sinkhorn_centre(vectors.len(), |part| outputs(&vectors[part]), temperature, ranks)?;
            gathered.settled.replace(Some(centre));
        }
        Ok(())
    }

    /// Takes the outputs of a step, those of all `ranks`, into a running mean that keeps `keep` of itself, unless the scalar `skipped` is 1. A step without
    /// outputs changes nothing.
    ///
    /// # Errors
    /// Ranks that are no longer together.
    pub(super) fn after_step(&mut self, keep: f64, skipped: &Tensor, ranks: &Ranks) -> Result<(), RanksError> {
        let Self::Mean(centre) = self else { return Ok(()) };
        let noted = centre.noted.take();
        if ranks.world() > 1 {
            return centre.follow_all(noted, keep, skipped, ranks);
        }
        let Some((sum, rows)) = noted.filter(|(_, rows)| *rows > 0) else {
            return Ok(());
        };
        tch::no_grad(|| {
            let moved = &centre.mean * keep + sum * ((1.0 - keep) / rows as f64);
            // Chosen, not weighted: outputs of a step that was held back may be NaN.
            let chosen = centre.mean.where_self(&skipped.to_kind(Kind::Bool), &moved);
            centre.mean.copy_(&chosen);
        });
        Ok(())
    }
}

impl RunningMean {
    /// As [`Centre::after_step`] over several ranks, which have noted different numbers of rows where patches are hidden: only the device knows all of them.
    fn follow_all(&mut self, noted: Option<(Tensor, i64)>, keep: f64, skipped: &Tensor, ranks: &Ranks) -> Result<(), RanksError> {
        let _guard = tch::no_grad_guard();
        let (sum, rows) = noted.unwrap_or_else(|| (self.mean.zeros_like(), 0));
        let rows = Tensor::full([], rows as f64, (Kind::Float, sum.device()));
        ranks.all_reduce(&[(&sum, Reduce::Sum), (&rows, Reduce::Sum)])?;
        let moved = &self.mean * keep + sum * (1.0 - keep) / rows.clamp_min(1.0);
        let stays = skipped.to_kind(Kind::Bool).logical_or(&rows.eq(0.0));
        let chosen = self.mean.where_self(&stays, &moved);
        self.mean.copy_(&chosen);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tch::{Device, nn};

    use super::*;

    #[test]
    fn a_step_without_outputs_leaves_the_mean() {
        let _turn = crate::tensor::alone();
        let vs = nn::VarStore::new(Device::Cpu);
        let mut centre = Centre::new(&vs.root(), "centre", 3, Centring::Mean);
        let ctx = StepContext::evaluation(0, 10, 2);
        let go = Tensor::from(0f32);
        let value = || vs.variables()["centre"].double_value(&[1]);
        centre.note(&Tensor::ones([2, 3], (Kind::Float, Device::Cpu)), &ctx);
        centre.after_step(0.9, &go, &Ranks::alone()).unwrap();
        assert!((value() - 0.1).abs() < 1e-6);
        centre.note(&Tensor::ones([0, 3], (Kind::Float, Device::Cpu)), &ctx);
        centre.after_step(0.9, &go, &Ranks::alone()).unwrap();
        assert!((value() - 0.1).abs() < 1e-6);
        assert_eq!(
            Centre::new(&vs.root(), "other", 3, Centring::Sinkhorn)
                .of(&Tensor::ones([2, 3], (Kind::Float, Device::Cpu)), 0.1, false, &Ranks::alone())
                .unwrap()
                .size(),
            [3]
        );
        assert_eq!(vs.variables().len(), 1, "Sinkhorn-Knopp keeps nothing");
    }
}
