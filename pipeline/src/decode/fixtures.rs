//! Pictures and files for tests.

use std::ffi::c_int;

use turbojpeg_sys as tj;

use crate::types::Image;

/// A picture with detail at all scales, all hues, and no symmetry. Deterministic.
pub(crate) fn photo(width: u32, height: u32) -> Image {
    let mut pixels = Vec::with_capacity((width * height * 3) as usize);
    for y in 0..height {
        for x in 0..width {
            let (u, v) = (f64::from(x), f64::from(y));
            let coarse = (u / 61.0).sin() * (v / 47.0).cos();
            let fine = (u / 5.3 + (v / 23.0).sin()).sin() * (v / 7.1).sin();
            let disc = if ((u - f64::from(width) * 0.3).powi(2) + (v - f64::from(height) * 0.6).powi(2)).sqrt() < f64::from(height) * 0.2 {
                60.0
            } else {
                0.0
            };
            let grain = f64::from((x.wrapping_mul(2_654_435_761) ^ y.wrapping_mul(40_503)).wrapping_mul(2_246_822_519) >> 28) - 8.0;
            for (phase, weight) in [(0.0, 1.0), (2.1, 0.7), (4.2, -0.8)] {
                let value =
                    120.0 + 60.0 * coarse + 30.0 * weight * ((u + 2.0 * v) / 90.0 + phase).sin() + 18.0 * fine + disc * weight + grain;
                pixels.push(value.clamp(0.0, 255.0) as u8);
            }
        }
    }
    Image { width, height, pixels }
}

/// How a JPEG is written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Jpeg {
    pub(crate) subsampling: tj::TJSAMP,
    pub(crate) progressive: bool,
    pub(crate) arithmetic: bool,
    pub(crate) restart_rows: c_int,
    pub(crate) lossless: bool,
    pub(crate) quality: c_int,
    /// Colour space written; with CMYK or YCCK the pixels go in as (R, G, B, 255): what Adobe's inverted CMYK means by an RGB picture.
    pub(crate) space: tj::TJCS,
}

impl Default for Jpeg {
    fn default() -> Self {
        Self {
            subsampling: tj::TJSAMP_TJSAMP_420,
            progressive: false,
            arithmetic: false,
            restart_rows: 0,
            lossless: false,
            quality: 90,
            space: tj::TJCS_TJCS_YCbCr,
        }
    }
}

/// Writes a JPEG.
#[expect(
    unsafe_code,
    reason = "libjpeg-turbo's encoder, whose restart and lossless settings the safe crate does not offer"
)]
pub(crate) fn encode(image: &Image, how: Jpeg) -> Vec<u8> {
    let four = how.space == tj::TJCS_TJCS_CMYK || how.space == tj::TJCS_TJCS_YCCK;
    let (pixels, format) = if four {
        (
            image.pixels.chunks(3).flat_map(|p| [p[0], p[1], p[2], 255]).collect(),
            tj::TJPF_TJPF_CMYK,
        )
    } else {
        (image.pixels.clone(), tj::TJPF_TJPF_RGB)
    };
    // SAFETY: the buffers have the sizes stated; the output is copied before it is freed.
    unsafe {
        let handle = tj::tj3Init(tj::TJINIT_TJINIT_COMPRESS as c_int);
        for (parameter, value) in [
            (tj::TJPARAM_TJPARAM_SUBSAMP, how.subsampling as c_int),
            (tj::TJPARAM_TJPARAM_QUALITY, how.quality),
            (tj::TJPARAM_TJPARAM_PROGRESSIVE, c_int::from(how.progressive)),
            (tj::TJPARAM_TJPARAM_ARITHMETIC, c_int::from(how.arithmetic)),
            (tj::TJPARAM_TJPARAM_RESTARTROWS, how.restart_rows),
            (tj::TJPARAM_TJPARAM_LOSSLESS, c_int::from(how.lossless)),
        ] {
            assert_eq!(tj::tj3Set(handle, parameter as c_int, value), 0, "{parameter} = {value}");
        }
        if !how.lossless && how.subsampling != tj::TJSAMP_TJSAMP_GRAY {
            assert_eq!(tj::tj3Set(handle, tj::TJPARAM_TJPARAM_COLORSPACE as c_int, how.space as c_int), 0);
        }
        let (mut buffer, mut size) = (std::ptr::null_mut(), 0);
        let status = tj::tj3Compress8(
            handle,
            pixels.as_ptr(),
            image.width as c_int,
            0,
            image.height as c_int,
            format as c_int,
            &mut buffer,
            &mut size,
        );
        assert_eq!(status, 0, "{:?}", std::ffi::CStr::from_ptr(tj::tj3GetErrorStr(handle)));
        let bytes = std::slice::from_raw_parts(buffer, size as usize).to_vec();
        tj::tj3Free(buffer.cast());
        tj::tj3Destroy(handle);
        bytes
    }
}

/// Inserts a marker segment right after the start of a JPEG.
pub(crate) fn with_segment(jpeg: &[u8], code: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = jpeg[..2].to_vec();
    out.extend([0xff, code]);
    out.extend(((payload.len() + 2) as u16).to_be_bytes());
    out.extend(payload);
    out.extend(&jpeg[2..]);
    out
}

/// An EXIF segment with this orientation.
pub(crate) fn with_orientation(jpeg: &[u8], tag: u8) -> Vec<u8> {
    let mut exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0".to_vec();
    exif.extend([tag, 0, 0, 0, 0, 0, 0]);
    with_segment(jpeg, 0xe1, &exif)
}

/// Writes a picture through the `image` crate.
#[expect(clippy::needless_pass_by_value, reason = "callers make it for this")]
pub(crate) fn raster(image: image::DynamicImage, format: image::ImageFormat) -> Vec<u8> {
    let mut out = std::io::Cursor::new(vec![]);
    image.write_to(&mut out, format).unwrap();
    out.into_inner()
}

/// Peak signal-to-noise ratio in dB and the largest difference.
pub(crate) fn difference(a: &[u8], b: &[u8]) -> (f64, u8) {
    assert_eq!(a.len(), b.len());
    let squares: f64 = a.iter().zip(b).map(|(x, y)| f64::from(x.abs_diff(*y)).powi(2)).sum();
    let worst = a.iter().zip(b).map(|(x, y)| x.abs_diff(*y)).max().unwrap_or(0);
    (10.0 * (255.0f64.powi(2) * a.len() as f64 / squares.max(1e-9)).log10(), worst)
}
