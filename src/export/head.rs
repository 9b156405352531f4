//! The head of a run that learnt classes, beside its encoder, and where transformers keeps it.

use tch::{Kind, Tensor};

use super::{Encoder, ExportError, Layout, Tensors, pyramid};
use crate::head::UperNetShape;
use crate::model::project;

/// What a head sees of an image.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Seen {
    /// The class token after the encoder's last norm.
    ClassToken,
    /// The mean of the patches after the encoder's last norm.
    NormedPatches,
    /// The mean of the patches before it, through a norm of the head's own (`fc_norm.*`).
    Patches,
    /// The patches of four blocks, of which a UperNet makes a map of classes.
    Blocks(UperNetShape),
}

/// A head that tells classes apart: a linear one, or a UperNet.
#[derive(Debug)]
pub struct ClassHead {
    /// What it sees.
    pub seen: Seen,
    /// Names of its outputs.
    pub names: Vec<String>,
    /// `head.weight` K×D, `head.bias` K, and `fc_norm.weight`, `fc_norm.bias` where it has a norm of its own; those of a UperNet under the names of
    /// [`crate::head::UperNet::new`] behind `head.upernet.`.
    pub tensors: Tensors,
}

/// Epsilon of every LayerNorm of a vision transformer.
const EPSILON: f64 = 1e-6;

impl ClassHead {
    /// Takes the head out of the tensors beside an encoder; `None` where there is none. `class_token` says what it sees, `names` are those of its
    /// outputs, as far as they are known.
    #[must_use]
    pub fn taken_from(rest: &mut Tensors, class_token: bool, names: &[String]) -> Option<Self> {
        let outputs = rest.get("head.weight")?.size()[0];
        let own = ["head.weight", "head.bias", "fc_norm.weight", "fc_norm.bias"];
        let taken: Tensors = own
            .iter()
            .filter_map(|name| Some(((*name).to_owned(), rest.remove(*name)?)))
            .collect();
        Some(Self {
            seen: match (class_token, taken.contains_key("fc_norm.weight")) {
                (_, true) => Seen::Patches,
                (true, false) => Seen::ClassToken,
                (false, false) => Seen::NormedPatches,
            },
            names: (0..outputs as usize)
                .map(|class| names.get(class).cloned().unwrap_or_else(|| format!("class {class}")))
                .collect(),
            tensors: taken,
        })
    }

    /// Takes a UperNet out of the tensors beside an encoder; `names` are those of its outputs.
    #[must_use]
    pub fn of_pixels(rest: &mut Tensors, shape: UperNetShape, names: Vec<String>) -> Self {
        let (tensors, kept) = std::mem::take(rest)
            .into_iter()
            .partition(|(name, _)| name.starts_with(pyramid::PREFIX));
        *rest = kept;
        Self {
            seen: Seen::Blocks(shape),
            names,
            tensors,
        }
    }

    pub(super) fn shared(&self) -> Self {
        Self {
            seen: self.seen,
            names: self.names.clone(),
            tensors: self.tensors.iter().map(|(name, t)| (name.clone(), t.shallow_clone())).collect(),
        }
    }

    /// Its tensors under other names, by [`ClassHead::pairs`].
    fn renamed(&self, norm: &str, classifier: &str) -> Tensors {
        let pairs = self.pairs(norm, classifier);
        let named = pairs
            .into_iter()
            .filter_map(|(ours, theirs)| Some((theirs, self.tensors.get(&ours)?.shallow_clone())));
        named.collect()
    }

    /// (ours, theirs) of its tensors, where a library calls its norm `norm` and its matrix `classifier`.
    fn pairs(&self, norm: &str, classifier: &str) -> Vec<(String, String)> {
        let layers = [("head", classifier), ("fc_norm", norm)];
        let layers = layers.into_iter().filter(|(ours, _)| *ours == "head" || self.seen == Seen::Patches);
        layers
            .flat_map(|(ours, theirs)| ["weight", "bias"].map(|part| (format!("{ours}.{part}"), format!("{theirs}.{part}"))))
            .collect()
    }

    /// The same head with the tensors of a file.
    fn read(&self, tensors: &Tensors, norm: &str, classifier: &str) -> Result<Self, ExportError> {
        let mut found = Tensors::new();
        for (ours, theirs) in self.pairs(norm, classifier) {
            let t = tensors
                .get(&theirs)
                .ok_or_else(|| ExportError::Tensors(format!("there is no {theirs}")))?;
            found.insert(ours, t.shallow_clone());
        }
        Ok(Self {
            tensors: found,
            ..self.shared()
        })
    }

    fn layout(&self, width: i64, norm: &str, classifier: &str) -> Layout {
        let outputs = self.names.len() as i64;
        let mut all = Layout::from([
            (format!("{classifier}.weight"), vec![outputs, width]),
            (format!("{classifier}.bias"), vec![outputs]),
        ]);
        if self.seen == Seen::Patches {
            all.insert(format!("{norm}.weight"), vec![width]);
            all.insert(format!("{norm}.bias"), vec![width]);
        }
        all
    }

    /// `id2label` and `label2id` of transformers.
    pub(super) fn labels(&self) -> (serde_json::Value, serde_json::Value) {
        let names = || self.names.iter().enumerate();
        let by_number = names().map(|(n, name)| (n.to_string(), name.as_str().into()));
        let by_name = names().map(|(n, name)| (name.clone(), n.into()));
        (
            serde_json::Value::Object(by_number.collect()),
            serde_json::Value::Object(by_name.collect()),
        )
    }
}

