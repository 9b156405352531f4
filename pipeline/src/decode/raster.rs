//! PNG, WebP, GIF, BMP and TIFF through the `image` crate, to RGB over white.

use std::io::Cursor;

use image::codecs::{bmp::BmpDecoder, gif::GifDecoder, png::PngDecoder, tiff::TiffDecoder, webp::WebPDecoder};
use image::{ColorType, ImageDecoder, ImageError};

use crate::error::SampleError;

use super::{Format, Limits, PixelRect};

/// What a file says of itself before its pixels are decoded.
#[derive(Debug, Clone, Copy)]
pub(super) struct RasterHeader {
    pub(super) width: u32,
    pub(super) height: u32,
    /// EXIF orientation tag.
    pub(super) exif: u8,
    /// Bytes of the decoded picture in its own pixel format.
    pub(super) native_bytes: u64,
}

fn refusal(error: ImageError) -> SampleError {
    let detail = error.to_string();
    match error {
        ImageError::IoError(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => SampleError::Truncated { detail },
        ImageError::Unsupported(_) => SampleError::Unsupported { detail },
        _ if detail.to_lowercase().contains("unexpected end") || detail.to_lowercase().contains("unexpected eof") => {
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
            Format::Gif => $then(GifDecoder::new(source).map_err(refusal)?),
            Format::Bmp => $then(BmpDecoder::new(source).map_err(refusal)?),
            Format::Tiff | Format::Jpeg => $then(TiffDecoder::new(source).map_err(refusal)?),
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
    fn read(mut decoder: impl ImageDecoder) -> Result<RasterHeader, SampleError> {
        let (width, height) = decoder.dimensions();
        Ok(RasterHeader {
            width,
            height,
            exif: decoder.orientation().map_or(1, image::metadata::Orientation::to_exif),
            native_bytes: decoder.total_bytes(),
        })
    }
    open!(format, bytes, limits, read)
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
    open!(format, bytes, limits, |d| read_into(d, limits, native))
}

/// Converts the rectangle `part` of a picture `width` pixels wide to RGB; transparency lets white through, as clip art expects.
pub(super) fn to_rgb(colour: ColorType, native: &[u8], width: u32, part: PixelRect, out: &mut Vec<u8>) -> Result<(), SampleError> {
    let size = usize::from(colour.bytes_per_pixel());
    let need = part.width as usize * part.height as usize * 3;
    if out.len() < need {
        out.resize(need, 0);
    }
    let rows = native.chunks_exact(width as usize * size).skip(part.top as usize);
    for (row, out) in rows.zip(out[..need].chunks_exact_mut(part.width as usize * 3)) {
        let row = &row[part.left as usize * size..part.right() as usize * size];
        let pixels = row.chunks_exact(size).zip(out.chunks_exact_mut(3));
        match colour {
            ColorType::L8 => pixels.for_each(|(p, o)| o.fill(p[0])),
            ColorType::La8 => pixels.for_each(|(p, o)| o.fill(over_white(p[0], p[1]))),
            ColorType::Rgb8 => out.copy_from_slice(row),
            ColorType::Rgba8 => pixels.for_each(|(p, o)| {
                for c in 0..3 {
                    o[c] = over_white(p[c], p[3]);
                }
            }),
            ColorType::L16 => pixels.for_each(|(p, o)| o.fill(narrow(p, 0))),
            ColorType::La16 => pixels.for_each(|(p, o)| o.fill(over_white(narrow(p, 0), narrow(p, 1)))),
            ColorType::Rgb16 => pixels.for_each(|(p, o)| {
                for c in 0..3 {
                    o[c] = narrow(p, c);
                }
            }),
            ColorType::Rgba16 => pixels.for_each(|(p, o)| {
                for c in 0..3 {
                    o[c] = over_white(narrow(p, c), narrow(p, 3));
                }
            }),
            other => {
                return Err(SampleError::Unsupported {
                    detail: format!("pixels of type {other:?}"),
                });
            }
        }
    }
    Ok(())
}

/// `value` at opacity `alpha` on a white ground, rounded.
fn over_white(value: u8, alpha: u8) -> u8 {
    let (v, a) = (u32::from(value), u32::from(alpha));
    ((v * a + 255 * (255 - a) + 127) / 255) as u8
}

/// The `channel`-th 16-bit value of a pixel (native byte order, as the `image` crate decodes) as 8 bits, rounded.
fn narrow(pixel: &[u8], channel: usize) -> u8 {
    let v = u32::from(u16::from_ne_bytes([pixel[2 * channel], pixel[2 * channel + 1]]));
    ((v * 255 + 32_767) / 65_535) as u8
}
