//! timm's `VisionTransformer`.

use serde_json::json;

use super::head::Names;
use super::{Answer, Card, Dtype, Encoder, ExportError, Exporter, Layout, Seen, Tensors, hidden};
use crate::model::config::VitConfig;

/// `--format timm`.
pub(super) struct Timm;

/// The registered architectures of 224 px and 16 px patches: (width, layers, heads, name).
const KNOWN: [(i64, i64, i64, &str); 3] = [
    (192, 12, 3, "vit_tiny_patch16_224"),
    (384, 12, 6, "vit_small_patch16_224"),
    (768, 12, 12, "vit_base_patch16_224"),
];

/// timm's names around a head are ours.
const NAMES: Names = Names {
    prefix: "",
    last_norm: "norm",
    norm: "fc_norm",
    classifier: "head",
};

/// timm's names and shapes.
pub(super) fn layout(model: &VitConfig) -> Layout {
    let (d, h, p) = (model.dim(), hidden(model), i64::from(model.patch));
    let mut all = Layout::from([
        ("cls_token".into(), vec![1, 1, d]),
        ("pos_embed".into(), vec![1, 1 + model.patches(), d]),
        ("patch_embed.proj.weight".into(), vec![d, 3, p, p]),
        ("patch_embed.proj.bias".into(), vec![d]),
        ("norm.weight".into(), vec![d]),
        ("norm.bias".into(), vec![d]),
    ]);
    for i in 0..model.layers() {
        for (name, outputs, inputs) in [("attn.qkv", 3 * d, d), ("attn.proj", d, d), ("mlp.fc1", h, d), ("mlp.fc2", d, h)] {
            all.insert(format!("blocks.{i}.{name}.weight"), vec![outputs, inputs]);
            all.insert(format!("blocks.{i}.{name}.bias"), vec![outputs]);
        }
        for name in ["norm1", "norm2"] {
            all.insert(format!("blocks.{i}.{name}.weight"), vec![d]);
            all.insert(format!("blocks.{i}.{name}.bias"), vec![d]);
        }
        if model.layer_scale > 0.0 {
            for name in ["ls1", "ls2"] {
                all.insert(format!("blocks.{i}.{name}.gamma"), vec![d]);
            }
        }
    }
    all
}

impl Exporter for Timm {
    fn name(&self) -> &'static str {
        "timm"
    }

    fn doc(&self) -> &'static str {
        "timm's VisionTransformer: timm.create_model(\"local-dir:…\", pretrained=True)"
    }

    fn express(&self, encoder: &Encoder) -> Result<Encoder, ExportError> {
        encoder.refuse_head(self.name(), &[Seen::ClassToken, Seen::NormedPatches, Seen::Patches])?;
        encoder.refuse_relative_bias(self.name())?;
        encoder.with_joined_biases()
    }

    fn tensors(&self, encoder: &Encoder) -> Tensors {
        NAMES.joined(
            encoder.tensors.iter().map(|(n, t)| (n.clone(), t.shallow_clone())).collect(),
            encoder,
        )
    }

    fn layout(&self, encoder: &Encoder) -> Layout {
        NAMES.layout(layout(&encoder.model), encoder)
    }

    fn read(&self, tensors: &Tensors, like: &Encoder) -> Result<Encoder, ExportError> {
        let (tensors, head) = NAMES.parted(tensors, like, NAMES.last_norm)?;
        Ok(Encoder {
            model: like.model.clone(),
            tensors,
            head,
        })
    }

    fn settings(&self, encoder: &Encoder, card: &Card, _dtype: Dtype) -> Vec<(&'static str, String)> {
        let m = &encoder.model;
        // A head says what it sees; a feature is what the run was measured by.
        let seen = match &encoder.head {
            Some(head) => head.seen,
            None if card.answer(encoder) == Answer::ClassToken => Seen::ClassToken,
            None => Seen::NormedPatches,
        };
        let (pool, mut args) = match seen {
            Seen::NormedPatches | Seen::Blocks(_) => ("avg", json!({ "global_pool": "avg", "fc_norm": false })),
            Seen::Patches => ("avg", json!({ "global_pool": "avg" })),
            Seen::ClassToken => ("token", json!({ "global_pool": "token" })),
        };
        let classes = encoder.head.as_ref().map_or(0, |head| head.names.len());
        let geometry = (m.dim(), m.layers(), m.head_count());
        let known = KNOWN.iter().find(|(d, l, h, _)| (*d, *l, *h) == geometry);
        let mut set = |key: &str, value: serde_json::Value| args[key] = value;
        if known.is_none() {
            set("embed_dim", json!(m.dim()));
            set("depth", json!(m.layers()));
            set("num_heads", json!(m.head_count()));
        }
        if (m.image, m.patch) != (224, 16) {
            set("img_size", json!(m.image));
            set("patch_size", json!(m.patch));
        }
        if m.mlp_ratio != 4.0 {
            set("mlp_ratio", json!(m.mlp_ratio));
        }
        if m.layer_scale > 0.0 {
            set("init_values", json!(m.layer_scale));
        }
        let architecture = known.map_or("vit_tiny_patch16_224", |k| k.3);
        let mut config = json!({
            "architecture": architecture, "num_classes": classes, "num_features": m.dim(), "global_pool": pool, "model_args": args,
            "pretrained_cfg": {
                "input_size": [3, m.image, m.image], "fixed_input_size": true, "interpolation": "bicubic", "crop_pct": card.crop_ratio,
                "crop_mode": "center", "mean": card.mean, "std": card.std, "num_classes": classes, "pool_size": null,
                "first_conv": "patch_embed.proj", "classifier": "head",
            },
        });
        if let Some(head) = &encoder.head {
            config["label_names"] = json!(head.names);
        }
        vec![("config.json", format!("{config:#}\n"))]
    }

    fn snippet(&self, folder: &str, answer: Answer) -> String {
        let feature = match answer {
            Answer::MeanOfPatches => "mean of the patch tokens",
            Answer::ClassToken => "class token",
            Answer::Classes => {
                return format!(
                    "import timm, torch\n\
                 model = timm.create_model(\"local-dir:{folder}\", pretrained=True).eval()\n\
                 transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))\n\
                 probabilities = model(transform(image)[None]).softmax(-1)\n\
                 name = model.pretrained_cfg[\"label_names\"][probabilities.argmax()]"
                );
            }
        };
        format!(
            "import timm, torch\n\
             model = timm.create_model(\"local-dir:{folder}\", pretrained=True).eval()   # num_classes=10 adds a fresh head\n\
             transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))\n\
             # model(images) is the {feature}, model.forward_features(images) all tokens, the class token first"
        )
    }

    fn library(&self) -> Option<&'static str> {
        Some("timm")
    }
}
