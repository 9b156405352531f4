//! Mask R-CNN (arXiv 1703.06870) with a feature pyramid (arXiv 1612.03144) on a plain transformer, by torchvision's rules; where they differ from the
//! papers, torchvision's count, and parameters have its names, so that weights go either way.
//!
//! What is matched, sampled and suppressed is plain numbers on the host (`anchors`, `matching`, `sampling`, `suppression`): a training step waits for
//! the device once, where the proposals are copied to the host; finding objects waits twice more, for boxes and masks.

mod anchors;
mod coder;
mod corners;
mod found;
mod layers;
mod matching;
mod objects;
mod on_host;
mod proposals;
mod pyramid;
mod region_heads;
mod regions;
mod roi_align;
mod rules;
mod sampling;
mod suppression;

use tch::nn::Path;
use tch::{Kind, Tensor};
use torch_ext::ranks::{Ranks, RanksError, Reduce};

use anchors::ANCHORS;
pub use anchors::Anchors;
pub use coder::BoxCoder;
pub use corners::{Corners, area, clipped, overlap};
pub use found::{Found, Pasted, pasted};
pub use matching::{Match, Thresholds, matched};
pub use objects::Objects;
pub use pyramid::{SCALES, blocks_taken};
pub use roi_align::{Bitmap, Level, Region, RoiAlign, level_of};
pub use rules::{ProposalRules, RegionRules, Rules};
pub use sampling::{Quota, Sampled, Sampling};
pub use suppression::suppressed;

use proposals::ProposalHead;
use pyramid::Pyramid;
use region_heads::{BoxHead, MaskHead};
use regions::RegionTargets;
use roi_align::sent;

use super::Neck;

/// Shape of the network. The defaults are torchvision's.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MaskRcnnConfig {
    /// Classes of objects, background not counted.
    pub classes: i64,
    /// Channels of the pyramid.
    pub channels: i64,
    /// Columns between regions and their classes.
    pub box_width: i64,
    /// Convolutions before masks are doubled.
    pub mask_depth: usize,
    /// Their channels.
    pub mask_width: i64,
    /// Side of a region in cells, for its class and box.
    pub box_side: usize,
    /// For its mask, which has twice as many.
    pub mask_side: usize,
    /// Sides of anchors on the finest level, patches. Each next level's are twice as long.
    pub anchor: f64,
    /// Side in pixels of a region that is read off a map of 16 pixels a cell.
    pub canonical: f64,
    /// Whether regions are aligned with the centres of cells ([`RoiAlign::aligned`]).
    pub aligned: bool,
}

impl MaskRcnnConfig {
    /// torchvision's shape for so many classes.
    #[must_use]
    pub fn of_classes(classes: i64) -> Self {
        Self {
            classes,
            channels: 256,
            box_width: 1024,
            mask_depth: 4,
            mask_width: 256,
            box_side: 7,
            mask_side: 14,
            anchor: 2.0,
            canonical: 224.0,
            aligned: false,
        }
    }
}

/// The losses of a batch, scalars with gradient, and what they are means over.
#[derive(Debug)]
pub struct MaskRcnnLosses {
    /// Cross-entropy of objectness over sampled anchors, nats.
    pub objectness: Tensor,
    /// Smooth L1 of anchors that stand for objects, a sampled anchor.
    pub proposal_box: Tensor,
    /// Cross-entropy of classes over sampled regions, nats.
    pub class: Tensor,
    /// Smooth L1 of regions that stand for objects, a sampled region.
    pub region_box: Tensor,
    /// Cross-entropy of the cells of masks, nats.
    pub mask: Tensor,
    /// Share of the sampled regions whose class is the likeliest one, without gradient.
    pub class_accuracy: Tensor,
    /// Sampled anchors and regions on this rank: all, and those that stand for objects.
    pub anchors: [usize; 2],
    /// The same of regions.
    pub regions: [usize; 2],
}

impl MaskRcnnLosses {
    /// The five losses by torchvision's names.
    pub fn terms(&self) -> [(&'static str, &Tensor); 5] {
        [
            ("objectness", &self.objectness),
            ("rpn_box_reg", &self.proposal_box),
            ("classifier", &self.class),
            ("box_reg", &self.region_box),
            ("mask", &self.mask),
        ]
    }
}

/// All that stands behind the blocks of the transformer.
#[derive(Debug)]
pub struct MaskRcnn {
    neck: Neck,
    pyramid: Pyramid,
    proposal_head: ProposalHead,
    box_head: BoxHead,
    mask_head: MaskHead,
    config: MaskRcnnConfig,
    /// Side of the canvas in pixels, and of a patch.
    image: i64,
    patch: i64,
}

impl MaskRcnn {
    /// Whether a canvas of `image` pixels in patches of `patch` has whole maps at all scales, each half the size of the one before.
    #[must_use]
    pub fn fits(image: u32, patch: u32) -> bool {
        patch >= 4 && patch.is_power_of_two() && image > 0 && image.is_multiple_of(2 * patch)
    }

