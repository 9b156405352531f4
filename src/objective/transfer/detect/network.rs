//! The network and its losses.

use splitmask_pipeline::request::IMAGE;
use splitmask_pipeline::types::{Object, ObjectMask};
use tch::Tensor;
use tch::nn::Path;
use torch_ext::ranks::Reduce;
use torch_ext::send;

use super::{DetectConfig, KIND};
use crate::head::mask_rcnn::{Bitmap, Corners, Found, MaskRcnn, Objects, SCALES, Sampling, blocks_taken};
use crate::model::Vit;
use crate::objective::{Column, Losses, Objective, ObjectiveError, Plan, Scope, Sheet, StepContext, image, settings};
use crate::tensor::{StepInput, look};

/// Probability from which on what is found is drawn.
const DRAWN: f32 = 0.5;

/// An encoder, and what finds objects by the outputs of four of its blocks.
#[derive(Debug)]
pub(super) struct Detector {
    vit: Vit,
    detector: MaskRcnn,
    taken: [usize; SCALES],
    classes: i64,
    config: DetectConfig,
}

/// Objects that are learnt of a picture.
struct Learnt<'a> {
    boxes: Vec<Corners>,
    labels: Vec<i64>,
    masks: Vec<Option<Bitmap<'a>>>,
}

/// What was marked in a batch and is not learnt, beside all that was marked.
#[derive(Default)]
struct Counts {
    marked: usize,
    unknown: usize,
    without_mask: usize,
}

fn bitmap(mask: &ObjectMask) -> Bitmap<'_> {
    Bitmap {
        left: mask.left,
        top: mask.top,
        width: mask.width,
        height: mask.height,
        pixels: &mask.pixels,
    }
}

impl Detector {
    /// Parameters under `vs`: the encoder's at its root under timm's names, the others' beside them under torchvision's.
    pub(super) fn new(vs: &Path<'_>, config: &DetectConfig, at: &Scope<'_>) -> Self {
        let vit = Vit::new(vs, at.model, if config.freeze.is_encoder() { 0.0 } else { config.drop_path });
        if config.freeze.is_encoder() {
            vit.freeze();
        }
        // Maps are outputs of blocks as they are.
        vit.freeze_norm();
        let shape = config.shape(at);
        Self {
            detector: MaskRcnn::new(vs, vit.dim(), vit.image(), vit.patch(), &shape),
            taken: blocks_taken(vit.depth() as i64),
            vit,
            classes: shape.classes,
            config: config.clone(),
        }
    }

    /// Tokens behind the blocks that are taken.
    fn blocks(&self, images: &Tensor, train: bool) -> Vec<Tensor> {
        let blocks = || self.vit.outputs_of(images, &self.taken, train);
        if self.config.freeze.is_encoder() {
            tch::no_grad(blocks)
        } else {
            blocks()
        }
    }

    /// The objects of a step, of each image.
    fn marked<'a>(&self, x: &'a StepInput) -> Result<&'a [Vec<Object>], ObjectiveError> {
        let objective = KIND.name;
        let objects = x.objects.as_ref().ok_or(ObjectiveError::Lacks {
            objective,
            what: "objects",
        })?;
        if objects.len() as i64 != x.len {
            return Err(ObjectiveError::Shape {
                objective,
                what: "the list of objects",
                got: vec![objects.len() as i64],
                want: format!("[{}]", x.len),
            });
        }
        Ok(objects)
    }

    /// Those of them that are learnt. Crowds are not: what lies in one is neither found nor missed, and torchvision's training drops them too.
    fn learnt<'a>(&self, marked: &'a [Object], counts: &mut Counts) -> Learnt<'a> {
        let mut learnt = Learnt {
            boxes: vec![],
            labels: vec![],
            masks: vec![],
        };
        for object in marked.iter().filter(|object| !object.crowd) {
            counts.marked += 1;
            let label = i64::from(object.class) + 1;
            if label > self.classes {
                counts.unknown += 1;
                continue;
            }
            counts.without_mask += usize::from(object.mask.is_none());
            learnt.boxes.push(object.corners);
            learnt.labels.push(label);
            learnt.masks.push(object.mask.as_ref().map(bitmap));
        }
        learnt
    }
}