/// How a library names what stands around a head.
pub(super) struct Names {
    /// Before the encoder's tensors.
    pub(super) prefix: &'static str,
    /// The encoder's last norm, without prefix.
    pub(super) last_norm: &'static str,
    /// The head's own norm.
    pub(super) norm: &'static str,
    /// The head's matrix.
    pub(super) classifier: &'static str,
}

impl Names {
    fn is_last_norm(&self, name: &str) -> bool {
        name.strip_prefix(self.last_norm).is_some_and(|rest| rest.starts_with('.'))
    }

    /// The encoder's tensors under a library's names, with those of the head; the encoder's last norm is left out where the head has its own.
    pub(super) fn joined(&self, tensors: Tensors, encoder: &Encoder) -> Tensors {
        let Some(head) = &encoder.head else { return tensors };
        let kept = tensors
            .into_iter()
            .filter(|(name, _)| head.seen != Seen::Patches || !self.is_last_norm(name));
        let mut all: Tensors = kept.map(|(name, t)| (format!("{}{name}", self.prefix), t)).collect();
        all.extend(head.renamed(self.norm, self.classifier));
        all
    }

    /// [`Names::joined`] of names and shapes.
    pub(super) fn layout(&self, layout: Layout, encoder: &Encoder) -> Layout {
        let Some(head) = &encoder.head else { return layout };
        let kept = layout
            .into_iter()
            .filter(|(name, _)| head.seen != Seen::Patches || !self.is_last_norm(name));
        let mut all: Layout = kept.map(|(name, shape)| (format!("{}{name}", self.prefix), shape)).collect();
        all.extend(head.layout(encoder.model.dim(), self.norm, self.classifier));
        all
    }

    /// The inverse of [`Names::joined`]: the encoder's tensors and the head. A last norm that the file does not hold is that of `like`, under `ours`.
    pub(super) fn parted(&self, tensors: &Tensors, like: &Encoder, ours: &str) -> Result<(Tensors, Option<ClassHead>), ExportError> {
        let copies = |(name, t): (&String, &Tensor)| (name.clone(), t.shallow_clone());
        let Some(head) = &like.head else {
            return Ok((tensors.iter().map(copies).collect(), None));
        };
        let found = head.read(tensors, self.norm, self.classifier)?;
        let own = head.layout(0, self.norm, self.classifier);
        let mut encoder: Tensors = tensors
            .iter()
            .filter(|(name, _)| !own.contains_key(*name))
            .filter_map(|(name, t)| Some((name.strip_prefix(self.prefix)?.to_owned(), t.shallow_clone())))
            .collect();
        if head.seen == Seen::Patches {
            for part in ["weight", "bias"] {
                encoder.insert(
                    format!("{}.{part}", self.last_norm),
                    like.get(&format!("{ours}.{part}"))?.shallow_clone(),
                );
            }
        }
        Ok((encoder, Some(found)))
    }
}

impl Encoder {
    /// Logits f32 B×K of normalised images B×3×S×S, B×K×h×w of a UperNet; `None` without a head.
    ///
    /// # Errors
    /// As [`Encoder::build`].
    pub fn logits(&self, images: &Tensor) -> Result<Option<Tensor>, ExportError> {
        let Some(head) = &self.head else { return Ok(None) };
        let vit = self.build()?;
        let _guard = tch::no_grad_guard();
        let get = |name: &str| {
            head.tensors
                .get(name)
                .ok_or_else(|| ExportError::Tensors(format!("there is no {name}")))
        };
        let images = images.to_kind(Kind::Float);
        let tokens = match head.seen {
            Seen::Blocks(shape) => return pyramid::logits(&vit, &head.tensors, &shape, head.names.len() as i64, &images).map(Some),
            Seen::Patches => vit.unnormed_features(&images, false),
            Seen::ClassToken | Seen::NormedPatches => vit.forward_features(&images, false),
        };
        let mean = || {
            let patches = tokens.narrow(1, 1, tokens.size()[1] - 1);
            patches.mean_dim([1i64].as_slice(), false, Kind::Float)
        };
        let seen = match head.seen {
            Seen::ClassToken => tokens.select(1, 0),
            Seen::NormedPatches | Seen::Blocks(_) => mean(),
            Seen::Patches => {
                let (weight, bias) = (get("fc_norm.weight")?, get("fc_norm.bias")?);
                mean().layer_norm([self.model.dim()], Some(weight), Some(bias), EPSILON, false)
            }
        };
        Ok(Some(project(&seen, get("head.weight")?, Some(get("head.bias")?))))
    }

    /// For formats whose classifier looks at something else.
    ///
    /// # Errors
    /// [`ExportError::Cannot`] if the head sees something that is not among `possible`.
    pub(super) fn refuse_head(&self, format: &'static str, possible: &[Seen]) -> Result<(), ExportError> {
        let what = match self.head.as_ref().map(|head| head.seen) {
            Some(Seen::ClassToken) if !possible.contains(&Seen::ClassToken) => "a head on the class token (objective.pool = \"class\")",
            Some(Seen::NormedPatches) if !possible.contains(&Seen::NormedPatches) => {
                "a head on the mean of the normed patches (objective.kind = \"supervised\", pool = \"mean\")"
            }
            Some(Seen::Patches) if !possible.contains(&Seen::Patches) => "a head on the mean of the patches (objective.pool = \"mean\")",
            Some(Seen::Blocks(_)) => {
                return Err(ExportError::Cannot {
                    format,
                    what: "a head on the outputs of four blocks (objective.head = \"upernet\")",
                    hint: "--format hf-upernet has a place for it; or give --encoder-only".into(),
                });
            }
            _ => return Ok(()),
        };
        Err(ExportError::Cannot {
            format,
            what,
            hint: "--format timm has a place for every head, hf-beit for that of objective.kind = \"classify\"; or give --encoder-only"
                .into(),
        })
    }
}
