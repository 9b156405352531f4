//! What a JPEG's marker segments say before any pixel is decoded (ITU-T T.81 annex B, EXIF 2.3 §4.5).

use std::borrow::Cow;

use crate::error::SampleError;

use super::exif::Metadata;
use super::orientation::Orientation;

/// What an XMP packet stands behind.
const XMP: &[u8] = b"http://ns.adobe.com/xap/1.0/\0";

/// Facts of a JPEG's header, up to its first scan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct JpegHeader {
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) orientation: Orientation,
    /// Colour components: 1 grey, 3 colour, 4 CMYK or YCCK.
    pub(super) components: u8,
    /// Bytes that libjpeg holds for coefficients if the picture comes in several scans, else 0.
    pub(super) coefficient_bytes: u64,
    /// One interleaved sequential Huffman scan, grey or colour, and whole.
    pub(super) common: bool,
    /// No end-of-image marker follows.
    pub(super) cut: bool,
    /// Pixel-exact parts cannot be decoded (lossless process).
    pub(super) lossless: bool,
}

fn corrupt(detail: impl Into<String>) -> SampleError {
    SampleError::Corrupt { detail: detail.into() }
}

fn truncated() -> SampleError {
    SampleError::Truncated {
        detail: "JPEG ends inside its header".into(),
    }
}

/// Walks the marker segments to the first scan, then looks whether an end-of-image marker follows.
///
/// # Errors
/// `Truncated`, `Corrupt` or `Unsupported` (12 bits, hierarchical, no height).
pub(super) fn parse(bytes: &[u8]) -> Result<JpegHeader, SampleError> {
    let mut at = 2;
    let mut metadata = Metadata::default();
    let mut frame: Option<Frame> = None;
    loop {
        // A marker is FF, any number of fill bytes FF, a code. Anything else before it is rubbish that decoders step over.
        let Some(gap) = bytes[at..].iter().position(|&b| b == 0xff) else {
            return Err(truncated());
        };
        at += gap;
        let Some(fill) = bytes[at..].iter().position(|&b| b != 0xff) else {
            return Err(truncated());
        };
        at += fill;
        let code = bytes[at];
        at += 1;
        match code {
            0x00 | 0x01 | 0xd0..=0xd7 => continue,
            0xd8 => return Err(corrupt("second start-of-image marker in the JPEG header")),
            0xd9 => return Err(truncated()),
            _ => {}
        }
        let length = match bytes.get(at..at + 2) {
            Some(b) => usize::from(u16::from_be_bytes([b[0], b[1]])),
            None => return Err(truncated()),
        };
        if length < 2 {
            return Err(corrupt(format!("JPEG marker {code:02x} with length {length}")));
        }
        let segment = bytes.get(at + 2..at + length).ok_or_else(truncated)?;
        match code {
            0xc0..=0xc3 | 0xc5..=0xc7 | 0xc9..=0xcb | 0xcd..=0xcf => {
                if frame.is_some() {
                    return Err(corrupt("two frame headers in one JPEG"));
                }
                frame = Some(Frame::parse(code, segment)?);
            }
            // A block too long for one segment goes on in the next.
            0xe1 if segment.starts_with(b"Exif\0\0") => match &mut metadata.exif {
                exif if exif.is_empty() => *exif = Cow::Borrowed(&segment[6..]),
                exif => exif.to_mut().extend_from_slice(&segment[6..]),
            },
            0xe1 if segment.starts_with(XMP) => metadata.xmp = Cow::Borrowed(&segment[XMP.len()..]),
            0xda => {
                let frame = frame.ok_or_else(|| corrupt("JPEG scan before its frame header"))?;
                let scan_components = segment.first().copied().unwrap_or(0);
                at += length;
                let cut = !ends(&bytes[at..]);
                let single_scan = matches!(frame.code, 0xc0 | 0xc1) && scan_components == frame.components;
                return Ok(JpegHeader {
                    width: frame.width,
                    height: frame.height,
                    orientation: metadata.orientation(),
                    components: frame.components,
                    coefficient_bytes: if single_scan { 0 } else { frame.coefficient_bytes },
                    common: single_scan && frame.components < 4 && !cut,
                    cut,
                    lossless: matches!(frame.code, 0xc3 | 0xcb),
                });
            }
            _ => {}
        }
        at += length;
    }
}

/// Whether an end-of-image marker follows in scan data (where FF is followed by 00 or a restart code), trailing bytes allowed.
fn ends(scans: &[u8]) -> bool {
    scans.ends_with(&[0xff, 0xd9]) || scans.windows(2).rev().any(|w| w == [0xff, 0xd9])
}

struct Frame {
    code: u8,
    width: u32,
    height: u32,
    components: u8,
    coefficient_bytes: u64,
}

impl Frame {
    fn parse(code: u8, segment: &[u8]) -> Result<Self, SampleError> {
        let unsupported = |detail: String| Err(SampleError::Unsupported { detail });
        let [precision, h0, h1, w0, w1, components, rest @ ..] = segment else {
            return Err(corrupt("JPEG frame header too short"));
        };
        let (height, width) = (u16::from_be_bytes([*h0, *h1]), u16::from_be_bytes([*w0, *w1]));
        if matches!(code, 0xc5..=0xc7 | 0xcd..=0xcf) {
            return unsupported(format!("hierarchical JPEG (frame {code:02x})"));
        }
        if *precision != 8 {
            return unsupported(format!("{precision}-bit JPEG"));
        }
        if !matches!(components, 1 | 3 | 4) {
            return unsupported(format!("JPEG of {components} components"));
        }
        if height == 0 {
            return unsupported("JPEG whose height follows its scan (DNL marker)".into());
        }
        if width == 0 {
            return Err(corrupt("JPEG of width 0"));
        }
        // Sampling factors of up to four components, 1 to 4 each way.
        let mut factors = [(0u64, 0u64); 4];
        let factors = &mut factors[..usize::from(*components)];
        for (f, c) in factors.iter_mut().zip(rest.chunks_exact(3)) {
            *f = (u64::from(c[1] >> 4), u64::from(c[1] & 15));
        }
        if factors.iter().any(|f| !(1..=4).contains(&f.0) || !(1..=4).contains(&f.1)) {
            return Err(corrupt("JPEG frame header with bad sampling factors"));
        }
        let (max_h, max_v) = factors.iter().fold((1, 1), |m, f| (m.0.max(f.0), m.1.max(f.1)));
        let columns = u64::from(width).div_ceil(8 * max_h) * 8;
        let rows = u64::from(height).div_ceil(8 * max_v) * 8;
        Ok(Self {
            code,
            width: width.into(),
            height: height.into(),
            components: *components,
            coefficient_bytes: factors.iter().map(|(h, v)| columns * h * rows * v * 2).sum(),
        })
    }
}