impl Objective for Detector {
    fn forward(&self, x: &StepInput, ctx: &StepContext) -> Result<Losses, ObjectiveError> {
        let images = image(KIND.name, x, &self.vit)?;
        let marked = self.marked(x)?;
        let mut counts = Counts::default();
        let learnt: Vec<Learnt<'_>> = marked.iter().map(|marked| self.learnt(marked, &mut counts)).collect();
        let rows = ctx.rows;
        let objects: Vec<Objects<'_>> = (0i64..)
            .zip(learnt.iter())
            .map(|(n, learnt)| Objects {
                row: (rows.start + n * rows.stride) as u64,
                boxes: &learnt.boxes,
                labels: &learnt.labels,
                masks: learnt.masks.clone(),
            })
            .collect();
        let blocks = self.blocks(images, ctx.train);
        let sampling = Sampling::Drawn { seed: ctx.seed };
        let losses = self
            .detector
            .losses(&blocks, &objects, &self.config.rules(), sampling, ctx.training())?;
        let weights = self.config.weights();
        let mut terms = Vec::with_capacity(weights.len());
        let mut total = Tensor::zeros_like(&losses.objectness);
        let names = ["objectness", "proposal_boxes", "region_classes", "region_boxes", "masks"];
        for ((name, (_, weight)), (_, loss)) in names.into_iter().zip(weights).zip(losses.terms()) {
            look(|| name.into(), loss);
            total += loss * weight;
            terms.push((name, loss.detach()));
        }
        let [[_, object_anchors], [regions, object_regions]] = [losses.anchors, losses.regions];
        let pictures = x.len as usize;
        let counted = [
            ("background_regions", regions - object_regions, regions),
            ("object_anchors", object_anchors, pictures),
            ("object_regions", object_regions, pictures),
            ("objects", counts.marked, pictures),
            ("unknown_class_objects", counts.unknown, counts.marked),
            ("objects_without_mask", counts.without_mask, counts.marked),
        ];
        let sent = |numbers: [usize; 6]| send(&numbers.map(|n| n as f32), &[6], total.device());
        let (parts, wholes) = (sent(counted.map(|(_, part, _)| part))?, sent(counted.map(|(_, _, whole)| whole))?);
        // Of several ranks each divides by the mean of all ranks' wholes, as in the losses; where there are none, there are no parts.
        if let Some(ranks) = ctx.training() {
            ranks.all_reduce(&[(&wholes, Reduce::Mean)])?;
        }
        let values = parts / wholes.clamp_min(1e-6);
        let mut stats = vec![("region_accuracy", losses.class_accuracy.detach())];
        stats.extend((0..).zip(counted).map(|(n, (name, ..))| (name, values.get(n))));
        Ok(Losses {
            stats,
            total,
            terms,
            counts: vec![],
            shares: vec![],
            counted: None,
        })
    }

    fn encoder(&self) -> &Vit {
        &self.vit
    }

    fn take_live(&mut self, plan: &dyn Plan) -> Result<(), ObjectiveError> {
        let new = settings::<DetectConfig>(plan, &KIND)?;
        // Of the keys that are not live, those in force stay.
        let kept = std::mem::replace(&mut self.config, new.clone());
        self.config = DetectConfig {
            classes: kept.classes,
            channels: kept.channels,
            box_width: kept.box_width,
            mask_depth: kept.mask_depth,
            mask_width: kept.mask_width,
            anchor: kept.anchor,
            canonical: kept.canonical,
            aligned: kept.aligned,
            freeze: kept.freeze,
            drop_path: kept.drop_path,
            scale: kept.scale,
            ..new.clone()
        };
        Ok(())
    }

    fn after_step(&mut self, _: &StepContext, skipped: &Tensor) -> Result<(), ObjectiveError> {
        self.detector.after_step(skipped);
        Ok(())
    }

    fn objects(&self, images: &Tensor, sizes: &[[f32; 2]]) -> Option<Vec<Found>> {
        let blocks = tch::no_grad(|| self.blocks(images, false));
        Some(self.detector.find(&blocks, sizes, &self.config.rules()))
    }

    fn is_class_head(&self, name: &str) -> bool {
        name.starts_with("roi_heads.box_predictor.") || name.starts_with("roi_heads.mask_predictor.mask_fcn_logits.")
    }

    fn is_head(&self, name: &str) -> bool {
        ["neck.", "pyramid.", "rpn.", "roi_heads."]
            .iter()
            .any(|part| name.starts_with(part))
    }

    fn pictures(&self, x: &StepInput) -> Result<Vec<Sheet>, ObjectiveError> {
        let images = image(KIND.name, x, &self.vit)?;
        let side = self.vit.image();
        let found = self.objects(images, &vec![[side as f32; 2]; x.len as usize]).unwrap_or_default();
        let drawn = |found: &Found| -> Vec<Object> {
            let sure = (0..found.boxes.len()).filter(|&n| found.scores[n] >= DRAWN);
            sure.map(|n| found.object(n, [1.0; 2], [side as u32; 2])).collect()
        };
        Ok(vec![Sheet {
            name: KIND.sheets[0].0,
            columns: vec![
                Column::View(IMAGE),
                Column::Objects(IMAGE, self.marked(x)?.to_vec()),
                Column::Objects(IMAGE, found.iter().map(drawn).collect()),
            ],
        }])
    }
}
