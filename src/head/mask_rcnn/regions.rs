//! What regions are to learn, and how far they are from it.

use tch::{Kind, Reduction, Tensor};

use super::coder::BoxCoder;
use super::corners::Corners;
use super::matching::{Match, Thresholds, matched};
use super::objects::Objects;
use super::on_host::by_picture;
use super::proposals::BETA;
use super::roi_align::{Bitmap, Region, RoiAlign, sent};
use super::rules::RegionRules;
use super::sampling::Sampling;

/// Of what [`Sampling::take`] samples.
const STAGE: u64 = 1;
/// Steps to the boxes of objects, weighted by torchvision's defaults.
pub(super) const CODER: BoxCoder = BoxCoder([10.0, 10.0, 5.0, 5.0]);

/// A region that stands for an object.
struct Positive {
    /// Its number among all regions.
    region: usize,
    /// Picture and number of the object.
    object: (usize, usize),
    has_mask: bool,
}

/// Sampled regions of a batch.
pub(super) struct RegionTargets {
    /// All of them, picture by picture.
    pub(super) regions: Vec<Region>,
    /// Class of each; 0 = background.
    labels: Vec<i64>,
    positives: Vec<Positive>,
}

impl RegionTargets {
    /// Matches and samples `proposals`, which the objects themselves join, on the host.
    pub(super) fn new(proposals: &[Vec<Corners>], objects: &[Objects<'_>], rules: &RegionRules, sampling: Sampling) -> Self {
        let thresholds = Thresholds {
            object: rules.object as f32,
            background: rules.object as f32,
            best_of_each: false,
        };
        let taken = by_picture(objects.len(), |n| {
            let candidates = [proposals[n].as_slice(), objects[n].boxes].concat();
            let matches = matched(objects[n].boxes, &candidates, thresholds);
            let taken = sampling.take(&matches, rules.quota, objects[n].row, STAGE);
            let mut numbers = [taken.objects, taken.background].concat();
            // As torchvision has them.
            numbers.sort_unstable();
            let region = |number: usize| (candidates[number], matches[number]);
            numbers.into_iter().map(region).collect::<Vec<_>>()
        });
        let mut targets = Self {
            regions: vec![],
            labels: vec![],
            positives: vec![],
        };
        for (picture, (taken, objects)) in taken.into_iter().zip(objects).enumerate() {
            for (corners, found) in taken {
                let label = match found {
                    Match::Object(object) => {
                        targets.positives.push(Positive {
                            region: targets.regions.len(),
                            object: (picture, object),
                            has_mask: objects.masks[object].is_some(),
                        });
                        objects.labels[object]
                    }
                    Match::Background | Match::Unclear => 0,
                };
                targets.regions.push(Region { picture, corners });
                targets.labels.push(label);
            }
        }
        targets
    }

    /// How many regions stand for objects.
    pub(super) fn positives(&self) -> usize {
        self.positives.len()
    }

    /// Those whose objects have masks.
    pub(super) fn masked(&self) -> Vec<Region> {
        let masked = self.positives.iter().filter(|positive| positive.has_mask);
        masked.map(|positive| self.regions[positive.region]).collect()
    }

    /// Sums over the regions: cross-entropy of their classes in nats, and the loss of the boxes of those that stand for objects. `logits` R×K,
    /// `steps` R×K×4. Also how many classes are right (f32, on the device).
    pub(super) fn box_losses(&self, logits: &Tensor, steps: &Tensor, objects: &[Objects<'_>]) -> (Tensor, Tensor, Tensor) {
        let device = logits.device();
        let (all, found) = (self.regions.len() as i64, self.positives.len() as i64);
        let labels = sent(&self.labels, &[all], device);
        let classes = logits.cross_entropy_loss(&labels, None::<&Tensor>, Reduction::Sum, -100, 0.0);
        let right = logits.argmax(-1, false).eq_tensor(&labels).sum(Kind::Float);
        let outputs = logits.size()[1];
        let row = |positive: &Positive| positive.region as i64 * outputs + self.labels[positive.region];
        let rows: Vec<i64> = self.positives.iter().map(row).collect();
        let own = steps.reshape([-1, 4]).index_select(0, &sent(&rows, &[found], device));
        let of = |corners: Vec<Corners>| sent(corners.as_flattened(), &[found, 4], device);
        let boxes = self.positives.iter().map(|p| objects[p.object.0].boxes[p.object.1]).collect();
        let references = self.positives.iter().map(|p| self.regions[p.region].corners).collect();
        let wanted = CODER.encode(&of(boxes), &of(references));
        (classes, own.smooth_l1_loss(&wanted, Reduction::Sum, BETA), right)
    }

    /// Sum over the cells of the masks of regions whose objects have some, in nats; of each the mask of its object's class counts. `logits` P×K×M×M.
    pub(super) fn mask_loss(&self, logits: &Tensor, objects: &[Objects<'_>], canvas: usize) -> Tensor {
        let device = logits.device();
        let (found, outputs, side, _) = logits.size4().expect("logits are P×K×M×M");
        let masked: Vec<&Positive> = self.positives.iter().filter(|positive| positive.has_mask).collect();
        let row = |(n, positive): (usize, &&Positive)| n as i64 * outputs + self.labels[positive.region];
        let rows: Vec<i64> = masked.iter().enumerate().map(row).collect();
        let own = logits.reshape([-1, side, side]).index_select(0, &sent(&rows, &[found], device));
        let bitmap = |p: &&Positive| -> (Bitmap<'_>, Corners) {
            let bitmap = objects[p.object.0].masks[p.object.1];
            (bitmap.expect("a mask is there"), self.regions[p.region].corners)
        };
        let align = RoiAlign {
            side: side as usize,
            samples: None,
            aligned: false,
        };
        let wanted = align.of_bitmaps(&masked.iter().map(bitmap).collect::<Vec<_>>(), canvas, device);
        own.binary_cross_entropy_with_logits::<Tensor>(&wanted, None, None, Reduction::Sum)
    }
}
