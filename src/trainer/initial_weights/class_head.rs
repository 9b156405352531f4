//! Whether the head that tells classes apart is taken from weights: whole where the same kind of objective learnt the same classes by the same tensors,
//! otherwise not at all.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Names of classes that a message lists.
const FIRST: usize = 3;

/// What tells classes apart, in weights or in a run.
#[derive(Debug)]
pub(super) struct ClassHead<'a> {
    /// `objective.kind`, where it is known.
    pub(super) kind: Option<&'a str>,
    /// `objective.pool`, where there is one and it is known: a head of one size may look at the class token or at the mean of the patches.
    pub(super) pool: Option<&'a str>,
    /// Names of the classes in the order of their numbers; empty where nobody names them.
    pub(super) classes: &'a [String],
    /// Shape of each of its tensors, and of those between the encoder and it.
    pub(super) shapes: BTreeMap<String, Vec<i64>>,
}

/// Why a head is not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NotTaken {
    /// Whether it tells the same classes apart as the run's: somebody who names such weights thinks of their head.
    pub(super) same_classes: bool,
    /// Why, to be read behind the place of the weights.
    pub(super) why: String,
    /// What to do so that it is taken.
    pub(super) remedy: &'static str,
}

impl NotTaken {
    fn of_other_classes(why: String, remedy: &'static str) -> Self {
        Self {
            same_classes: false,
            why,
            remedy,
        }
    }

    /// For the log of a run that begins without it.
    pub(super) fn told(&self, place: &Path) -> String {
        let allowed = if self.same_classes {
            ", as run.init_partial = true allows"
        } else {
            ""
        };
        format!(
            "run.init_from = {}: {}; it is not taken and a new head begins{allowed}. If it was meant to be taken: {}",
            place.display(),
            self.why,
            self.remedy
        )
    }
}

impl ClassHead<'_> {
    /// Why the run, whose head this is, does not take that of some weights; `None` where it does, or where there is none to take.
    pub(super) fn refuses(&self, theirs: &ClassHead<'_>) -> Option<NotTaken> {
        if self.shapes.is_empty() || theirs.shapes.is_empty() {
            return None;
        }
        if theirs.classes.is_empty() {
            // Where all names differ it need not tell classes apart: a projection of pre-training may be called a head too.
            let alike = theirs.shapes.keys().any(|name| self.shapes.contains_key(name));
            return alike.then(|| {
                NotTaken::of_other_classes(
                    "it does not say which classes its head tells apart".into(),
                    "name the run folder or checkpoint folder of a training on a set whose manifest.json names the classes",
                )
            });
        }
        if self.classes.is_empty() {
            return Some(NotTaken::of_other_classes(
                format!(
                    "its head tells classes apart ({}), and nobody says which ones this run learns",
                    listed(theirs.classes)
                ),
                "train on a set whose manifest.json names the classes (`splitmask pack` writes one)",
            ));
        }
        if theirs.classes != self.classes {
            let alike = theirs.classes.iter().zip(self.classes).take_while(|(a, b)| a == b).count();
            return Some(NotTaken::of_other_classes(
                format!(
                    "its head tells other classes apart ({}) than this run ({}), from number {alike} on",
                    listed(theirs.classes),
                    listed(self.classes)
                ),
                "train on a set that names the same classes in the same order",
            ));
        }
        if let (Some(kind), Some(own)) = (theirs.kind, self.kind)
            && kind != own
        {
            return Some(NotTaken::of_other_classes(
                format!("its head is that of objective.kind = {kind:?}"),
                "train on with that kind",
            ));
        }
        let apart = self.looks_elsewhere(theirs).or_else(|| self.built_otherwise(theirs))?;
        Some(NotTaken {
            same_classes: true,
            why: format!("its head tells the same {} classes apart and is {apart}", self.classes.len()),
            remedy: "set what the head is made of (objective.head, .pool, .width, .channels …) as the config.toml of the weights has it",
        })
    }

    /// What the head of `theirs` sees of an image, where that is not what this one sees.
    fn looks_elsewhere(&self, theirs: &ClassHead<'_>) -> Option<String> {
        let (pool, own) = (theirs.pool?, self.pool?);
        (pool != own).then(|| format!("of objective.pool = {pool:?}, this run's of {own:?}"))
    }

    /// What differs in the tensors of `theirs`; `None` where names and shapes are the same.
    fn built_otherwise(&self, theirs: &ClassHead<'_>) -> Option<String> {
        let (ours, theirs) = (&self.shapes, &theirs.shapes);
        if !theirs.keys().any(|name| ours.contains_key(name)) {
            let (their_first, first) = (theirs.keys().next()?, ours.keys().next()?);
            return Some(format!("of another kind (it has {their_first}, this run {first})"));
        }
        let names: BTreeSet<&String> = ours.keys().chain(theirs.keys()).collect();
        let first = names.into_iter().find(|name| ours.get(*name) != theirs.get(*name))?;
        let shape = |of: &BTreeMap<String, Vec<i64>>| of.get(first).map_or_else(|| "none".to_owned(), |shape| format!("{shape:?}"));
        Some(format!(
            "of other sizes ({first}: {} in it, {} in this run)",
            shape(theirs),
            shape(ours)
        ))
    }
}

/// How many classes there are, and the names of the first: `5: "cat", "dog", "fish", …`.
fn listed(classes: &[String]) -> String {
    let first: Vec<String> = classes.iter().take(FIRST).map(|name| format!("{name:?}")).collect();
    let more = if classes.len() > FIRST { ", …" } else { "" };
    format!("{}: {}{more}", classes.len(), first.join(", "))
}
