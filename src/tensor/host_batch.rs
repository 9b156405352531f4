//! The only place where the pipeline's [`Batch`] meets [`Tensor`].

use std::ops::Range;

use splitmask_pipeline::types::Batch;
use tch::{Device, Kind, Tensor};

use crate::tensor::{Parts, StepInput, TensorError};

/// Per-channel mean and standard deviation of pixels in 0..1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Normalise {
    /// Subtracted.
    pub mean: [f64; 3],
    /// Divided by.
    pub std: [f64; 3],
}

/// Samples `range` of a batch as tensors on `device`. Bytes travel as u8 and are normalised there.
///
/// # Errors
/// Buffers that do not fit their shape; sets of unequal size; a range beyond the batch.
pub fn step_input(batch: &Batch, range: Range<usize>, device: Device, normalise: &Normalise) -> Result<StepInput, TensorError> {
    of_views(batch, batch.views.len(), range, device, normalise)
}

/// As [`step_input`] for a batch of a plan with a target: the target is no view, but comes by itself as u8 B×3×T×T, not normalised.
///
/// # Errors
/// As there.
pub fn step_input_with_target(
    batch: &Batch,
    range: Range<usize>,
    device: Device,
    normalise: &Normalise,
) -> Result<(StepInput, Tensor), TensorError> {
    let views = batch.views.len().saturating_sub(1);
    let input = of_views(batch, views, range.clone(), device, normalise)?;
    let (bytes, size) = (batch.views.get(views), batch.sizes.get(views).copied().unwrap_or(0));
    let bytes = bytes.map_or(&[][..], Vec::as_slice);
    let one = 3 * (size as usize).pow(2);
    let bytes = rows(bytes, batch.len, one, &range, || format!("target ({}×3×{size}×{size})", batch.len))?;
    let side = i64::from(size);
    Ok((
        input,
        Tensor::from_slice(bytes).view([int(range.len()), 3, side, side]).to_device(device),
    ))
}

fn of_views(batch: &Batch, views: usize, range: Range<usize>, device: Device, normalise: &Normalise) -> Result<StepInput, TensorError> {
    if range.start >= range.end || range.end > batch.len {
        return Err(TensorError::BadRange {
            start: range.start,
            end: range.end,
            len: batch.len,
        });
    }
    let len = range.len();
    let views = batch.views.iter().zip(&batch.sizes).take(views).enumerate();
    let views = views.map(|(i, (bytes, &size))| {
        let one = 3 * (size as usize).pow(2);
        let bytes = rows(bytes, batch.len, one, &range, || {
            format!("view {i} ({}×3×{size}×{size})", batch.len)
        })?;
        let side = i64::from(size);
        Ok(normalised(bytes, [int(len), 3, side, side], device, normalise))
    });
    let views = views.collect::<Result<Vec<_>, TensorError>>()?;
    let (words, largest_word) = if batch.words.is_empty() {
        (None, 0)
    } else {
        let n = batch.words.len() / batch.len;
        let words = rows(&batch.words, batch.len, n, &range, || format!("words ({}×{n})", batch.len))?;
        let wide: Vec<i64> = words.iter().map(|&w| i64::from(w)).collect();
        let tensor = Tensor::from_slice(&wide).view([int(len), int(n)]).to_device(device);
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
    Ok(StepInput {
        len: int(len),
        views,
        words,
        largest_word,
        parts,
        labels: Tensor::from_slice(labels).to_device(device),
    })
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

fn normalised(bytes: &[u8], shape: [i64; 4], device: Device, n: &Normalise) -> Tensor {
    let column = |f: &dyn Fn(usize) -> f64| {
        let values: Vec<f32> = (0..3).map(|c| f(c) as f32).collect();
        Tensor::from_slice(&values).view([1, 3, 1, 1]).to_device(device)
    };
    let shift = column(&|c| 255.0 * n.mean[c]);
    let factor = column(&|c| 1.0 / (255.0 * n.std[c]));
    let mut x = Tensor::from_slice(bytes).view(shape).to_device(device).to_kind(Kind::Float);
    x -= &shift;
    x *= &factor;
    x
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
    let [seen_a, seen_b, absent_a, absent_b] =
        lists.map(|list| Tensor::from_slice(&list).view([int(len), int(list.len() / len)]).to_device(device));
    Ok(Parts {
        patches: int(n),
        seen_a,
        seen_b,
        absent_a,
        absent_b,
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
        let (input, target) = step_input_with_target(&b, 1..2, Device::Cpu, &PLAIN).unwrap();
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
