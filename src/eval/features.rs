//! Features of a labelled set of shards, from a frozen backbone: what k-NN and probes classify.

use splitmask_pipeline::error::PipelineError;
use splitmask_pipeline::types::Batch;
use tch::{Device, Kind, Tensor};
use torch_ext::Autocast;

use crate::model::Vit;
use crate::tensor::TensorError;
use crate::tensor::{Normalise, step_input};

/// L2-normalised patch means `n_ND` (f32, CPU) and labels `n_N` (i64) of the labelled samples.
#[derive(Debug)]
pub struct Features {
    /// N × D.
    pub vectors: Tensor,
    /// N.
    pub labels: Tensor,
}

/// Runs labelled batches through the backbone; samples without a label are left out.
///
/// The feature is the mean of the last layer's patch tokens after the final norm (spec §4.1; the class token had no loss), L2-normalised. `most` > 0
/// stops after that many samples.
///
/// # Errors
/// The stream's error, or libtorch's.
pub fn extract(
    vit: &Vit,
    batches: impl Iterator<Item = Result<Batch, PipelineError>>,
    normalise: &Normalise,
    device: Device,
    bf16: bool,
    most: usize,
    mut progress: impl FnMut(usize),
) -> Result<Features, FeatureError> {
    let _guard = tch::no_grad_guard();
    let _autocast = bf16.then(|| Autocast::bf16(device)).transpose()?;
    let (mut vectors, mut labels, mut seen) = (Vec::new(), Vec::new(), 0usize);
    for batch in batches {
        let batch = batch?;
        let keep: Vec<i64> = (0..batch.len as i64).filter(|i| batch.labels[*i as usize] >= 0).collect();
        if !keep.is_empty() {
            let keep = Tensor::from_slice(&keep);
            let input = step_input(&batch, 0..batch.len, device, normalise)?;
            let tokens = vit.forward_features(&input.views[0], false);
            let patches = tokens
                .narrow(1, 1, tokens.size()[1] - 1)
                .to_kind(Kind::Float)
                .mean_dim(1i64, false, Kind::Float);
            let norm = patches.norm_scalaropt_dim(2.0, [1i64], true).clamp_min(1e-12);
            vectors.push((patches / norm).to_device(Device::Cpu).index_select(0, &keep));
            labels.push(Tensor::from_slice(&batch.labels).index_select(0, &keep));
        }
        seen += batch.len;
        progress(seen);
        if most > 0 && seen >= most {
            break;
        }
    }
    if vectors.is_empty() {
        return Err(FeatureError::NoLabels);
    }
    Ok(Features {
        vectors: Tensor::cat(&vectors, 0),
        labels: Tensor::cat(&labels, 0),
    })
}

impl Features {
    /// Without the classes that have fewer than `least` samples in `reference`.
    #[must_use]
    pub fn of_frequent_classes(&self, reference: &Tensor, least: i64) -> Self {
        let slots = reference.max().int64_value(&[]).max(self.labels.max().int64_value(&[])) + 1;
        let counts = reference.bincount::<Tensor>(None, slots);
        let keep = counts.index_select(0, &self.labels).ge(least).nonzero().squeeze_dim(1);
        Self {
            vectors: self.vectors.index_select(0, &keep),
            labels: self.labels.index_select(0, &keep),
        }
    }
}

/// Why features could not be had.
#[derive(Debug, thiserror::Error)]
pub enum FeatureError {
    /// The shards hold no `.cls` member.
    #[error("no sample has a label: k-NN needs shards with .cls members (`splitmask pack` writes them from folder names)")]
    NoLabels,
    /// Reading the shards failed.
    #[error(transparent)]
    Pipeline(#[from] PipelineError),
    /// libtorch failed.
    #[error("libtorch: {0}")]
    Torch(String),
}

impl From<torch_ext::TorchError> for FeatureError {
    fn from(e: torch_ext::TorchError) -> Self {
        Self::Torch(e.to_string())
    }
}

impl From<TensorError> for FeatureError {
    fn from(e: TensorError) -> Self {
        Self::Torch(e.to_string())
    }
}
