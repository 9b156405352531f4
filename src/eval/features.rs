//! Features of a labelled set of shards, from a frozen backbone: what k-NN and probes classify.

use tch::{Device, Tensor};
use torch_ext::Autocast;

use super::classes::Labels;
use super::data::Set;
use super::error::EvalError;
use super::evaluation::Subject;
use super::pool::Pool;
use super::progress::{GoOn, Progress};
use crate::tensor::step_input;

/// L2-normalised patch means `n_ND` (f32, CPU) and labels of the labelled samples of a set.
#[derive(Debug)]
pub struct Features {
    /// N × D.
    pub vectors: Tensor,
    /// N.
    pub labels: Labels,
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

/// Runs a set through `of`, which answers features B×D of images, one per place, until `most` samples are through (0 = all); samples without a label
/// are left out.
fn labelled(
    subject: &Subject<'_>,
    mut set: Set,
    most: u32,
    of: impl Fn(&Tensor) -> Vec<Tensor>,
    go_on: GoOn<'_>,
) -> Result<(Vec<Tensor>, Labels), EvalError> {
    let device = subject.device;
    let _guard = tch::no_grad_guard();
    let _autocast = subject.bf16.then(|| Autocast::bf16(device)).transpose()?;
    let (mut places, mut labels, mut seen) = (Vec::<Vec<Tensor>>::new(), Vec::new(), 0usize);
    while let Some(batch) = set.next(go_on)? {
        let keep: Vec<i64> = (0..batch.len as i64).filter(|i| batch.labels[*i as usize] >= 0).collect();
        if !keep.is_empty() {
            let keep = Tensor::from_slice(&keep);
            let input = step_input(&batch, 0..batch.len, device, &subject.normalise)?;
            let rows = keep.to_device(device);
            let features = of(&input.views[0].pixels);
            places.resize_with(features.len(), Vec::new);
            for (place, feature) in places.iter_mut().zip(features) {
                place.push(feature.index_select(0, &rows));
            }
            labels.extend(batch.labels.iter().copied().filter(|label| *label >= 0));
        }
        seen += batch.len;
        if !go_on(Progress::Images(set.name, seen)) {
            return Err(EvalError::OutOfTime);
        }
        if most > 0 && seen >= most as usize {
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

/// Features of the first `most` images of a set (0 = all of them); images without a label are left out.
///
/// The feature is the mean of the last layer's patch tokens after the final norm (docs/method.md §5; the class token had no loss), L2-normalised.
///
/// # Errors
/// The stream's error, libtorch's, or [`EvalError::OutOfTime`].
pub fn extract(subject: &Subject<'_>, set: Set, most: u32, go_on: GoOn<'_>) -> Result<Features, EvalError> {
    let vit = subject.objective.encoder();
    let of = |images: &Tensor| {
        let patches = Pool::Mean.of(&vit.forward_features(images, false));
        let norm = patches.norm_scalaropt_dim(2.0, [1i64], true).clamp_min(1e-12);
        vec![patches / norm]
    };
    let (vectors, labels) = labelled(subject, set, most, of, go_on)?;
    Ok(Features {
        vectors: vectors[0].to_device(Device::Cpu),
        labels,
    })
}

/// Features of the layers `subject.places`, as [`extract`] takes images. The last layer is taken after the final norm, as it is exported; the others as
/// their block leaves them.
///
/// # Errors
/// As [`extract`].
pub fn extract_layers(subject: &Subject<'_>, set: Set, most: u32, go_on: GoOn<'_>) -> Result<Layered, EvalError> {
    let (vit, places) = (subject.objective.encoder(), &subject.places);
    let of = |images: &Tensor| {
        let mut layers = vit.layer_features(images);
        if let Some(last) = layers.last_mut() {
            *last = vit.normed(last);
        }
        places.iter().map(|(layer, pool)| pool.of(&layers[layer - 1])).collect()
    };
    let (vectors, labels) = labelled(subject, set, most, of, go_on)?;
    Ok(Layered {
        places: places.clone(),
        vectors,
        labels,
    })
}
