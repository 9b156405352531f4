//! Which classes of two sets are the same, and which images count.
//!
//! A label is an index into its own set's list of class names (`manifest.json`), so the labels of two sets say nothing about each other: classes are
//! matched by *name*. Where a set has no list they are matched by number, with a warning if the sets do not have equally many. Whatever is left out
//! is told by name. Memory grows with the number of images and classes, never with the value of a label.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Serialize, Serializer};
use splitmask_pipeline::bucket::classes::ClassMap;

use super::error::EvalError;

/// The labels of a set.
#[derive(Debug, Clone, Default)]
pub struct Labels {
    /// Where the set is, for messages.
    pub place: String,
    /// Class names by label, from its manifest; empty if it has none.
    pub names: Vec<String>,
    /// Label of each image, all at least 0.
    pub of: Vec<i64>,
}

/// Why images do not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    /// The other set has no class of that name or number.
    NoPartner,
    /// Fewer reference images than `eval.min_class`.
    TooFew,
    /// The label lies beyond the set's list of classes.
    BeyondTheList,
    /// The run did not learn the class.
    NotLearnt,
}

impl Why {
    fn text(self) -> &'static str {
        match self {
            Self::NoPartner => "not in the other set, as far as it was looked at (eval.max_reference, eval.max_queries)",
            Self::TooFew => "fewer than eval.min_class",
            Self::BeyondTheList => "beyond the class list of manifest.json",
            Self::NotLearnt => "not among the learnt classes",
        }
    }
}

/// A class that does not count.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct LeftOut {
    /// The set.
    pub place: String,
    /// Why.
    pub why: Why,
    /// Name, or number as text.
    pub class: String,
    /// How many images or pixels of it there are.
    pub number: u64,
    /// What is counted: `images` or `pixels`.
    pub counted: &'static str,
}

/// `1 image`, `2 images`.
fn amount(number: u64, counted: &str) -> String {
    match number {
        1 => format!("1 {}", counted.trim_end_matches('s')),
        _ => format!("{number} {counted}"),
    }
}

impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            place,
            why,
            class,
            number,
            counted,
        } = self;
        write!(f, "{class} of {place} ({}: {})", amount(*number, counted), why.text())
    }
}

impl Serialize for LeftOut {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The images of two sets that count, with classes 0..C that mean the same in both.
#[derive(Debug, Clone, Default)]
pub struct Matched {
    /// (row in the set, class) of the references.
    pub references: Vec<(i64, i64)>,
    /// (row in the set, class) of the queries.
    pub queries: Vec<(i64, i64)>,
    /// Names, or numbers as text, of the classes.
    pub classes: Vec<String>,
    /// What does not count.
    pub remarks: Remarks,
}

/// What a reader of the result must know about the sets.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Remarks {
    /// Classes that were left out.
    pub left_out: Vec<LeftOut>,
    /// Why the match may be wrong.
    pub warning: Option<String>,
}

/// Classes named in one line at most.
const LISTED: usize = 6;

pub(super) fn listed<T: fmt::Display>(all: &[T]) -> String {
    let shown: Vec<String> = all.iter().take(LISTED).map(ToString::to_string).collect();
    match all.len().saturating_sub(LISTED) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

impl Remarks {
    /// For people: a line for each set and reason with the first few classes, and the warning.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let mut groups: BTreeMap<(&str, Why), Vec<String>> = BTreeMap::new();
        for LeftOut {
            place,
            why,
            class,
            number,
            counted,
        } in &self.left_out
        {
            let group = groups.entry((place, *why)).or_default();
            group.push(format!("{class} ({})", amount(*number, counted)));
        }
        let left = groups
            .iter()
            .map(|((place, why), classes)| format!("left out of {place}, {}: {}", why.text(), listed(classes)));
        left.chain(self.warning.clone()).collect()
    }
}

impl Labels {
    /// Name of a label, or its number as text.
    fn shown(&self, label: i64) -> String {
        let name = usize::try_from(label).ok().and_then(|l| self.names.get(l));
        name.cloned().unwrap_or_else(|| format!("label {label}"))
    }

    fn is_beyond_the_list(&self, label: i64) -> bool {
        !self.names.is_empty() && usize::try_from(label).is_ok_and(|l| l >= self.names.len())
    }

    /// Classes that the set has: those of its list, or those that its images show.
    fn class_count(&self) -> usize {
        match self.names.len() {
            0 => self.of.iter().collect::<BTreeSet<_>>().len(),
            named => named,
        }
    }

    fn left_out(&self, why: Why, label: i64, images: usize) -> LeftOut {
        LeftOut {
            place: self.place.clone(),
            why,
            class: self.shown(label),
            number: images as u64,
            counted: "images",
        }
    }
}

