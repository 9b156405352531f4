//! The network that proposes regions: whether an anchor holds an object, and the object's box (arXiv 1506.01497 §3.1).

use tch::nn::Path;
use tch::{Kind, Reduction, Tensor};

use super::anchors::{ANCHORS, Anchors};
use super::coder::BoxCoder;
use super::corners::{Corners, clipped, is_at_least};
use super::layers::Convolution;
use super::matching::{Match, Thresholds, matched};
use super::objects::Objects;
use super::on_host::{by_picture, rows_of};
use super::roi_align::sent;
use super::rules::ProposalRules;
use super::sampling::Sampling;
use super::suppression::suppressed;
use crate::model::Init;

/// Proposals are told in steps of equal weight.
const CODER: BoxCoder = BoxCoder([1.0; 4]);
/// Shorter proposals, in pixels, are left out.
const SHORTEST: f32 = 1e-3;
/// The kink of the box loss.
pub(super) const BETA: f64 = 1.0 / 9.0;
/// Of what [`Sampling::take`] samples.
const STAGE: u64 = 0;

/// A convolution over each map, and two by each cell.
#[derive(Debug)]
pub(super) struct ProposalHead {
    hidden: Convolution,
    objectness: Convolution,
    steps: Convolution,
    anchors: Anchors,
    /// A×4 on the device.
    references: Tensor,
}

/// What the head says of all anchors of a batch, by level.
pub(super) struct Said(Vec<(Tensor, Tensor)>);

/// What anchors are to learn, of all pictures: numbers among B×A, ascending by picture.
pub(super) struct AnchorTargets {
    /// Those that are learnt from, objects first.
    sampled: Vec<i64>,
    /// Boxes of the objects of the first ones.
    boxes: Vec<Corners>,
    anchors: i64,
}

impl AnchorTargets {
    /// Anchors that are learnt from.
    pub(super) fn count(&self) -> usize {
        self.sampled.len()
    }

    /// Those among them that stand for objects.
    pub(super) fn objects(&self) -> usize {
        self.boxes.len()
    }
}

