//! Average precision and recall of all pictures.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use serde::Serialize;

use super::annotations::{Object, Truth};
use super::area::SizeRange;
use super::matching::{Fate, MOST, OVERLAPS, Overlaps, Wanted, fates};
use super::overlap::Shape;
use super::results::{Detection, Detections};

/// Recalls at which precision is read off: 0, 0.01 … 1.
const RECALLS: usize = 101;

/// COCO's twelve numbers, shares of 1; none where no object counts.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Averages {
    /// Mean over overlaps of 0.5 to 0.95 and classes: "AP".
    pub precision: Option<f64>,
    /// At an overlap of 0.5.
    pub precision_50: Option<f64>,
    /// At an overlap of 0.75.
    pub precision_75: Option<f64>,
    /// Of objects up to 32² pixels.
    pub precision_small: Option<f64>,
    /// Of objects of 32² to 96² pixels.
    pub precision_medium: Option<f64>,
    /// Of objects from 96² pixels on.
    pub precision_large: Option<f64>,
    /// Share of the objects found with one detection of a picture and class, mean over overlaps and classes: "AR".
    pub recall_1: Option<f64>,
    /// With ten.
    pub recall_10: Option<f64>,
    /// With a hundred.
    pub recall_100: Option<f64>,
    /// With a hundred, of objects up to 32² pixels.
    pub recall_small: Option<f64>,
    /// With a hundred, of objects of 32² to 96² pixels.
    pub recall_medium: Option<f64>,
    /// With a hundred, of objects from 96² pixels on.
    pub recall_large: Option<f64>,
    /// Each class that has objects, in the order of the categories.
    pub classes: Vec<ClassAverage>,
}

/// Of one class.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ClassAverage {
    /// Its name.
    pub name: String,
    /// Objects that count, crowds left out.
    pub objects: usize,
    /// Mean over overlaps of 0.5 to 0.95.
    pub precision: f64,
    /// At an overlap of 0.5.
    pub precision_50: f64,
}

/// Detections of one picture and class and what became of them.
struct Judged {
    /// The best first, [`MOST`] at most.
    scores: Vec<f64>,
    /// By range of sizes: fates of the detections, and objects that count.
    ranges: Vec<(Vec<[Fate; OVERLAPS]>, usize)>,
}

/// Of one class in a range of sizes, with a number of detections: by overlap.
struct Curve {
    objects: usize,
    precision: [f64; OVERLAPS],
    recall: [f64; OVERLAPS],
}

/// Judges detections. Classes without an object, and numbers without one, are left out of the means.
#[must_use]
pub fn evaluate(truth: &Truth, detections: &Detections) -> Averages {
    let mut by_picture: BTreeMap<(u64, u64), (Vec<&Object>, Vec<&Detection>)> = BTreeMap::new();
    for picture in &truth.pictures {
        for object in &picture.objects {
            by_picture.entry((object.category, picture.id)).or_default().0.push(object);
        }
    }
    for detection in &detections.found {
        by_picture
            .entry((detection.category, detection.picture))
            .or_default()
            .1
            .push(detection);
    }
    let mut by_class: BTreeMap<u64, Vec<Judged>> = BTreeMap::new();
    for ((category, _), (objects, found)) in by_picture {
        by_class.entry(category).or_default().push(judge(&objects, found));
    }
    let curves = |range: usize, most: usize| -> Vec<(u64, Curve)> {
        by_class
            .iter()
            .filter_map(|(&category, judged)| Some((category, curve(judged, range, most)?)))
            .collect()
    };
    let whole = curves(0, MOST);
    let mean = |values: &mut dyn Iterator<Item = f64>| {
        let (sum, number) = values.fold((0.0, 0usize), |(sum, number), value| (sum + value, number + 1));
        (number > 0).then(|| sum / number as f64)
    };
    let precision = |curves: &[(u64, Curve)]| mean(&mut curves.iter().flat_map(|(_, c)| c.precision));
    let recall = |curves: &[(u64, Curve)]| mean(&mut curves.iter().flat_map(|(_, c)| c.recall));
    let sized: Vec<_> = (1..SizeRange::ALL.len()).map(|range| curves(range, MOST)).collect();
    let names: BTreeMap<u64, &str> = truth.categories.iter().map(|c| (c.id, c.name.as_str())).collect();
    Averages {
        precision: precision(&whole),
        precision_50: mean(&mut whole.iter().map(|(_, c)| c.precision[0])),
        precision_75: mean(&mut whole.iter().map(|(_, c)| c.precision[5])),
        precision_small: precision(&sized[0]),
        precision_medium: precision(&sized[1]),
        precision_large: precision(&sized[2]),
        recall_1: recall(&curves(0, 1)),
        recall_10: recall(&curves(0, 10)),
        recall_100: recall(&whole),
        recall_small: recall(&sized[0]),
        recall_medium: recall(&sized[1]),
        recall_large: recall(&sized[2]),
        classes: whole
            .iter()
            .map(|(category, curve)| ClassAverage {
                name: names
                    .get(category)
                    .map_or_else(|| format!("category {category}"), |&name| name.to_owned()),
                objects: curve.objects,
                precision: curve.precision.iter().sum::<f64>() / OVERLAPS as f64,
                precision_50: curve.precision[0],
            })
            .collect(),
    }
}

