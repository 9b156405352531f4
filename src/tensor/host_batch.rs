//! The only place where the pipeline's [`Batch`] meets [`Tensor`].

use std::ops::Range;

use splitmask_pipeline::types::Batch;
use tch::{Device, Kind, Tensor};
use torch_ext::send;

use crate::tensor::{Parts, StepInput, TensorError};

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
    #[must_use]
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
    /// u8 B×3×S×S each.
    views: Vec<Tensor>,
    /// i64 B×N.
    words: Option<Tensor>,
    largest_word: u32,
    parts: Option<Parts>,
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
        let views = batch.views.iter().zip(&batch.sizes).enumerate().map(|(i, (bytes, &size))| {
            let one = 3 * (size as usize).pow(2);
            let bytes = rows(bytes, batch.len, one, &range, || {
                format!("view {i} ({}×3×{size}×{size})", batch.len)
            })?;
            Ok(send(bytes, &[int(len), 3, i64::from(size), i64::from(size)], device)?)
        });
        let views = views.collect::<Result<Vec<_>, TensorError>>()?;
        let (words, largest_word) = if batch.words.is_empty() {
            (None, 0)
        } else {
            let n = batch.words.len() / batch.len;
            let words = rows(&batch.words, batch.len, n, &range, || format!("words ({}×{n})", batch.len))?;
            let wide: Vec<i64> = words.iter().map(|&w| i64::from(w)).collect();
            let tensor = send(&wide, &[int(len), int(n)], device)?;
            (Some(tensor), words.iter().copied().max().unwrap_or(0))
        };
        let parts = if batch.parts.is_empty() {
            None
        } else {
            let n = batch.parts.len() / batch.len;
            let parts = rows(&batch.parts, batch.len, n, &range, || format!("parts ({}×{n})", batch.len))?;
            Some(index_lists(parts, n, device)?)
        };
        let labels = rows(&batch.labels, batch.len, 1, &range, || "labels".into())?;
        Ok(Self {
            len,
            views,
            words,
            largest_word,
            parts,
            labels: send(labels, &[int(len)], device)?,
        })
    }

    /// Samples `range` of it, normalised.
    ///
    /// # Errors
    /// A range beyond it.
    pub fn input(&self, range: Range<usize>, normalise: &Normalise) -> Result<StepInput, TensorError> {
        self.of_views(self.views.len(), range, normalise)
    }

    /// As [`SentBatch::input`] for a batch of a plan with a target: the target is no view, but comes by itself as u8 B×3×T×T, not normalised.
    ///
    /// # Errors
    /// As there; or it has no view at all.
    pub fn input_with_target(&self, range: Range<usize>, normalise: &Normalise) -> Result<(StepInput, Tensor), TensorError> {
        let (target, views) = self.views.split_last().ok_or_else(|| TensorError::BadBuffer {
            what: "target".into(),
            got: 0,
            want: self.len,
        })?;
        let input = self.of_views(views.len(), range.clone(), normalise)?;
        Ok((input, part_of(target, &range)))
    }

    fn of_views(&self, views: usize, range: Range<usize>, normalise: &Normalise) -> Result<StepInput, TensorError> {
        check_range(&range, self.len)?;
        let views = self.views.iter().take(views);
        Ok(StepInput {
            len: int(range.len()),
            views: views
                .map(|v| normalised(&part_of(v, &range), normalise))
                .collect::<Result<_, _>>()?,
            words: self.words.as_ref().map(|w| part_of(w, &range)),
            largest_word: self.largest_word,
            parts: self.parts.as_ref().map(|p| Parts {
                patches: p.patches,
                seen_a: part_of(&p.seen_a, &range),
                seen_b: part_of(&p.seen_b, &range),
                absent_a: part_of(&p.absent_a, &range),
                absent_b: part_of(&p.absent_b, &range),
            }),
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
fn index_lists(parts: &[u8], n: usize, device: Device) -> Result<Parts, TensorError> {
    let len = parts.len() / n;
    let mut lists: [Vec<i64>; 4] = Default::default();
    let mut first = [0, 0];
    for (sample, row) in parts.chunks_exact(n).enumerate() {
        let before = [lists[0].len(), lists[1].len()];
        for (patch, &part) in row.iter().enumerate() {
            if part > 2 {
                return Err(TensorError::BadPart { sample, patch, part });
            }
            lists[if part == 1 { 0 } else { 2 }].push(int(patch));
            lists[if part == 2 { 1 } else { 3 }].push(int(patch));
        }
        for (s, set) in ['A', 'B'].into_iter().enumerate() {
            let got = lists[s].len() - before[s];
            if sample == 0 {
                first[s] = got;
            } else if got != first[s] {
                return Err(TensorError::RaggedParts {
                    sample,
                    set,
                    got,
                    want: first[s],
                });
            }
        }
    }
    let sent = |list: &[i64]| send(list, &[int(len), int(list.len() / len)], device);
    Ok(Parts {
        patches: int(n),
        seen_a: sent(&lists[0])?,
        seen_b: sent(&lists[1])?,
        absent_a: sent(&lists[2])?,
        absent_b: sent(&lists[3])?,
    })
}

#[cfg(test)]
mod tests {
    use splitmask_pipeline::cursor::Cursor;
    use splitmask_pipeline::types::SampleId;

    use super::*;

    const PLAIN: Normalise = Normalise {
        mean: [0.0, 0.5, 0.5],
        std: [1.0, 0.5, 0.25],
    };

    fn batch() -> Batch {
        Batch {
            len: 2,
            sizes: vec![2],
            views: vec![(0..24).map(|i| if i < 12 { 255 } else { 0 }).collect()],
            words: vec![1, 2, 3, 4, 5, 6, 7, 8],
            parts: vec![1, 2, 2, 1, 0, 1, 1, 2],
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
            Some(TensorError::RaggedParts {
                sample: 1,
                set: 'B',
                got: 1,
                want: 2
            })
        );
        let mut b = batch();
        b.parts.clear();
        let s = step_input(&b, 0..2, Device::Cpu, &PLAIN).unwrap();
        let x = &s.views[0];
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
        b.parts.clear();
        b.views[0] = (0..24).map(|i| i * 11).collect();
        let x = step_input(&b, 0..2, Device::Cpu, &PLAIN).unwrap().views.remove(0);
        assert_eq!(Vec::<u8>::try_from(PLAIN.undone(&x).flatten(0, -1)).unwrap(), b.views[0]);
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
        b.parts = vec![1, 2, 2, 1, 1, 2, 1, 2];
        let p = step_input(&b, 0..2, Device::Cpu, &PLAIN).unwrap().parts.unwrap();
        assert_eq!(rows_of(&p.seen_a), [[0, 3], [0, 2]]);
        assert_eq!(rows_of(&p.seen_b), [[1, 2], [1, 3]]);
        assert_eq!(rows_of(&p.absent_a), [[1, 2], [1, 3]]);
        assert_eq!(rows_of(&p.absent_b), [[0, 3], [0, 2]]);
    }

    #[test]
    fn a_range_takes_those_samples() {
        let s = step_input(&batch(), 1..2, Device::Cpu, &PLAIN).unwrap();
        assert_eq!(rows_of(s.words.as_ref().unwrap()), [[5, 6, 7, 8]]);
        let p = s.parts.unwrap();
        assert_eq!((rows_of(&p.seen_a), rows_of(&p.absent_b)), (vec![vec![1, 2]], vec![vec![0, 1, 2]]));
        assert_eq!(Vec::<i64>::try_from(&s.labels).unwrap(), [-1]);
        assert!(matches!(
            step_input(&batch(), 1..3, Device::Cpu, &PLAIN),
            Err(TensorError::BadRange { len: 2, .. })
        ));
    }

    #[test]
    fn the_target_comes_by_itself_and_raw() {
        let mut b = batch();
        b.parts.clear();
        b.sizes.push(1);
        b.views.push(vec![1, 2, 3, 4, 5, 6]);
        let sent = SentBatch::send(&b, 0..2, Device::Cpu).unwrap();
        let (input, target) = sent.input_with_target(1..2, &PLAIN).unwrap();
        assert_eq!((input.views.len(), target.size()), (1, vec![1, 3, 1, 1]));
        assert_eq!(Vec::<u8>::try_from(target.flatten(0, -1)).unwrap(), [4, 5, 6]);
    }

    #[test]
    fn wrong_buffers_are_named() {
        let mut b = batch();
        b.views[0].pop();
        let e = step_input(&b, 0..1, Device::Cpu, &PLAIN).unwrap_err();
        assert_eq!(e.to_string(), "batch: view 0 (2×3×2×2) holds 23 values, its shape asks for 24");
        let mut b = batch();
        b.parts[2] = 9;
        assert_eq!(
            step_input(&b, 0..1, Device::Cpu, &PLAIN).unwrap_err(),
            TensorError::BadPart {
                sample: 0,
                patch: 2,
                part: 9
            }
        );
    }
}
