//! transformers' `ViTModel`.

use serde_json::json;

use super::names::{layout, renamed, restored};
use super::{Card, Dtype, Encoder, ExportError, Exporter, Layout, Tensors, hidden, preprocessor};

/// `--format hf-vit`.
pub(super) struct HfVit;

impl Exporter for HfVit {
    fn name(&self) -> &'static str {
        "hf-vit"
    }

    fn doc(&self) -> &'static str {
        "transformers' ViT: ViTModel.from_pretrained, AutoModel, ViTForImageClassification"
    }

    fn express(&self, encoder: &Encoder) -> Result<Encoder, ExportError> {
        encoder.refuse_relative_bias(self.name())?;
        encoder.with_joined_biases()?.with_folded_scale()
    }

    fn tensors(&self, encoder: &Encoder) -> Tensors {
        renamed(encoder, true)
    }

    fn layout(&self, encoder: &Encoder) -> Layout {
        layout(&encoder.model, true)
    }

    fn read(&self, tensors: &Tensors, like: &Encoder) -> Result<Encoder, ExportError> {
        Ok(Encoder {
            model: like.model.clone(),
            tensors: restored(tensors, &like.model)?,
        })
    }

    fn settings(&self, encoder: &Encoder, card: &Card, dtype: Dtype) -> Vec<(&'static str, String)> {
        let m = &encoder.model;
        let config = json!({
            "architectures": ["ViTModel"], "model_type": "vit", "hidden_size": m.dim(), "num_hidden_layers": m.layers(),
            "num_attention_heads": m.head_count(), "intermediate_size": hidden(m), "layer_norm_eps": 1e-6, "image_size": m.image,
            "patch_size": m.patch, "num_channels": 3, "qkv_bias": true, "hidden_act": "gelu", "hidden_dropout_prob": 0.0,
            "attention_probs_dropout_prob": 0.0, "torch_dtype": dtype.torch(),
        });
        vec![
            ("config.json", format!("{config:#}\n")),
            ("preprocessor_config.json", preprocessor(encoder, card)),
        ]
    }

    fn snippet(&self, folder: &str) -> String {
        format!(
            "from transformers import AutoImageProcessor, ViTModel\n\
             model = ViTModel.from_pretrained(\"{folder}\", add_pooling_layer=False).eval()\n\
             processor = AutoImageProcessor.from_pretrained(\"{folder}\")\n\
             tokens = model(**processor(images, return_tensors=\"pt\")).last_hidden_state\n\
             features = tokens[:, 1:].mean(1)   # the class token comes first"
        )
    }

    fn library(&self) -> Option<&'static str> {
        Some("transformers")
    }
}
