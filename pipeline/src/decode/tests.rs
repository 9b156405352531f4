use image::{DynamicImage, ImageFormat};
use turbojpeg_sys as tj;

use super::fixtures::{Jpeg, difference, encode, photo, raster, with_orientation, with_segment};
use super::*;
use crate::error::SampleError;
use crate::types::Image;

fn decode(bytes: &[u8]) -> Result<Image, SampleError> {
    let mut out = Image::default();
    Decoder::new(Limits::default()).decode(bytes, &mut out).map(|()| out)
}

const SUBSAMPLINGS: [tj::TJSAMP; 7] = [
    tj::TJSAMP_TJSAMP_444,
    tj::TJSAMP_TJSAMP_422,
    tj::TJSAMP_TJSAMP_420,
    tj::TJSAMP_TJSAMP_440,
    tj::TJSAMP_TJSAMP_411,
    tj::TJSAMP_TJSAMP_441,
    tj::TJSAMP_TJSAMP_GRAY,
];

/// Every way of writing a JPEG that must be read.
fn kinds() -> Vec<Jpeg> {
    let mut all = vec![];
    for subsampling in SUBSAMPLINGS {
        for (progressive, arithmetic, restart_rows) in [(false, false, 0), (true, false, 0), (false, true, 0), (false, false, 1)] {
            all.push(Jpeg {
                subsampling,
                progressive,
                arithmetic,
                restart_rows,
                ..Jpeg::default()
            });
        }
    }
    for space in [tj::TJCS_TJCS_RGB, tj::TJCS_TJCS_CMYK, tj::TJCS_TJCS_YCCK] {
        all.push(Jpeg {
            subsampling: tj::TJSAMP_TJSAMP_444,
            space,
            ..Jpeg::default()
        });
    }
    all
}

#[test]
fn every_kind_of_jpeg_comes_back_close_to_what_was_written() {
    let image = photo(101, 67);
    for how in kinds() {
        let out = decode(&encode(&image, how)).unwrap_or_else(|e| panic!("{how:?}: {e}"));
        assert_eq!((out.width, out.height), (101, 67));
        let mut wanted = image.pixels.clone();
        if how.subsampling == tj::TJSAMP_TJSAMP_GRAY {
            for p in wanted.chunks_exact_mut(3) {
                p.fill((0.299 * f64::from(p[0]) + 0.587 * f64::from(p[1]) + 0.114 * f64::from(p[2])).round() as u8);
            }
        }
        let (psnr, _) = difference(&out.pixels, &wanted);
        assert!(psnr > 30.0, "{how:?}: {psnr:.1} dB");
    }
    let lossless = Jpeg {
        lossless: true,
        ..Jpeg::default()
    };
    assert_eq!(decode(&encode(&image, lossless)).unwrap(), image);
}

#[test]
fn parts_are_the_whole_picture_bit_for_bit() {
    // Odd sizes, and large enough for several MCUs of 32×32 around a crop.
    let image = photo(203, 171);
    let crops = [
        (0, 0, 30, 20),
        (173, 151, 30, 20),
        (0, 151, 50, 20),
        (90, 0, 113, 5),
        (33, 47, 64, 64),
        (1, 1, 201, 169),
        (64, 64, 1, 1),
        (202, 170, 1, 1),
        (16, 32, 48, 16),
        (31, 15, 2, 130),
    ];
    let mut decoder = Decoder::new(Limits::default());
    for how in kinds() {
        for tag in [1, 6] {
            let bytes = with_orientation(&encode(&image, how), tag);
            let mut whole = Image::default();
            decoder.decode(&with_orientation(&bytes, 1), &mut whole).unwrap();
            let header = decoder.header(&bytes).unwrap();
            for (x, y, w, h) in crops {
                let want = Rect {
                    x: f64::from(x),
                    y: f64::from(y),
                    width: f64::from(w),
                    height: f64::from(h),
                };
                let window = decoder.window(&bytes, &header, want, 1).unwrap();
                let p = window.placed;
                assert!(p.left <= x && p.top <= y && p.right() >= x + w && p.bottom() >= y + h);
                for row in y..y + h {
                    let at = |width: u32, px: u32, py: u32| ((py * width + px) * 3) as usize;
                    let ours = &window.pixels[at(p.width, x - p.left, row - p.top)..][..3 * w as usize];
                    let theirs = &whole.pixels[at(203, x, row)..][..3 * w as usize];
                    assert_eq!(ours, theirs, "{how:?} crop {x},{y} {w}×{h} row {row}");
                }
            }
        }
    }
}

