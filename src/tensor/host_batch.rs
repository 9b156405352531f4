//! The only place where the pipeline's [`Batch`] meets [`Tensor`].

use std::borrow::Cow;
use std::ops::Range;

use splitmask_pipeline::types::{Batch, Object, PatchSet, View};
use tch::{Device, Kind, Tensor};
use torch_ext::send;

use crate::tensor::hidden::SentHidden;
use crate::tensor::{NamedView, PatchSets, StepInput, TensorError};

/// Per-channel mean and standard deviation of pixels in 0..1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Normalise {
    /// Subtracted.
    pub mean: [f64; 3],
    /// Divided by.
    pub std: [f64; 3],
}

impl Normalise {
    /// Normalised pixels (…×3×S×S) as bytes again: u8 on their device, values beyond the range cut.
    pub fn undone(&self, pixels: &Tensor) -> Tensor {
        let column = |values: &[f64; 3]| Tensor::from_slice(values).view([3, 1, 1]).to_device(pixels.device());
        let bytes = (pixels.to_kind(Kind::Double) * column(&self.std) + column(&self.mean)) * 255.0;
        bytes.round().clamp(0.0, 255.0).to_kind(Kind::Uint8)
    }
}

/// A batch, or some of its samples, sent to a device as it came: pixels are bytes, not yet normalised. On CUDA it may still be on its way; what is
/// launched there afterwards sees it whole.
#[derive(Debug)]
pub struct SentBatch {
    len: usize,
    /// Name and u8 B×3×S×S of each.
    views: Vec<(Cow<'static, str>, Tensor)>,
    /// u8 B×3×T×T.
    target: Option<Tensor>,
    /// i64 B×N.
    words: Option<Tensor>,
    largest_word: u32,
    sets: Option<PatchSets>,
    hidden: Option<SentHidden>,
    /// i16 B×S×S.
    maps: Option<Tensor>,
    /// Of each sample; they stay on the host.
    objects: Option<Vec<Vec<Object>>>,
    /// i64 B.
    labels: Tensor,
}

impl SentBatch {
    /// Sends samples `range` of a batch. The host does not wait for the device, and the batch can be given back at once.
    ///
    /// # Errors
    /// Buffers that do not fit their shape; sets of unequal size; a range beyond the batch; no memory there.
    pub fn send(batch: &Batch, range: Range<usize>, device: Device) -> Result<Self, TensorError> {
        check_range(&range, batch.len)?;
        let len = range.len();
        let sent = |view: &View| {
            let size = view.size;
            let bytes = rows(&view.pixels, batch.len, view.picture_bytes(), &range, || {
                format!("{} ({}×3×{size}×{size})", view.name, batch.len)
            })?;
            Ok::<_, TensorError>(send(bytes, &[int(len), 3, i64::from(size), i64::from(size)], device)?)
        };
        let views = batch.views.iter().map(|view| Ok((view.name.clone(), sent(view)?)));
        let views = views.collect::<Result<Vec<_>, TensorError>>()?;
        let target = batch.target.as_ref().map(sent).transpose()?;
        let (words, largest_word) = if batch.words.is_empty() {
            (None, 0)
        } else {
            let n = batch.words.len() / batch.len;
            let words = rows(&batch.words, batch.len, n, &range, || format!("words ({}×{n})", batch.len))?;
            let wide: Vec<i64> = words.iter().map(|&w| i64::from(w)).collect();
            let tensor = send(&wide, &[int(len), int(n)], device)?;
            (Some(tensor), words.iter().copied().max().unwrap_or(0))
        };
        let sets = if batch.sets.is_empty() {
            None
        } else {
            let n = batch.sets.len() / batch.len;
            let sets = rows(&batch.sets, batch.len, n, &range, || format!("sets ({}×{n})", batch.len))?;
            Some(index_lists(sets, n, device)?)
        };
        let hidden = if batch.hidden.is_empty() {
            None
        } else {
            let n = batch.hidden.len() / batch.len;
            let hidden = rows(&batch.hidden, batch.len, n, &range, || format!("hidden ({}×{n})", batch.len))?;
            Some(SentHidden::send(hidden, n, device)?)
        };
        let maps = if batch.maps.is_empty() {
            None
        } else {
            let n = batch.maps.len() / batch.len;
            let side = n.isqrt();
            let maps = rows(&batch.maps, batch.len, side * side, &range, || {
                format!("maps ({}×{side}×{side})", batch.len)
            })?;
            Some(send(maps, &[int(len), int(side), int(side)], device)?)
        };
        let objects = match batch.object_offsets.len() {
            0 => None,
            offsets if offsets == batch.len + 1 => Some(range.clone().map(|sample| batch.objects_of(sample).to_vec()).collect()),
            offsets => {
                return Err(TensorError::BadBuffer {
                    what: "object_offsets".into(),
                    got: offsets,
                    want: batch.len + 1,
                });
            }
        };
        let labels = rows(&batch.labels, batch.len, 1, &range, || "labels".into())?;
        Ok(Self {
            len,
            objects,
            views,
            words,
            largest_word,
            sets,
            hidden,
            target,
            maps,
            labels: send(labels, &[int(len)], device)?,
        })
    }

