//! transformers' `ViTModel`.

use serde_json::json;

use super::head::Names;
use super::names::{layout, renamed, restored};
use super::{Answer, Card, Dtype, Encoder, ExportError, Exporter, Layout, Seen, Tensors, classification_snippet, hidden, preprocessor};

/// `--format hf-vit`.
pub(super) struct HfVit;

/// Around the head of `ViTForImageClassification`, which looks at the class token.
const NAMES: Names = Names {
    prefix: "vit.",
    last_norm: "layernorm",
    norm: "",
    classifier: "classifier",
};

impl Exporter for HfVit {
    fn name(&self) -> &'static str {
        "hf-vit"
    }

    fn doc(&self) -> &'static str {
        "transformers' ViT: ViTModel.from_pretrained, AutoModel, ViTForImageClassification"
    }

    fn express(&self, encoder: &Encoder) -> Result<Encoder, ExportError> {
        encoder.refuse_relative_bias(self.name())?;
        encoder.refuse_head(self.name(), &[Seen::ClassToken])?;
        encoder.with_joined_biases()?.with_folded_scale()
    }

    fn tensors(&self, encoder: &Encoder) -> Tensors {
        NAMES.joined(renamed(encoder, true), encoder)
    }

    fn layout(&self, encoder: &Encoder) -> Layout {
        NAMES.layout(layout(&encoder.model, true), encoder)
    }

    fn read(&self, tensors: &Tensors, like: &Encoder) -> Result<Encoder, ExportError> {
        let (tensors, head) = NAMES.parted(tensors, like, "norm")?;
        Ok(Encoder {
            model: like.model.clone(),
            tensors: restored(&tensors, &like.model)?,
            head,
        })
    }

    fn settings(&self, encoder: &Encoder, card: &Card, dtype: Dtype) -> Vec<(&'static str, String)> {
        let m = &encoder.model;
        let mut config = json!({
            "architectures": ["ViTModel"], "model_type": "vit", "hidden_size": m.dim(), "num_hidden_layers": m.layers(),
            "num_attention_heads": m.head_count(), "intermediate_size": hidden(m), "layer_norm_eps": 1e-6, "image_size": m.image,
            "patch_size": m.patch, "num_channels": 3, "qkv_bias": true, "hidden_act": "gelu", "hidden_dropout_prob": 0.0,
            "attention_probs_dropout_prob": 0.0, "torch_dtype": dtype.torch(),
        });
        if let Some(head) = &encoder.head {
            config["architectures"] = json!(["ViTForImageClassification"]);
            (config["id2label"], config["label2id"]) = head.labels();
        }
        vec![
            ("config.json", format!("{config:#}\n")),
            ("preprocessor_config.json", preprocessor(encoder, card)),
        ]
    }

    fn snippet(&self, folder: &str, answer: Answer) -> String {
        if answer == Answer::Classes {
            return classification_snippet(folder, "ViTForImageClassification");
        }
        format!(
            "from transformers import AutoImageProcessor, ViTModel\n\
             model = ViTModel.from_pretrained(\"{folder}\", add_pooling_layer=False).eval()\n\
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
