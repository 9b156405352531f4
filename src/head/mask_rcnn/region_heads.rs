//! What a region shows: its class and box (arXiv 1504.08083 §2.3, arXiv 1612.03144 §4.2), and its mask (arXiv 1703.06870 §3).

use tch::nn::{Linear, Path};
use tch::{Kind, Tensor};

use super::layers::{Convolution, Doubling, by_inputs, by_outputs, linear};
use crate::model::{Init, through};

/// Two layers over the cells of a region, then a class and the steps to a box for each class.
#[derive(Debug)]
pub(super) struct BoxHead {
    hidden: [Linear; 2],
    classes: Linear,
    steps: Linear,
}

impl BoxHead {
    /// From `channels` of `side` × `side` cells by `width` columns to `outputs` classes, background included, under `vs`: `roi_heads.box_*`.
    pub(super) fn new(vs: &Path<'_>, channels: i64, side: i64, width: i64, outputs: i64) -> Self {
        let heads = vs / "roi_heads";
        let hidden = |name: &str, inputs: i64| linear(&(&heads / "box_head" / name), inputs, width);
        let predicted = |name: &str, outputs: i64| linear(&(&heads / "box_predictor" / name), width, outputs);
        Self {
            hidden: [hidden("fc6", channels * side * side), hidden("fc7", width)],
            classes: predicted("cls_score", outputs),
            steps: predicted("bbox_pred", 4 * outputs),
        }
    }

    /// Regions R×C×side×side to logits R×K and steps R×K×4, f32.
    pub(super) fn forward(&self, regions: &Tensor) -> (Tensor, Tensor) {
        let mut x = regions.flatten(1, -1);
        for layer in &self.hidden {
            x = through(layer, &x).relu();
        }
        let said = |layer: &Linear| through(layer, &x).to_kind(Kind::Float);
        let (logits, steps) = (said(&self.classes), said(&self.steps));
        let size = logits.size();
        (logits, steps.view([size[0], size[1], 4]))
    }
}

/// Convolutions over the cells of a region, one doubling, then a logit for each class and cell.
#[derive(Debug)]
pub(super) struct MaskHead {
    layers: Vec<Convolution>,
    doubling: Doubling,
    logits: Convolution,
}

impl MaskHead {
    /// From `channels` by `depth` layers of `width` channels to `outputs` classes, background included, under `vs`: `roi_heads.mask_*`.
    pub(super) fn new(vs: &Path<'_>, channels: i64, depth: usize, width: i64, outputs: i64) -> Self {
        let heads = vs / "roi_heads";
        let mut inputs = channels;
        let layer = |n: usize| {
            let vs = &heads / "mask_head" / n / 0;
            let layer = Convolution::new(&vs, inputs, width, 3, by_outputs(9 * width), Init::Const(0.0));
            inputs = width;
            layer
        };
        let layers = (0..depth).map(layer).collect();
        let predictor = &heads / "mask_predictor";
        Self {
            layers,
            doubling: Doubling::new(&(&predictor / "conv5_mask"), inputs, width, by_outputs(4 * inputs)),
            logits: Convolution::new(
                &(&predictor / "mask_fcn_logits"),
                width,
                outputs,
                1,
                by_outputs(outputs),
                by_inputs(width),
            ),
        }
    }

    /// Regions R×C×side×side to logits R×K×2side×2side, f32.
    pub(super) fn forward(&self, regions: &Tensor) -> Tensor {
        let mut x = regions.shallow_clone();
        for layer in &self.layers {
            x = layer.forward(&x).relu();
        }
        self.logits.forward(&self.doubling.forward(&x).relu()).to_kind(Kind::Float)
    }
}
