//! The first frame of a GIF, on its screen, as Pillow shows it.

use std::num::NonZeroU64;

use gif::{DecodeOptions, DecodingError, Frame, MemoryLimit};

use crate::error::SampleError;

use super::limits::Limits;
use super::region::PixelRect;
use super::transparency::{self, Background};

type Reader<'a> = gif::Decoder<&'a [u8]>;

fn refusal(error: DecodingError) -> SampleError {
    let detail = format!("GIF: {error}");
    match error {
        DecodingError::UnexpectedEof => SampleError::Truncated { detail },
        DecodingError::Io(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => SampleError::Truncated { detail },
        _ => SampleError::Corrupt { detail },
    }
}

/// A frame's place: left, top, width, height.
fn place(frame: &Frame<'_>) -> [u32; 4] {
    [frame.left, frame.top, frame.width, frame.height].map(u32::from)
}

/// A reader at the pixels of the first frame, and that frame's place.
fn open(bytes: &[u8], limits: Limits) -> Result<(Reader<'_>, [u32; 4]), SampleError> {
    let mut options = DecodeOptions::new();
    options.set_memory_limit(NonZeroU64::new(limits.max_bytes).map_or(MemoryLimit::Unlimited, MemoryLimit::Bytes));
    let mut reader = options.read_info(bytes).map_err(refusal)?;
    let frame = reader.next_frame_info().map_err(refusal)?.map(place);
    let frame = frame.ok_or_else(|| SampleError::Corrupt {
        detail: "GIF without a picture".into(),
    })?;
    Ok((reader, frame))
}

/// Columns and rows: the screen, or what a frame that reaches over it needs.
pub(super) fn size(bytes: &[u8], limits: Limits) -> Result<(u32, u32), SampleError> {
    let (reader, [left, top, width, height]) = open(bytes, limits)?;
    Ok((
        u32::from(reader.width()).max(left + width),
        u32::from(reader.height()).max(top + height),
    ))
}

/// Decodes the rectangle `part` to RGB. Answers whether a pixel of it is transparent.
///
/// Around a frame that is smaller than its screen lies the colour that the file calls transparent, else the first of its table: the
/// background that the file names is ignored, as by Pillow and browsers.
pub(super) fn decode(
    bytes: &[u8],
    limits: Limits,
    part: PixelRect,
    background: Background,
    indices: &mut Vec<u8>,
    out: &mut Vec<u8>,
) -> Result<bool, SampleError> {
    let (mut reader, [left, top, width, height]) = open(bytes, limits)?;
    let need = width as usize * height as usize;
    if indices.len() < need {
        indices.resize(need, 0);
    }
    let indices = &mut indices[..need];
    reader.read_into_buffer(indices).map_err(refusal)?;
    let transparent = reader.current_frame_info().and_then(|f| f.transparent);
    // Behind a short table all is black.
    let mut colours = [[0u8; 3]; 256];
    for (colour, entry) in colours.iter_mut().zip(reader.palette().map_err(refusal)?.chunks_exact(3)) {
        colour.copy_from_slice(entry);
    }
    let (left, top, width, height) = (left as usize, top as usize, width as usize, height as usize);
    let around = transparent.unwrap_or(0);
    Ok(transparency::fill(part, background, out, |x, y| {
        let (column, row) = (x.wrapping_sub(left), y.wrapping_sub(top));
        let index = if column < width && row < height {
            indices[row * width + column]
        } else {
            around
        };
        (colours[usize::from(index)], if transparent == Some(index) { 0 } else { 255 })
    }))
}
