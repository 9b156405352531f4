//! Makes features of a set of shards with a frozen encoder.

use splitmask_pipeline::types::SampleId;
use tch::{Device, Tensor};
use torch_ext::Autocast;

use super::classes::Labels;
use super::data::SetName;
use super::error::{EvalError, fenced};
use super::evaluation::Subject;
use super::features::{Features, Layered, refuse_broken};
use super::progress::{GoOn, Progress};
use super::sharing::{Helpers, Made, Wanted, Which};
use crate::tensor::step_input;

impl Wanted {
    /// Features B×D of normalised images, one tensor for each place.
    fn of(self, subject: &Subject<'_>, images: &Tensor) -> Vec<Tensor> {
        let vit = subject.objective.encoder();
        if !self.layers {
            return vec![subject.eval.pool.of(&vit.forward_features(images, false))];
        }
        let mut layers = vit.layer_features(images);
        if let Some(last) = layers.last_mut() {
            *last = vit.normed(last);
        }
        let places = subject.places.iter();
        places.map(|(layer, pool)| pool.of(&layers[layer - 1])).collect()
    }
}

/// What process `rank` of `world` makes of what is wanted: features of every `world`-th image.
fn made(subject: &Subject<'_>, wanted: &Wanted, (rank, world): (u32, u32), go_on: GoOn<'_>) -> Result<Made, EvalError> {
    let device = subject.device;
    let _guard = tch::no_grad_guard();
    let _autocast = subject.bf16.then(|| Autocast::bf16(device)).transpose()?;
    let mut set = subject.sets.images(wanted.set, (rank, world))?;
    // Of the first `most` images, those whose number leaves `rank` when divided by `world`.
    let most = wanted.most.saturating_sub(rank).div_ceil(world) as usize;
    let all = wanted.most == 0;
    let (mut places, mut labels, mut ids, mut seen) = (Vec::<Vec<Tensor>>::new(), Vec::new(), Vec::<SampleId>::new(), 0usize);
    while all || seen < most {
        let Some(batch) = set.next(go_on)? else { break };
        // Of the batch that goes beyond `most`, the images up to it.
        let take = if all { batch.len } else { batch.len.min(most - seen) };
        let kept = |label: i64| wanted.which == Which::All || label >= 0;
        let keep: Vec<usize> = (0..take).filter(|i| kept(batch.labels[*i])).collect();
        if !keep.is_empty() {
            let rows: Vec<i64> = keep.iter().map(|i| *i as i64).collect();
            let input = step_input(&batch, 0..batch.len, device, &subject.normalise)?;
            let rows = Tensor::from_slice(&rows).to_device(device);
            let features = wanted.of(subject, &input.views[0].pixels);
            places.resize_with(features.len(), Vec::new);
            for (place, feature) in places.iter_mut().zip(features) {
                place.push(feature.index_select(0, &rows));
            }
            labels.extend(keep.iter().map(|i| batch.labels[*i]));
            ids.extend(keep.iter().map(|i| batch.ids[*i]));
        }
        seen += take;
        if !go_on(Progress::Images(set.name, seen)) {
            return Err(EvalError::OutOfTime);
        }
    }
    tracing::debug!(
        set = set.name,
        images = seen,
        rank,
        world,
        "made the features of this process's share"
    );
    Ok(Made {
        vectors: places.iter().map(|p| Tensor::f_cat(p, 0)).collect::<Result<_, _>>()?,
        ids,
        labels: Labels {
            place: set.place,
            names: set.names,
            of: labels,
        },
    })
}

/// This process's share of what the first one wants.
///
/// # Errors
/// As [`extract`].
pub fn share(subject: &Subject<'_>, wanted: &Wanted, helpers: &dyn Helpers, go_on: GoOn<'_>) -> Result<Made, EvalError> {
    made(subject, wanted, helpers.share(), go_on)
}

/// Makes what is wanted, together with the others where there are any; all of it finite.
fn through(subject: &Subject<'_>, wanted: &Wanted, go_on: GoOn<'_>) -> Result<(Vec<Tensor>, Labels), EvalError> {
    let Made { vectors, labels, .. } = match subject.helpers {
        None => made(subject, wanted, (0, 1), go_on)?,
        Some(helpers) => {
            helpers.ask(wanted)?;
            let own = fenced(|| made(subject, wanted, helpers.share(), go_on));
            helpers
                .bring(own)?
                .ok_or_else(|| EvalError::Ranks("features went to another rank".into()))?
        }
    };
    if labels.of.is_empty() {
        return Err(match wanted.which {
            Which::Labelled => EvalError::NoLabels { place: labels.place },
            Which::All => EvalError::Empty { place: labels.place },
        });
    }
    vectors.iter().try_for_each(|v| refuse_broken(v, &labels.place))?;
    let vectors = vectors.iter().map(|v| v.to_device(subject.device)).collect();
    Ok((vectors, labels))
}

/// Features of the first `most` images of a set (0 = all of them).
///
/// The feature is what `eval.pool` takes of the last layer's tokens after the final norm: their mean, where nothing else was said (docs/method.md §5; the
/// class token of SplitMask and BEiT had no loss).
///
/// # Errors
/// The stream's error, libtorch's, or [`EvalError::OutOfTime`].
pub fn extract(subject: &Subject<'_>, set: SetName, which: Which, most: u32, go_on: GoOn<'_>) -> Result<Features, EvalError> {
    let wanted = Wanted {
        set,
        which,
        most,
        layers: false,
    };
    let (vectors, labels) = through(subject, &wanted, go_on)?;
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
    let made = extract(subject, SetName::Val, Which::All, subject.eval.max_queries, go_on)?;
    Ok(subject.val_features.get_or_init(|| made))
}

/// Features of the layers `subject.places`, of the images with a label. The last layer is taken after the final norm, as it is exported; the others as
/// their block leaves them.
///
/// # Errors
/// As [`extract`].
pub fn extract_layers(subject: &Subject<'_>, set: SetName, most: u32, go_on: GoOn<'_>) -> Result<Layered, EvalError> {
    let wanted = Wanted {
        set,
        which: Which::Labelled,
        most,
        layers: true,
    };
    let (vectors, labels) = through(subject, &wanted, go_on)?;
    Ok(Layered {
        places: subject.places.clone(),
        vectors,
        labels,
    })
}
