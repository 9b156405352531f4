//! Rasters, and the limits that hold for every format.

use std::time::Instant;

use image::{DynamicImage, ImageFormat};

use super::fixtures::{Jpeg, difference, encode, photo, raster};
use super::*;
use crate::error::SampleError;
use crate::types::Image;

fn decode(bytes: &[u8]) -> Result<Image, SampleError> {
    let mut out = Image::default();
    Decoder::new(Limits::default()).decode(bytes, &mut out).map(|()| out)
}

/// A 60000×60000 picture that is only a header, in each format.
fn bombs() -> Vec<(&'static str, Vec<u8>)> {
    let mut jpeg = encode(&photo(16, 16), Jpeg::default());
    let sof = jpeg.windows(2).position(|w| w == [0xff, 0xc0]).unwrap();
    jpeg[sof + 5..sof + 9].copy_from_slice(&[0xea, 0x60, 0xea, 0x60]);
    let mut png = raster(DynamicImage::new_rgb8(8, 8), ImageFormat::Png);
    png[16..24].copy_from_slice(&[0, 0, 0xea, 0x60, 0, 0, 0xea, 0x60]);
    let crc = crc32(&png[12..29]).to_be_bytes();
    png[29..33].copy_from_slice(&crc);
    let mut gif = raster(DynamicImage::new_rgba8(8, 8), ImageFormat::Gif);
    gif[6..10].copy_from_slice(&[0x60, 0xea, 0x60, 0xea]);
    let mut bmp = raster(DynamicImage::new_rgb8(8, 8), ImageFormat::Bmp);
    bmp[18..26].copy_from_slice(&[0x60, 0xea, 0, 0, 0x60, 0xea, 0, 0]);
    vec![("jpeg", jpeg), ("png", png), ("gif", gif), ("bmp", bmp)]
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, &b| {
        (0..8).fold(crc ^ u32::from(b), |c, _| if c & 1 == 1 { (c >> 1) ^ 0xedb8_8320 } else { c >> 1 })
    })
}

#[test]
fn bombs_are_refused_from_the_header() {
    let mut decoder = Decoder::new(Limits::default());
    let mut out = Image::default();
    for (name, bytes) in bombs() {
        let mut best = f64::INFINITY;
        for _ in 0..5 {
            let start = Instant::now();
            let error = decoder.decode(&bytes, &mut out).unwrap_err();
            best = best.min(start.elapsed().as_secs_f64());
            assert!(
                matches!(
                    error,
                    SampleError::TooLarge {
                        width: 60000,
                        height: 60000,
                        ..
                    }
                ),
                "{name}: {error}"
            );
        }
        assert!(best < 1e-3, "{name} took {best} s");
        assert_eq!(out.pixels.capacity(), 0, "{name}");
    }
}

#[test]
fn byte_limits_hold_for_files_pixels_and_coefficients() {
    let limits = |max_bytes| Limits {
        max_pixels: 1 << 20,
        max_bytes,
        ..Limits::default()
    };
    let mut out = Image::default();
    let image = photo(256, 256);
    let progressive = encode(
        &image,
        Jpeg {
            progressive: true,
            ..Jpeg::default()
        },
    );
    let png = raster(DynamicImage::new_rgba16(256, 256), ImageFormat::Png);
    for (bytes, need) in [(&progressive, 256 * 256 * 3), (&png, 256 * 256 * 8)] {
        assert_eq!(
            Decoder::new(limits(need - 1)).decode(bytes, &mut out).unwrap_err().reason(),
            "too_large"
        );
        Decoder::new(limits(need * 2)).decode(bytes, &mut out).unwrap();
    }
    let small = encode(&photo(64, 64), Jpeg::default());
    let error = Decoder::new(limits(small.len() as u64 - 1)).decode(&small, &mut out).unwrap_err();
    assert!(error.to_string().contains("bytes"), "{error}");
}

