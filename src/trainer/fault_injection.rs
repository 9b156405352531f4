//! `[debug]`: faults of the device and of the numbers, injected on purpose, so that what the trainer does about them can be tested on a real run. Nothing is injected by default.

use std::time::Duration;

use tch::Tensor;

use super::error::TrainError;
use crate::setting::{Findings, settings};
use crate::tensor::StepInput;

settings! {
    /// `[debug]`: for tests only. A rollback does not meet the same fault again, because the batches that a run has consumed only grow.
    pub struct DebugConfig in "debug" {
        /// Faults to inject, for tests only; counted in batches consumed: `nan@120`, `nan@120-130`, `nan@120-`, `spike@50`, `overflow@50`, `oom@5`, `device-lost@9`, `hang@7`, `slow@8`, `starve@6`, `drift@6`; several with commas, `nan@5#1` on rank 1 alone.
        Live inject: String = String::new(),
    }
}

/// What can be injected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The pixels of the first image are NaN.
    Nan,
    /// The loss is a thousand times as large.
    Spike,
    /// The loss is 1e25 times as large: each gradient is finite, the sum of their squares is not.
    Overflow,
    /// The device has no memory for the batch as a whole; in micro-batches it has.
    Oom,
    /// The device is gone.
    DeviceLost,
    /// The step never ends.
    Hang,
    /// The step takes two seconds more.
    Slow,
    /// The batch does not come, until a reload takes the fault back.
    Starve,
    /// A weight is another one behind the step.
    Drift,
}

impl Fault {
    const ALL: [(&'static str, Self); 9] = [
        ("nan", Self::Nan),
        ("spike", Self::Spike),
        ("overflow", Self::Overflow),
        ("oom", Self::Oom),
        ("device-lost", Self::DeviceLost),
        ("hang", Self::Hang),
        ("slow", Self::Slow),
        ("starve", Self::Starve),
        ("drift", Self::Drift),
    ];
}

/// What a weight that drifts becomes: none that training comes to by itself.
const DRIFTED: f64 = 0.515_625;

/// Faults by consumed batch and, if on one alone, rank.
type Plan = Vec<(Fault, std::ops::RangeInclusive<u64>, Option<usize>)>;

impl DebugConfig {
    fn plan(&self) -> Result<Plan, ()> {
        let faults = self.inject.split(',').map(str::trim).filter(|f| !f.is_empty());
        faults
            .map(|text| {
                let (kind, place) = text.split_once('@').ok_or(())?;
                let fault = Fault::ALL.iter().find(|(name, _)| *name == kind).ok_or(())?.1;
                let number = |n: &str| n.parse::<u64>().map_err(|_| ());
                let (place, rank) = match place.split_once('#') {
                    Some((place, rank)) => (place, Some(rank.parse::<usize>().map_err(|_| ())?)),
                    None => (place, None),
                };
                let range = match place.split_once('-') {
                    None => number(place)?..=number(place)?,
                    Some((first, "")) => number(first)?..=u64::MAX,
                    Some((first, last)) => number(first)?..=number(last)?,
                };
                if range.is_empty() { Err(()) } else { Ok((fault, range, rank)) }
            })
            .collect()
    }

    /// Checks the form.
    pub fn check(&self, found: &mut Findings) {
        let kinds = Fault::ALL.map(|(name, _)| name).join(", ");
        found.need(
            self.plan().is_ok(),
            "debug.inject",
            format!("{:?}", self.inject),
            format!("faults such as \"nan@120\", \"nan@120-130\" or \"nan@120-\" of the kinds {kinds}, with commas between them"),
        );
    }

    /// Whether `fault` strikes the batch that is the `consumed`-th of the run, on `rank`.
    #[must_use]
    pub fn strikes(&self, fault: Fault, consumed: u64, rank: usize) -> bool {
        let here = |(f, range, on): &(Fault, std::ops::RangeInclusive<u64>, Option<usize>)| {
            *f == fault && range.contains(&consumed) && on.is_none_or(|on| on == rank)
        };
        !self.inject.is_empty() && self.plan().is_ok_and(|plan| plan.iter().any(here))
    }

    /// Spoils the input of the `consumed`-th batch if a fault strikes it.
    pub(super) fn spoil(&self, input: &StepInput, consumed: u64, rank: usize) {
        if self.strikes(Fault::Nan, consumed, rank)
            && let Some(view) = input.views.first()
        {
            let _ = tch::no_grad(|| view.pixels.select(0, 0).fill_(f64::NAN));
        }
    }