impl ProposalHead {
    /// Over maps of `channels`, under `vs`: `rpn.head.*`. `levels`: side of each level's map, side of its anchors in pixels.
    pub(super) fn new(vs: &Path<'_>, channels: i64, image: i64, levels: &[(i64, f32)]) -> Self {
        let layer = |vs: Path<'_>, outputs: i64, kernel: i64| {
            Convolution::new(&vs, channels, outputs, kernel, Init::Normal { std: 0.01 }, Init::Const(0.0))
        };
        let root = vs / "rpn" / "head";
        let anchors = Anchors::new(image, levels);
        let references = sent(anchors.boxes.as_flattened(), &[anchors.boxes.len() as i64, 4], vs.device());
        Self {
            hidden: layer(&root / "conv" / 0 / 0, channels, 3),
            objectness: layer(&root / "cls_logits", ANCHORS, 1),
            steps: layer(&root / "bbox_pred", 4 * ANCHORS, 1),
            anchors,
            references,
        }
    }

    /// Of the maps of all levels: logits B×A and steps B×A×4 of each level's anchors, f32.
    pub(super) fn forward(&self, maps: &[Tensor]) -> Said {
        let of_level = |map: &Tensor| {
            let x = self.hidden.forward(map).relu();
            let b = x.size()[0];
            let logits = self.objectness.forward(&x).permute([0, 2, 3, 1]).reshape([b, -1]);
            // Channels are anchors, and steps within them.
            let steps = self.steps.forward(&x).permute([0, 2, 3, 1]).reshape([b, -1, 4]);
            (logits.to_kind(Kind::Float), steps.to_kind(Kind::Float))
        };
        Said(maps.iter().map(of_level).collect())
    }

    /// What anchors are to learn of `objects`: matched and sampled on the host, which knows all that it takes before the device has begun.
    pub(super) fn targets(&self, objects: &[Objects<'_>], rules: &ProposalRules, sampling: Sampling) -> AnchorTargets {
        let thresholds = Thresholds {
            object: rules.object as f32,
            background: rules.background as f32,
            best_of_each: true,
        };
        // Threads may not share tensors.
        let candidates = &self.anchors.boxes;
        let taken = by_picture(objects.len(), |n| {
            let matches = matched(objects[n].boxes, candidates, thresholds);
            let taken = sampling.take(&matches, rules.quota, objects[n].row, STAGE);
            let object = |&anchor: &usize| match matches[anchor] {
                Match::Object(object) => objects[n].boxes[object],
                Match::Background | Match::Unclear => unreachable!("sampled among objects"),
            };
            let boxes: Vec<Corners> = taken.objects.iter().map(object).collect();
            (taken, boxes)
        });
        let anchors = self.anchors.boxes.len() as i64;
        let numbers = |n: usize, of: &[usize]| -> Vec<i64> { of.iter().map(|&anchor| n as i64 * anchors + anchor as i64).collect() };
        let objects = taken.iter().enumerate().flat_map(|(n, (taken, _))| numbers(n, &taken.objects));
        let background = taken.iter().enumerate().flat_map(|(n, (taken, _))| numbers(n, &taken.background));
        AnchorTargets {
            sampled: objects.chain(background).collect(),
            boxes: taken.iter().flat_map(|(_, boxes)| boxes.iter().copied()).collect(),
            anchors,
        }
    }

    /// Sums over the sampled anchors: cross-entropy of objectness in nats, and the loss of the boxes of objects.
    pub(super) fn losses(&self, said: &Said, targets: &AnchorTargets) -> (Tensor, Tensor) {
        let device = self.references.device();
        let logits = Tensor::cat(&said.0.iter().map(|(logits, _)| logits).collect::<Vec<_>>(), 1).flatten(0, -1);
        let steps = Tensor::cat(&said.0.iter().map(|(_, steps)| steps).collect::<Vec<_>>(), 1).reshape([-1, 4]);
        let (all, found) = (targets.sampled.len() as i64, targets.boxes.len() as i64);
        let sampled = sent(&targets.sampled, &[all], device);
        let is_object: Vec<f32> = (0..all).map(|n| f32::from(n < found)).collect();
        let is_object = sent(&is_object, &[all], device);
        let chosen = logits.index_select(0, &sampled);
        let objectness = chosen.binary_cross_entropy_with_logits::<Tensor>(&is_object, None, None, Reduction::Sum);
        let of_objects = sampled.narrow(0, 0, found);
        let references = self.references.index_select(0, &of_objects.remainder(targets.anchors));
        let boxes = sent(targets.boxes.as_flattened(), &[found, 4], device);
        let wanted = CODER.encode(&boxes, &references);
        let boxes = steps.index_select(0, &of_objects).smooth_l1_loss(&wanted, Reduction::Sum, BETA);
        (objectness, boxes)
    }

    /// The best proposals of each picture by falling objectness, and their probabilities. The best anchors are chosen and decoded on the device; one copy
    /// brings them to the host, which suppresses what overlaps. `sizes`: what of the canvas each picture fills, width and height.
    pub(super) fn proposals(&self, said: &Said, rules: &ProposalRules, train: bool, sizes: &[[f32; 2]]) -> Vec<Vec<Corners>> {
        let (before, after) = rules.most(train);
        let mut level_of = Vec::new();
        let rows = tch::no_grad(|| {
            let mut first = 0;
            let of_level = |(level, (logits, steps)): (usize, &(Tensor, Tensor))| {
                let anchors = self.anchors.of_level[level] as i64;
                let most = before.min(anchors);
                let (logits, chosen) = logits.topk(most, 1, true, true);
                let b = chosen.size()[0];
                let steps = steps.gather(1, &chosen.unsqueeze(-1).expand([b, most, 4], false), false);
                let references = self.references.narrow(0, first, anchors);
                let references = references.index_select(0, &chosen.flatten(0, -1)).view([b, most, 4]);
                let boxes = CODER.decode(&steps.unsqueeze(-2), &references).squeeze_dim(-2);
                first += anchors;
                level_of.resize(level_of.len() + most as usize, level);
                Tensor::cat(&[boxes, logits.sigmoid().unsqueeze(-1)], -1)
            };
            Tensor::cat(&said.0.iter().enumerate().map(of_level).collect::<Vec<_>>(), 1)
        });
        let rows: Vec<[f32; 5]> = rows_of(&rows);
        let each = level_of.len();
        by_picture(sizes.len(), |n| {
            let (mut boxes, mut scores, mut levels) = (vec![], vec![], vec![]);
            for (&[left, top, right, bottom, score], &level) in rows[n * each..(n + 1) * each].iter().zip(&level_of) {
                let corners = clipped([left, top, right, bottom], sizes[n]);
                if is_at_least(corners, SHORTEST) && score >= rules.score as f32 {
                    boxes.push(corners);
                    scores.push(score);
                    levels.push(level);
                }
            }
            let mut stay = suppressed(&boxes, &scores, &levels, rules.overlap);
            stay.truncate(after);
            stay.into_iter().map(|number| boxes[number]).collect()
        })
    }
}
