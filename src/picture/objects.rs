//! Objects in pictures: boxes and masks in the colours of their classes.

use splitmask_pipeline::types::{Image, Object};

use super::palette::class_colour;

/// The colour of an object. The first of the colours, black, stands for background.
fn colour_of(object: &Object) -> [u8; 3] {
    class_colour(object.class as usize + 1)
}

/// Lays the colour of its class over the pixels of an object, whose place is told in pixels of `picture`. Pixels beyond the picture are left out.
pub fn lay_object(picture: &mut Image, object: &Object) {
    let Some(mask) = &object.mask else { return };
    let colour = colour_of(object);
    for (row, pixels) in (mask.top..picture.height).zip(mask.pixels.chunks_exact(mask.width.max(1) as usize)) {
        for (column, set) in (mask.left..picture.width).zip(pixels) {
            if *set != 0 {
                let at = 3 * (row as usize * picture.width as usize + column as usize);
                for (value, colour) in picture.pixels[at..at + 3].iter_mut().zip(colour) {
                    *value = u16::midpoint((*value).into(), colour.into()) as u8;
                }
            }
        }
    }
}

/// Draws the box of an object, told in pixels of `picture`: lines inside of it, a hundredth of the picture wide, dashed around a crowd.
pub fn frame_object(picture: &mut Image, object: &Object) {
    let colour = colour_of(object);
    let (width, height) = (picture.width, picture.height);
    let thick = (width.max(height) / 100).max(1);
    let [left, top, right, bottom] = object.corners;
    let (left, top) = (left.floor().max(0.0) as u32, top.floor().max(0.0) as u32);
    let (right, bottom) = ((right.ceil() as u32).min(width), (bottom.ceil() as u32).min(height));
    for y in top..bottom {
        for x in left..right {
            let edge = x < left + thick || y < top + thick || x + thick >= right || y + thick >= bottom;
            let drawn = !object.crowd || ((x + y) / (4 * thick)).is_multiple_of(2);
            if edge && drawn {
                let at = 3 * (y as usize * width as usize + x as usize);
                picture.pixels[at..at + 3].copy_from_slice(&colour);
            }
        }
    }
}

/// A square of `size` pixels, planes 3×size×size, with masks and boxes of objects on it, in planes again.
#[must_use]
pub fn planes_with_objects(planes: &[u8], size: u32, objects: &[Object]) -> Vec<u8> {
    let plane = size as usize * size as usize;
    let mut picture = Image {
        width: size,
        height: size,
        pixels: (0..plane)
            .flat_map(|at| [0, 1, 2].map(|channel| planes[channel * plane + at]))
            .collect(),
    };
    objects.iter().for_each(|object| lay_object(&mut picture, object));
    objects.iter().for_each(|object| frame_object(&mut picture, object));
    (0..3)
        .flat_map(|channel| picture.pixels.iter().skip(channel).step_by(3).copied())
        .collect()
}

#[cfg(test)]
mod tests {
    use splitmask_pipeline::types::ObjectMask;

    use super::*;

    #[test]
    fn a_box_is_a_frame_and_a_mask_is_laid_over() {
        let mut picture = Image {
            width: 5,
            height: 4,
            pixels: vec![100; 60],
        };
        let object = Object {
            class: 0,
            corners: [1.0, 0.5, 4.5, 3.5],
            crowd: false,
            mask: Some(ObjectMask {
                left: 1,
                top: 0,
                width: 4,
                height: 4,
                pixels: (0..16).map(|at| u8::from(at == 5)).collect(),
            }),
        };
        lay_object(&mut picture, &object);
        frame_object(&mut picture, &object);
        let at = |x: usize, y: usize| &picture.pixels[3 * (y * 5 + x)..][..3];
        assert_eq!(
            (at(0, 1), at(1, 1), at(2, 0), at(4, 3)),
            (&[100; 3][..], &[128, 0, 0][..], &[128, 0, 0][..], &[128, 0, 0][..])
        );
        assert_eq!((at(2, 1), at(3, 2)), (&[114, 50, 50][..], &[100; 3][..]));
    }
}