    /// As many samples of another process, of which only views and labels are known: `theirs` answers what it has where this one has that tensor (u8
    /// B×3×S×S, i64 B).
    ///
    /// # Errors
    /// Those of `theirs`.
    pub fn counterpart<E>(&self, theirs: impl Fn(&Tensor) -> Result<Tensor, E>) -> Result<Self, E> {
        let view = |(name, bytes): &(Cow<'static, str>, Tensor)| Ok((name.clone(), theirs(bytes)?));
        Ok(Self {
            len: self.len,
            views: self.views.iter().map(view).collect::<Result<_, E>>()?,
            target: None,
            words: None,
            largest_word: 0,
            sets: None,
            hidden: None,
            maps: None,
            objects: None,
            labels: theirs(&self.labels)?,
        })
    }

    /// Class of each sample: i64 B, −1 if unknown.
    pub fn labels(&self) -> &Tensor {
        &self.labels
    }

    /// Its first view: u8 B×3×S×S, not normalised.
    #[must_use]
    pub fn first_view(&self) -> Option<&Tensor> {
        self.views.first().map(|(_, bytes)| bytes)
    }

    /// The target, if the batch was asked for with one: u8 B×3×T×T, not normalised.
    #[must_use]
    pub fn target(&self) -> Option<&Tensor> {
        self.target.as_ref()
    }

    /// Puts words into it that were found on the device: i64 B×N, each at most `largest`.
    pub fn set_words(&mut self, words: Tensor, largest: u32) {
        (self.words, self.largest_word) = (Some(words), largest);
    }

    /// All tensors of it.
    #[must_use]
    pub fn tensors(&self) -> Vec<&Tensor> {
        let sets = self.sets.iter().flat_map(|sets| [&sets.a, &sets.b, &sets.not_a, &sets.not_b]);
        let views = self.views.iter().map(|(_, bytes)| bytes);
        views
            .chain(&self.target)
            .chain(&self.words)
            .chain(sets)
            .chain(self.hidden.iter().map(SentHidden::rows))
            .chain(&self.maps)
            .chain([&self.labels])
            .collect()
    }

    /// Samples `range` of it, normalised.
    ///
    /// # Errors
    /// A range beyond it.
    pub fn input(&self, range: Range<usize>, normalise: &Normalise) -> Result<StepInput, TensorError> {
        check_range(&range, self.len)?;
        let view = |(name, bytes): &(Cow<'static, str>, Tensor)| {
            Ok(NamedView {
                name: name.clone(),
                pixels: normalised(&part_of(bytes, &range), normalise)?,
            })
        };
        Ok(StepInput {
            len: int(range.len()),
            views: self.views.iter().map(view).collect::<Result<_, TensorError>>()?,
            words: self.words.as_ref().map(|w| part_of(w, &range)),
            largest_word: self.largest_word,
            sets: self.sets.as_ref().map(|sets| PatchSets {
                patches: sets.patches,
                a: part_of(&sets.a, &range),
                b: part_of(&sets.b, &range),
                not_a: part_of(&sets.not_a, &range),
                not_b: part_of(&sets.not_b, &range),
            }),
            hidden: self.hidden.as_ref().map(|hidden| hidden.part(&range)),
            maps: self.maps.as_ref().map(|maps| part_of(maps, &range).to_kind(Kind::Int64)),
            objects: self.objects.as_ref().map(|objects| objects[range.clone()].to_vec()),
            labels: part_of(&self.labels, &range),
        })
    }
}

/// Samples `range` of a batch as tensors on `device`. Bytes travel as u8 and are normalised there.
///
/// # Errors
/// As [`SentBatch::send`].
pub fn step_input(batch: &Batch, range: Range<usize>, device: Device, normalise: &Normalise) -> Result<StepInput, TensorError> {
    let len = range.len();
    SentBatch::send(batch, range, device)?.input(0..len, normalise)
}

fn check_range(range: &Range<usize>, len: usize) -> Result<(), TensorError> {
    if range.start >= range.end || range.end > len {
        return Err(TensorError::BadRange {
            start: range.start,
            end: range.end,
            len,
        });
    }
    Ok(())
}

fn int(x: usize) -> i64 {
    // Buffers fit into memory, so their lengths fit into i64.
    x as i64
}

fn rows<'a, T>(all: &'a [T], len: usize, each: usize, range: &Range<usize>, what: impl Fn() -> String) -> Result<&'a [T], TensorError> {
    if all.len() != len * each {
        return Err(TensorError::BadBuffer {
            what: what(),
            got: all.len(),
            want: len * each,
        });
    }
    Ok(&all[range.start * each..range.end * each])
}

