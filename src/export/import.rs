//! Vision transformers of other libraries as a start (`run.init_from`).

use std::fs::File;
use std::io::Read;
use std::path::Path;

use tch::Tensor;

use super::names::{pairs, restored};
use super::timm::layout;
use super::{Encoder, ExportError, Tensors};
use crate::model::config::VitConfig;
use crate::tensor::is_finite;

/// Whose names a file has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Foreign {
    /// timm's `VisionTransformer`.
    Timm,
    /// The DeiT repository's, which took timm's.
    Deit,
    /// transformers' `ViTModel` or a model with one inside (`vit.…`).
    HfVit,
}

/// What was found in a file.
#[derive(Debug)]
pub struct Imported {
    /// The encoder, joined biases; its number of heads is a guess, files do not hold it.
    pub encoder: Encoder,
    /// Tensors that are no part of an encoder: heads, poolers.
    pub ignored: Vec<String>,
}

impl Imported {
    /// Tensors as a run takes them: biases in both spellings, since SplitMask has the joined one and BEiT has none for the key.
    #[must_use]
    pub fn tensors(&self) -> Tensors {
        let mut all: Tensors = self.encoder.tensors.iter().map(|(n, t)| (n.clone(), t.shallow_clone())).collect();
        for i in 0..self.encoder.model.layers() {
            if let Some(bias) = self.encoder.tensors.get(&format!("blocks.{i}.attn.qkv.bias")) {
                let thirds = bias.chunk(3, 0);
                all.insert(format!("blocks.{i}.attn.q_bias"), thirds[0].contiguous());
                all.insert(format!("blocks.{i}.attn.v_bias"), thirds[2].contiguous());
            }
        }
        all
    }
}

fn bad(path: &Path, detail: impl Into<String>, hint: Option<String>) -> ExportError {
    ExportError::Bad {
        path: path.to_owned(),
        detail: detail.into(),
        hint,
    }
}

/// Parts of names in transformers' BEiT that its ViT lacks and that change what the encoder computes.
const BEIT_ONLY: [&str; 2] = ["relative_position_bias", ".lambda_"];

/// Refuses pickles, which are programs: reading one runs whatever it holds.
fn refuse_pickle(path: &Path) -> Result<(), ExportError> {
    let mut start = [0u8; 2];
    let opened = File::open(path).and_then(|mut f| f.read_exact(&mut start));
    opened.map_err(|source| ExportError::Io {
        path: path.to_owned(),
        source,
    })?;
    let named = path
        .extension()
        .is_some_and(|e| ["pth", "pt", "bin", "ckpt", "pkl"].iter().any(|bad| e.eq_ignore_ascii_case(bad)));
    // A zip archive (torch.save since 1.6) or a bare pickle of protocol 2 and up.
    if named || &start == b"PK" || start[0] == 0x80 {
        let out = path.with_extension("safetensors");
        let hint = format!(
            "convert it first: python3 -c \"import torch; from safetensors.torch import save_file; \
             m = torch.load('{}', map_location='cpu', weights_only=True); m = m.get('model', m); \
             save_file({{k: v.contiguous() for k, v in m.items()}}, '{}')\"",
            path.display(),
            out.display()
        );
        return Err(bad(path, "a PyTorch pickle; only safetensors files are read", Some(hint)));
    }
    Ok(())
}

/// Our name of a tensor of timm's or DeiT's, or `None` for one that is no part of an encoder.
fn from_timm(name: &str) -> Option<String> {
    // With mean pooling timm calls the last norm fc_norm.
    let name = name.strip_prefix("fc_").filter(|n| n.starts_with("norm.")).unwrap_or(name);
    let ours = ["cls_token", "pos_embed"].contains(&name) || ["patch_embed.", "blocks.", "norm."].iter().any(|p| name.starts_with(p));
    ours.then(|| name.to_owned())
}

