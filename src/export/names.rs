//! Names that transformers' ViT and BEiT share, and the cut of query, key and value.

use tch::Tensor;

use super::{Encoder, ExportError, Layout, Tensors, hidden};
use crate::model::config::VitConfig;

/// (ours, theirs) outside the blocks.
const OUTSIDE: [(&str, &str); 6] = [
    ("cls_token", "embeddings.cls_token"),
    ("pos_embed", "embeddings.position_embeddings"),
    ("patch_embed.proj.weight", "embeddings.patch_embeddings.projection.weight"),
    ("patch_embed.proj.bias", "embeddings.patch_embeddings.projection.bias"),
    ("norm.weight", "layernorm.weight"),
    ("norm.bias", "layernorm.bias"),
];

/// (ours, theirs) in a block, each with `.weight` and `.bias`.
const INSIDE: [(&str, &str); 5] = [
    ("norm1", "layernorm_before"),
    ("attn.proj", "attention.output.dense"),
    ("norm2", "layernorm_after"),
    ("mlp.fc1", "intermediate.dense"),
    ("mlp.fc2", "output.dense"),
];

const QKV: [&str; 3] = ["query", "key", "value"];

/// (ours, theirs) of every tensor that keeps its shape.
pub(super) fn pairs(layers: usize) -> Vec<(String, String)> {
    let mut all: Vec<(String, String)> = OUTSIDE.iter().map(|(a, b)| ((*a).into(), (*b).into())).collect();
    for i in 0..layers {
        for (ours, theirs) in INSIDE {
            for part in ["weight", "bias"] {
                all.push((format!("blocks.{i}.{ours}.{part}"), format!("encoder.layer.{i}.{theirs}.{part}")));
            }
        }
    }
    all
}

fn third(layer: usize, which: &str, part: &str) -> String {
    format!("encoder.layer.{layer}.attention.attention.{which}.{part}")
}

/// An encoder with joined biases under transformers' names; `key_bias` says whether `key.bias` is written.
pub(super) fn renamed(encoder: &Encoder, key_bias: bool) -> Tensors {
    let layers = encoder.model.layers() as usize;
    let mut out = Tensors::new();
    for (ours, theirs) in pairs(layers) {
        if let Some(t) = encoder.tensors.get(&ours) {
            out.insert(theirs, t.shallow_clone());
        }
    }
    for i in 0..layers {
        for part in ["weight", "bias"] {
            let Some(joined) = encoder.tensors.get(&format!("blocks.{i}.attn.qkv.{part}")) else {
                continue;
            };
            for (which, piece) in QKV.iter().zip(joined.chunk(3, 0)) {
                if *which != "key" || part == "weight" || key_bias {
                    out.insert(third(i, which, part), piece.contiguous());
                }
            }
        }
    }
    out
}

/// The inverse of [`renamed`]; a missing key bias is 0.
pub(super) fn restored(tensors: &Tensors, model: &VitConfig) -> Result<Tensors, ExportError> {
    let layers = model.layers() as usize;
    let get = |name: &str| tensors.get(name).ok_or_else(|| ExportError::Tensors(format!("there is no {name}")));
    let mut out = Tensors::new();
    for (ours, theirs) in pairs(layers) {
        out.insert(ours, get(&theirs)?.shallow_clone());
    }
    for i in 0..layers {
        for part in ["weight", "bias"] {
            let (q, v) = (get(&third(i, "query", part))?, get(&third(i, "value", part))?);
            let k = match tensors.get(&third(i, "key", part)) {
                Some(k) => k.shallow_clone(),
                None if part == "bias" => q.zeros_like(),
                None => get(&third(i, "key", part))?.shallow_clone(),
            };
            out.insert(format!("blocks.{i}.attn.qkv.{part}"), Tensor::cat(&[q, &k, v], 0));
        }
    }
    Ok(out)
}

/// Names and shapes of transformers' ViT without pooler, as its documentation and files have them.
pub(super) fn layout(model: &VitConfig, key_bias: bool) -> Layout {
    let (d, h, p) = (model.dim(), hidden(model), i64::from(model.patch));
    let mut all = Layout::from([
        ("embeddings.cls_token".into(), vec![1, 1, d]),
        ("embeddings.position_embeddings".into(), vec![1, 1 + model.patches(), d]),
        ("embeddings.patch_embeddings.projection.weight".into(), vec![d, 3, p, p]),
        ("embeddings.patch_embeddings.projection.bias".into(), vec![d]),
        ("layernorm.weight".into(), vec![d]),
        ("layernorm.bias".into(), vec![d]),
    ]);
    for i in 0..model.layers() {
        let layer = format!("encoder.layer.{i}");
        for (name, outputs, inputs) in [
            ("attention.attention.query", d, d),
            ("attention.attention.key", d, d),
            ("attention.attention.value", d, d),
            ("attention.output.dense", d, d),
            ("intermediate.dense", h, d),
            ("output.dense", d, h),
        ] {
            all.insert(format!("{layer}.{name}.weight"), vec![outputs, inputs]);
            if key_bias || !name.ends_with("key") {
                all.insert(format!("{layer}.{name}.bias"), vec![outputs]);
            }
        }
        for name in ["layernorm_before", "layernorm_after"] {
            all.insert(format!("{layer}.{name}.weight"), vec![d]);
            all.insert(format!("{layer}.{name}.bias"), vec![d]);
        }
    }
    all
}
