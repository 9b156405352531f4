//! A WebP's metadata (WebP container specification): chunks that the extended header announces.

use std::borrow::Cow;

use super::exif::Metadata;

/// Bits of the extended header.
const EXIF: u8 = 0x08;
const XMP: u8 = 0x04;

/// EXIF and XMP; of several chunks the first.
pub(super) fn metadata(bytes: &[u8]) -> Metadata<'_> {
    let mut found = Metadata::default();
    let mut announced = 0;
    let mut at = 12;
    while let Some(head) = bytes.get(at..at + 8) {
        let length = u32::from_le_bytes([head[4], head[5], head[6], head[7]]) as usize;
        let Some(data) = bytes.get(at + 8..(at + 8).saturating_add(length)) else {
            break;
        };
        match &head[..4] {
            b"VP8X" => announced = data.first().copied().unwrap_or(0),
            b"EXIF" if announced & EXIF != 0 && found.exif.is_empty() => found.exif = Cow::Borrowed(data),
            b"XMP " if announced & XMP != 0 && found.xmp.is_empty() => found.xmp = Cow::Borrowed(data),
            _ => {}
        }
        at += 8 + length + length % 2;
    }
    found
}
