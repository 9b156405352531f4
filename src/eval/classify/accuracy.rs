//! What was counted of the learnt classes, and what that comes to: accuracies, confusions, what was left out.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::eval::classes::{Remarks, listed};
use crate::eval::error::EvalError;
use crate::eval::marks::Marks;

/// Likeliest classes among which the right one counts for [`Accuracy::top5`].
pub(super) const TOP: i64 = 5;
/// Classes and confusions that a table lists.
const SHOWN: usize = 5;

/// Accuracy of one class.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct OfClass {
    /// Its name, or number as text.
    pub class: String,
    /// Images of it that were judged.
    pub images: usize,
    /// Share of them that were named right; `None` without an image.
    pub accuracy: Option<f64>,
}

/// Images of one class that were taken for another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Confused {
    /// What they are.
    pub class: String,
    /// What they were taken for.
    pub taken_for: String,
    /// How many.
    pub images: usize,
}

/// Outcome of an evaluation of the learnt classes.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Accuracy {
    /// Share of the images whose likeliest class is the right one.
    pub top1: f64,
    /// Share whose right class is among the five likeliest; 1 with five classes and fewer.
    pub top5: f64,
    /// Mean of the accuracies of the classes that have an image.
    pub class_mean: f64,
    /// Share of the commonest class among the images: what saying it always would give.
    pub majority: f64,
    /// 1 ÷ classes that are learnt.
    pub chance: f64,
    /// Images that were judged.
    pub images: usize,
    /// Images without a label, which were not.
    pub unlabelled: usize,
    /// Every class that is learnt, in the order of its label.
    pub classes: Vec<OfClass>,
    /// Pairs of classes that were confused, the most frequent first.
    pub confused: Vec<Confused>,
    /// What was left out.
    #[serde(flatten)]
    pub remarks: Remarks,
    /// Names of the classes, for the picture.
    #[serde(skip)]
    pub(super) names: Vec<String>,
    /// (what it is, what it was taken for) → images.
    #[serde(skip)]
    pub(super) pairs: BTreeMap<(usize, usize), usize>,
}

/// What was counted on the way.
#[derive(Default)]
pub(super) struct Tally {
    /// Outputs of the head.
    pub(super) outputs: usize,
    images: usize,
    unlabelled: usize,
    /// Images by a label of the set that no learnt class goes with.
    unknown: BTreeMap<usize, u64>,
    among_five: usize,
    pairs: BTreeMap<(usize, usize), usize>,
}

impl Tally {
    pub(super) fn count(&mut self, label: i64, class: i64, (said, among_five): (usize, bool)) {
        match (usize::try_from(label), usize::try_from(class)) {
            (Err(_), _) => self.unlabelled += 1,
            (Ok(_), Ok(class)) if class < self.outputs => {
                self.images += 1;
                self.among_five += usize::from(among_five);
                *self.pairs.entry((class, said)).or_default() += 1;
            }
            (Ok(label), _) => *self.unknown.entry(label).or_default() += 1,
        }
    }

    pub(super) fn answer(self, marks: &Marks<'_>) -> Result<Accuracy, EvalError> {
        let names: Vec<String> = (0..self.outputs).map(|class| marks.learnt(class)).collect();
        if self.images == 0 {
            let place = marks.place.to_owned();
            return Err(match self.unknown.values().sum::<u64>() {
                0 if self.unlabelled == 0 => EvalError::Empty { place },
                0 => EvalError::NoLabels { place },
                unknown => marks.none_learnt(unknown as usize, self.unknown.into_keys(), self.outputs, "no class"),
            });
        }
        let mut counts = vec![(0usize, 0usize); self.outputs];
        for ((class, said), images) in &self.pairs {
            counts[*class].0 += images;
            counts[*class].1 += if class == said { *images } else { 0 };
        }
        let share = |part: usize, whole: usize| part as f64 / whole as f64;
        let classes: Vec<OfClass> = names
            .iter()
            .zip(&counts)
            .map(|(class, (images, right))| OfClass {
                class: class.clone(),
                images: *images,
                accuracy: (*images > 0).then(|| share(*right, *images)),
            })
            .collect();
        let of_classes: Vec<f64> = classes.iter().filter_map(|class| class.accuracy).collect();
        let mut confused: Vec<Confused> = self
            .pairs
            .iter()
            .filter(|((class, said), _)| class != said)
            .map(|((class, said), images)| Confused {
                class: names[*class].clone(),
                taken_for: names[*said].clone(),
                images: *images,
            })
            .collect();
        confused.sort_by_key(|pair| std::cmp::Reverse(pair.images));
        Ok(Accuracy {
            top1: share(counts.iter().map(|(_, right)| right).sum(), self.images),
            top5: share(self.among_five, self.images),
            class_mean: of_classes.iter().sum::<f64>() / of_classes.len() as f64,
            majority: share(counts.iter().map(|(images, _)| *images).max().unwrap_or(0), self.images),
            chance: 1.0 / self.outputs as f64,
            images: self.images,
            unlabelled: self.unlabelled,
            classes,
            confused,
            remarks: Remarks {
                left_out: marks.left_out(self.unknown, "images"),
                warning: marks.warning(),
            },
            names,
            pairs: self.pairs,
        })
    }
}

