//! The only place where the pipeline's [`Batch`] meets [`Tensor`].

use std::borrow::Cow;
use std::ops::Range;

use splitmask_pipeline::types::{Batch, PatchSet, View};
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
        let labels = rows(&batch.labels, batch.len, 1, &range, || "labels".into())?;
        Ok(Self {
            len,
            views,
            words,
            largest_word,
            sets,
            hidden,
            target,
            labels: send(labels, &[int(len)], device)?,
        })
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
mod tests {
    use splitmask_pipeline::cursor::Cursor;
    use splitmask_pipeline::types::PatchSet::{A, B, Neither};
    use splitmask_pipeline::types::SampleId;

    use super::*;

    const PLAIN: Normalise = Normalise {
        mean: [0.0, 0.5, 0.5],
        std: [1.0, 0.5, 0.25],
    };

    fn view(name: &'static str, size: u32, pixels: Vec<u8>) -> View {
        View {
            name: name.into(),
            size,
            pixels,
        }
    }

    fn batch() -> Batch {
        Batch {
            len: 2,
            views: vec![view("image", 2, (0..24).map(|i| if i < 12 { 255 } else { 0 }).collect())],
            target: None,
            words: vec![1, 2, 3, 4, 5, 6, 7, 8],
            sets: vec![A, B, B, A, Neither, A, A, B],
            hidden: vec![Neither, A, A, Neither],
            labels: vec![3, -1],
            ids: vec![
                SampleId {
                    epoch: 0,
                    shard: 0,
                    member: 0
                };
                2
            ],
            cursor: Cursor::default(),
        }
    }

    fn rows_of(t: &Tensor) -> Vec<Vec<i64>> {
        Vec::<Vec<i64>>::try_from(t).unwrap()
    }

    #[test]
    fn pixels_are_normalised_by_channel() {
        let s = step_input(&batch(), 0..2, Device::Cpu, &PLAIN).err();
        assert_eq!(
            s,
            Some(TensorError::RaggedSets {
                sample: 1,
                set: B,
                got: 1,
                want: 2
            })
        );
        let mut b = batch();
        b.sets.clear();
        let s = step_input(&b, 0..2, Device::Cpu, &PLAIN).unwrap();
        let x = s.view("image").unwrap();
        assert_eq!(x.size(), [2, 3, 2, 2]);
        let at = |i, c| x.double_value(&[i, c, 0, 0]);
        assert_eq!(
            [at(0, 0), at(0, 1), at(0, 2), at(1, 0), at(1, 1), at(1, 2)],
            [1.0, 1.0, 2.0, 0.0, -1.0, -2.0]
        );
        assert_eq!((s.largest_word, s.len), (8, 2));
    }

    #[test]
    fn normalised_pixels_become_the_bytes_they_were() {
        let mut b = batch();
        b.sets.clear();
        b.views[0].pixels = (0..24).map(|i| i * 11).collect();
        let x = step_input(&b, 0..2, Device::Cpu, &PLAIN).unwrap().views.remove(0).pixels;
        assert_eq!(Vec::<u8>::try_from(PLAIN.undone(&x).flatten(0, -1)).unwrap(), b.views[0].pixels);
        let far = PLAIN.undone(&(x * 1e3));
        assert!(
            Vec::<u8>::try_from(far.flatten(0, -1))
                .unwrap()
                .iter()
                .all(|v| [0, 255].contains(v))
        );
    }

    #[test]
    fn index_lists_are_ascending_and_complementary() {
        let mut b = batch();
        b.sets = vec![A, B, B, A, A, B, A, B];
        let p = step_input(&b, 0..2, Device::Cpu, &PLAIN).unwrap().sets.unwrap();
        assert_eq!(rows_of(&p.a), [[0, 3], [0, 2]]);
        assert_eq!(rows_of(&p.b), [[1, 2], [1, 3]]);
        assert_eq!(rows_of(&p.not_a), [[1, 2], [1, 3]]);
        assert_eq!(rows_of(&p.not_b), [[0, 3], [0, 2]]);
    }

    #[test]
    fn a_range_takes_those_samples() {
        let s = step_input(&batch(), 1..2, Device::Cpu, &PLAIN).unwrap();
        assert_eq!(rows_of(s.words.as_ref().unwrap()), [[5, 6, 7, 8]]);
        let p = s.sets.unwrap();
        assert_eq!((rows_of(&p.a), rows_of(&p.not_b)), (vec![vec![1, 2]], vec![vec![0, 1, 2]]));
        assert_eq!(Vec::<i64>::try_from(&s.labels).unwrap(), [-1]);
        let hidden = s.hidden.unwrap();
        assert_eq!((hidden.patches, Vec::<i64>::try_from(&hidden.rows).unwrap()), (2, vec![0]));
        assert!(matches!(
            step_input(&batch(), 1..3, Device::Cpu, &PLAIN),
            Err(TensorError::BadRange { len: 2, .. })
        ));
    }

    #[test]
    fn the_target_comes_by_itself_and_raw() {
        let mut b = batch();
        b.sets.clear();
        b.target = Some(view("target", 1, vec![1, 2, 3, 4, 5, 6]));
        let sent = SentBatch::send(&b, 0..2, Device::Cpu).unwrap();
        assert_eq!(sent.input(1..2, &PLAIN).unwrap().views.len(), 1);
        let target = sent.target().unwrap();
        assert_eq!(target.size(), [2, 3, 1, 1]);
        assert_eq!(Vec::<u8>::try_from(target.get(1).flatten(0, -1)).unwrap(), [4, 5, 6]);
    }

    #[test]
    fn views_are_found_by_their_names() {
        let mut b = batch();
        b.sets.clear();
        b.views = vec![
            view("global", 2, vec![0; 24]),
            view("global", 2, vec![255; 24]),
            view("local", 1, vec![51; 6]),
        ];
        let s = step_input(&b, 0..2, Device::Cpu, &PLAIN).unwrap();
        let reds: Vec<f64> = s.views_named("global").map(|v| v.double_value(&[1, 0, 1, 1])).collect();
        assert_eq!(reds, [0.0, 1.0]);
        assert_eq!(s.view("local").unwrap().size(), [2, 3, 1, 1]);
        assert!(s.view("image").is_none());
    }

    #[test]
    fn wrong_buffers_are_named() {
        let mut b = batch();
        b.views[0].pixels.pop();
        let e = step_input(&b, 0..1, Device::Cpu, &PLAIN).unwrap_err();
        assert_eq!(e.to_string(), "batch: image (2×3×2×2) holds 23 values, its shape asks for 24");
    }
}
