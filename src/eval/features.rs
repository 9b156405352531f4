//! Features of the images of a set: what k-NN and probes classify.

use std::cell::OnceCell;

use tch::Tensor;

use super::classes::Labels;
use super::error::EvalError;
use super::pool::Pool;

/// Patch means of the images of a set, and their labels.
#[derive(Debug)]
pub struct Features {
    /// N × D, f32, on the CPU; as the encoder gives them.
    pub vectors: Tensor,
    /// N; -1 for an image without a label, where those are kept.
    pub labels: Labels,
}

/// The features of `data.val`, made once for all evaluations of one encoder: for the first that asks.
pub type ValFeatures = OnceCell<Features>;

impl Features {
    /// Those of the images with a label, each of length 1.
    ///
    /// # Errors
    /// [`EvalError::NoLabels`], or what libtorch said.
    pub fn labelled(&self) -> Result<Self, EvalError> {
        let rows: Vec<i64> = (0..)
            .zip(&self.labels.of)
            .filter(|(_, label)| **label >= 0)
            .map(|(row, _)| row)
            .collect();
        let labels = Labels {
            of: self.labels.of.iter().copied().filter(|label| *label >= 0).collect(),
            ..self.labels.clone()
        };
        if rows.is_empty() {
            return Err(EvalError::NoLabels { place: labels.place });
        }
        let vectors = directions(&self.vectors.f_index_select(0, &Tensor::from_slice(&rows))?)?;
        Ok(Self { vectors, labels })
    }
}

/// Rows N×D divided by their length; a row of zeros stays.
///
/// # Errors
/// What libtorch said.
pub fn directions(rows: &Tensor) -> Result<Tensor, EvalError> {
    let lengths = rows.f_norm_scalaropt_dim(2.0, [1i64], true)?;
    Ok(rows.f_div(&lengths.f_clamp_min(1e-12)?)?)
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
