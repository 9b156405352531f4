//! The encoder of a checkpoint, apart from decoder and heads.

use std::path::Path;

use tch::{Device, Kind, Tensor, nn};

use super::{ClassHead, ExportError, Tensors};
use crate::model::config::VitConfig;
use crate::model::{QkvBias, Vit, VitOptions, interpolate_positions, is_backbone_name};
use crate::optim::{EMA_PREFIX, Weights};

/// A checkpoint's tensors, divided.
#[derive(Debug)]
pub struct Parts {
    /// Of the backbone.
    pub encoder: Tensors,
    /// Decoder, heads, mask token.
    pub rest: Tensors,
}

impl Parts {
    /// Divides the tensors of a checkpoint; `from` is named in the error.
    ///
    /// # Errors
    /// [`ExportError::NoAverage`].
    pub fn of(all: Vec<(String, Tensor)>, weights: Weights, from: &Path) -> Result<Self, ExportError> {
        let mut parts = Self {
            encoder: Tensors::new(),
            rest: Tensors::new(),
        };
        for (name, tensor) in all {
            let name = match (name.strip_prefix(EMA_PREFIX), weights) {
                (Some(name), Weights::Ema) => name.to_owned(),
                (None, Weights::Raw) => name,
                _ => continue,
            };
            let part = if is_backbone_name(&name) {
                &mut parts.encoder
            } else {
                &mut parts.rest
            };
            part.insert(name, tensor);
        }
        if parts.encoder.is_empty() && weights == Weights::Ema {
            return Err(ExportError::NoAverage { path: from.to_owned() });
        }
        Ok(parts)
    }

    /// The encoder with its geometry, and the rest.
    #[must_use]
    pub fn into_encoder(self, model: VitConfig) -> (Encoder, Tensors) {
        let encoder = Encoder {
            model,
            tensors: self.encoder,
            head: None,
        };
        (encoder, self.rest)
    }
}

/// An encoder as geometry and tensors, under the names of `crate::model` (timm's, but for BEiT's biases).
#[derive(Debug)]
pub struct Encoder {
    /// Geometry.
    pub model: VitConfig,
    /// Parameters.
    pub tensors: Tensors,
    /// The head of a run that learnt classes, if it is exported too.
    pub head: Option<ClassHead>,
}

impl Encoder {
    /// A tensor, or which one is missing.
    pub(super) fn get(&self, name: &str) -> Result<&Tensor, ExportError> {
        self.tensors
            .get(name)
            .ok_or_else(|| ExportError::Tensors(format!("there is no {name}")))
    }

    /// Where query, key and value have a bias.
    #[must_use]
    pub fn qkv_bias(&self) -> QkvBias {
        if self.tensors.contains_key("blocks.0.attn.q_bias") {
            QkvBias::QueryValue
        } else {
            QkvBias::Full
        }
    }

    /// The network itself, on the CPU: every parameter is set, and none is left over.
    ///
    /// # Errors
    /// [`ExportError::Tensors`] naming the first tensor that does not fit.
    pub fn build(&self) -> Result<Vit, ExportError> {
        let vars = nn::VarStore::new(Device::Cpu);
        let options = VitOptions {
            qkv_bias: self.qkv_bias(),
            ..VitOptions::plain(0.0)
        };
        let vit = Vit::with(&vars.root(), &self.model, &options);
        let variables: Tensors = vars.variables().into_iter().collect();
        for (name, variable) in &variables {
            let tensor = self.get(name)?;
            if tensor.size() != variable.size() {
                return Err(ExportError::Tensors(format!(
                    "{name} is {:?}, the geometry asks for {:?}",
                    tensor.size(),
                    variable.size()
                )));
            }
            tch::no_grad(|| variable.shallow_clone().copy_(tensor));
        }
        match self.tensors.keys().find(|name| !variables.contains_key(*name)) {
            Some(name) => Err(ExportError::Tensors(format!("{name} is left over"))),
            None => Ok(vit),
        }
    }

