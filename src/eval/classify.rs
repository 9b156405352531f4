//! How often a run that learns classes names the right one, on `data.val`: the likeliest class, the five likeliest, class by class.

use std::collections::BTreeMap;

use prometheus::Gauge;
use serde::Serialize;
use splitmask_pipeline::bucket::classes::ClassMap;
use tch::Tensor;
use torch_ext::Autocast;

use super::classes::{LeftOut, Remarks, Why, listed};
use super::config::{EvalConfig, Watched};
use super::error::EvalError;
use super::evaluation::{BesideNumber, Evaluation, Score, Subject};
use super::progress::{GoOn, Progress};
use crate::objective::{Better, Panel};
use crate::picture;
use crate::telemetry::metrics::{EvalTask, SideTask, TrainMetrics};
use crate::tensor::step_input;

/// Accuracy of the classes that the objective learns, on centre crops, classes of the set matched by name.
pub struct Classify;

/// Likeliest classes among which the right one counts for [`Accuracy::top5`].
const TOP: i64 = 5;
/// Classes and confusions that a table lists.
const SHOWN: usize = 5;
/// The picture of the confusions in the run folder, without `.png`.
pub const PICTURE: &str = "confusion";

impl Evaluation for Classify {
    fn name(&self) -> &'static str {
        "classify"
    }

    fn doc(&self) -> &'static str {
        "Accuracy of the classes that a run learnt (classify, supervised): the likeliest, the five likeliest, class by class."
    }

    fn number(&self) -> &'static str {
        "top1_accuracy"
    }

    fn better(&self) -> Better {
        Better::Higher
    }

    fn panel(&self) -> Option<Panel> {
        Some(Panel::Shares)
    }

    fn beside(&self) -> &'static [BesideNumber] {
        &[
            BesideNumber {
                name: "top5_accuracy",
                panel: Some(Panel::Shares),
                gauge: |metrics| metrics.eval.accuracy.of(EvalTask::ClassifyTop5),
            },
            BesideNumber {
                name: "class_mean_accuracy",
                panel: None,
                gauge: |metrics| metrics.eval.accuracy.of(EvalTask::ClassifyByClass),
            },
        ]
    }

    fn task(&self) -> SideTask {
        SideTask::Classify
    }

    fn gauge<'m>(&self, metrics: &'m TrainMetrics) -> &'m Gauge {
        metrics.eval.accuracy.of(EvalTask::Classify)
    }

    fn every(&self, config: &EvalConfig) -> u64 {
        if config.watch == Watched::Classify { config.every_steps } else { 0 }
    }

    fn run(&self, subject: &Subject<'_>, go_on: GoOn<'_>) -> Result<Score, EvalError> {
        let found = measure(subject, go_on)?;
        let (top1, top5, mean) = (found.top1, found.top5, found.class_mean);
        Ok(Score {
            value: top1,
            line: format!(
                "top-1 {top1:.4}, top-5 {top5:.4}, mean over classes {mean:.4} (chance {:.4}, commonest class {:.4})",
                found.chance, found.majority
            ),
            table: table(&found),
            details: serde_json::json!(found),
            layers: Vec::new(),
            beside: vec![top5, mean],
            picture: Some((PICTURE, picture::confusion(&found.names, &found.pairs))),
            remarks: found.remarks,
        })
    }
}

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
    names: Vec<String>,
    /// (what it is, what it was taken for) → images.
    #[serde(skip)]
    pairs: BTreeMap<(usize, usize), usize>,
}

