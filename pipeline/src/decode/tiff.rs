//! TIFF. The `tiff` crate unpacks strips, tiles, planes and compressions into samples; what these mean is decided here, because the crate
//! knows neither palettes nor alpha that is multiplied in, and refuses colour spaces whose samples it can read.

mod samples;

use std::io::{self, Cursor, Read, Seek, SeekFrom};
use std::panic::{AssertUnwindSafe, catch_unwind};

use tiff::TiffError;

use crate::error::SampleError;

use super::exif;
use super::ifd::Directory;
use super::limits::Limits;
use super::orientation::Orientation;
use super::raster::RasterHeader;
use super::region::PixelRect;
use super::transparency::Background;
use samples::{Alpha, Colours, Samples};

/// Tags (TIFF 6.0 sections 4 to 8 and 18 to 22, XMP specification part 3).
mod tag {
    pub(super) const WIDTH: u16 = 256;
    pub(super) const HEIGHT: u16 = 257;
    pub(super) const BITS: u16 = 258;
    pub(super) const COMPRESSION: u16 = 259;
    pub(super) const PHOTOMETRIC: u16 = 262;
    pub(super) const FILL_ORDER: u16 = 266;
    pub(super) const SAMPLES: u16 = 277;
    pub(super) const PLANES: u16 = 284;
    pub(super) const COLOUR_MAP: u16 = 320;
    pub(super) const TILE_WIDTH: u16 = 322;
    pub(super) const EXTRA_SAMPLES: u16 = 338;
    pub(super) const SAMPLE_FORMAT: u16 = 339;
    pub(super) const SUBSAMPLING: u16 = 530;
    pub(super) const XMP: u16 = 700;
}

const JPEG: u64 = 7;

fn corrupt(detail: &str) -> SampleError {
    SampleError::Corrupt {
        detail: format!("TIFF {detail}"),
    }
}

fn unsupported(detail: impl std::fmt::Display) -> SampleError {
    SampleError::Unsupported {
        detail: format!("TIFF of {detail}"),
    }
}

fn refusal(error: TiffError) -> SampleError {
    let detail = format!("TIFF: {error}");
    match error {
        TiffError::IoError(e) if e.kind() == io::ErrorKind::UnexpectedEof => SampleError::Truncated { detail },
        TiffError::UnsupportedError(_) => SampleError::Unsupported { detail },
        _ => SampleError::Corrupt { detail },
    }
}

/// What the first directory says of the picture.
struct Description {
    width: u32,
    height: u32,
    colours: Colours,
    bits: u8,
    samples: usize,
    alpha: Option<Alpha>,
}

impl Description {
    fn read(directory: &Directory<'_>) -> Result<Self, SampleError> {
        let first = |tag| directory.numbers(tag).next();
        let side = |tag| {
            first(tag)
                .and_then(|v| u32::try_from(v).ok())
                .ok_or_else(|| corrupt("without its size"))
        };
        let (width, height) = (side(tag::WIDTH)?, side(tag::HEIGHT)?);
        let bits = first(tag::BITS).unwrap_or(1);
        let samples = first(tag::SAMPLES).unwrap_or(1);
        let photometric = first(tag::PHOTOMETRIC).ok_or_else(|| corrupt("without a photometric interpretation"))?;
        let colours = match photometric {
            0 => Colours::Grey { white_is_zero: true },
            1 => Colours::Grey { white_is_zero: false },
            2 => Colours::Rgb,
            3 => Colours::Palette(palette(directory, bits)?),
            5 => Colours::Cmyk,
            6 => Colours::YCbCr,
            4 => return Err(unsupported("a transparency mask")),
            8..=10 => return Err(unsupported("CIE L*a*b* colours")),
            32_803 | 34_892 => return Err(unsupported("raw sensor values")),
            other => return Err(unsupported(format!("photometric interpretation {other}"))),
        };
        let extra = samples
            .checked_sub(colours.samples() as u64)
            .ok_or_else(|| corrupt("with too few samples"))?;
        let alpha = match first(tag::EXTRA_SAMPLES) {
            _ if extra == 0 => None,
            Some(1) => Some(Alpha::Multiplied),
            // Who adds a sample and does not say why means alpha; of any other purpose it is none.
            Some(2) | None => Some(Alpha::Apart),
            Some(_) => None,
        };
        match bits {
            8 | 16 => {}
            1 | 2 | 4 if samples == 1 => {}
            _ => return Err(unsupported(format!("{samples} samples of {bits} bits"))),
        }
        // Signed bytes are read as unsigned ones by Pillow and OpenCV.
        match first(tag::SAMPLE_FORMAT).unwrap_or(1) {
            1 | 4 => {}
            2 if bits == 8 => {}
            2 => return Err(unsupported("signed samples")),
            _ => return Err(unsupported("floating-point samples")),
        }
        if first(tag::FILL_ORDER) == Some(2) {
            return Err(unsupported("bits from low to high (FillOrder 2)"));
        }
        if first(tag::PLANES) == Some(2) && samples > 1 && directory.entry(tag::TILE_WIDTH).is_some() {
            return Err(unsupported("planes in tiles"));
        }
        if photometric == 6 && first(tag::COMPRESSION) != Some(JPEG) && !directory.numbers(tag::SUBSAMPLING).eq([1, 1]) {
            return Err(unsupported("subsampled YCbCr colours without JPEG"));
        }
        Ok(Self {
            width,
            height,
            colours,
            bits: bits as u8,
            samples: samples as usize,
            alpha,
        })
    }
}