#[test]
fn parts_at_a_reduced_scale_are_the_reduced_picture_bit_for_bit() {
    let image = photo(403, 371);
    let mut decoder = Decoder::new(Limits::default());
    for how in kinds() {
        let bytes = encode(&image, how);
        let header = decoder.header(&bytes).unwrap();
        for denom in [2u32, 4, 8] {
            let all = Rect {
                x: 0.0,
                y: 0.0,
                width: 403.0,
                height: 371.0,
            };
            let whole = decoder.window(&bytes, &header, all, denom).unwrap();
            let (width, pixels) = (whole.placed.width, whole.pixels.to_vec());
            assert_eq!(
                (whole.placed.width, whole.placed.height),
                (403u32.div_ceil(denom), 371u32.div_ceil(denom))
            );
            for (x, y, w, h) in [
                (0.0, 0.0, 64.0, 64.0),
                (100.0, 51.0, 203.0, 120.0),
                (339.0, 300.0, 64.0, 71.0),
                (17.0, 9.0, 16.0, 300.0),
            ] {
                let want = Rect { x, y, width: w, height: h };
                let part = want.pixels(denom, 403, 371);
                let window = decoder.window(&bytes, &header, want, denom).unwrap();
                let p = window.placed;
                for row in part.top..part.bottom() {
                    let ours = &window.pixels[(((row - p.top) * p.width + part.left - p.left) * 3) as usize..][..3 * part.width as usize];
                    let theirs = &pixels[((row * width + part.left) * 3) as usize..][..3 * part.width as usize];
                    assert_eq!(ours, theirs, "{how:?} 1/{denom} crop {x},{y} {w}×{h} row {row}");
                }
            }
        }
    }
}

#[test]
fn exif_orientation_turns_the_picture_upright() {
    let image = photo(48, 32);
    let bytes = encode(
        &image,
        Jpeg {
            subsampling: tj::TJSAMP_TJSAMP_444,
            quality: 100,
            ..Jpeg::default()
        },
    );
    let plain = DynamicImage::ImageRgb8(image::RgbImage::from_raw(48, 32, decode(&bytes).unwrap().pixels).unwrap());
    for tag in 1..=8 {
        let out = decode(&with_orientation(&bytes, tag)).unwrap();
        let mut theirs = plain.clone();
        theirs.apply_orientation(image::metadata::Orientation::from_exif(tag).unwrap());
        assert_eq!((out.width, out.height), (theirs.width(), theirs.height()));
        assert_eq!(out.pixels, theirs.into_bytes(), "tag {tag}");
    }
    let nonsense = with_segment(&bytes, 0xe1, b"Exif\0\0II*\0\xff\xff\xff\xff");
    assert_eq!(decode(&nonsense).unwrap().width, 48);
}

#[test]
fn a_cut_jpeg_is_truncated_at_every_length() {
    for how in [
        Jpeg::default(),
        Jpeg {
            progressive: true,
            ..Jpeg::default()
        },
        Jpeg {
            restart_rows: 1,
            ..Jpeg::default()
        },
    ] {
        let bytes = encode(&photo(120, 90), how);
        for cut in (3..bytes.len()).step_by(61).chain([bytes.len() - 1, bytes.len() - 2]) {
            let error = decode(&bytes[..cut]).unwrap_err();
            assert_eq!(error.reason(), "truncated", "{cut} of {}: {error}", bytes.len());
        }
        let mut tail = bytes.clone();
        tail.extend(b"trailing rubbish after the picture");
        assert_eq!(decode(&tail).unwrap(), decode(&bytes).unwrap());
    }
}

#[test]
fn a_jpeg_cut_in_the_middle_but_closed_is_refused_not_grey() {
    let bytes = encode(&photo(320, 240), Jpeg::default());
    let mut cut = bytes[..bytes.len() / 2].to_vec();
    cut.extend([0xff, 0xd9]);
    let error = decode(&cut).unwrap_err();
    assert!(matches!(error.reason(), "truncated" | "corrupt"), "{error}");
}

#[test]
fn rubbish_between_segments_is_stepped_over() {
    let bytes = encode(&photo(64, 48), Jpeg::default());
    // After the JFIF segment of 18 bytes.
    let mut odd = bytes[..20].to_vec();
    odd.extend([0x12, 0x34]);
    odd.extend(&bytes[20..]);
    assert_eq!(decode(&odd).unwrap(), decode(&bytes).unwrap());
    let header = header(&odd).unwrap();
    let mut decoder = Decoder::new(Limits::default());
    let want = Rect {
        x: 5.0,
        y: 0.0,
        width: 8.0,
        height: 8.0,
    };
    assert!(decoder.window(&odd, &header, want, 1).is_ok());
}

