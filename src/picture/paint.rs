//! Painting into planar pixels 3×S×S: patches in their colours, heat over an image, a frame.

/// An image whose patches, in row-major order of a square grid, have one colour each: u8, planar 3×S×S.
#[must_use]
pub fn patches(colours: &[[u8; 3]], size: u32) -> Vec<u8> {
    each(size, |at, channel| colours[patch_at(at, size, colours.len())][channel])
}

/// An image in grey under the heat of its patches, from black over red and yellow to white at the largest; planar 3×S×S as `pixels` are.
#[must_use]
pub fn heat(pixels: &[u8], weights: &[f32], size: u32) -> Vec<u8> {
    let plane = (size * size) as usize;
    let most = weights.iter().copied().fold(0f32, f32::max).max(f32::MIN_POSITIVE);
    each(size, |at, channel| {
        let grey = (0..3).map(|c| f32::from(pixels[c * plane + at])).sum::<f32>() / 3.0;
        let hot = 3.0 * weights[patch_at(at, size, weights.len())] / most - channel as f32;
        (0.35 * grey + 0.65 * 255.0 * hot.clamp(0.0, 1.0)).round() as u8
    })
}

/// An image with a frame of that colour inside its border; planar 3×S×S.
#[must_use]
pub fn framed(pixels: &[u8], colour: [u8; 3], size: u32) -> Vec<u8> {
    let (side, width) = (size as usize, (size as usize / 20).max(1));
    let border = |at: usize| {
        let (row, column) = (at / side, at % side);
        row.min(column) < width || row.max(column) >= side - width
    };
    each(size, |at, channel| {
        if border(at) {
            colour[channel]
        } else {
            pixels[channel * side * side + at]
        }
    })
}

/// An image made smaller by a whole factor, each pixel the mean of a square: (planar pixels, side). What is left over at right and below is cut off.
#[must_use]
pub fn smaller(pixels: &[u8], size: u32, factor: u32) -> (Vec<u8>, u32) {
    let (side, step) = (size as usize, factor.max(1) as usize);
    let small = side / step;
    let mean = |at: usize, channel: usize| {
        let (row, column) = (at / small * step, at % small * step);
        let inside = (row..row + step).flat_map(|v| (column..column + step).map(move |u| v * side + u));
        let sum: usize = inside.map(|at| usize::from(pixels[channel * side * side + at])).sum();
        (sum / (step * step)) as u8
    };
    (each(small as u32, mean), small as u32)
}

/// Planar pixels by (place in a plane, channel).
fn each(size: u32, of: impl Fn(usize, usize) -> u8) -> Vec<u8> {
    let plane = (size * size) as usize;
    (0..3)
        .flat_map(|channel| (0..plane).map(move |at| (at, channel)))
        .map(|(at, channel)| of(at, channel))
        .collect()
}

/// The patch that a pixel lies in, of `patches` on a square grid.
fn patch_at(at: usize, size: u32, patches: usize) -> usize {
    let (side, grid) = (size as usize, patches.isqrt().max(1));
    let place = |pixel: usize| (pixel * grid / side).min(grid - 1);
    place(at / side) * grid + place(at % side)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pixel(planar: &[u8], at: usize) -> [u8; 3] {
        let plane = planar.len() / 3;
        [planar[at], planar[plane + at], planar[2 * plane + at]]
    }

    #[test]
    fn each_patch_has_its_colour() {
        let image = patches(&[[1, 2, 3], [4, 5, 6], [7, 8, 9], [10, 11, 12]], 4);
        assert_eq!(image.len(), 48);
        assert_eq!(
            [0, 3, 12, 15, 5].map(|at| pixel(&image, at)),
            [[1, 2, 3], [4, 5, 6], [7, 8, 9], [10, 11, 12], [1, 2, 3]]
        );
    }

    #[test]
    fn the_hottest_patch_is_white_and_the_coldest_shows_the_image_alone() {
        let grey = [120; 48];
        let image = heat(&grey, &[0.0, 0.1, 0.2, 0.3], 4);
        let cold = (0.35f32 * 120.0).round() as u8;
        assert_eq!(pixel(&image, 0), [cold; 3]);
        assert_eq!(pixel(&image, 15), [(0.35 * 120.0 + 0.65 * 255.0f32).round() as u8; 3]);
        let third = pixel(&image, 3);
        assert!(
            third[0] > 150 && third[1] == cold && third[2] == cold,
            "a third of the heat is red: {third:?}"
        );
        assert_eq!(
            pixel(&heat(&grey, &[0.0; 4], 4), 9),
            [cold; 3],
            "no heat at all is no division by 0"
        );
    }

    #[test]
    fn frames_cover_the_border_alone() {
        let image = framed(&[9; 3 * 36], [0, 200, 0], 6);
        let framed: Vec<usize> = (0..36).filter(|at| pixel(&image, *at) == [0, 200, 0]).collect();
        assert_eq!(framed.len(), 20);
        assert!(!framed.contains(&7) && pixel(&image, 7) == [9; 3]);
    }

    #[test]
    fn small_pictures_are_means() {
        let planar: Vec<u8> = [0u8, 2, 9, 4, 6, 9, 9, 9, 9].repeat(3);
        assert_eq!(smaller(&planar, 3, 2), (vec![3; 3], 1));
        assert_eq!(smaller(&planar, 3, 1), (planar, 3));
    }
}
