//! Colours of classes in pictures of label maps.

use splitmask_pipeline::types::{Image, UNLABELLED};

/// The colour of a class: that of PASCAL VOC's colour map, whose first one is black.
#[must_use]
pub fn class_colour(class: usize) -> [u8; 3] {
    let bit = |channel: usize, place: usize| ((class >> (3 * place + channel) & 1) as u8) << (7 - place);
    std::array::from_fn(|channel| (0..8).map(|place| bit(channel, place)).sum())
}

/// Grey that stands for no class.
const NONE: [u8; 3] = [96, 96, 104];

/// The colours of classes as planes 3×…, grey where there is none (below 0).
#[must_use]
pub fn planes_of_classes(classes: &[i64]) -> Vec<u8> {
    let colours: Vec<[u8; 3]> = classes
        .iter()
        .map(|class| usize::try_from(*class).map_or(NONE, class_colour))
        .collect();
    (0..3)
        .flat_map(|channel| colours.iter().map(move |colour| colour[channel]))
        .collect()
}

/// Lays the colours of `classes`, one for each pixel, over a picture; pixels about which nothing is said stay as they are.
///
/// # Panics
/// If there are not as many classes as pixels.
pub fn lay_over(picture: &mut Image, classes: &[i16]) {
    assert_eq!(picture.pixels.len(), 3 * classes.len(), "a class for each pixel");
    for (pixel, class) in picture.pixels.chunks_exact_mut(3).zip(classes) {
        if *class == UNLABELLED {
            continue;
        }
        let colour = class_colour(*class as usize);
        for (value, colour) in pixel.iter_mut().zip(colour) {
            *value = ((u16::from(*value) * 2 + u16::from(colour) * 3) / 5) as u8;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_those_of_pascal_voc_and_differ() {
        // Background, aeroplane, bicycle, cat (8), tv monitor (20) and the border (255) of VOCdevkit's labelcolormap.
        for (class, colour) in [
            (0, [0, 0, 0]),
            (1, [128, 0, 0]),
            (2, [0, 128, 0]),
            (8, [64, 0, 0]),
            (20, [0, 64, 128]),
            (255, [224, 224, 192]),
        ] {
            assert_eq!(class_colour(class), colour, "class {class}");
        }
        let all: std::collections::HashSet<[u8; 3]> = (0..4096).map(class_colour).collect();
        assert_eq!(all.len(), 4096);
    }

    #[test]
    fn what_is_not_labelled_shows_the_picture() {
        let mut picture = Image {
            width: 2,
            height: 1,
            pixels: vec![100; 6],
        };
        lay_over(&mut picture, &[UNLABELLED, 1]);
        assert_eq!(picture.pixels, [100, 100, 100, 116, 40, 40]);
    }
}
