use proptest::prelude::*;
use turbojpeg_sys as tj;

use super::super::fixtures::{Jpeg, encode, photo};
use super::super::jpeg_header;
use super::*;
use crate::types::Image;

const SUBSAMPLINGS: [tj::TJSAMP; 7] = [
    tj::TJSAMP_TJSAMP_444,
    tj::TJSAMP_TJSAMP_422,
    tj::TJSAMP_TJSAMP_420,
    tj::TJSAMP_TJSAMP_440,
    tj::TJSAMP_TJSAMP_411,
    tj::TJSAMP_TJSAMP_441,
    tj::TJSAMP_TJSAMP_GRAY,
];

/// Every value at random: the largest coefficients and the longest codes there are.
fn noise(width: u32, height: u32) -> Image {
    let pixels = (0..u64::from(width * height * 3)).map(|i| if crate::seed::mix(i) & 1 == 0 { 0 } else { 255 });
    Image {
        width,
        height,
        pixels: pixels.collect(),
    }
}

/// A part of a picture of `width` × `height`, one in four the whole.
fn part(width: u32, height: u32, draw: u64) -> PixelRect {
    let pick = |n: u32, d: u64| (crate::seed::mix(draw ^ d) % u64::from(n)) as u32;
    let (left, top) = if draw.is_multiple_of(4) {
        (0, 0)
    } else {
        (pick(width, 1), pick(height, 2))
    };
    let (width, height) = if draw.is_multiple_of(4) {
        (width, height)
    } else {
        (1 + pick(width - left, 3), 1 + pick(height - top, 4))
    };
    PixelRect { left, top, width, height }
}

type Decoded = (Placed, Vec<u8>);

/// What the fast way gives, and what libjpeg-turbo alone gives.
fn both(turbo: &mut Turbo, bytes: &[u8], header: &JpegHeader, want: PixelRect, denom: u32) -> (Option<Decoded>, Result<Decoded, String>) {
    let (width, height) = (header.width.div_ceil(denom), header.height.div_ceil(denom));
    let cut = |placed: Placed, mut pixels: Vec<u8>| {
        pixels.truncate(3 * placed.width as usize * placed.height as usize);
        (placed, pixels)
    };
    let mut ours = vec![];
    let fast = turbo
        .baseline
        .as_mut()
        .unwrap()
        .decode(bytes, header, widened(want, width, height), denom, &mut ours);
    let mut theirs = vec![];
    let plain = turbo.attempt(bytes, header, Some(want), denom, &mut theirs, true);
    (
        fast.map(|placed| cut(placed, ours)),
        plain.map(|placed| cut(placed, theirs)).map_err(|(words, _)| words),
    )
}

#[test]
fn the_fast_way_gives_libjpeg_turbos_pixels_for_every_part_at_every_scale() {
    let mut turbo = Turbo::new(true);
    let mut draw = 0;
    for image in [photo(150, 117), noise(83, 70)] {
        for subsampling in SUBSAMPLINGS {
            for (quality, restart_rows) in [(25, 0), (92, 0), (92, 1), (100, 0), (100, 2)] {
                let how = Jpeg {
                    subsampling,
                    quality,
                    restart_rows,
                    ..Jpeg::default()
                };
                let bytes = encode(&image, how);
                let header = jpeg_header::parse(&bytes).unwrap();
                assert!(header.common);
                for denom in [1, 2, 4, 8] {
                    for _ in 0..6 {
                        draw += 1;
                        let want = part(image.width.div_ceil(denom), image.height.div_ceil(denom), draw);
                        let (fast, plain) = both(&mut turbo, &bytes, &header, want, denom);
                        let (place, fast) = fast.unwrap_or_else(|| panic!("{how:?} {want:?} 1/{denom}: refused"));
                        let (placed, plain) = plain.unwrap();
                        assert_eq!(place, placed, "{how:?} {want:?} 1/{denom}");
                        assert!(fast == plain, "{how:?} {want:?} 1/{denom}: pixels differ");
                    }
                }
            }
        }
    }
}

#[test]
fn colours_stored_as_red_green_blue_are_no_other_way() {
    let how = Jpeg {
        subsampling: tj::TJSAMP_TJSAMP_444,
        space: tj::TJCS_TJCS_RGB,
        ..Jpeg::default()
    };
    let bytes = encode(&photo(90, 60), how);
    let header = jpeg_header::parse(&bytes).unwrap();
    let (fast, plain) = both(&mut Turbo::new(true), &bytes, &header, part(90, 60, 1), 1);
    assert_eq!(fast, plain.ok());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..Default::default() })]
    /// Damage is judged by libjpeg-turbo: what the fast way lets pass, it lets pass too, with the same pixels.
    #[test]
    fn of_a_damaged_file_the_fast_way_gives_libjpeg_turbos_pixels_or_nothing(
        kind in 0usize..7, restart_rows in 0..2, quality in 40..101i32, draw: u64, denom in 0u32..4,
        flips in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..5), lost in 0usize..3,
    ) {
        let how = Jpeg { subsampling: SUBSAMPLINGS[kind], restart_rows, quality, ..Jpeg::default() };
        let mut bytes = encode(&photo(120, 88), how);
        let end = bytes.len() - 2;
        for (at, value) in flips {
            // The end marker stays, and mostly the header.
            let at = at.index(end);
            if at > 600 || value < 16 { bytes[at] = value; }
        }
        bytes.drain(end - lost..end);
        if let Ok(header) = jpeg_header::parse(&bytes) && header.common && header.width < 400 && header.height < 400 {
            let denom = 1 << denom;
            let want = part(header.width.div_ceil(denom), header.height.div_ceil(denom), draw);
            let mut turbo = Turbo::new(true);
            let (fast, plain) = both(&mut turbo, &bytes, &header, want, denom);
            if let Some(fast) = fast {
                prop_assert_eq!(Ok(fast), plain);
            }
            // The decompressor is as good as new.
            let good = encode(&photo(40, 30), how);
            let header = jpeg_header::parse(&good).unwrap();
            let (fast, plain) = both(&mut turbo, &good, &header, part(40, 30, draw), 1);
            prop_assert_eq!(fast, plain.ok());
        }
    }
}
