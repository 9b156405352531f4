//! Our own names, for `run.init_from` and for readers without a library.

use super::timm::layout;
use super::{Answer, Card, Dtype, Encoder, ExportError, Exporter, Layout, Tensors};
use crate::head::DeconvHead;
use crate::model::QkvBias;

/// Loads a segmentation with timm, which has no relative biases; also a file of the repository.
const LOADER: &str = include_str!("../../setup/load_segmenter.py");

/// `--format safetensors`.
pub(super) struct Plain;

fn same(tensors: &Tensors) -> Tensors {
    tensors.iter().map(|(n, t)| (n.clone(), t.shallow_clone())).collect()
}

impl Exporter for Plain {
    fn name(&self) -> &'static str {
        "safetensors"
    }

    fn doc(&self) -> &'static str {
        "the tensors under our own names, for run.init_from and readers without a library"
    }

    fn express(&self, encoder: &Encoder) -> Result<Encoder, ExportError> {
        // A head goes to the file of what is not the encoder.
        Ok(Encoder {
            model: encoder.model.clone(),
            tensors: same(&encoder.tensors),
            head: None,
        })
    }

    fn tensors(&self, encoder: &Encoder) -> Tensors {
        same(&encoder.tensors)
    }

    fn layout(&self, encoder: &Encoder) -> Layout {
        let m = &encoder.model;
        let mut all = layout(m);
        if encoder.qkv_bias() == QkvBias::QueryValue {
            for i in 0..m.layers() {
                all.remove(&format!("blocks.{i}.attn.qkv.bias"));
                all.insert(format!("blocks.{i}.attn.q_bias"), vec![m.dim()]);
                all.insert(format!("blocks.{i}.attn.v_bias"), vec![m.dim()]);
            }
        }
        if m.relative_bias {
            let rows = (2 * m.grid() - 1).pow(2) + 3;
            all.insert("rel_pos_bias.relative_position_bias_table".into(), vec![rows, m.head_count()]);
        }
        all
    }

    fn read(&self, tensors: &Tensors, like: &Encoder) -> Result<Encoder, ExportError> {
        Ok(Encoder {
            model: like.model.clone(),
            tensors: same(tensors),
            head: None,
        })
    }

    fn settings(&self, encoder: &Encoder, card: &Card, _dtype: Dtype) -> Vec<(&'static str, String)> {
        let mut files = vec![("config.toml", card.config_toml.clone())];
        if let Some(classes) = &card.pixel_classes {
            let m = &encoder.model;
            let mut about = serde_json::json!({
                "image": m.image, "patch": m.patch, "width": m.dim(), "depth": m.layers(), "heads": m.head_count(), "mlp_ratio": m.mlp_ratio,
                "layer_scale": m.layer_scale, "mean": card.mean, "std": card.std, "classes": classes.names,
            });
            match classes.pyramid {
                None => about["doublings"] = DeconvHead::doublings(m.patch).into(),
                Some(shape) => about["upernet"] = serde_json::json!({ "blocks": shape.blocks, "width": shape.width }),
            }
            files.push(("segment.json", format!("{about:#}\n")));
            if card.loader(encoder) {
                files.push(("load_segmenter.py", LOADER.to_owned()));
            }
        }
        files
    }

    fn snippet(&self, folder: &str, _answer: Answer) -> String {
        format!(
            "from safetensors.torch import load_file\n\
             encoder = load_file(\"{folder}/model.safetensors\")      # names of timm's VisionTransformer; config.toml has the geometry\n\
             decoder = load_file(\"{folder}/decoder.safetensors\")\n\
             # to start another run from it: splitmask train … --set run.init_from={folder}/model.safetensors"
        )
    }

    fn library(&self) -> Option<&'static str> {
        None
    }
}
