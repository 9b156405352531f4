//! transformers' `BeitModel`: no key bias; LayerScale and a relative bias have a place.
//!
//! Ours has one table of relative biases for all layers. There each layer gets a copy, as in BEiTs that were fine-tuned: BEiT pre-trains with a shared
//! table too and lets the layers part afterwards.

use serde_json::json;
use tch::Tensor;

use super::head::Names;
use super::names::{layout, renamed, restored};
use super::{Answer, Card, Dtype, Encoder, ExportError, Exporter, Layout, Seen, Tensors, classification_snippet, hidden, preprocessor};
use crate::model::config::VitConfig;

/// `--format hf-beit`.
pub(super) struct HfBeit;

/// Around the head of `BeitForImageClassification`: on the class token, or with `use_mean_pooling` on the mean of the patches through the pooler's norm.
const NAMES: Names = Names {
    prefix: "beit.",
    last_norm: "layernorm",
    norm: "beit.pooler.layernorm",
    classifier: "classifier",
};

/// Our table of relative biases, which all layers share.
const RELATIVE: &str = "rel_pos_bias.relative_position_bias_table";

/// Theirs, of a layer.
fn relative(layer: i64) -> String {
    format!("encoder.layer.{layer}.attention.attention.relative_position_bias.relative_position_bias_table")
}

/// (ours, theirs) of what a BEiT has and a ViT has not.
fn extras(encoder: &Encoder) -> Vec<(String, String)> {
    let mut all = Vec::new();
    for i in 0..encoder.model.layers() {
        if encoder.model.layer_scale > 0.0 {
            for (ours, theirs) in [("ls1", "lambda_1"), ("ls2", "lambda_2")] {
                all.push((format!("blocks.{i}.{ours}.gamma"), format!("encoder.layer.{i}.{theirs}")));
            }
        }
        if encoder.model.relative_bias {
            all.push((RELATIVE.into(), relative(i)));
        }
    }
    all
}

/// With one bias of query, key and value a layer, in which that of the key is 0: it has no place there and no effect, since softmax over the keys ignores
/// what is equal for all of them.
pub(super) fn without_key_bias(encoder: &Encoder) -> Result<Encoder, ExportError> {
    let mut joined = encoder.with_joined_biases()?;
    let width = joined.model.dim();
    for i in 0..joined.model.layers() {
        if let Some(bias) = joined.tensors.get_mut(&format!("blocks.{i}.attn.qkv.bias")) {
            let thirds = bias.chunk(3, 0);
            *bias = Tensor::cat(&[&thirds[0], &thirds[1].zeros_like(), &thirds[2]], 0).view([3 * width]);
        }
    }
    Ok(joined)
}

/// The tensors of [`without_key_bias`] under the names of `BeitModel`.
pub(super) fn backbone(encoder: &Encoder) -> Tensors {
    let mut out = renamed(encoder, false);
    for (ours, theirs) in extras(encoder) {
        if let Some(t) = encoder.tensors.get(&ours) {
            // A copy of its own: a file holds no memory twice under two names.
            out.insert(theirs, t.copy());
        }
    }
    out
}

/// Names and shapes of `BeitModel` without pooler.
pub(super) fn backbone_layout(m: &VitConfig) -> Layout {
    let mut all = layout(m, false);
    for i in 0..m.layers() {
        if m.layer_scale > 0.0 {
            all.insert(format!("encoder.layer.{i}.lambda_1"), vec![m.dim()]);
            all.insert(format!("encoder.layer.{i}.lambda_2"), vec![m.dim()]);
        }
        if m.relative_bias {
            all.insert(relative(i), vec![(2 * m.grid() - 1).pow(2) + 3, m.head_count()]);
        }
    }
    all
}

/// The inverse of [`backbone`]; `like` has the geometry.
pub(super) fn read_backbone(tensors: &Tensors, like: &Encoder) -> Result<Tensors, ExportError> {
    let mut out = restored(tensors, &like.model)?;
    for (ours, theirs) in extras(like) {
        let t = tensors
            .get(&theirs)
            .ok_or_else(|| ExportError::Tensors(format!("there is no {theirs}")))?;
        if out.get(&ours).is_some_and(|first| first != t) {
            return Err(ExportError::Tensors(format!(
                "{theirs} differs from that of the first layer: ours has one for all"
            )));
        }
        out.insert(ours, t.shallow_clone());
    }
    Ok(out)
}

/// `BeitConfig` of the same encoder.
pub(super) fn config(m: &VitConfig) -> serde_json::Value {
    json!({
        "model_type": "beit", "hidden_size": m.dim(), "num_hidden_layers": m.layers(),
        "num_attention_heads": m.head_count(), "intermediate_size": hidden(m), "layer_norm_eps": 1e-6, "image_size": m.image,
        "patch_size": m.patch, "num_channels": 3, "hidden_act": "gelu", "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0, "drop_path_rate": 0.0, "use_mask_token": false, "use_absolute_position_embeddings": true,
        "use_relative_position_bias": m.relative_bias, "use_shared_relative_position_bias": false,
        "layer_scale_init_value": m.layer_scale, "use_mean_pooling": false,
    })
}

impl Exporter for HfBeit {
    fn name(&self) -> &'static str {
        "hf-beit"
    }

    fn doc(&self) -> &'static str {
        "transformers' BEiT, with LayerScale and relative position bias if the model has them"
    }

    fn express(&self, encoder: &Encoder) -> Result<Encoder, ExportError> {
        encoder.refuse_head(self.name(), &[Seen::ClassToken, Seen::Patches])?;
        without_key_bias(encoder)
    }

    fn tensors(&self, encoder: &Encoder) -> Tensors {
        NAMES.joined(backbone(encoder), encoder)
    }

    fn layout(&self, encoder: &Encoder) -> Layout {
        NAMES.layout(backbone_layout(&encoder.model), encoder)
    }

    fn read(&self, tensors: &Tensors, like: &Encoder) -> Result<Encoder, ExportError> {
        let (tensors, head) = NAMES.parted(tensors, like, "norm")?;
        Ok(Encoder {
            model: like.model.clone(),
            tensors: read_backbone(&tensors, like)?,
            head,
        })
    }

    fn settings(&self, encoder: &Encoder, card: &Card, dtype: Dtype) -> Vec<(&'static str, String)> {
        let mut config = config(&encoder.model);
        config["architectures"] = json!(["BeitModel"]);
        config["torch_dtype"] = json!(dtype.torch());
        if let Some(head) = &encoder.head {
            config["architectures"] = json!(["BeitForImageClassification"]);
            config["use_mean_pooling"] = json!(head.seen == Seen::Patches);
            (config["id2label"], config["label2id"]) = head.labels();
        }
        vec![
            ("config.json", format!("{config:#}\n")),
            ("preprocessor_config.json", preprocessor(encoder, card)),
        ]
    }

    fn snippet(&self, folder: &str, answer: Answer) -> String {
        if answer == Answer::Classes {
            return classification_snippet(folder, "BeitForImageClassification");
        }
        format!(
            "from transformers import AutoImageProcessor, BeitModel\n\
             model = BeitModel.from_pretrained(\"{folder}\", add_pooling_layer=False).eval()\n\
             processor = AutoImageProcessor.from_pretrained(\"{folder}\")\n\
             tokens = model(**processor(images, return_tensors=\"pt\")).last_hidden_state\n\
             features = {}",
            answer.in_python()
        )
    }

    fn library(&self) -> Option<&'static str> {
        Some("transformers")
    }
}
