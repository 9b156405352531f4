//! Image bytes → RGB pixels: header and limits first, then the whole picture or only the part that a crop needs.
//!
//! JPEG goes through libjpeg-turbo (region decode, DCT scaling), PNG/WebP/GIF/BMP/TIFF through the `image` crate. The format is told
//! by the bytes, never by the name. Refused rather than guessed: truncated (unless asked for) and corrupt files, 12-bit and hierarchical JPEG.

mod baseline;
mod entropy;
#[cfg(test)]
pub(crate) mod fixtures;
mod foreign;
mod jpeg;
mod jpeg_header;
mod orientation;
mod raster;
#[cfg(test)]
mod raster_tests;
#[cfg(test)]
mod tests;

use image::ColorType;

use crate::error::SampleError;
use crate::types::Image;

pub use foreign::foreign_format;
use jpeg::Turbo;
use jpeg_header::JpegHeader;
pub use orientation::Orientation;

/// What one sample may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Width × height at most.
    pub max_pixels: u64,
    /// Bytes at most: of the file, of the picture in its own pixel format, of a progressive JPEG's coefficients.
    pub max_bytes: u64,
    /// JPEGs that end early are decoded as far as they go; the rest is grey.
    pub keep_truncated: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_pixels: 64_000_000,
            max_bytes: 256 << 20,
            keep_truncated: false,
        }
    }
}

/// Formats that are decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Baseline, progressive, arithmetic or lossless, 8 bits.
    Jpeg,
    /// All colour types; of an animation the default picture.
    Png,
    /// Lossy and lossless; of an animation the first frame.
    WebP,
    /// The first frame.
    Gif,
    /// Windows bitmap.
    Bmp,
    /// Its first picture.
    Tiff,
}

/// A file's own words about its picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Told from the first bytes.
    pub format: Format,
    /// Stored columns, before orientation.
    pub width: u32,
    /// Stored rows, before orientation.
    pub height: u32,
    /// How the stored picture is turned upright (EXIF).
    pub orientation: Orientation,
    /// Bytes that decoding will hold beside RGB.
    native_bytes: u64,
    jpeg: Option<JpegHeader>,
}

impl Header {
    /// Columns and rows of the upright picture.
    #[must_use]
    pub fn upright(&self) -> (u32, u32) {
        self.orientation.size(self.width, self.height)
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
        let shorter = width.min(height);
        [8u32, 4, 2].into_iter().find(|&d| shorter >= f64::from(d * side)).unwrap_or(1)
    }

    fn refuse_cut(&self, bytes: &[u8]) -> Result<(), SampleError> {
        if self.truncated() {
            return Err(SampleError::Truncated {
                detail: format!("JPEG of {} bytes has no end-of-image marker", bytes.len()),
            });
        }
        Ok(())
    }

    fn check(&self, bytes: &[u8], limits: Limits) -> Result<(), SampleError> {
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
            return refuse(format!("{} pixels", limits.max_pixels));
        }
        let most = self.native_bytes.max(bytes.len() as u64);
        if most > limits.max_bytes {
            return refuse(format!("{} bytes (needs {most})", limits.max_bytes));
        }
        Ok(())
    }
}

/// A rectangle with fractional corners, pixels from the top left.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Rect {
    /// Left edge.
    pub x: f64,
    /// Upper edge.
    pub y: f64,
    /// Columns.
    pub width: f64,
    /// Rows.
    pub height: f64,
}

impl Rect {
    /// The smallest rectangle that holds both.
    #[must_use]
    pub fn union(self, other: Self) -> Self {
        let (x, y) = (self.x.min(other.x), self.y.min(other.y));
        Self {
            x,
            y,
            width: (self.x + self.width).max(other.x + other.width) - x,
            height: (self.y + self.height).max(other.y + other.height) - y,
        }
    }

    /// Grown by `by` on all sides but not past a picture of `width` × `height`.
    #[must_use]
    pub fn grown(self, by: f64, width: u32, height: u32) -> Self {
        let (x, y) = ((self.x - by).max(0.0), (self.y - by).max(0.0));
        Self {
            x,
            y,
            width: (self.x + self.width + by).min(f64::from(width)) - x,
            height: (self.y + self.height + by).min(f64::from(height)) - y,
        }
    }

    /// The pixels of the picture reduced by `denom` that it touches.
    pub(crate) fn pixels(self, denom: u32, width: u32, height: u32) -> PixelRect {
        let d = f64::from(denom);
        // Corners that should be whole numbers may miss them by rounding; a thousandth of a pixel is no touch.
        let edge = |v: f64| if (v - v.round()).abs() < 1e-3 { v.round() } else { v };
        let left = (edge(self.x / d).floor().max(0.0) as u32).min(width.div_ceil(denom) - 1);
        let top = (edge(self.y / d).floor().max(0.0) as u32).min(height.div_ceil(denom) - 1);
        let right = (edge((self.x + self.width) / d).ceil() as u32).clamp(left + 1, width.div_ceil(denom));
        let bottom = (edge((self.y + self.height) / d).ceil() as u32).clamp(top + 1, height.div_ceil(denom));
        PixelRect {
            left,
            top,
            width: right - left,
            height: bottom - top,
        }
    }
}

/// A rectangle of whole pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PixelRect {
    pub(crate) left: u32,
    pub(crate) top: u32,
    pub(crate) width: u32,
    pub(crate) height: u32,
}

impl PixelRect {
    pub(crate) fn right(self) -> u32 {
        self.left + self.width
    }

    pub(crate) fn bottom(self) -> u32 {
        self.top + self.height
    }
}

/// Which part of the (reduced) stored picture a buffer holds.
pub(crate) type Placed = PixelRect;