    /// Features B×(1+N)×D of normalised images B×3×S×S, f32, after the final norm.
    ///
    /// # Errors
    /// As [`Encoder::build`].
    pub fn features(&self, images: &Tensor) -> Result<Tensor, ExportError> {
        let vit = self.build()?;
        Ok(tch::no_grad(|| vit.forward_features(&images.to_kind(Kind::Float), false)))
    }

    fn map(&self, change: impl Fn(&mut Tensors, usize) -> Result<(), ExportError>) -> Result<Self, ExportError> {
        let mut tensors: Tensors = self.tensors.iter().map(|(n, t)| (n.clone(), t.shallow_clone())).collect();
        for layer in 0..self.model.layers() as usize {
            change(&mut tensors, layer)?;
        }
        Ok(Self {
            model: self.model.clone(),
            tensors,
            head: self.head.as_ref().map(ClassHead::shared),
        })
    }

    /// For formats without a place for a relative bias.
    ///
    /// # Errors
    /// [`ExportError::Cannot`] if the model has one.
    pub(super) fn refuse_relative_bias(&self, format: &'static str) -> Result<(), ExportError> {
        if self.model.relative_bias {
            return Err(ExportError::Cannot {
                format,
                what: "a relative position bias (model.relative_bias = true)",
                hint: "--format hf-beit has a place for it".into(),
            });
        }
        Ok(())
    }

    /// With one bias of query, key and value a layer. A key bias adds the same number to every logit of a query, so 0 stands for none.
    pub(super) fn with_joined_biases(&self) -> Result<Self, ExportError> {
        if self.qkv_bias() == QkvBias::Full {
            return self.map(|_, _| Ok(()));
        }
        self.map(|tensors, layer| {
            let mut take = |name: &str| {
                let name = format!("blocks.{layer}.attn.{name}");
                tensors
                    .remove(&name)
                    .ok_or_else(|| ExportError::Tensors(format!("there is no {name}")))
            };
            let (q, v) = (take("q_bias")?, take("v_bias")?);
            tensors.insert(format!("blocks.{layer}.attn.qkv.bias"), Tensor::cat(&[&q, &q.zeros_like(), &v], 0));
            Ok(())
        })
    }

    /// Without LayerScale: its factors are multiplied into the matrices before it.
    pub(super) fn with_folded_scale(&self) -> Result<Self, ExportError> {
        if self.model.layer_scale == 0.0 {
            return self.map(|_, _| Ok(()));
        }
        let mut folded = self.map(|tensors, layer| {
            for (scale, linear) in [("ls1", "attn.proj"), ("ls2", "mlp.fc2")] {
                let name = format!("blocks.{layer}.{scale}.gamma");
                let gamma = tensors
                    .remove(&name)
                    .ok_or_else(|| ExportError::Tensors(format!("there is no {name}")))?;
                for (part, factor) in [("weight", gamma.unsqueeze(1)), ("bias", gamma.shallow_clone())] {
                    let name = format!("blocks.{layer}.{linear}.{part}");
                    let scaled = tensors.get(&name).map(|t| t * &factor);
                    tensors.insert(
                        name.clone(),
                        scaled.ok_or_else(|| ExportError::Tensors(format!("there is no {name}")))?,
                    );
                }
            }
            Ok(())
        })?;
        folded.model.layer_scale = 0.0;
        Ok(folded)
    }

    /// For images of another side: the position table is interpolated (bicubic, the class slot untouched).
    ///
    /// # Errors
    /// No position table, or `image` is no multiple of the patch.
    pub fn resized(mut self, image: u32) -> Result<Self, ExportError> {
        if !image.is_multiple_of(self.model.patch) || image == 0 {
            return Err(ExportError::Tensors(format!(
                "an image side of {image} is no multiple of the patch side {}",
                self.model.patch
            )));
        }
        let table = interpolate_positions(self.get("pos_embed")?, i64::from(image / self.model.patch));
        self.tensors.insert("pos_embed".into(), table);
        self.model.image = image;
        Ok(self)
    }
}
