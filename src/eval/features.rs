//! Features of a labelled set of shards, from a frozen backbone: what k-NN and probes classify.

use serde::Serialize;
use splitmask_pipeline::error::PipelineError;
use splitmask_pipeline::types::Batch;
use tch::{Device, Kind, Tensor};
use torch_ext::Autocast;

use super::classes::Labels;
use super::error::EvalError;
use crate::model::Vit;
use crate::tensor::{Normalise, step_input};

/// L2-normalised patch means `n_ND` (f32, CPU) and labels of the labelled samples of a set.
#[derive(Debug)]
pub struct Features {
    /// N × D.
    pub vectors: Tensor,
    /// N.
    pub labels: Labels,
}

/// What of a layer's tokens is a feature.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Pool {
    /// Mean of the patch tokens.
    Mean,
    /// Class token. SplitMask gives it no loss of its own.
    Cls,
    /// Both, one behind the other (the released BEiT probe).
    Both,
}

impl Pool {
    /// Tokens B×(1+N)×D to B×D, or B×2D for [`Pool::Both`]; f32.
    pub fn of(self, tokens: &Tensor) -> Tensor {
        let class = || tokens.select(1, 0).to_kind(Kind::Float);
        let mean = || {
            let patches = tokens.narrow(1, 1, tokens.size()[1] - 1);
            patches.to_kind(Kind::Float).mean_dim(1i64, false, Kind::Float)
        };
        match self {
            Self::Mean => mean(),
            Self::Cls => class(),
            Self::Both => Tensor::cat(&[class(), mean()], 1),
        }
    }
}

/// Features of several layers, not normalised: one N×D tensor (f32, on the device) for each place, and labels.
#[derive(Debug)]
pub struct Layered {
    /// (layer from 1, what of its tokens).
    pub places: Vec<(usize, Pool)>,
    /// One per place.
    pub vectors: Vec<Tensor>,
    /// N.
    pub labels: Labels,
}

/// A labelled set on its way through the backbone.
pub struct Set<B> {
    /// Where it is, for messages.
    pub place: String,
    /// Class names by label, from its manifest; empty if it has none.
    pub names: Vec<String>,
    /// Its images.
    pub batches: B,
}

/// How pictures go through the backbone.
#[derive(Debug, Clone, Copy)]
pub struct Pass<'a> {
    /// Of pixels.
    pub normalise: &'a Normalise,
    /// Where.
    pub device: Device,
    /// Under bf16 autocast.
    pub bf16: bool,
    /// Samples after which to stop; 0 = none.
    pub most: usize,
}

/// Runs labelled batches through `of`, which answers features B×D of images, one per place; samples without a label are left out.
/// `go_on` hears the number of samples after each batch and may end it.
fn labelled(
    pass: Pass<'_>,
    set: Set<impl Iterator<Item = Result<Batch, PipelineError>>>,
    of: impl Fn(&Tensor) -> Vec<Tensor>,
    mut go_on: impl FnMut(usize) -> bool,
) -> Result<(Vec<Tensor>, Labels), EvalError> {
    let _guard = tch::no_grad_guard();
    let _autocast = pass.bf16.then(|| Autocast::bf16(pass.device)).transpose()?;
    let (mut places, mut labels, mut seen) = (Vec::<Vec<Tensor>>::new(), Vec::new(), 0usize);
    for batch in set.batches {
        let batch = batch?;
        let keep: Vec<i64> = (0..batch.len as i64).filter(|i| batch.labels[*i as usize] >= 0).collect();
        if !keep.is_empty() {
            let keep = Tensor::from_slice(&keep);
            let input = step_input(&batch, 0..batch.len, pass.device, pass.normalise)?;
            let rows = keep.to_device(pass.device);
            let features = of(&input.views[0].pixels);
            places.resize_with(features.len(), Vec::new);
            for (place, feature) in places.iter_mut().zip(features) {
                place.push(feature.index_select(0, &rows));
            }
            labels.extend(batch.labels.iter().copied().filter(|label| *label >= 0));
        }
        seen += batch.len;
        if !go_on(seen) {
            return Err(EvalError::OutOfTime);
        }
        if pass.most > 0 && seen >= pass.most {
            break;
        }
    }
    if labels.is_empty() {
        return Err(EvalError::NoLabels { place: set.place });
    }
    let labels = Labels {
        place: set.place,
        names: set.names,
        of: labels,
    };
    let vectors = places.iter().map(|p| Tensor::f_cat(p, 0)).collect::<Result<_, _>>()?;
    Ok((vectors, labels))
}

/// Runs labelled batches through the backbone; samples without a label are left out.
///
/// The feature is the mean of the last layer's patch tokens after the final norm (docs/method.md §5; the class token had no loss), L2-normalised.
/// `progress` hears the number of samples and may end it.
///
/// # Errors
/// The stream's error, or libtorch's.
pub fn extract(
    vit: &Vit,
    pass: Pass<'_>,
    set: Set<impl Iterator<Item = Result<Batch, PipelineError>>>,
    progress: impl FnMut(usize) -> bool,
) -> Result<Features, EvalError> {
    let of = |images: &Tensor| {
        let patches = Pool::Mean.of(&vit.forward_features(images, false));
        let norm = patches.norm_scalaropt_dim(2.0, [1i64], true).clamp_min(1e-12);
        vec![patches / norm]
    };
    let (vectors, labels) = labelled(pass, set, of, progress)?;
    Ok(Features {
        vectors: vectors[0].to_device(Device::Cpu),
        labels,
    })
}

/// Features of the layers `places` of labelled batches. The last layer is taken after the final norm, as it is exported; the others as
/// their block leaves them.
///
/// # Errors
/// The stream's error, libtorch's, or [`EvalError::OutOfTime`].
pub fn extract_layers(
    vit: &Vit,
    pass: Pass<'_>,
    places: &[(usize, Pool)],
    set: Set<impl Iterator<Item = Result<Batch, PipelineError>>>,
    progress: impl FnMut(usize) -> bool,
) -> Result<Layered, EvalError> {
    let of = |images: &Tensor| {
        let mut layers = vit.layer_features(images);
        if let Some(last) = layers.last_mut() {
            *last = vit.normed(last);
        }
        places.iter().map(|(layer, pool)| pool.of(&layers[layer - 1])).collect()
    };
    let (vectors, labels) = labelled(pass, set, of, progress)?;
    Ok(Layered {
        places: places.to_vec(),
        vectors,
        labels,
    })
}
