//! What an accuracy is held against, whichever way it was measured.

use serde::Serialize;

use super::classes::{Matched, Remarks};

/// What guessing would score, on which images, and what a reader must know about them. Part of the answer of every evaluation by class.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Baseline {
    /// Share of the commonest class among the queries: what guessing it would give.
    pub majority: f64,
    /// 1 ÷ classes among the references: what guessing blindly would give.
    pub chance: f64,
    /// Labelled images that were searched or learnt from.
    pub references: usize,
    /// Images that were classified.
    pub queries: usize,
    /// Distinct classes among the references.
    pub classes: usize,
    /// What was left out, and what may be wrong with the labels.
    #[serde(flatten)]
    pub remarks: Remarks,
}

impl Baseline {
    /// That of two sets whose classes were matched; at least one query counts there.
    #[must_use]
    pub fn of(matched: &Matched) -> Self {
        let mut counts = vec![0usize; matched.classes.len()];
        matched.queries.iter().for_each(|(_, class)| counts[*class as usize] += 1);
        let queries = matched.queries.len();
        Self {
            majority: counts.iter().max().copied().unwrap_or(0) as f64 / queries as f64,
            chance: 1.0 / matched.classes.len() as f64,
            references: matched.references.len(),
            queries,
            classes: matched.classes.len(),
            remarks: matched.remarks.clone(),
        }
    }
}