/// What the network says of some images: (its likeliest class, whether `class` is among the five likeliest) for each.
fn judged(logits: &Tensor, classes: &[i64]) -> Result<Vec<(usize, bool)>, EvalError> {
    if logits.isfinite().all().int64_value(&[]) == 0 {
        return Err(EvalError::Torch(
            "the network's answers are not finite: its weights are broken".into(),
        ));
    }
    let most = TOP.min(logits.size()[1]);
    let (_, likeliest) = logits.f_topk(most, 1, true, true)?;
    let rows = Vec::<i64>::try_from(likeliest.contiguous().view([-1]))?;
    let each = rows.chunks_exact(most as usize).zip(classes);
    Ok(each.map(|(row, class)| (row[0] as usize, row.contains(class))).collect())
}

/// Accuracy on `data.val`, of `eval.max_queries` images at most.
///
/// # Errors
/// [`EvalError::NoClasses`], [`EvalError::NoLabels`], [`EvalError::NoneLearnt`], the stream's error, [`EvalError::OutOfTime`] or libtorch's.
pub fn measure(subject: &Subject<'_>, go_on: GoOn<'_>) -> Result<Accuracy, EvalError> {
    let _guard = tch::no_grad_guard();
    let _autocast = subject.bf16.then(|| Autocast::bf16(subject.device)).transpose()?;
    let learnt = subject.training.classes.ok_or(EvalError::NoClasses)?;
    let mut set = subject.sets.val()?;
    let named = |names: &'_ [String]| (!names.is_empty()).then(|| names.to_vec());
    let map = ClassMap::new(named(&set.names).as_deref(), named(learnt).as_deref());
    let mut tally = Tally::default();
    let (mut seen, most) = (0, subject.eval.max_queries as usize);
    while let Some(batch) = set.next(go_on)? {
        let wanted = if most == 0 { batch.len } else { batch.len.min(most - seen) };
        let input = step_input(&batch, 0..batch.len, subject.device, &subject.normalise)?;
        let logits = subject.objective.class_logits(&input.views[0].pixels).ok_or(EvalError::NoClasses)?;
        tally.outputs = logits.size()[1] as usize;
        let classes: Vec<i64> = batch.labels.iter().map(|label| map.label(*label)).collect();
        let said = judged(&logits.narrow(0, 0, wanted as i64), &classes[..wanted])?;
        for ((label, class), said) in batch.labels.iter().zip(classes).zip(said) {
            tally.count(*label, class, said);
        }
        seen += wanted;
        set.recycle(batch);
        if !go_on(Progress::Images(set.name, seen)) {
            return Err(EvalError::OutOfTime);
        }
        if most > 0 && seen >= most {
            break;
        }
    }
    let warning = (!map.is_by_name()).then(|| {
        format!(
            "labels were matched by number, because class names (manifest.json) are missing in {}: the same number may mean another class",
            if set.names.is_empty() {
                set.place.as_str()
            } else {
                "the run's checkpoint"
            }
        )
    });
    tally.answer(&set.place, &set.names, learnt, warning)
}

/// What was counted on the way.
#[derive(Default)]
struct Tally {
    /// Outputs of the head.
    outputs: usize,
    images: usize,
    unlabelled: usize,
    /// Images by a label of the set that no learnt class goes with.
    unknown: BTreeMap<i64, usize>,
    among_five: usize,
    pairs: BTreeMap<(usize, usize), usize>,
}

impl Tally {
    fn count(&mut self, label: i64, class: i64, (said, among_five): (usize, bool)) {
        match usize::try_from(class) {
            _ if label < 0 => self.unlabelled += 1,
            Ok(class) if class < self.outputs => {
                self.images += 1;
                self.among_five += usize::from(among_five);
                *self.pairs.entry((class, said)).or_default() += 1;
            }
            _ => *self.unknown.entry(label).or_default() += 1,
        }
    }

