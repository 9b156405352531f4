//! What was counted of pixels, and what that comes to: intersection over union by class, accuracies, what was left out.

use std::collections::BTreeMap;

use serde::Serialize;
use splitmask_pipeline::types::UNLABELLED;

use crate::eval::classes::{Remarks, listed};
use crate::eval::error::EvalError;
use crate::eval::marks::{Dropped, Marks};

/// Classes that a table lists from either end.
const SHOWN: usize = 5;

/// Overlap of one class.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct OfClass {
    /// Its name, or number as text.
    pub class: String,
    /// Pixels of it in the label maps.
    pub pixels: u64,
    /// Pixels that are it and are called so ÷ pixels that are it or are called so; `None` without any.
    pub iou: Option<f64>,
    /// Share of its pixels that are called so; `None` without a pixel.
    pub accuracy: Option<f64>,
}

/// Outcome of an evaluation of the learnt classes of pixels. Counts are summed over the set before anything is divided.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Overlap {
    /// Mean of the classes' intersection over union, of those that a pixel is of or is called.
    pub mean_iou: f64,
    /// The same without the first class, which is the background where there is one.
    pub object_mean_iou: f64,
    /// Share of the pixels whose likeliest class is the right one.
    pub pixel_accuracy: f64,
    /// Mean of the classes' accuracies, of those that have a pixel.
    pub class_mean_accuracy: f64,
    /// `mean_iou` of always saying the commonest class.
    pub chance: f64,
    /// Images that were judged.
    pub images: usize,
    /// Pixels that were judged.
    pub pixels: u64,
    /// Pixels about which the maps say nothing, which were not.
    pub unlabelled_pixels: u64,
    /// Every class that is learnt, in the order of its number.
    pub classes: Vec<OfClass>,
    /// Samples that could not be judged, by reason, with the first of each.
    pub dropped: Dropped,
    /// What was left out.
    #[serde(flatten)]
    pub remarks: Remarks,
}

/// What was counted on the way.
#[derive(Default)]
pub(super) struct Tally {
    /// Outputs K of the head.
    pub(super) outputs: usize,
    pub(super) images: usize,
    /// K×K: pixels by what they are and what they are called.
    pairs: Vec<u64>,
    /// Pixels by a class of the set that no learnt class goes with.
    unknown: BTreeMap<i16, u64>,
}

impl Tally {
    /// Takes in the pairs of one image.
    pub(super) fn add(&mut self, pairs: &[i64]) {
        self.pairs.resize(pairs.len(), 0);
        self.pairs.iter_mut().zip(pairs).for_each(|(sum, count)| *sum += *count as u64);
        self.images += 1;
    }

    /// A pixel that is not judged.
    pub(super) fn left_out(&mut self, class: i16) {
        *self.unknown.entry(class).or_default() += 1;
    }

    pub(super) fn answer(mut self, marks: &Marks<'_>, dropped: Dropped) -> Result<Overlap, EvalError> {
        let unlabelled_pixels = self.unknown.remove(&UNLABELLED).unwrap_or(0);
        if self.images == 0 {
            let place = marks.place.to_owned();
            return Err(match dropped.example() {
                Some(example) => EvalError::NoMaps { place, example },
                None => EvalError::Empty { place },
            });
        }
        let k = self.outputs;
        let pixels: u64 = self.pairs.iter().sum();
        if pixels == 0 {
            let shown = self.unknown.keys().map(|class| *class as usize);
            return Err(marks.none_learnt(self.images, shown, k, "no labelled pixel"));
        }
        let right = |class: usize| self.pairs[class * k + class];
        let is = |class: usize| self.pairs[class * k..(class + 1) * k].iter().sum::<u64>();
        let called = |class: usize| (0..k).map(|row| self.pairs[row * k + class]).sum::<u64>();
        let share = |part: u64, whole: u64| (whole > 0).then(|| part as f64 / whole as f64);
        let classes: Vec<OfClass> = (0..k)
            .map(|class| OfClass {
                class: marks.learnt(class),
                pixels: is(class),
                iou: share(right(class), is(class) + called(class) - right(class)),
                accuracy: share(right(class), is(class)),
            })
            .collect();
        let commonest = (0..k).map(is).max().unwrap_or(0);
        let there = classes.iter().filter(|class| class.pixels > 0).count();
        let unknown = self.unknown.iter().map(|(class, pixels)| (*class as usize, *pixels));
        Ok(Overlap {
            mean_iou: mean(classes.iter().map(|class| class.iou)),
            object_mean_iou: mean(classes.iter().skip(1).map(|class| class.iou)),
            pixel_accuracy: (0..k).map(right).sum::<u64>() as f64 / pixels as f64,
            class_mean_accuracy: mean(classes.iter().map(|class| class.accuracy)),
            chance: commonest as f64 / pixels as f64 / there as f64,
            images: self.images,
            pixels,
            unlabelled_pixels,
            dropped,
            remarks: Remarks {
                left_out: marks.left_out(unknown, "pixels"),
                warning: marks.warning(),
            },
            classes,
        })
    }
}

