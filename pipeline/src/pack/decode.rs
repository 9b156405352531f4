//! Stand-in for the decoder until it lands.

use std::io::Cursor;

use image::{ImageDecoder, ImageReader};

use crate::error::SampleError;
use crate::types::Image;

pub(super) struct Limits {
    pub(super) max_pixels: u64,
    pub(super) max_bytes: u64,
}

pub(super) struct Header {
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) extension: &'static str,
}

fn open(bytes: &[u8]) -> Result<(impl ImageDecoder + '_, image::ImageFormat), SampleError> {
    let reader = ImageReader::new(Cursor::new(bytes))
        .with_guessed_format()
        .map_err(|e| SampleError::NotAnImage { detail: e.to_string() })?;
    let format = reader.format().ok_or_else(|| SampleError::NotAnImage {
        detail: "unknown format".into(),
    })?;
    Ok((
        reader.into_decoder().map_err(|e| SampleError::Corrupt { detail: e.to_string() })?,
        format,
    ))
}

pub(super) fn header(bytes: &[u8]) -> Result<Header, SampleError> {
    let (decoder, format) = open(bytes)?;
    let (width, height) = decoder.dimensions();
    Ok(Header {
        width,
        height,
        extension: format.extensions_str()[0],
    })
}

pub(super) struct Decoder(Limits);

impl Decoder {
    pub(super) fn new(limits: Limits) -> Self {
        Self(limits)
    }

    pub(super) fn decode(&mut self, bytes: &[u8], out: &mut Image) -> Result<(), SampleError> {
        assert!(bytes.len() as u64 <= self.0.max_bytes);
        let (decoder, _) = open(bytes)?;
        let image = image::DynamicImage::from_decoder(decoder)
            .map_err(|e| SampleError::Corrupt { detail: e.to_string() })?
            .into_rgba8();
        assert!(u64::from(image.width()) * u64::from(image.height()) <= self.0.max_pixels);
        (out.width, out.height) = image.dimensions();
        out.pixels = image
            .pixels()
            .flat_map(|p| {
                std::array::from_fn::<u8, 3, _>(|c| {
                    let a = u32::from(p.0[3]);
                    ((u32::from(p.0[c]) * a + 255 * (255 - a) + 127) / 255) as u8
                })
            })
            .collect();
        Ok(())
    }
}