    /// What the total loss of the `consumed`-th batch is multiplied by: 1 where no fault strikes it.
    #[must_use]
    pub(super) fn loss_factor(&self, consumed: u64, rank: usize) -> f64 {
        if self.strikes(Fault::Overflow, consumed, rank) {
            1e25
        } else if self.strikes(Fault::Spike, consumed, rank) {
            1000.0
        } else {
            1.0
        }
    }

    /// Whether the `consumed`-th batch is kept back by a fault; then this waits for `patience`, as for a batch that does not come.
    pub(super) fn starve(&self, consumed: u64, rank: usize, patience: Duration) -> bool {
        let kept_back = self.strikes(Fault::Starve, consumed, rank);
        if kept_back {
            std::thread::sleep(patience);
        }
        kept_back
    }

    /// Changes a weight behind the step of the `consumed`-th batch if a fault strikes it.
    pub(super) fn drift(&self, consumed: u64, rank: usize, trained: impl FnOnce() -> Vec<(String, Tensor)>) {
        if !self.strikes(Fault::Drift, consumed, rank) {
            return;
        }
        if let Some((name, weight)) = trained().into_iter().find(|(_, weight)| weight.dim() > 0) {
            let _ = tch::no_grad(|| weight.select(0, 0).fill_(DRIFTED));
            tracing::warn!("debug.inject changed {name} on this rank");
        }
    }

    /// Fails the forward pass of the `consumed`-th batch if a fault strikes it: as libtorch and tch fail, in their words.
    ///
    /// # Errors
    /// The device is lost.
    pub(super) fn fail_in_forward(&self, consumed: u64, micro_batches: usize, rank: usize) -> Result<(), TrainError> {
        if micro_batches == 1 && self.strikes(Fault::Oom, consumed, rank) {
            let text = "called `Result::unwrap()` on an `Err` value: Torch(\"CUDA out of memory. (injected by debug.inject)\")";
            std::panic::resume_unwind(Box::new(text.to_owned()));
        }
        if self.strikes(Fault::DeviceLost, consumed, rank) {
            return Err(tch::TchError::Torch("CUDA error: unspecified launch failure (injected by debug.inject)".into()).into());
        }
        if self.strikes(Fault::Slow, consumed, rank) {
            std::thread::sleep(Duration::from_secs(2));
        }
        while self.strikes(Fault::Hang, consumed, rank) {
            std::thread::park();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_strike_where_they_are_told_to() {
        let debug = |inject: &str| DebugConfig { inject: inject.into() };
        let wrong = |debug: &DebugConfig| {
            let mut found = Findings::default();
            debug.check(&mut found);
            found.found()
        };
        let d = debug("nan@3, nan@7-8,spike@9-");
        assert_eq!(wrong(&d), []);
        let struck: Vec<u64> = (0..12).filter(|&n| d.strikes(Fault::Nan, n, 0)).collect();
        assert_eq!(struck, [3, 7, 8]);
        assert!(d.strikes(Fault::Spike, 1_000_000, 0) && !d.strikes(Fault::Spike, 8, 0));
        assert_eq!(wrong(&debug("")), []);
        let two = debug("starve@4#1,drift@5");
        assert!(wrong(&two).is_empty() && two.strikes(Fault::Drift, 5, 0));
        assert!(two.starve(4, 1, Duration::ZERO) && !two.starve(4, 0, Duration::ZERO) && !two.starve(5, 1, Duration::ZERO));
        let one = debug("nan@3#1");
        assert!(wrong(&one).is_empty() && one.strikes(Fault::Nan, 3, 1) && !one.strikes(Fault::Nan, 3, 0));
        for bad in ["nan", "nan@", "nan@x", "nan@3-x", "noon@3", "nan@3;nan@4", "nan@8-3", "nan@3#x"] {
            let found = wrong(&debug(bad));
            assert!(found[0].key == "debug.inject" && found[0].allowed.contains("nan@120"), "{bad}");
        }
    }

    #[test]
    fn a_weight_drifts_behind_its_step_alone() {
        let debug = DebugConfig {
            inject: "drift@5#1".into(),
        };
        let weight = Tensor::from_slice(&[1f32, 2.0]).set_requires_grad(true);
        let trained = || {
            vec![
                ("scale".to_owned(), Tensor::from(1f32)),
                ("weight".to_owned(), weight.shallow_clone()),
            ]
        };
        debug.drift(5, 0, trained);
        debug.drift(4, 1, trained);
        let values = || Vec::<f32>::try_from(weight.detach()).unwrap();
        assert_eq!(values(), [1.0, 2.0]);
        debug.drift(5, 1, trained);
        assert_eq!(values(), [DRIFTED as f32, 2.0]);
    }
}