/// Lines for a terminal.
pub(super) fn table(found: &Accuracy) -> Vec<String> {
    let learnt = found.classes.len();
    let mut lines = vec![
        format!("top-1 accuracy  {:.4}   ({} images)", found.top1, found.images),
        format!(
            "top-5 accuracy  {:.4}{}",
            found.top5,
            if learnt as i64 <= TOP {
                "   (of so few classes always 1)"
            } else {
                ""
            }
        ),
        format!("mean of classes {:.4}", found.class_mean),
        format!("commonest class {:.4}", found.majority),
        format!("chance          {:.4}   ({learnt} classes)", found.chance),
    ];
    let mut judged: Vec<&OfClass> = found.classes.iter().filter(|class| class.accuracy.is_some()).collect();
    judged.sort_by(|a, b| a.accuracy.partial_cmp(&b.accuracy).expect("accuracies are numbers"));
    let shown = |classes: &[&OfClass]| {
        let each = classes
            .iter()
            .map(|class| format!("{} {:.2} of {}", class.class, class.accuracy.unwrap_or(0.0), class.images));
        each.collect::<Vec<_>>().join(", ")
    };
    lines.push(format!("worst classes   {}", shown(&judged[..SHOWN.min(judged.len())])));
    judged.reverse();
    lines.push(format!("best classes    {}", shown(&judged[..SHOWN.min(judged.len())])));
    if !found.confused.is_empty() {
        let pairs = found.confused.iter().take(SHOWN);
        let pairs: Vec<String> = pairs
            .map(|pair| format!("{} for {} ({})", pair.class, pair.taken_for, pair.images))
            .collect();
        lines.push(format!("taken           {}", pairs.join(", ")));
    }
    let without: Vec<&str> = found.classes.iter().filter(|c| c.images == 0).map(|c| c.class.as_str()).collect();
    if !without.is_empty() {
        lines.push(format!("no image of     {}", listed(&without)));
    }
    if found.unlabelled > 0 {
        lines.push(format!("without a label {} images, not judged", found.unlabelled));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    /// Images of a set with labels a, b, x, of which a run learnt b, a, c: (label, class, what is said).
    fn tally(images: &[(i64, i64, usize)]) -> Tally {
        let mut tally = Tally {
            outputs: 3,
            ..Tally::default()
        };
        for (label, class, said) in images {
            tally.count(*label, *class, (*said, *said as i64 == *class));
        }
        tally
    }

    #[test]
    fn accuracies_are_counted_by_class_and_what_is_left_out_is_told() {
        let (theirs, learnt) = (names(&["a", "b", "x"]), names(&["b", "a", "c"]));
        let images = [
            (0, 1, 1),
            (0, 1, 1),
            (0, 1, 0),
            (0, 1, 0),
            (1, 0, 2),
            (2, -1, 0),
            (9, -1, 0),
            (-1, -1, 0),
        ];
        let marks = Marks {
            place: "val",
            theirs,
            learnt: &learnt,
        };
        let found = tally(&images).answer(&marks).unwrap();
        assert_eq!((found.images, found.unlabelled), (5, 1));
        assert!((found.top1 - 0.4).abs() < 1e-12 && (found.class_mean - 0.25).abs() < 1e-12);
        assert!((found.majority - 0.8).abs() < 1e-12 && (found.chance - 1.0 / 3.0).abs() < 1e-12);
        let of: Vec<_> = found.classes.iter().map(|c| (c.class.as_str(), c.images, c.accuracy)).collect();
        assert_eq!(of, [("b", 1, Some(0.0)), ("a", 4, Some(0.5)), ("c", 0, None)]);
        assert_eq!((found.confused[0].class.as_str(), found.confused[0].images), ("a", 2));
        let left: Vec<String> = found.remarks.left_out.iter().map(ToString::to_string).collect();
        assert!(left[0].starts_with("x of val (1 image: not among the learnt"), "{left:?}");
        assert!(left[1].starts_with("class 9 of val (1 image: beyond the class list"), "{left:?}");
        let table = table(&found).join("\n");
        assert!(table.contains("no image of     c") && table.contains("a for b (2)"), "{table}");
    }

    #[test]
    fn sets_with_nothing_to_judge_say_why() {
        let (theirs, learnt) = (names(&["x", "y"]), names(&["a", "b", "c"]));
        let marks = Marks {
            place: "val",
            theirs,
            learnt: &learnt,
        };
        let wrong = |images: &[(i64, i64, usize)]| tally(images).answer(&marks).unwrap_err().to_string();
        assert!(wrong(&[]).contains("no image"));
        assert!(wrong(&[(-1, -1, 0)]).contains("no sample has a label"));
        let other = wrong(&[(0, -1, 0), (1, -1, 0)]);
        assert!(
            other.contains("none of its 2 labelled images") && other.contains("x, y") && other.contains("a, b, c"),
            "{other}"
        );
    }
}
