//! PNG, WebP and BMP through the `image` crate, to RGB.

use std::io::Cursor;

use image::codecs::{bmp::BmpDecoder, png::PngDecoder, webp::WebPDecoder};
use image::{ColorType, ImageDecoder, ImageError};

use crate::error::SampleError;

use super::exif::Metadata;
use super::format::Format;
use super::limits::Limits;
use super::orientation::Orientation;
use super::region::PixelRect;
use super::transparency::{self, Background, Rgba};
use super::{png, webp};

/// What a file says of itself before its pixels are decoded.
#[derive(Debug, Clone, Copy)]
pub(super) struct RasterHeader {
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) orientation: Orientation,
    /// Bytes of the decoded picture in its own pixel format.
    pub(super) native_bytes: u64,
}

fn refusal(error: ImageError) -> SampleError {
    let detail = error.to_string();
    match error {
        ImageError::IoError(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => SampleError::Truncated { detail },
        ImageError::Unsupported(_) => SampleError::Unsupported { detail },
        ImageError::Limits(_) => SampleError::TooExpensive { detail },
        _ if detail.contains("Unknown image compression type") => SampleError::Unsupported { detail },
        _ if ["unexpected end", "unexpected eof", "insufficientinput"]
            .iter()
            .any(|w| detail.to_lowercase().contains(w)) =>
        {
            SampleError::Truncated { detail }
        }
        _ => SampleError::Corrupt { detail },
    }
}

/// Opens a decoder of the format's own type and hands it to one of the two readers below.
macro_rules! open {
    ($format:expr, $bytes:expr, $limits:expr, $then:expr) => {{
        let source = Cursor::new($bytes);
        match $format {
            Format::Png => $then(PngDecoder::with_limits(source, inner($limits)).map_err(refusal)?),
            Format::WebP => $then(WebPDecoder::new(source).map_err(refusal)?),
            _ => $then(BmpDecoder::new(source).map_err(refusal)?),
        }
    }};
}

fn inner(limits: Limits) -> image::Limits {
    let mut inner = image::Limits::no_limits();
    inner.max_alloc = Some(limits.max_bytes);
    inner
}

/// Reads the header only.
pub(super) fn header(format: Format, bytes: &[u8], limits: Limits) -> Result<RasterHeader, SampleError> {
    #[expect(clippy::needless_pass_by_value, reason = "the same shape as the other users of `open!`")]
    fn read(decoder: impl ImageDecoder) -> Result<(u32, u32, u64), SampleError> {
        let (width, height) = decoder.dimensions();
        Ok((width, height, decoder.total_bytes()))
    }
    let (width, height, native_bytes) = open!(format, bytes, limits, read).map_err(|error| match (error, png::size(bytes)) {
        // The decoder counts a row against its limit of memory before it says how large the picture is.
        (SampleError::TooExpensive { .. }, Some((width, height))) if format == Format::Png => SampleError::TooLarge {
            width,
            height,
            limit: format!("{} bytes", limits.max_bytes),
        },
        (error, _) => error,
    })?;
    let metadata = match format {
        Format::Png => png::metadata(bytes),
        Format::WebP => webp::metadata(bytes),
        _ => Metadata::default(),
    };
    Ok(RasterHeader {
        width,
        height,
        orientation: metadata.orientation(),
        native_bytes,
    })
}

/// Decodes the whole picture in its own pixel format into `native` (exactly its length).
pub(super) fn decode(format: Format, bytes: &[u8], limits: Limits, native: &mut Vec<u8>) -> Result<ColorType, SampleError> {
    fn read_into(mut decoder: impl ImageDecoder, limits: Limits, native: &mut Vec<u8>) -> Result<ColorType, SampleError> {
        decoder.set_limits(inner(limits)).map_err(refusal)?;
        let colour = decoder.color_type();
        native.resize(decoder.total_bytes() as usize, 0);
        decoder.read_image(native).map_err(refusal)?;
        Ok(colour)
    }
    let closed;
    let bytes = if format == Format::Png {
        closed = png::closed(bytes);
        &*closed
    } else {
        bytes
    };
    open!(format, bytes, limits, |d| read_into(d, limits, native))
}

/// Converts the rectangle `part` of a picture `width` pixels wide to RGB. Answers whether a pixel of it is not opaque. Of 16 bits the
/// upper eight are taken, as by libpng and Pillow.
pub(super) fn to_rgb(
    colour: ColorType,
    native: &[u8],
    width: u32,
    part: PixelRect,
    background: Background,
    out: &mut Vec<u8>,
) -> Result<bool, SampleError> {
    fn read<const N: usize>(native: &[u8], width: u32, x: usize, y: usize) -> [u8; N] {
        let at = (y * width as usize + x) * N;
        std::array::from_fn(|i| native[at + i])
    }
    /// The upper bytes of 16-bit values in the machine's order.
    fn upper<const N: usize, const M: usize>(bytes: [u8; N]) -> [u8; M] {
        std::array::from_fn(|i| bytes[2 * i + usize::from(cfg!(target_endian = "little"))])
    }
    let grey = |[v]: [u8; 1]| -> Rgba { ([v; 3], 255) };
    let grey_alpha = |[v, a]: [u8; 2]| -> Rgba { ([v; 3], a) };
    let rgb = |p: [u8; 3]| -> Rgba { (p, 255) };
    let rgba = |[r, g, b, a]: [u8; 4]| -> Rgba { ([r, g, b], a) };
    Ok(match colour {
        ColorType::L8 => transparency::fill(part, background, out, |x, y| grey(read(native, width, x, y))),
        ColorType::La8 => transparency::fill(part, background, out, |x, y| grey_alpha(read(native, width, x, y))),
        ColorType::Rgb8 => transparency::fill(part, background, out, |x, y| rgb(read(native, width, x, y))),
        ColorType::Rgba8 => transparency::fill(part, background, out, |x, y| rgba(read(native, width, x, y))),
        ColorType::L16 => transparency::fill(part, background, out, |x, y| grey(upper::<2, 1>(read(native, width, x, y)))),
        ColorType::La16 => transparency::fill(part, background, out, |x, y| grey_alpha(upper::<4, 2>(read(native, width, x, y)))),
        ColorType::Rgb16 => transparency::fill(part, background, out, |x, y| rgb(upper::<6, 3>(read(native, width, x, y)))),
        ColorType::Rgba16 => transparency::fill(part, background, out, |x, y| rgba(upper::<8, 4>(read(native, width, x, y)))),
        other => {
            return Err(SampleError::Unsupported {
                detail: format!("pixels of type {other:?}"),
            });
        }
    })
}