/// Why labels that are matched by number may not mean the same.
fn by_number_warning(references: &Labels, queries: &Labels) -> Option<String> {
    let (have, want) = (references.class_count(), queries.class_count());
    if have == want {
        return None;
    }
    let nameless = [references, queries].into_iter().filter(|set| set.names.is_empty());
    let nameless: Vec<&str> = nameless.map(|set| set.place.as_str()).collect();
    Some(format!(
        "labels were matched by number, because there are no class names (manifest.json) in {}, and the sets do not have equally many classes \
         ({have} in {}, {want} in {}): the same number may mean another class",
        nameless.join(" and "),
        references.place,
        queries.place
    ))
}

/// Matches the classes of a training set (`references`) and a validation set (`queries`) by [`ClassMap`]; classes with fewer than `least` references are
/// left out.
///
/// # Errors
/// [`EvalError::NoLabels`], [`EvalError::NoCommonClass`], [`EvalError::TooFew`] or [`EvalError::OneClass`].
pub fn match_classes(references: &Labels, queries: &Labels, least: u32) -> Result<Matched, EvalError> {
    for set in [references, queries] {
        if set.of.is_empty() {
            return Err(EvalError::NoLabels { place: set.place.clone() });
        }
    }
    // Labels of the training set are what both are read in; from here on a class is one of those.
    let to_train = ClassMap::new(&queries.names, &references.names);
    let to_val = ClassMap::new(&references.names, &queries.names);
    let mut left_out = Vec::new();
    let (mut reference_rows, mut query_rows) = (BTreeMap::<i64, Vec<i64>>::new(), BTreeMap::<i64, Vec<i64>>::new());
    for (row, &label) in (0..).zip(&references.of) {
        reference_rows.entry(label).or_default().push(row);
    }
    reference_rows.retain(|&label, rows| {
        let why = if references.is_beyond_the_list(label) {
            Why::BeyondTheList
        } else if to_val.label(label) < 0 {
            Why::NoPartner
        } else {
            return true;
        };
        left_out.push(references.left_out(why, label, rows.len()));
        false
    });
    let mut unmatched = BTreeMap::<i64, usize>::new();
    for (row, &label) in (0..).zip(&queries.of) {
        let class = to_train.label(label);
        if queries.is_beyond_the_list(label) || class < 0 || !reference_rows.contains_key(&class) {
            *unmatched.entry(label).or_default() += 1;
        } else {
            query_rows.entry(class).or_default().push(row);
        }
    }
    left_out.extend(unmatched.into_iter().map(|(label, images)| {
        let why = if queries.is_beyond_the_list(label) {
            Why::BeyondTheList
        } else {
            Why::NoPartner
        };
        queries.left_out(why, label, images)
    }));
    let Some(most) = query_rows.keys().map(|class| (reference_rows[class].len(), *class)).max() else {
        let shown = |set: &Labels| {
            listed(
                &set.of
                    .iter()
                    .collect::<BTreeSet<_>>()
                    .into_iter()
                    .map(|l| set.shown(*l))
                    .collect::<Vec<_>>(),
            )
        };
        return Err(EvalError::NoCommonClass {
            train: references.place.clone(),
            train_classes: shown(references),
            val: queries.place.clone(),
            val_classes: shown(queries),
        });
    };
    reference_rows.retain(|label, rows| {
        let enough = rows.len() >= least as usize;
        if !enough {
            left_out.push(references.left_out(Why::TooFew, *label, rows.len()));
            left_out.extend(query_rows.remove(label).map(|rows| LeftOut {
                place: queries.place.clone(),
                ..references.left_out(Why::TooFew, *label, rows.len())
            }));
        }
        enough
    });
    if query_rows.is_empty() {
        return Err(EvalError::TooFew {
            least,
            train: references.place.clone(),
            val: queries.place.clone(),
            class: references.shown(most.1),
            images: most.0,
        });
    }
    if let [only] = reference_rows.keys().collect::<Vec<_>>()[..] {
        return Err(EvalError::OneClass {
            class: references.shown(*only),
            train: references.place.clone(),
            val: queries.place.clone(),
        });
    }
    let numbers: BTreeMap<i64, i64> = reference_rows.keys().copied().zip(0..).collect();
    // In the order of the sets.
    let rows = |by_class: &BTreeMap<i64, Vec<i64>>| {
        let pairs = by_class
            .iter()
            .flat_map(|(class, rows)| rows.iter().map(|row| (*row, numbers[class])));
        let mut pairs: Vec<(i64, i64)> = pairs.collect();
        pairs.sort_unstable();
        pairs
    };
    left_out.sort();
    Ok(Matched {
        references: rows(&reference_rows),
        queries: rows(&query_rows),
        classes: numbers.keys().map(|label| references.shown(*label)).collect(),
        remarks: Remarks {
            left_out,
            warning: if to_train.is_by_name() {
                None
            } else {
                by_number_warning(references, queries)
            },
        },
    })
}

#[cfg(test)]
mod tests;