#[test]
fn rasters_of_all_pixel_types_become_rgb_with_or_without_a_background() {
    let image = photo(37, 23);
    let rgb = image::RgbImage::from_raw(37, 23, image.pixels.clone()).unwrap();
    let grey = DynamicImage::ImageLuma8(DynamicImage::ImageRgb8(rgb.clone()).to_luma8());
    let rgb16 = DynamicImage::ImageRgb16(DynamicImage::ImageRgb8(rgb.clone()).to_rgb16());
    let mut rgba = DynamicImage::ImageRgb8(rgb.clone()).to_rgba8();
    for (i, p) in rgba.pixels_mut().enumerate() {
        p.0[3] = (i * 7 % 256) as u8;
    }
    let over_white: Vec<u8> = rgba
        .pixels()
        .flat_map(|p| {
            let a = f64::from(p.0[3]) / 255.0;
            [0, 1, 2].map(|c| (f64::from(p.0[c]) * a + 255.0 * (1.0 - a)).round() as u8)
        })
        .collect();
    let mut over = Decoder::new(Limits::default()).over(Some([255; 3]));
    let mut composited = |bytes: &[u8]| {
        let mut out = Image::default();
        over.decode(bytes, &mut out).unwrap();
        (out.pixels, over.saw_transparency())
    };
    for format in [ImageFormat::Png, ImageFormat::WebP, ImageFormat::Bmp, ImageFormat::Tiff] {
        let opaque = raster(DynamicImage::ImageRgb8(rgb.clone()), format);
        assert_eq!(decode(&opaque).unwrap(), image, "{format:?}");
        assert_eq!(composited(&opaque), (image.pixels.clone(), false), "{format:?}");
        let transparent = raster(DynamicImage::ImageRgba8(rgba.clone()), format);
        assert_eq!(decode(&transparent).unwrap(), image, "{format:?}");
        let (pixels, seen) = composited(&transparent);
        assert!(seen && difference(&pixels, &over_white).1 <= 1, "{format:?}");
    }
    let out = decode(&raster(grey.clone(), ImageFormat::Png)).unwrap();
    assert_eq!(out.pixels, grey.to_rgb8().into_raw());
    let out = decode(&raster(rgb16, ImageFormat::Png)).unwrap();
    assert_eq!(out, image);
    let rgba16 = DynamicImage::ImageRgba16(DynamicImage::ImageRgba8(rgba.clone()).to_rgba16());
    assert!(difference(&composited(&raster(rgba16, ImageFormat::Png)).0, &over_white).1 <= 1);
    // 256 colours at most: a picture of few colours survives GIF exactly, and transparency shows the background.
    let few = image::RgbaImage::from_fn(20, 10, |x, y| image::Rgba([(x * 10) as u8, 0, 200, if y < 5 { 255 } else { 0 }]));
    let (pixels, seen) = composited(&raster(DynamicImage::ImageRgba8(few), ImageFormat::Gif));
    assert!(seen);
    assert_eq!(pixels[3 * 25..3 * 26], [50, 0, 200]);
    assert_eq!(pixels[3 * 199..], [255, 255, 255]);
}

#[test]
fn parts_of_rasters_are_the_whole_picture_too() {
    let image = photo(61, 45);
    let rgba = DynamicImage::ImageRgb8(image::RgbImage::from_raw(61, 45, image.pixels.clone()).unwrap()).to_rgba8();
    let mut decoder = Decoder::new(Limits::default());
    for bytes in [
        raster(DynamicImage::ImageRgba8(rgba.clone()), ImageFormat::Png),
        raster(DynamicImage::ImageRgba8(rgba).to_rgb8().into(), ImageFormat::Png),
    ] {
        let header = decoder.header(&bytes).unwrap();
        assert_eq!(header.reduction(60.0, 40.0, 2), 1);
        let want = Rect {
            x: 10.0,
            y: 20.0,
            width: 30.0,
            height: 25.0,
        };
        let window = decoder.window(&bytes, &header, want, 1).unwrap();
        let p = window.placed;
        for y in 20..45 {
            let ours = &window.pixels[(((y - p.top) * p.width + 10 - p.left) * 3) as usize..][..90];
            assert_eq!(ours, &image.pixels[((y * 61 + 10) * 3) as usize..][..90]);
        }
    }
}

#[test]
fn cut_and_broken_rasters_are_refused_by_reason() {
    let rgb = image::RgbImage::from_raw(60, 40, photo(60, 40).pixels).unwrap();
    for format in [
        ImageFormat::Png,
        ImageFormat::Bmp,
        ImageFormat::Gif,
        ImageFormat::WebP,
        ImageFormat::Tiff,
    ] {
        let bytes = raster(DynamicImage::ImageRgb8(rgb.clone()), format);
        let error = decode(&bytes[..bytes.len() / 2]).unwrap_err();
        assert!(matches!(error.reason(), "truncated" | "corrupt"), "{format:?}: {error}");
        if matches!(format, ImageFormat::Png | ImageFormat::Bmp) {
            assert_eq!(error.reason(), "truncated", "{format:?}: {error}");
        }
    }
    let mut png = raster(DynamicImage::ImageRgb8(rgb), ImageFormat::Png);
    let middle = png.len() / 2;
    png[middle..middle + 4].fill(0x55);
    assert_eq!(decode(&png).unwrap_err().reason(), "corrupt");
}
