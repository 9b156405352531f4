//! How many samples may be lost before the run stops, and what the log says about each.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::error::PipelineError;
use crate::metrics::PipelineMetrics;
use crate::shard::samples::Rejected;

/// Samples over which the share is taken.
const WINDOW: usize = 10_000;
/// Samples before the share means anything.
const FIRST_CHECK: usize = 200;
const EXAMPLES: usize = 5;
/// Lines about lost samples in each period; the rest is summed up.
const LINES: u32 = 20;
const PERIOD: Duration = Duration::from_secs(10);

/// Watches the share of lost samples.
#[derive(Debug)]
pub struct FailureBudget {
    share: f64,
    outcomes: VecDeque<bool>,
    failed: usize,
    examples: VecDeque<String>,
    metrics: PipelineMetrics,
    period: Instant,
    lines: u32,
    silent: u32,
}

impl FailureBudget {
    /// Allows `share` of the last 10,000 samples to fail.
    #[must_use]
    pub fn new(share: f64, metrics: PipelineMetrics) -> Self {
        Self {
            share,
            outcomes: VecDeque::with_capacity(WINDOW),
            failed: 0,
            examples: VecDeque::with_capacity(EXAMPLES),
            metrics,
            period: Instant::now(),
            lines: 0,
            silent: 0,
        }
    }

    /// Counts a good sample.
    pub fn good(&mut self) {
        self.count(false);
    }

    /// Counts and logs a lost sample.
    ///
    /// # Errors
    /// [`PipelineError::FailureBudget`] when too many are lost.
    pub fn lost(&mut self, rejected: &Rejected) -> Result<(), PipelineError> {
        self.metrics.sample_error(&rejected.error);
        self.log(rejected);
        if self.examples.len() == EXAMPLES {
            self.examples.pop_front();
        }
        let (shard, key) = (rejected.shard.escape_debug(), &rejected.key);
        self.examples.push_back(format!("{shard}:{key} ({})", rejected.error.reason()));
        self.count(true);
        if self.outcomes.len() >= FIRST_CHECK { self.check() } else { Ok(()) }
    }

    /// The check at the end of a single pass, however short.
    ///
    /// # Errors
    /// [`PipelineError::FailureBudget`].
    pub fn check(&self) -> Result<(), PipelineError> {
        let (failed, seen) = (self.failed, self.outcomes.len());
        // Even a budget of 1 does not allow that nothing at all is left: the stream would never give a batch.
        let all = failed == seen && seen > 0;
        if failed as f64 <= self.share * seen as f64 && !all {
            return Ok(());
        }
        Err(PipelineError::FailureBudget {
            failed: failed as u64,
            seen: seen as u64,
            budget: self.share,
            examples: self.examples.iter().cloned().collect::<Vec<_>>().join(", "),
        })
    }

    fn count(&mut self, lost: bool) {
        if self.outcomes.len() == WINDOW && self.outcomes.pop_front() == Some(true) {
            self.failed -= 1;
        }
        self.outcomes.push_back(lost);
        self.failed += usize::from(lost);
    }

    fn log(&mut self, rejected: &Rejected) {
        if self.period.elapsed() > PERIOD {
            if self.silent > 0 {
                tracing::warn!(count = self.silent, "more samples were dropped");
            }
            (self.period, self.lines, self.silent) = (Instant::now(), 0, 0);
        }
        if self.lines == LINES {
            self.silent += 1;
            return;
        }
        self.lines += 1;
        tracing::warn!(
            shard = %rejected.shard.escape_debug(),
            key = %rejected.key,
            reason = rejected.error.reason(),
            "sample dropped: {}",
            rejected.error.to_string().escape_debug()
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::SampleError;
    use crate::types::SampleId;

    fn rejected(n: u32) -> Rejected {
        Rejected {
            id: SampleId {
                epoch: 0,
                shard: 0,
                member: n,
            },
            shard: "s.tar".into(),
            key: format!("k{n}\n").as_str().into(),
            error: SampleError::Corrupt { detail: "x".into() },
        }
    }

    #[test]
    fn nothing_is_decided_before_200_samples_and_then_the_share_counts() {
        let mut budget = FailureBudget::new(0.01, PipelineMetrics::default());
        for n in 0..199 {
            budget.lost(&rejected(n)).unwrap();
        }
        let text = budget.lost(&rejected(199)).unwrap_err().to_string();
        assert!(text.starts_with("200 of the last 200 samples failed (budget 0.01)"), "{text}");
        assert_eq!(text.matches("s.tar:k").count(), 5);
        assert!(text.contains("s.tar:k199\\n (corrupt)"), "control characters are escaped: {text}");
    }

    #[test]
    fn one_percent_of_the_window_is_allowed_and_one_more_is_not() {
        let mut budget = FailureBudget::new(0.01, PipelineMetrics::default());
        for _ in 0..9_900 {
            budget.good();
        }
        for n in 0..99 {
            budget.lost(&rejected(n)).unwrap();
        }
        budget.lost(&rejected(99)).unwrap();
        assert!(budget.lost(&rejected(100)).is_err(), "101 of the last 10,000");
        for _ in 0..9_999 {
            budget.good();
        }
        budget.lost(&rejected(101)).unwrap();
    }

    #[test]
    fn even_a_budget_of_one_ends_when_nothing_is_left() {
        let mut budget = FailureBudget::new(1.0, PipelineMetrics::default());
        for n in 0..199 {
            budget.lost(&rejected(n)).unwrap();
        }
        assert!(budget.lost(&rejected(199)).is_err());
    }
}
