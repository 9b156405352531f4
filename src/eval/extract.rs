//! Makes features of a set of shards with a frozen encoder.

use tch::{Device, Tensor};
use torch_ext::Autocast;

use super::classes::Labels;
use super::data::Set;
use super::error::EvalError;
use super::evaluation::Subject;
use super::features::{Features, Layered};
use super::progress::{GoOn, Progress};
use crate::tensor::step_input;

/// Which images of a set count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// Those with a label.
    Labelled,
    /// All.
    All,
}

/// Runs a set through `of`, which answers features B×D of images, one per place, until `most` samples are through (0 = all).
fn through(
    subject: &Subject<'_>,
    mut set: Set,
    (which, most): (Which, u32),
    of: impl Fn(&Tensor) -> Vec<Tensor>,
    go_on: GoOn<'_>,
) -> Result<(Vec<Tensor>, Labels), EvalError> {
    let device = subject.device;
    let _guard = tch::no_grad_guard();
    let _autocast = subject.bf16.then(|| Autocast::bf16(device)).transpose()?;
    let (mut places, mut labels, mut seen) = (Vec::<Vec<Tensor>>::new(), Vec::new(), 0usize);
    while let Some(batch) = set.next(go_on)? {
        // Of the batch that goes beyond `most`, the images up to it.
        let wanted = match most {
            0 => batch.len,
            most => batch.len.min(most as usize - seen),
        };
        let kept = |label: i64| which == Which::All || label >= 0;
        let keep: Vec<i64> = (0..wanted as i64).filter(|i| kept(batch.labels[*i as usize])).collect();
        if !keep.is_empty() {
            let keep = Tensor::from_slice(&keep);
            let input = step_input(&batch, 0..batch.len, device, &subject.normalise)?;
            let rows = keep.to_device(device);
            let features = of(&input.views[0].pixels);
            places.resize_with(features.len(), Vec::new);
            for (place, feature) in places.iter_mut().zip(features) {
                place.push(feature.index_select(0, &rows));
            }
            labels.extend(batch.labels.iter().copied().take(wanted).filter(|label| kept(*label)));
        }
        seen += wanted;
        if !go_on(Progress::Images(set.name, seen)) {
            return Err(EvalError::OutOfTime);
        }
        if most > 0 && seen >= most as usize {
            break;
        }
    }
    if labels.is_empty() {
        return Err(match which {
            Which::Labelled => EvalError::NoLabels { place: set.place },
            Which::All => EvalError::Empty { place: set.place },
        });
    }
    let labels = Labels {
        place: set.place,
        names: set.names,
        of: labels,
    };
    let vectors = places.iter().map(|p| Tensor::f_cat(p, 0)).collect::<Result<_, _>>()?;
    Ok((vectors, labels))
}

/// Features of the first `most` images of a set (0 = all of them).
///
/// The feature is what `eval.pool` takes of the last layer's tokens after the final norm: their mean, where nothing else was said (docs/method.md §5; the
/// class token of SplitMask and BEiT had no loss).
///
/// # Errors
/// The stream's error, libtorch's, or [`EvalError::OutOfTime`].
pub fn extract(subject: &Subject<'_>, set: Set, which: Which, most: u32, go_on: GoOn<'_>) -> Result<Features, EvalError> {
    let vit = subject.objective.encoder();
    let of = |images: &Tensor| vec![subject.eval.pool.of(&vit.forward_features(images, false))];
    let (vectors, labels) = through(subject, set, (which, most), of, go_on)?;
    Ok(Features {
        vectors: vectors[0].to_device(Device::Cpu),
        labels,
    })
}

/// Features of `data.val`, of `eval.max_queries` images at most, with and without labels. The encoder sees them once, however many evaluations ask.
///
/// # Errors
/// As [`extract`].
pub fn of_val<'a>(subject: &Subject<'a>, go_on: GoOn<'_>) -> Result<&'a Features, EvalError> {
    if let Some(made) = subject.val_features.get() {
        return Ok(made);
    }
    let made = extract(subject, subject.sets.val()?, Which::All, subject.eval.max_queries, go_on)?;
    Ok(subject.val_features.get_or_init(|| made))
}

/// Features of the layers `subject.places`, of the images with a label. The last layer is taken after the final norm, as it is exported; the others as
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
    let (vectors, labels) = through(subject, set, (Which::Labelled, most), of, go_on)?;
    Ok(Layered {
        places: places.clone(),
        vectors,
        labels,
    })
}