/// Rows `range` (within bounds) of a tensor; no copy.
fn part_of(all: &Tensor, range: &Range<usize>) -> Tensor {
    all.narrow(0, int(range.start), int(range.len()))
}

/// Bytes B×3×S×S as f32, normalised, in memory of its own.
fn normalised(bytes: &Tensor, n: &Normalise) -> Result<Tensor, TensorError> {
    // Sent like the batch itself: a plain copy would make the host wait for everything that the device has yet to do.
    let column = |f: &dyn Fn(usize) -> f64| {
        let values: [f32; 3] = std::array::from_fn(|c| f(c) as f32);
        send(&values, &[1, 3, 1, 1], bytes.device())
    };
    let shift = column(&|c| 255.0 * n.mean[c])?;
    let factor = column(&|c| 1.0 / (255.0 * n.std[c]))?;
    let mut x = bytes.to_kind(Kind::Float);
    x -= &shift;
    x *= &factor;
    Ok(x)
}

/// Index lists of both sets and their complements.
fn index_lists(sets: &[PatchSet], n: usize, device: Device) -> Result<PatchSets, TensorError> {
    let len = sets.len() / n;
    let (a, not_a) = sides(sets, n, PatchSet::A)?;
    let (b, not_b) = sides(sets, n, PatchSet::B)?;
    let sent = |list: &[i64]| send(list, &[int(len), int(list.len() / len)], device);
    Ok(PatchSets {
        patches: int(n),
        a: sent(&a)?,
        b: sent(&b)?,
        not_a: sent(&not_a)?,
        not_b: sent(&not_b)?,
    })
}

/// Patches in a set and patches outside of it, sample after sample; as many in each sample.
fn sides(sets: &[PatchSet], n: usize, set: PatchSet) -> Result<(Vec<i64>, Vec<i64>), TensorError> {
    let (mut inside, mut outside) = (Vec::new(), Vec::new());
    let mut want = 0;
    for (sample, row) in sets.chunks_exact(n).enumerate() {
        let before = inside.len();
        for (patch, of) in row.iter().enumerate() {
            if *of == set { &mut inside } else { &mut outside }.push(int(patch));
        }
        let got = inside.len() - before;
        if sample == 0 {
            want = got;
        } else if got != want {
            return Err(TensorError::RaggedSets { sample, set, got, want });
        }
    }
    Ok((inside, outside))
}

#[cfg(test)]
mod tests;