    /// Over outputs of `dim` columns of a transformer that sees `image` pixels in patches of `patch` ([`MaskRcnn::fits`]), under `vs`: `neck.*`,
    /// `pyramid.*`, `rpn.*`, `roi_heads.*`.
    #[must_use]
    pub fn new(vs: &Path<'_>, dim: i64, image: i64, patch: i64, config: &MaskRcnnConfig) -> Self {
        let (grid, outputs) = (image / patch, config.classes + 1);
        // A cell of the last map stands for every second one of the map before, rounded up.
        let sides = [4 * grid, 2 * grid, grid, grid / 2, (grid / 2 + 1) / 2];
        let finest = config.anchor * patch as f64;
        let mut times = 0.5;
        let levels = sides.map(|side| {
            times *= 2.0;
            (side, (finest * times) as f32)
        });
        Self {
            neck: Neck::new(&(vs / "neck"), dim),
            pyramid: Pyramid::new(vs, dim, config.channels),
            proposal_head: ProposalHead::new(vs, config.channels, image, &levels),
            box_head: BoxHead::new(vs, config.channels, config.box_side as i64, config.box_width, outputs),
            mask_head: MaskHead::new(vs, config.channels, config.mask_depth, config.mask_width, outputs),
            config: *config,
            image,
            patch,
        }
    }

    /// Tokens B×(1+N)×D behind the four blocks ([`blocks_taken`]) to the maps of the pyramid.
    fn maps(&self, blocks: &[Tensor], training: Option<&Ranks>) -> Result<Vec<Tensor>, RanksError> {
        Ok(self.pyramid.forward(&self.neck.forward(&Neck::maps(blocks), training)?))
    }

    /// Regions off the maps: R×C×side×side.
    fn pooled(&self, maps: &[Tensor], regions: &[Region], side: usize) -> Tensor {
        let finest = 4.0 / self.patch as f32;
        let scale = |level: usize| finest / (1 << level) as f32;
        let levels: Vec<Level<'_>> = maps[..SCALES]
            .iter()
            .enumerate()
            .map(|(n, maps)| Level { maps, scale: scale(n) })
            .collect();
        let canonical = self.config.canonical as f32;
        let of = |region: &Region| level_of(region.corners, canonical, finest, SCALES);
        let align = RoiAlign {
            side,
            samples: Some(2),
            aligned: self.config.aligned,
        };
        align.pooled(&levels, regions, &regions.iter().map(of).collect::<Vec<_>>())
    }