/// A decoded part of a stored picture, RGB row-major; borrowed from its [`Decoder`].
#[derive(Debug, Clone, Copy)]
pub struct Window<'a> {
    pub(crate) pixels: &'a [u8],
    pub(crate) placed: Placed,
    pub(crate) denom: u32,
    /// Size of the whole stored picture, not reduced.
    pub(crate) stored: (u32, u32),
}

impl<'a> Window<'a> {
    /// A whole upright picture as a window on itself.
    #[must_use]
    pub fn whole(image: &'a Image) -> Self {
        Self {
            pixels: &image.pixels,
            placed: PixelRect {
                left: 0,
                top: 0,
                width: image.width,
                height: image.height,
            },
            denom: 1,
            stored: (image.width, image.height),
        }
    }
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

fn header_within(bytes: &[u8], limits: Limits) -> Result<Header, SampleError> {
    let format = sniff(bytes)?;
    if format == Format::Jpeg {
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
    let raster = raster::header(format, bytes, limits)?;
    if raster.width == 0 || raster.height == 0 {
        return Err(SampleError::Corrupt {
            detail: format!("picture of {}×{} pixels", raster.width, raster.height),
        });
    }
    Ok(Header {
        format,
        width: raster.width,
        height: raster.height,
        orientation: Orientation::from_exif(raster.exif),
        native_bytes: raster.native_bytes,
        jpeg: None,
    })
}

fn sniff(bytes: &[u8]) -> Result<Format, SampleError> {
    use image::ImageFormat as F;
    let not = |detail: String| Err(SampleError::NotAnImage { detail });
    if let Some(name) = foreign_format(bytes) {
        return Err(SampleError::Unsupported { detail: name.into() });
    }
    match image::guess_format(bytes) {
        Ok(F::Jpeg) => Ok(Format::Jpeg),
        Ok(F::Png) => Ok(Format::Png),
        Ok(F::WebP) => Ok(Format::WebP),
        Ok(F::Gif) => Ok(Format::Gif),
        Ok(F::Bmp) => Ok(Format::Bmp),
        Ok(F::Tiff) => Ok(Format::Tiff),
        Ok(other) => Err(SampleError::Unsupported {
            detail: format!("{other:?} files"),
        }),
        Err(_) if bytes.is_empty() => not("0 bytes".into()),
        Err(_) => not(format!(
            "{} bytes that begin with {:02x?}",
            bytes.len(),
            &bytes[..bytes.len().min(8)]
        )),
    }
}

/// Decodes one image after the other, keeping its buffers. One per thread.
pub struct Decoder {
    limits: Limits,
    turbo: Option<Turbo>,
    /// Pixels of the last window, RGB; grows to the largest need.
    window: Vec<u8>,
    /// Pixels of the last raster file in its own format.
    native: Vec<u8>,
}

impl Decoder {
    /// A decoder that refuses what exceeds `limits`.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            turbo: None,
            window: vec![],
            native: vec![],
        }
    }

    /// [`header`], refused if it promises more than the limits allow.
    ///
    /// # Errors
    /// As [`header`], and `TooLarge`.
    pub fn header(&self, bytes: &[u8]) -> Result<Header, SampleError> {
        let header = header_within(bytes, self.limits)?;
        header.check(bytes, self.limits)?;
        Ok(header)
    }

    /// Decodes the whole picture, upright, RGB; transparency over white, CMYK without colour management.
    ///
    /// # Errors
    /// Any [`SampleError`] but `TwoImages` and `TooManyBytes`; `out` is then unspecified.
    pub fn decode(&mut self, bytes: &[u8], out: &mut Image) -> Result<(), SampleError> {
        let header = self.header(bytes)?;
        let all = Rect {
            x: 0.0,
            y: 0.0,
            width: header.width.into(),
            height: header.height.into(),
        };
        self.window(bytes, &header, all, 1)?;
        let n = header.width as usize * header.height as usize * 3;
        (out.width, out.height) = header.upright();
        if header.orientation.is_upright() {
            out.pixels.clear();
            out.pixels.extend_from_slice(&self.window[..n]);
        } else {
            orientation::upright(header.orientation, &self.window[..n], header.width, header.height, &mut out.pixels);
        }
        Ok(())
    }

    /// Decodes at least the part `want` of the stored picture (coordinates before orientation and reduction), reduced by `denom`
    /// (1, or what [`Header::reduction`] answered).
    ///
    /// At `denom` 1 the pixels of `want` are those of the whole picture bit for bit.
    ///
    /// # Errors
    /// As [`Decoder::decode`].
    pub fn window(&mut self, bytes: &[u8], header: &Header, want: Rect, denom: u32) -> Result<Window<'_>, SampleError> {
        header.check(bytes, self.limits)?;
        let denom = if header.jpeg.is_some() { denom } else { 1 };
        let part = want.pixels(denom, header.width, header.height);
        let placed = if let Some(jpeg) = &header.jpeg {
            let all = part.width == header.width.div_ceil(denom) && part.height == header.height.div_ceil(denom);
            let turbo = self.turbo.get_or_insert_with(Turbo::new);
            turbo.decode(bytes, jpeg, (!all).then_some(part), denom, &mut self.window)?
        } else {
            let colour = raster::decode(header.format, bytes, self.limits, &mut self.native)?;
            if colour == ColorType::Rgb8 {
                std::mem::swap(&mut self.native, &mut self.window);
                PixelRect {
                    left: 0,
                    top: 0,
                    width: header.width,
                    height: header.height,
                }
            } else {
                raster::to_rgb(colour, &self.native, header.width, part, &mut self.window)?;
                part
            }
        };
        Ok(Window {
            pixels: &self.window[..placed.width as usize * placed.height as usize * 3],
            placed,
            denom,
            stored: (header.width, header.height),
        })
    }
}