/// Scores are finite, and 0 is no more than −0.
fn falling(a: f64, b: f64) -> Ordering {
    b.partial_cmp(&a).unwrap_or(Ordering::Equal)
}

fn judge(objects: &[&Object], mut found: Vec<&Detection>) -> Judged {
    // Stable: of equal scores the one that stands first in the file.
    found.sort_by(|a, b| falling(a.score, b.score));
    found.truncate(MOST);
    let wanted: Vec<Wanted<'_>> = objects
        .iter()
        .map(|o| Wanted {
            shape: &o.shape,
            area: o.area,
            crowd: o.crowd,
        })
        .collect();
    let shapes: Vec<(&Shape, f64)> = found.iter().map(|d| (&d.shape, d.shape.area())).collect();
    let overlaps = Overlaps::of(&shapes, &wanted);
    Judged {
        scores: found.iter().map(|d| d.score).collect(),
        ranges: SizeRange::ALL.map(|range| fates(&shapes, &wanted, &overlaps, range)).into(),
    }
}

/// None where no object counts.
fn curve(judged: &[Judged], range: usize, most: usize) -> Option<Curve> {
    let objects: usize = judged.iter().map(|j| j.ranges[range].1).sum();
    if objects == 0 {
        return None;
    }
    let mut order: Vec<(f64, &[Fate; OVERLAPS])> = judged
        .iter()
        .flat_map(|j| j.scores.iter().copied().zip(&j.ranges[range].0).take(most))
        .collect();
    order.sort_by(|a, b| falling(a.0, b.0));
    let mut result = Curve {
        objects,
        precision: [0.0; OVERLAPS],
        recall: [0.0; OVERLAPS],
    };
    for k in 0..OVERLAPS {
        let (mut right, mut wrong) = (0usize, 0usize);
        // Recall and precision after each detection, those too that do not count.
        let mut points: Vec<(f64, f64)> = order
            .iter()
            .map(|(_, fate)| {
                match fate[k] {
                    Fate::Right => right += 1,
                    Fate::Wrong => wrong += 1,
                    Fate::Left => {}
                }
                let precision = right as f64 / ((right + wrong) as f64 + f64::EPSILON);
                (right as f64 / objects as f64, precision)
            })
            .collect();
        for at in (1..points.len()).rev() {
            points[at - 1].1 = points[at - 1].1.max(points[at].1);
        }
        let step = 1.0 / (RECALLS - 1) as f64;
        let read_off = |n: usize| {
            let at = points.partition_point(|(recall, _)| *recall < n as f64 * step);
            points.get(at).map_or(0.0, |(_, precision)| *precision)
        };
        result.precision[k] = (0..RECALLS).map(read_off).sum::<f64>() / RECALLS as f64;
        result.recall[k] = points.last().map_or(0.0, |(recall, _)| *recall);
    }
    Some(result)
}
