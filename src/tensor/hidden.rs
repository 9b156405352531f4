//! Hidden patches on a device: how many there are differs from image to image, so they are one list and not a rectangle.

use std::ops::Range;

use splitmask_pipeline::types::PatchSet;
use tch::{Device, Tensor};
use torch_ext::send;

use crate::tensor::TensorError;

/// The hidden patches of some images.
#[derive(Debug)]
pub struct HiddenPatches {
    /// Patches of an image that may be hidden: those of all views that the request names, view after view.
    pub patches: i64,
    /// i64 M, ascending, on the device: image × `patches` + place of the patch.
    pub rows: Tensor,
}

/// Those of a batch, and where the list of each image begins; the host must know, so that it never waits for the device.
#[derive(Debug)]
pub(super) struct SentHidden {
    all: HiddenPatches,
    /// One more than there are images.
    starts: Vec<i64>,
}

impl SentHidden {
    /// Sends what `hidden` says of images with `patches` each.
    ///
    /// # Errors
    /// No memory there.
    pub(super) fn send(hidden: &[PatchSet], patches: usize, device: Device) -> Result<Self, TensorError> {
        let (mut rows, mut starts) = (Vec::new(), vec![0]);
        for (place, set) in hidden.iter().enumerate() {
            if *set == PatchSet::A {
                rows.push(place as i64);
            }
            if (place + 1) % patches == 0 {
                starts.push(rows.len() as i64);
            }
        }
        let rows = send(&rows, &[rows.len() as i64], device)?;
        let patches = patches as i64;
        Ok(Self {
            all: HiddenPatches { patches, rows },
            starts,
        })
    }

    /// The list itself.
    pub(super) fn rows(&self) -> &Tensor {
        &self.all.rows
    }

    /// Those of images `range`, which lie within the batch; counted from the first of them.
    pub(super) fn part(&self, range: &Range<usize>) -> HiddenPatches {
        let HiddenPatches { patches, rows } = &self.all;
        let (start, end) = (self.starts[range.start], self.starts[range.end]);
        HiddenPatches {
            patches: *patches,
            rows: rows.narrow(0, start, end - start) - range.start as i64 * patches,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_part_of_a_batch_has_its_own_patches_counted_from_its_first_image() {
        // 1 = hidden; four images with three patches each, of which one hides nothing and one everything.
        let hidden = [0u8, 1, 0, 0, 0, 0, 1, 1, 1, 1, 0, 1].map(|n| PatchSet::try_from(n).unwrap());
        let sent = SentHidden::send(&hidden, 3, Device::Cpu).unwrap();
        let rows = |range| Vec::<i64>::try_from(sent.part(&range).rows).unwrap();
        assert_eq!(rows(0..4), [1, 6, 7, 8, 9, 11]);
        assert_eq!((rows(0..1), rows(1..2)), (vec![1], vec![]));
        assert_eq!((rows(2..4), rows(3..4)), (vec![0, 1, 2, 3, 5], vec![0, 2]));
        assert_eq!(sent.part(&(0..2)).patches, 3);
    }
}
