//! Samples of a TIFF, as they were unpacked, to RGB.

use super::super::ink;
use super::super::region::PixelRect;
use super::super::transparency::{self, Background, divided};

/// What the first samples of a pixel say.
pub(super) enum Colours {
    Grey {
        white_is_zero: bool,
    },
    Rgb,
    Palette(Vec<[u8; 3]>),
    /// Amounts of ink.
    Cmyk,
    YCbCr,
}

impl Colours {
    /// How many samples that takes.
    pub(super) fn samples(&self) -> usize {
        match self {
            Self::Grey { .. } | Self::Palette(_) => 1,
            Self::Rgb | Self::YCbCr => 3,
            Self::Cmyk => 4,
        }
    }
}

/// How the sample behind the colours says what shows through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Alpha {
    /// Colours are multiplied by it already.
    Multiplied,
    /// Colours are whole.
    Apart,
}

/// A picture's samples in rows of whole bytes.
pub(super) struct Samples<'a> {
    pub(super) bytes: &'a [u8],
    /// Bytes of a row.
    pub(super) row: usize,
    /// Bytes of a plane, if each sample has its own; else those of a pixel stand together.
    pub(super) plane: Option<usize>,
    /// Samples of a pixel.
    pub(super) each: usize,
    /// 1, 2, 4, 8 or 16 bits each; 16 in the machine's byte order.
    pub(super) bits: u8,
}

impl Samples<'_> {
    /// A sample as it is; of 16 bits the upper eight.
    fn raw(&self, x: usize, y: usize, n: usize) -> u8 {
        let (start, place) = match self.plane {
            Some(plane) => (n * plane + y * self.row, x),
            None => (y * self.row, x * self.each + n),
        };
        match self.bits {
            8 => self.bytes[start + place],
            16 => self.bytes[start + 2 * place + usize::from(cfg!(target_endian = "little"))],
            bits => {
                let at = place * usize::from(bits);
                let byte = self.bytes[start + at / 8];
                byte >> (8 - usize::from(bits) - at % 8) & ((1u16 << bits) - 1) as u8
            }
        }
    }

    /// Converts the rectangle `part`. Answers whether a pixel of it is not opaque.
    pub(super) fn to_rgb(
        &self,
        colours: &Colours,
        alpha: Option<Alpha>,
        part: PixelRect,
        background: Background,
        out: &mut Vec<u8>,
    ) -> bool {
        let behind = colours.samples();
        let opaque = |x, y| if alpha.is_some() { self.raw(x, y, behind) } else { 255 };
        let whole = |rgb: [u8; 3], a: u8| {
            let rgb = if alpha == Some(Alpha::Multiplied) { divided(rgb, a) } else { rgb };
            (rgb, a)
        };
        match colours {
            Colours::Grey { white_is_zero } => {
                let flip = if *white_is_zero { 255 } else { 0 };
                let full = match self.bits {
                    8 | 16 => 1,
                    bits => 255 / ((1u16 << bits) - 1) as u8,
                };
                transparency::fill(part, background, out, |x, y| {
                    whole([(self.raw(x, y, 0) * full) ^ flip; 3], opaque(x, y))
                })
            }
            Colours::Rgb => transparency::fill(part, background, out, |x, y| {
                whole([0, 1, 2].map(|c| self.raw(x, y, c)), opaque(x, y))
            }),
            Colours::Palette(table) => {
                let colour = |index: u8| table.get(usize::from(index)).copied().unwrap_or_default();
                transparency::fill(part, background, out, |x, y| (colour(self.raw(x, y, 0)), opaque(x, y)))
            }
            Colours::Cmyk => transparency::fill(part, background, out, |x, y| {
                whole(ink::rgb([0, 1, 2, 3].map(|c| 255 - self.raw(x, y, c))), opaque(x, y))
            }),
            Colours::YCbCr => transparency::fill(part, background, out, |x, y| {
                whole(from_ycbcr([0, 1, 2].map(|c| self.raw(x, y, c))), opaque(x, y))
            }),
        }
    }
}

/// ITU-R BT.601 with full range, as JFIF has it.
fn from_ycbcr([y, cb, cr]: [u8; 3]) -> [u8; 3] {
    let (y, cb, cr) = (f32::from(y), f32::from(cb) - 128.0, f32::from(cr) - 128.0);
    [y + 1.402 * cr, y - 0.344_136 * cb - 0.714_136 * cr, y + 1.772 * cb].map(|v| v.round().clamp(0.0, 255.0) as u8)
}
