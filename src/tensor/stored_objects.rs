//! The objects of a batch as tensors of a file.

use splitmask_pipeline::types::{Batch, Object, ObjectMask};
use tch::{Kind, TchError, Tensor};

/// Numbers of an object: class, crowd (0 or 1), then left, top, columns, rows of its mask; zeros where it has none.
const NUMBERS: i64 = 6;

/// `object_offsets` (i64 B+1), `object_corners` (f32 N×4), `objects` (i64 N×6), `object_masks` (u8, the pixels of all masks one behind the other).
pub(super) fn tensors(batch: &Batch) -> Result<Vec<(String, Tensor)>, TchError> {
    let number = batch.objects.len() as i64;
    let offsets: Vec<i64> = batch.object_offsets.iter().map(|&at| i64::from(at)).collect();
    let corners: Vec<f32> = batch.objects.iter().flat_map(|object| object.corners).collect();
    let numbers: Vec<i64> = batch
        .objects
        .iter()
        .flat_map(|object| {
            let of_mask = object
                .mask
                .as_ref()
                .map_or([0; 4], |mask| [mask.left, mask.top, mask.width, mask.height]);
            let [left, top, width, height] = of_mask.map(i64::from);
            [object.class.into(), object.crowd.into(), left, top, width, height]
        })
        .collect();
    let masks = batch.objects.iter().filter_map(|object| object.mask.as_ref());
    let pixels: Vec<u8> = masks.flat_map(|mask| &mask.pixels).copied().collect();
    Ok(vec![
        ("object_offsets".into(), Tensor::from_slice(&offsets)),
        ("object_corners".into(), Tensor::from_slice(&corners).f_view([number, 4])?),
        ("objects".into(), Tensor::from_slice(&numbers).f_view([number, NUMBERS])?),
        ("object_masks".into(), Tensor::from_slice(&pixels)),
    ])
}

/// Objects and their offsets from what [`tensors`] gave.
pub(super) fn read(find: &dyn Fn(&str) -> Result<Tensor, TchError>) -> Result<(Vec<Object>, Vec<u32>), TchError> {
    let whole = |name: &str| Vec::<i64>::try_from(find(name)?.f_view([-1])?.to_kind(Kind::Int64));
    let corners = Vec::<f32>::try_from(find("object_corners")?.f_view([-1])?)?;
    let pixels = Vec::<u8>::try_from(find("object_masks")?.f_view([-1])?)?;
    let mut rest = pixels.as_slice();
    let mut objects = vec![];
    for (numbers, corners) in whole("objects")?.chunks_exact(NUMBERS as usize).zip(corners.chunks_exact(4)) {
        let [left, top, width, height] = [numbers[2], numbers[3], numbers[4], numbers[5]].map(|number| number as u32);
        let length = width as usize * height as usize;
        let (mask, behind) = rest
            .split_at_checked(length)
            .ok_or_else(|| TchError::FileFormat(format!("object_masks: {} bytes where {length} are to come", rest.len())))?;
        rest = behind;
        objects.push(Object {
            class: numbers[0] as u32,
            corners: corners.try_into().expect("four numbers"),
            crowd: numbers[1] != 0,
            mask: (length > 0).then(|| ObjectMask {
                left,
                top,
                width,
                height,
                pixels: mask.to_vec(),
            }),
        });
    }
    let offsets = whole("object_offsets")?.into_iter().map(|at| at as u32).collect();
    Ok((objects, offsets))
}