    /// The losses of a batch of canvases that are pictures all over. `blocks`: tokens behind [`blocks_taken`]. In `training` normalised by the batch; else
    /// by what was seen, with the number of proposals of a training all the same. On several ranks means are over all of them.
    ///
    /// # Errors
    /// Ranks that are no longer together.
    ///
    /// # Panics
    /// There are not as many `objects` as pictures, or masks and labels as boxes.
    pub fn losses(
        &self,
        blocks: &[Tensor],
        objects: &[Objects<'_>],
        rules: &Rules,
        sampling: Sampling,
        training: Option<&Ranks>,
    ) -> Result<MaskRcnnLosses, RanksError> {
        assert_eq!(blocks[0].size()[0] as usize, objects.len(), "objects of every picture");
        for picture in objects {
            assert_eq!(
                [picture.labels.len(), picture.masks.len()],
                [picture.boxes.len(); 2],
                "labels and masks of every box"
            );
        }
        let maps = self.maps(blocks, training)?;
        let said = self.proposal_head.forward(&maps);
        // Before the host waits for the device.
        let anchors = self.proposal_head.targets(objects, &rules.proposals, sampling);
        let (objectness, proposal_box) = self.proposal_head.losses(&said, &anchors);
        let sizes = vec![[self.image as f32; 2]; objects.len()];
        let proposals = self.proposal_head.proposals(&said, &rules.proposals, true, &sizes);
        let regions = RegionTargets::new(&proposals, objects, &rules.regions, sampling);
        let (logits, steps) = self.box_head.forward(&self.pooled(&maps, &regions.regions, self.config.box_side));
        let (class, region_box, right) = regions.box_losses(&logits, &steps, objects);
        let masked = regions.masked();
        let masks = self.mask_head.forward(&self.pooled(&maps, &masked, self.config.mask_side));
        let mask = regions.mask_loss(&masks, objects, self.image as usize);
        let cells = masks.size()[2] * masks.size()[3];
        let numbers = [anchors.count(), regions.regions.len(), masked.len() * cells as usize].map(|n| n as f32);
        let over = sent(&numbers, &[3], masks.device());
        // Each rank divides its sums by the mean of all ranks' numbers: the mean of these quotients is the quotient of all sums.
        if let Some(ranks) = training {
            ranks.all_reduce(&[(&over, Reduce::Mean)])?;
        }
        let over = over.clamp_min(1.0);
        let [anchor, region, cell] = [0, 1, 2].map(|n| over.get(n));
        Ok(MaskRcnnLosses {
            objectness: objectness / &anchor,
            proposal_box: proposal_box / anchor,
            class: class / &region,
            region_box: region_box / &region,
            mask: mask / cell,
            class_accuracy: right / region,
            anchors: [anchors.count(), anchors.objects()],
            regions: [regions.regions.len(), regions.positives()],
        })
    }

    /// What is found in the pictures of a batch, in pixels of the canvas. `sizes`: what of its canvas, from the left and the top, each picture fills, width
    /// and height in pixels.
    #[must_use]
    pub fn find(&self, blocks: &[Tensor], sizes: &[[f32; 2]], rules: &Rules) -> Vec<Found> {
        tch::no_grad(|| {
            let maps = self.maps(blocks, None).expect("an evaluation asks no other rank");
            let said = self.proposal_head.forward(&maps);
            let proposals = self.proposal_head.proposals(&said, &rules.proposals, false, sizes);
            let of_picture = |(picture, boxes): (usize, Vec<Corners>)| boxes.into_iter().map(move |corners| Region { picture, corners });
            let regions: Vec<Region> = proposals.into_iter().enumerate().flat_map(of_picture).collect();
            let (logits, steps) = self.box_head.forward(&self.pooled(&maps, &regions, self.config.box_side));
            let mut found = found::found_boxes(&logits, &steps, &regions, sizes, &rules.regions);
            let of_picture = |(picture, found): (usize, &Found)| -> Vec<Region> {
                found.boxes.iter().map(|&corners| Region { picture, corners }).collect()
            };
            let regions: Vec<Region> = found.iter().enumerate().flat_map(of_picture).collect();
            let masks = self.mask_head.forward(&self.pooled(&maps, &regions, self.config.mask_side));
            found::put_masks(&mut found, &masks.to_kind(Kind::Float));
            found
        })
    }

    /// Floating point operations of a forward pass over one picture of `grid` × `grid` patches of `dim` columns, with `[regions, those with masks]`.
    #[must_use]
    pub fn flops(dim: i64, grid: i64, config: &MaskRcnnConfig, regions: [f64; 2]) -> f64 {
        let (d, c) = (dim as f64, config.channels as f64);
        let cells = [16.0, 4.0, 1.0, 0.25].map(|times| times * (grid * grid) as f64);
        let neck = Neck::flops(dim, grid);
        let all: f64 = cells.iter().sum();
        let pyramid = 2.0 * all * (d * c + 9.0 * c * c);
        let proposals = 2.0 * (all + cells[3] / 4.0) * (9.0 * c * c + 5.0 * ANCHORS as f64 * c);
        let outputs = (config.classes + 1) as f64;
        let (width, side) = (config.box_width as f64, (config.box_side * config.box_side) as f64);
        let boxes = 2.0 * regions[0] * (side * c * width + width * width + 5.0 * width * outputs);
        let (width, side) = (config.mask_width as f64, (config.mask_side * config.mask_side) as f64);
        let convolutions = 9.0 * width * (c + (config.mask_depth as f64 - 1.0) * width);
        let masks = 2.0 * regions[1] * side * (convolutions + 4.0 * width * width + 4.0 * width * outputs);
        neck + pyramid + proposals + boxes + masks
    }

    /// Moves the running statistics, unless the step was skipped.
    pub fn after_step(&mut self, skipped: &Tensor) {
        self.neck.after_step(skipped);
    }
}