#[test]
fn a_header_that_breaks_libjpeg_does_not_spoil_the_next_picture() {
    let good = encode(&photo(64, 48), Jpeg::default());
    let mut bad = good.clone();
    // A Huffman table with more codes than it has room for.
    let table = bad.windows(2).position(|w| w == [0xff, 0xc4]).unwrap();
    bad[table + 5] = 0xff;
    let mut decoder = Decoder::new(Limits::default());
    let (mut out, mut again) = (Image::default(), Image::default());
    decoder.decode(&good, &mut out).unwrap();
    assert_eq!(decoder.decode(&bad, &mut again).unwrap_err().reason(), "corrupt");
    decoder.decode(&good, &mut again).unwrap();
    assert_eq!(out, again);
}

#[test]
fn unsupported_jpegs_say_what_they_are() {
    let bytes = encode(&photo(16, 16), Jpeg::default());
    let sof = bytes.windows(2).position(|w| w == [0xff, 0xc0]).unwrap();
    for (offset, value, words) in [(4, 12, "12-bit"), (9, 2, "2 components"), (1, 0xc5, "hierarchical")] {
        let mut odd = bytes.clone();
        odd[sof + offset] = value;
        let error = decode(&odd).unwrap_err();
        assert_eq!(error.reason(), "unsupported");
        assert!(error.to_string().contains(words), "{error}");
    }
    let mut flat = bytes;
    flat[sof + 5..sof + 7].fill(0);
    assert_eq!(decode(&flat).unwrap_err().reason(), "unsupported");
}

#[test]
fn too_many_scans_are_too_expensive() {
    // A legal file: the grey levels' scan as written, then one scan for each of the 63 other coefficients, all of them empty
    // (64 blocks of the one-bit code "end of block").
    let bytes = encode(
        &photo(64, 64),
        Jpeg {
            progressive: true,
            subsampling: tj::TJSAMP_TJSAMP_GRAY,
            ..Jpeg::default()
        },
    );
    let scans: Vec<usize> = (0..bytes.len() - 1).filter(|&i| bytes[i..i + 2] == [0xff, 0xda]).collect();
    let table = (0..scans[1]).rev().find(|&i| bytes[i..i + 2] == [0xff, 0xc4]).unwrap();
    let few = |count: u8| {
        let mut file = bytes[..table].to_vec();
        let mut codes = [0u8; 16];
        codes[0] = 1;
        file.extend([0xff, 0xc4, 0, 20, 0x10]);
        file.extend(codes);
        file.push(0);
        for k in 1..=count {
            file.extend([0xff, 0xda, 0, 8, 1, 1, 0, k, k, 0]);
            file.extend([0; 8]);
        }
        file.extend([0xff, 0xd9]);
        file
    };
    assert_eq!(decode(&few(40)).unwrap().width, 64);
    let many = few(63);
    let error = decode(&many).unwrap_err();
    assert_eq!(error.reason(), "too_expensive", "{error}");
}

#[test]
fn what_is_no_image_says_so() {
    for (bytes, words) in [(&b""[..], "0 bytes"), (b"hello world, no picture", "68, 65")] {
        let error = decode(bytes).unwrap_err();
        assert_eq!(error.reason(), "not_an_image");
        assert!(error.to_string().contains(words), "{error}");
    }
    let ico = b"\0\0\x01\0\x01\0\x10\x10\0\0\x01\0\x20\0\x68\x04\0\0\x16\0\0\0";
    assert_eq!(decode(ico).unwrap_err().reason(), "unsupported");
}

#[test]
fn arbitrary_damage_never_panics() {
    use rand::{Rng, SeedableRng};
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(7);
    let mut decoder = Decoder::new(Limits::default());
    let mut out = Image::default();
    let image = photo(96, 64);
    let mut files: Vec<Vec<u8>> = kinds().into_iter().map(|k| encode(&image, k)).collect();
    let rgb = DynamicImage::ImageRgb8(image::RgbImage::from_raw(96, 64, image.pixels).unwrap());
    files.extend(
        [
            ImageFormat::Png,
            ImageFormat::WebP,
            ImageFormat::Gif,
            ImageFormat::Bmp,
            ImageFormat::Tiff,
        ]
        .map(|f| raster(rgb.clone(), f)),
    );
    let mut refused = 0;
    for _ in 0..3000 {
        let mut bytes = files[rng.random_range(0..files.len())].clone();
        for _ in 0..rng.random_range(1..6) {
            let at = rng.random_range(0..bytes.len().min(700));
            bytes[at] = rng.random();
        }
        bytes.truncate(rng.random_range(bytes.len() / 2..=bytes.len()));
        if let Ok(header) = decoder.header(&bytes) {
            let want = Rect {
                x: 0.0,
                y: 0.0,
                width: f64::from(header.width) / 2.0,
                height: f64::from(header.height) / 2.0,
            };
            let denom = header.reduction(want.width, want.height, 8);
            let _ = decoder.window(&bytes, &header, want, denom);
        }
        refused += u32::from(decoder.decode(&bytes, &mut out).is_err());
    }
    assert!(refused > 1000, "{refused}");
}
