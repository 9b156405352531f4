//! What became of the entries of a tar: each is part of a sample, or counted with the reason why not.

use std::collections::BTreeMap;

use crate::metrics::{Label, PassedOver, PipelineMetrics};
use crate::name::shown;

/// Different extensions that are counted by name.
const MAX_EXTENSIONS: usize = 64;
/// Bytes of an extension that are told apart.
const MAX_EXTENSION_BYTES: usize = 32;

/// Counts of entries. Together they are all entries of what was read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    /// Members of samples that are delivered, or rejected under their own name.
    pub used: u64,
    /// Members of samples that were not asked for: outside `data.fraction`, or read before.
    pub unwanted: u64,
    /// By reason, and the first of each: shard, name and what is wrong with it.
    passed: BTreeMap<usize, (u64, String)>,
    /// Regular members by extension, in lower case.
    extensions: BTreeMap<Box<[u8]>, u64>,
    /// Members of yet other extensions.
    other_extensions: u64,
}

impl Tally {
    /// Counts an entry that is passed over; `example` names it.
    pub(super) fn pass(&mut self, reason: PassedOver, example: impl FnOnce() -> String) {
        self.passed.entry(reason.index()).or_insert_with(|| (0, example())).0 += 1;
    }

    /// Counts a member by its extension.
    pub(super) fn extension(&mut self, extension: &[u8]) {
        let extension = extension[..extension.len().min(MAX_EXTENSION_BYTES)].to_ascii_lowercase();
        self.extensions(extension.into(), 1);
    }

    fn extensions(&mut self, extension: Box<[u8]>, count: u64) {
        if self.extensions.len() < MAX_EXTENSIONS || self.extensions.contains_key(&extension) {
            *self.extensions.entry(extension).or_default() += count;
        } else {
            self.other_extensions += count;
        }
    }

    /// Whether nothing was counted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Adds what was counted behind it.
    pub fn add(&mut self, later: Self) {
        self.used += later.used;
        self.unwanted += later.unwanted;
        for (reason, (count, example)) in later.passed {
            self.passed.entry(reason).or_insert_with(|| (0, example)).0 += count;
        }
        for (extension, count) in later.extensions {
            self.extensions(extension, count);
        }
        self.other_extensions += later.other_extensions;
    }

    /// Entries that were passed over: reason, count, and the first of them.
    pub fn passed_over(&self) -> impl Iterator<Item = (PassedOver, u64, &str)> {
        self.passed
            .iter()
            .map(|(reason, (count, example))| (PassedOver::VALUES[*reason], *count, example.as_str()))
    }

    /// Regular members by extension (lower case, without the first dot), the commonest first.
    #[must_use]
    pub fn by_extension(&self) -> Vec<(String, u64)> {
        let mut all: Vec<(String, u64)> = self.extensions.iter().map(|(e, n)| (shown(e), *n)).collect();
        all.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        if self.other_extensions > 0 {
            all.push(("others".into(), self.other_extensions));
        }
        all
    }

    /// The members that were seen, as text: `12 png, 12 cls`.
    #[must_use]
    pub fn seen(&self) -> String {
        list(self.by_extension().iter().map(|(extension, count)| format!("{count} {extension}")))
    }

    /// What was passed over, as text: `3 hard_link, 1 directory`.
    #[must_use]
    pub fn counts(&self) -> String {
        list(self.passed_over().map(|(reason, count, _)| format!("{count} {}", reason.text())))
    }

    /// What was there instead of samples, for an error's text.
    #[must_use]
    pub fn found(&self) -> Vec<String> {
        let mut found = vec![];
        if self.unwanted > 0 {
            found.push(format!("{} members lie outside data.fraction", self.unwanted));
        }
        if !self.passed.is_empty() {
            let text = |(reason, count, example): (PassedOver, u64, &str)| format!("{count} {} (such as {example})", reason.text());
            found.push(format!("passed over {}", list(self.passed_over().map(text))));
        }
        if !self.extensions.is_empty() {
            found.push(format!("members seen: {}", self.seen()));
        }
        found
    }

    /// Adds the reasons to the metrics.
    pub fn count(&self, metrics: &PipelineMetrics) {
        for (reason, count, _) in self.passed_over() {
            metrics.passed_over.of(reason).inc_by(count);
        }
    }
}

/// Joined by commas, the first dozen.
fn list(items: impl Iterator<Item = String>) -> String {
    let mut all: Vec<String> = items.collect();
    if all.len() > 12 {
        all.truncate(12);
        all.push("…".into());
    }
    all.join(", ")
}