/// Reads the encoder of `path`.
///
/// # Errors
/// [`ExportError::Bad`] for a pickle, another architecture, or tensors that do not fit each other.
pub fn import(path: &Path, format: Foreign) -> Result<Imported, ExportError> {
    refuse_pickle(path)?;
    let read = Tensor::read_safetensors(path).map_err(|e| bad(path, format!("not a safetensors file: {e}"), None))?;
    let all: Tensors = read.into_iter().map(|(n, t)| (n, t.to_kind(tch::Kind::Float))).collect();
    if all.contains_key("dist_token") {
        return Err(bad(path, "a distilled DeiT has a second token, which this encoder lacks", None));
    }
    if format == Foreign::HfVit
        && let Some(name) = all.keys().find(|name| BEIT_ONLY.iter().any(|part| name.contains(part)))
    {
        return Err(bad(
            path,
            format!("{name} is of a BEiT; without it the encoder would be another one"),
            Some("a timm file of the same model may hold LayerScale: try --format timm; a relative position bias is not read".into()),
        ));
    }
    let (tensors, ignored) = match format {
        Foreign::Timm | Foreign::Deit => {
            let (mut kept, mut ignored) = (Tensors::new(), Vec::new());
            for (name, t) in all {
                match from_timm(&name) {
                    Some(ours) => drop(kept.insert(ours, t)),
                    None => ignored.push(name),
                }
            }
            (kept, ignored)
        }
        Foreign::HfVit => from_hf(all).map_err(|e| bad(path, e.to_string(), hint_for(format)))?,
    };
    let model = geometry(&tensors).map_err(|detail| bad(path, detail, hint_for(format)))?;
    let want = layout(&model);
    for (name, shape) in &want {
        match tensors.get(name) {
            None => return Err(bad(path, format!("there is no {name}"), hint_for(format))),
            Some(t) if &t.size() != shape => {
                return Err(bad(
                    path,
                    format!("{name} is {:?}; the others ask for {shape:?}", t.size()),
                    hint_for(format),
                ));
            }
            Some(t) if !is_finite(t) => {
                return Err(bad(
                    path,
                    format!("{name} holds values that are not finite (NaN or infinite)"),
                    Some("nothing can be learnt from such weights: convert the file again, or take an older one".into()),
                ));
            }
            Some(_) => {}
        }
    }
    if let Some(name) = tensors.keys().find(|n| !want.contains_key(*n)) {
        return Err(bad(path, format!("{name}: this encoder has no place for it"), hint_for(format)));
    }
    Ok(Imported {
        encoder: Encoder {
            model,
            tensors,
            head: None,
        },
        ignored,
    })
}

fn hint_for(format: Foreign) -> Option<String> {
    Some(match format {
        Foreign::Timm | Foreign::Deit => {
            "plain vision transformers with a class token are read; a transformers file needs --format hf-vit".into()
        }
        Foreign::HfVit => "ViTModel, alone or inside a model, is read; a timm file needs --format timm".into(),
    })
}

/// transformers' names, with or without the prefix of an enclosing model, to ours.
fn from_hf(all: Tensors) -> Result<(Tensors, Vec<String>), ExportError> {
    let all: Tensors = all
        .into_iter()
        .map(|(n, t)| (n.strip_prefix("vit.").map(ToOwned::to_owned).unwrap_or(n), t))
        .collect();
    let number = |name: &str| name.strip_prefix("encoder.layer.")?.split('.').next()?.parse::<u32>().ok();
    let layers = all.keys().filter_map(|n| number(n)).max().map_or(0, |n| n + 1);
    if layers == 0 {
        return Err(ExportError::Tensors("there is no encoder.layer.0.…".into()));
    }
    let model = VitConfig {
        depth: layers,
        ..VitConfig::default()
    };
    let known: std::collections::BTreeSet<String> = pairs(layers as usize).into_iter().map(|(_, theirs)| theirs).collect();
    let ignored = all
        .keys()
        .filter(|n| !known.contains(*n) && !n.contains(".attention.attention."))
        .cloned()
        .collect();
    Ok((restored(&all, &model)?, ignored))
}

/// Geometry from shapes; heads as 64 wide, which ViT-Ti, -S, -B and -L have.
fn geometry(tensors: &Tensors) -> Result<VitConfig, String> {
    let size = |name: &str| tensors.get(name).map(Tensor::size).ok_or_else(|| format!("there is no {name}"));
    let (patch, table, mlp) = (
        size("patch_embed.proj.weight")?,
        size("pos_embed")?,
        size("blocks.0.mlp.fc1.weight")?,
    );
    let ([d, 3, p, q], [1, rows, _], [h, _]) = (&patch[..], &table[..], &mlp[..]) else {
        return Err(format!(
            "patch_embed.proj.weight is {patch:?}, pos_embed {table:?}: no vision transformer of RGB images"
        ));
    };
    let grid = ((*rows - 1) as f64).sqrt().round() as i64;
    if p != q || grid * grid != *rows - 1 {
        return Err(format!(
            "patches of {p} × {q}, {rows} positions: only square ones with one class token are read"
        ));
    }
    let number = |name: &str| name.strip_prefix("blocks.")?.split('.').next()?.parse::<u32>().ok();
    let depth = tensors.keys().filter_map(|n| number(n)).max().map_or(0, |n| n + 1);
    let scaled = tensors.contains_key("blocks.0.ls1.gamma");
    Ok(VitConfig {
        image: (grid * *p) as u32,
        patch: *p as u32,
        width: *d as u32,
        depth,
        heads: (*d / 64).max(1) as u32,
        mlp_ratio: *h as f64 / *d as f64,
        layer_scale: if scaled { 1.0 } else { 0.0 },
        ..VitConfig::default()
    })
}