    fn answer(self, place: &str, theirs: &[String], learnt: &[String], warning: Option<String>) -> Result<Accuracy, EvalError> {
        let name = |names: &[String], label: usize| names.get(label).cloned().unwrap_or_else(|| format!("label {label}"));
        let names: Vec<String> = (0..self.outputs).map(|class| name(learnt, class)).collect();
        if self.images == 0 {
            let unknown: usize = self.unknown.values().sum();
            if unknown == 0 && self.unlabelled == 0 {
                return Err(EvalError::Empty { place: place.to_owned() });
            }
            if unknown == 0 {
                return Err(EvalError::NoLabels { place: place.to_owned() });
            }
            let theirs: Vec<String> = self.unknown.keys().map(|label| name(theirs, *label as usize)).collect();
            return Err(EvalError::NoneLearnt {
                place: place.to_owned(),
                images: unknown,
                theirs: listed(&theirs),
                learnt: listed(&names),
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
        let left_out = self.unknown.iter().map(|(label, images)| LeftOut {
            place: place.to_owned(),
            why: if !theirs.is_empty() && *label as usize >= theirs.len() {
                Why::BeyondTheList
            } else {
                Why::NotLearnt
            },
            class: name(theirs, *label as usize),
            images: *images,
        });
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
                left_out: left_out.collect(),
                warning,
            },
            names,
            pairs: self.pairs,
        })
    }
}

fn table(found: &Accuracy) -> Vec<String> {
    let learnt = found.classes.len();
    let mut lines = vec![
        format!("top-1 accuracy  {:.4}   ({} images)", found.top1, found.images),
        format!("top-5 accuracy  {:.4}", found.top5),
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
        let found = tally(&images).answer("val", &theirs, &learnt, None).unwrap();
        assert_eq!((found.images, found.unlabelled), (5, 1));
        assert!((found.top1 - 0.4).abs() < 1e-12 && (found.class_mean - 0.25).abs() < 1e-12);
        assert!((found.majority - 0.8).abs() < 1e-12 && (found.chance - 1.0 / 3.0).abs() < 1e-12);
        let of: Vec<_> = found.classes.iter().map(|c| (c.class.as_str(), c.images, c.accuracy)).collect();
        assert_eq!(of, [("b", 1, Some(0.0)), ("a", 4, Some(0.5)), ("c", 0, None)]);
        assert_eq!((found.confused[0].class.as_str(), found.confused[0].images), ("a", 2));
        let left: Vec<String> = found.remarks.left_out.iter().map(ToString::to_string).collect();
        assert!(left[0].starts_with("x of val (1 images: not among the learnt"), "{left:?}");
        assert!(left[1].starts_with("label 9 of val (1 images: beyond the class list"), "{left:?}");
        let table = table(&found).join("\n");
        assert!(table.contains("no image of     c") && table.contains("a for b (2)"), "{table}");
    }

    #[test]
    fn the_five_likeliest_count_and_few_classes_make_it_one() {
        let logits = Tensor::from_slice2(&[[9f32, 8.0, 7.0, 6.0, 5.0, 4.0], [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]]);
        assert_eq!(judged(&logits, &[4, 0]).unwrap(), [(0, true), (5, false)]);
        let two = Tensor::from_slice2(&[[1f32, 2.0]]);
        assert_eq!(judged(&two, &[0]).unwrap(), [(1, true)]);
        let broken = Tensor::from_slice2(&[[f32::NAN, 2.0]]);
        assert!(judged(&broken, &[0]).unwrap_err().to_string().contains("not finite"));
    }

    #[test]
    fn sets_with_nothing_to_judge_say_why() {
        let (theirs, learnt) = (names(&["x", "y"]), names(&["a", "b", "c"]));
        let wrong = |images: &[(i64, i64, usize)]| tally(images).answer("val", &theirs, &learnt, None).unwrap_err().to_string();
        assert!(wrong(&[]).contains("no image"));
        assert!(wrong(&[(-1, -1, 0)]).contains("no sample has a label"));
        let other = wrong(&[(0, -1, 0), (1, -1, 0)]);
        assert!(
            other.contains("none of its 2 labelled images") && other.contains("x, y") && other.contains("a, b, c"),
            "{other}"
        );
    }
}
