//! Features of the images of a set: what k-NN and probes classify.

use std::cell::OnceCell;

use tch::{Kind, Tensor};

use super::classes::Labels;
use super::error::EvalError;
use super::pool::Pool;

/// What `eval.pool` takes of the tokens of each image of a set, and their labels.
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

/// Refuses features N×D of the images of `place` that are NaN or infinite: any number made of them would look like one.
///
/// # Errors
/// [`EvalError::NotFinite`], or what libtorch said.
pub fn refuse_broken(rows: &Tensor, place: &str) -> Result<(), EvalError> {
    let broken = rows.f_isfinite()?.f_all_dim(1, false)?.f_logical_not()?.f_sum(Kind::Int64)?;
    let images = i64::try_from(broken)?;
    if images == 0 {
        return Ok(());
    }
    Err(EvalError::NotFinite {
        place: place.to_owned(),
        images,
        of: rows.size()[0],
    })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broken_features_are_refused_with_their_number() {
        let features = Tensor::from_slice2(&[[1.0f32, f32::NAN], [0.0, 1.0], [f32::INFINITY, 0.0]]);
        let error = refuse_broken(&features, "data/val").unwrap_err().to_string();
        assert!(error.contains("2 of 3 images of data/val are not finite"), "{error}");
        refuse_broken(&features.narrow(0, 1, 1), "data/val").unwrap();
    }
}