/// Of those that there are; 0 without any.
fn mean(values: impl Iterator<Item = Option<f64>>) -> f64 {
    let all: Vec<f64> = values.flatten().collect();
    all.iter().sum::<f64>() / all.len().max(1) as f64
}

/// Lines for a terminal.
pub(super) fn table(found: &Overlap) -> Vec<String> {
    let mut lines = vec![
        format!("mean IoU         {:.4}   ({} images)", found.mean_iou, found.images),
        format!(
            "without first    {:.4}   (all classes but {})",
            found.object_mean_iou, found.classes[0].class
        ),
        format!("pixel accuracy   {:.4}", found.pixel_accuracy),
        format!("mean of classes  {:.4}", found.class_mean_accuracy),
        format!("commonest class  {:.4}   (mean IoU of always saying it)", found.chance),
    ];
    let mut judged: Vec<&OfClass> = found.classes.iter().filter(|class| class.iou.is_some()).collect();
    judged.sort_by(|a, b| a.iou.partial_cmp(&b.iou).expect("overlaps are numbers"));
    let shown = |classes: &[&OfClass]| {
        let each = classes
            .iter()
            .map(|class| format!("{} {:.2}", class.class, class.iou.unwrap_or(0.0)));
        each.collect::<Vec<_>>().join(", ")
    };
    lines.push(format!("worst classes    {}", shown(&judged[..SHOWN.min(judged.len())])));
    judged.reverse();
    lines.push(format!("best classes     {}", shown(&judged[..SHOWN.min(judged.len())])));
    let without: Vec<&str> = found.classes.iter().filter(|c| c.pixels == 0).map(|c| c.class.as_str()).collect();
    if !without.is_empty() {
        lines.push(format!("no pixel of      {}", listed(&without)));
    }
    if found.unlabelled_pixels > 0 {
        let all = (found.pixels + found.unlabelled_pixels) as f64;
        lines.push(format!(
            "without a label  {:.1} % of the pixels, not judged",
            100.0 * found.unlabelled_pixels as f64 / all
        ));
    }
    lines.extend(found.dropped.lines());
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn marks<'a>(theirs: &[&str], learnt: &'a [String]) -> Marks<'a> {
        Marks {
            place: "v",
            theirs: names(theirs),
            learnt,
        }
    }

    fn tally(images: &[[i64; 9]]) -> Tally {
        let mut tally = Tally {
            outputs: 3,
            ..Tally::default()
        };
        images.iter().for_each(|pairs| tally.add(pairs));
        tally
    }

    #[test]
    fn counts_are_summed_over_the_set_and_a_class_without_a_union_counts_nowhere() {
        // Class 2 is in no map and is never said.
        let tally = tally(&[[8, 2, 0, 1, 1, 0, 0, 0, 0], [4, 0, 0, 3, 1, 0, 0, 0, 0]]);
        let learnt = names(&["ground", "cat", "dog"]);
        let found = tally.answer(&marks(&[], &learnt), Dropped::default()).unwrap();
        let iou: Vec<Option<f64>> = found.classes.iter().map(|class| class.iou).collect();
        assert_eq!(iou, [Some(12.0 / 18.0), Some(2.0 / 8.0), None]);
        assert_eq!(found.mean_iou, f64::midpoint(12.0 / 18.0, 2.0 / 8.0));
        assert_eq!((found.object_mean_iou, found.pixel_accuracy), (0.25, 14.0 / 20.0));
        assert_eq!(found.class_mean_accuracy, f64::midpoint(12.0 / 14.0, 2.0 / 6.0));
        assert_eq!(found.chance, 14.0 / 20.0 / 2.0);
        assert!(table(&found).contains(&"no pixel of      dog".to_owned()), "{:?}", table(&found));
    }

    #[test]
    fn what_cannot_be_judged_is_told_by_name() {
        let mut tally = tally(&[[1, 0, 0, 0, 0, 0, 0, 0, 0]]);
        [UNLABELLED, UNLABELLED, 4, 1].into_iter().for_each(|class| tally.left_out(class));
        let dropped = Dropped(BTreeMap::from([("no_map", (3, "s: k: none".to_owned()))]));
        let learnt = names(&["ground"]);
        let found = tally.answer(&marks(&["ground", "moon"], &learnt), dropped).unwrap();
        assert_eq!(found.unlabelled_pixels, 2);
        let told = found.remarks.lines().join("\n");
        assert!(
            told.contains("beyond the class list") && told.contains("class 4 (1 pixel)"),
            "{told}"
        );
        assert!(
            told.contains("not among the learnt classes") && told.contains("moon (1 pixel)"),
            "{told}"
        );
        assert!(table(&found).iter().any(|line| line.contains("3 samples, no_map: s: k: none")));
    }

    #[test]
    fn a_set_with_nothing_to_judge_is_refused() {
        let dropped = Dropped(BTreeMap::from([("no_map", (2, "x".into()))]));
        let none = Tally::default().answer(&marks(&[], &[]), dropped);
        assert!(none.unwrap_err().to_string().contains("no sample has a label map that fits"));
        let other = tally(&[[0; 9]]).answer(&marks(&[], &names(&["a"])), Dropped::default());
        assert!(matches!(other, Err(EvalError::NoneLearnt { .. })));
    }
}