/// Colours of a palette: all reds, then greens, then blues. Some writers give 8 bits where 16 are asked for; libtiff tells them by the
/// absence of any larger value.
fn palette(directory: &Directory<'_>, bits: u64) -> Result<Vec<[u8; 3]>, SampleError> {
    let values: Vec<u64> = directory.numbers(tag::COLOUR_MAP).collect();
    if !(1..=8).contains(&bits) || values.len() != 3 << bits {
        return Err(corrupt("with a palette of the wrong size"));
    }
    let shift = if values.iter().any(|&v| v > 255) { 8 } else { 0 };
    let colours = values.len() / 3;
    Ok((0..colours)
        .map(|i| [0, 1, 2].map(|c| (values[c * colours + i] >> shift) as u8))
        .collect())
}

fn directory(bytes: &[u8]) -> Result<Directory<'_>, SampleError> {
    Directory::first(bytes)
        .filter(Directory::is_whole)
        .ok_or_else(|| SampleError::Truncated {
            detail: "TIFF ends before the end of its directory".into(),
        })
}

/// Reads the first directory only.
pub(super) fn header(bytes: &[u8]) -> Result<RasterHeader, SampleError> {
    let directory = directory(bytes)?;
    let it = Description::read(&directory)?;
    let row = (u64::from(it.width) * it.samples as u64).saturating_mul(it.bits.into()).div_ceil(8);
    Ok(RasterHeader {
        width: it.width,
        height: it.height,
        orientation: Orientation::from_exif(exif::of(Some(directory), directory.bytes(tag::XMP).unwrap_or(&[]))),
        native_bytes: row.saturating_mul(it.height.into()),
    })
}

/// Decodes the rectangle `part` to RGB. Answers whether a pixel of it is not opaque.
pub(super) fn decode(
    bytes: &[u8],
    limits: Limits,
    part: PixelRect,
    background: Background,
    native: &mut Vec<u8>,
    out: &mut Vec<u8>,
) -> Result<bool, SampleError> {
    let directory = directory(bytes)?;
    let it = Description::read(&directory)?;
    let most = usize::try_from(limits.max_bytes).unwrap_or(usize::MAX);
    let mut inner = tiff::decoder::Limits::default();
    (inner.decoding_buffer_size, inner.intermediate_buffer_size, inner.ifd_value_size) = (most, most, most);
    let source = CalledGrey::new(bytes, &directory)?;
    let mut decoder = tiff::decoder::Decoder::new(source).map_err(refusal)?.with_limits(inner);
    let layout = decoder.image_buffer_layout().map_err(refusal)?;
    if layout.complete_len > most {
        return Err(SampleError::TooLarge {
            width: it.width,
            height: it.height,
            limit: format!("{} bytes (needs {})", limits.max_bytes, layout.complete_len),
        });
    }
    native.resize(layout.complete_len, 0);
    // The crate asserts where a damaged directory contradicts itself; that must not end a run.
    catch_unwind(AssertUnwindSafe(|| decoder.read_image_bytes(native)))
        .unwrap_or(Err(TiffError::IntSizeError))
        .map_err(refusal)?;
    let samples = Samples {
        bytes: native,
        row: layout.row_stride.map_or(0, Into::into),
        plane: (layout.planes > 1).then_some(layout.plane_stride.map_or(0, Into::into)),
        each: it.samples,
        bits: it.bits,
    };
    Ok(samples.to_rgb(&it.colours, it.alpha, part, background, out))
}

/// A TIFF that calls its samples levels of grey, whatever they are, so that the crate unpacks all of them and interprets none.
struct CalledGrey<'a> {
    file: Cursor<&'a [u8]>,
    /// Where the photometric interpretation stands, and the bytes of its value 1.
    at: u64,
    bytes: [u8; 8],
    length: usize,
}

impl<'a> CalledGrey<'a> {
    fn new(file: &'a [u8], directory: &Directory<'_>) -> Result<Self, SampleError> {
        let entry = directory.entry(tag::PHOTOMETRIC).filter(|e| e.count == 1 && e.is_unsigned());
        let entry = entry.ok_or_else(|| corrupt("without a photometric interpretation"))?;
        let length = entry.size();
        let mut bytes = [0; 8];
        bytes[if directory.big_endian { length - 1 } else { 0 }] = 1;
        Ok(Self {
            file: Cursor::new(file),
            at: entry.at as u64,
            bytes,
            length,
        })
    }
}

impl Read for CalledGrey<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let start = self.file.position();
        let read = self.file.read(out)?;
        for (at, &byte) in (self.at..).zip(&self.bytes[..self.length]) {
            if let Some(place) = at.checked_sub(start).and_then(|at| out[..read].get_mut(usize::try_from(at).ok()?)) {
                *place = byte;
            }
        }
        Ok(read)
    }
}

impl Seek for CalledGrey<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.file.seek(to)
    }
}
