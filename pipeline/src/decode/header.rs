//! What a file says of itself, before its pixels are decoded.

use crate::error::SampleError;

use super::format::Format;
use super::jpeg_header::{self, JpegHeader};
use super::limits::Limits;
use super::orientation::Orientation;
use super::raster::RasterHeader;
use super::{dct_scale, gif, raster, tiff};

/// A file's own words about its picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Told from the first bytes.
    pub format: Format,
    /// Stored columns, before orientation.
    pub width: u32,
    /// Stored rows, before orientation.
    pub height: u32,
    /// How the stored picture is turned upright.
    pub orientation: Orientation,
    /// Bytes that decoding will hold beside RGB.
    native_bytes: u64,
    pub(super) jpeg: Option<JpegHeader>,
}

impl Header {
    /// Columns and rows of the upright picture.
    #[must_use]
    pub fn upright(&self) -> (u32, u32) {
        self.orientation.size(self.width, self.height)
    }

    /// How something that was made of this picture, with `size` columns and rows, is turned so that it lies on the upright picture: it may have been made of the
    /// picture as it is stored or as it is seen, and where rows and columns are exchanged and differ, the size tells which.
    #[must_use]
    pub fn lies(&self, size: (u32, u32)) -> Lies {
        let (upright, stored) = (self.upright(), (self.width, self.height));
        match (size == upright, size == stored) {
            (false, false) => Lies::OtherSize,
            (true, true) if !self.orientation.is_upright() => Lies::Unknown,
            (true, _) => Lies::By(Orientation::default()),
            (false, true) => Lies::By(self.orientation),
        }
    }

    /// Whether the file ends before its picture does.
    #[must_use]
    pub fn truncated(&self) -> bool {
        self.jpeg.is_some_and(|j| j.cut)
    }

    /// The largest of 8, 4, 2, 1 by which this file can be reduced while decoding so that a crop of `width` × `height` pixels keeps
    /// at least `side` pixels each way.
    #[must_use]
    pub fn reduction(&self, width: f64, height: f64, side: u32) -> u32 {
        if self.jpeg.is_none_or(|j| j.lossless) {
            return 1;
        }
        dct_scale::divisor(width, height, side)
    }

    fn refuse_cut(&self, bytes: &[u8]) -> Result<(), SampleError> {
        if self.truncated() {
            return Err(SampleError::Truncated {
                detail: format!("JPEG of {} bytes has no end-of-image marker", bytes.len()),
            });
        }
        Ok(())
    }

    pub(super) fn check(&self, bytes: &[u8], limits: Limits) -> Result<(), SampleError> {
        if !limits.keep_truncated {
            self.refuse_cut(bytes)?;
        }
        let refuse = |limit: String| {
            Err(SampleError::TooLarge {
                width: self.width,
                height: self.height,
                limit,
            })
        };
        if u64::from(self.width) * u64::from(self.height) > limits.max_pixels {
            return refuse(format!(
                "{} pixels (data.max_pixels; of `splitmask pack`, --max-pixels)",
                limits.max_pixels
            ));
        }
        let most = self.native_bytes.max(bytes.len() as u64);
        if most > limits.max_bytes {
            return refuse(format!("{} bytes (needs {most})", limits.max_bytes));
        }
        Ok(())
    }
}

/// How something lies on a picture that it was made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lies {
    /// Turned so, it lies on the upright picture.
    By(Orientation),
    /// It is of another size than the picture.
    OtherSize,
    /// The picture's file turns it, and nothing says whether it was made before or after.
    Unknown,
}

/// Reads format, size and orientation without decoding pixels; microseconds at any size of picture.
///
/// # Errors
/// [`SampleError`] for bytes that are no image, or whose header is cut, broken or of an unsupported kind.
pub fn header(bytes: &[u8]) -> Result<Header, SampleError> {
    let header = header_within(bytes, Limits::default())?;
    header.refuse_cut(bytes)?;
    Ok(header)
}

/// [`header`] of files that may end early, within a limit of memory.
pub(super) fn header_within(bytes: &[u8], limits: Limits) -> Result<Header, SampleError> {
    let format = Format::of(bytes)?;
    let raster = match format {
        Format::Jpeg => {
            let jpeg = jpeg_header::parse(bytes)?;
            return Ok(Header {
                format,
                width: jpeg.width,
                height: jpeg.height,
                orientation: jpeg.orientation,
                native_bytes: jpeg.coefficient_bytes,
                jpeg: Some(jpeg),
            });
        }
        Format::Tiff => tiff::header(bytes)?,
        Format::Gif => {
            let (width, height) = gif::size(bytes, limits)?;
            RasterHeader {
                width,
                height,
                orientation: Orientation::default(),
                native_bytes: u64::from(width) * u64::from(height),
            }
        }
        Format::Png | Format::WebP | Format::Bmp => raster::header(format, bytes, limits)?,
    };
    if raster.width == 0 || raster.height == 0 {
        return Err(SampleError::Corrupt {
            detail: format!("picture of {}×{} pixels", raster.width, raster.height),
        });
    }
    Ok(Header {
        format,
        width: raster.width,
        height: raster.height,
        orientation: raster.orientation,
        native_bytes: raster.native_bytes,
        jpeg: None,
    })
}
