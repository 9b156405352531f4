//! A start for detection: the encoder, and a script that trains torchvision's Mask R-CNN on it (arXiv 2112.10740 section 5.5, arXiv 1703.06870).

use serde_json::json;

use super::timm::Timm;
use super::{Answer, Card, Dtype, Encoder, ExportError, Exporter, Layout, Tensors, hidden};

/// `--format torchvision-maskrcnn`.
pub(super) struct MaskRcnn;

/// Name of the script in an export.
const SCRIPT_FILE: &str = "mask_rcnn.py";
const SCRIPT: &str = include_str!("mask_rcnn.py");

impl Exporter for MaskRcnn {
    fn name(&self) -> &'static str {
        "torchvision-maskrcnn"
    }

    fn doc(&self) -> &'static str {
        "the encoder and mask_rcnn.py, which trains torchvision's Mask R-CNN on it: objects with boxes and masks"
    }

    fn express(&self, encoder: &Encoder) -> Result<Encoder, ExportError> {
        if encoder.head.is_some() {
            return Err(ExportError::Cannot {
                format: self.name(),
                what: "a head that tells classes apart",
                hint: "give --encoder-only: a detector has heads of its own".into(),
            });
        }
        encoder.refuse_relative_bias(self.name())?;
        encoder.with_joined_biases()
    }

    fn tensors(&self, encoder: &Encoder) -> Tensors {
        Timm.tensors(encoder)
    }

    fn layout(&self, encoder: &Encoder) -> Layout {
        Timm.layout(encoder)
    }

    fn read(&self, tensors: &Tensors, like: &Encoder) -> Result<Encoder, ExportError> {
        Timm.read(tensors, like)
    }

    fn settings(&self, encoder: &Encoder, card: &Card, _dtype: Dtype) -> Vec<(&'static str, String)> {
        let m = &encoder.model;
        let config = json!({
            "image": m.image, "patch": m.patch, "width": m.dim(), "layers": m.layers(), "heads": m.head_count(), "hidden": hidden(m),
            "layer_scale": m.layer_scale > 0.0, "mean": card.mean, "std": card.std,
        });
        vec![("config.json", format!("{config:#}\n")), (SCRIPT_FILE, SCRIPT.to_owned())]
    }

    fn snippet(&self, folder: &str, _answer: Answer) -> String {
        format!(
            "# In a shell; needs torch, torchvision, safetensors, pycocotools:\n\
             #   python {folder}/mask_rcnn.py train IMAGES annotations.json --out detector.pt\n\
             #   python {folder}/mask_rcnn.py find IMAGES val.json detector.pt --out results.json\n\
             #   splitmask eval detections val.json results.json --of masks\n\
             import sys; sys.path.insert(0, \"{folder}\")\n\
             from mask_rcnn import detector\n\
             model = detector(\"{folder}\", classes=12)   # torchvision.models.detection.MaskRCNN with this encoder"
        )
    }

    fn library(&self) -> Option<&'static str> {
        None
    }
}
