//! What the samples of a set are marked with (labels, label maps, objects): whose classes these are, and which samples have no marks that can be used.

use std::collections::BTreeMap;

use serde::Serialize;
use splitmask_pipeline::bucket::classes::ClassMap;
use splitmask_pipeline::error::SampleError;
use splitmask_pipeline::types::RawSample;

use super::classes::{LeftOut, Why, listed};
use super::error::EvalError;

/// The classes that a set is marked with, beside those that a run learnt.
#[derive(Debug, Clone)]
pub(super) struct Marks<'a> {
    /// The set, for messages.
    pub(super) place: &'a str,
    /// Names by the numbers of the set; empty where its manifest names none.
    pub(super) theirs: Vec<String>,
    /// Names by the numbers of the run; empty where nobody named them.
    pub(super) learnt: &'a [String],
}

fn name(names: &[String], class: usize) -> String {
    names.get(class).cloned().unwrap_or_else(|| format!("class {class}"))
}

impl Marks<'_> {
    /// From numbers of the set to those of the run.
    pub(super) fn by_name(&self) -> ClassMap {
        ClassMap::new(&self.theirs, self.learnt)
    }

    /// The name of a class that was learnt, or its number as text.
    pub(super) fn learnt(&self, class: usize) -> String {
        name(self.learnt, class)
    }

    /// What is to be told where names are missing.
    pub(super) fn warning(&self) -> Option<String> {
        let where_missing = if self.theirs.is_empty() {
            self.place
        } else {
            "the run's checkpoint"
        };
        (!self.by_name().is_by_name()).then(|| {
            format!(
                "classes were matched by number, because their names (manifest.json) are missing in {where_missing}: the same number may mean another class"
            )
        })
    }

    /// How much of each class of the set, by its number, no learnt class goes with; `counted`: `images`, `pixels` or `objects`.
    pub(super) fn left_out(&self, unknown: impl IntoIterator<Item = (usize, u64)>, counted: &'static str) -> Vec<LeftOut> {
        let of_class = |(class, number): (usize, u64)| LeftOut {
            place: self.place.to_owned(),
            why: if !self.theirs.is_empty() && class >= self.theirs.len() {
                Why::BeyondTheList
            } else {
                Why::NotLearnt
            },
            class: name(&self.theirs, class),
            number,
            counted,
        };
        unknown.into_iter().map(of_class).collect()
    }

    /// That `images` images show nothing that was learnt, among `classes` classes, but these of the set; `nothing`: what to say where they show nothing.
    pub(super) fn none_learnt(&self, images: usize, shown: impl IntoIterator<Item = usize>, classes: usize, nothing: &str) -> EvalError {
        let shown: Vec<String> = shown.into_iter().map(|class| name(&self.theirs, class)).collect();
        let learnt: Vec<String> = (0..classes).map(|class| self.learnt(class)).collect();
        let told = |names: &[String], none: &str| if names.is_empty() { none.to_owned() } else { listed(names) };
        EvalError::NoneLearnt {
            place: self.place.to_owned(),
            images,
            theirs: told(&shown, nothing),
            learnt: told(&learnt, "classes without names"),
        }
    }
}

/// Samples that could not be judged, by reason: how many, and what was wrong with the first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Dropped(pub(super) BTreeMap<&'static str, (usize, String)>);

impl Dropped {
    /// Counts one more.
    pub(super) fn add(&mut self, raw: &RawSample, error: &SampleError) {
        let first = || (0, format!("{}: {}: {error}", raw.shard, raw.key));
        self.0.entry(error.reason()).or_insert_with(first).0 += 1;
    }

    /// What was wrong with one of them.
    pub(super) fn example(&self) -> Option<String> {
        self.0.values().next().map(|(_, example)| example.clone())
    }

    /// Lines for a terminal.
    pub(super) fn lines(&self) -> impl Iterator<Item = String> {
        let line =
            |(reason, (samples, example)): (&&str, &(usize, String))| format!("not judged       {samples} samples, {reason}: {example}");
        self.0.iter().map(line)
    }
}
