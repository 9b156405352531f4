//! Orientation from a file's metadata, read as Pillow reads it: the EXIF block's first directory, else an XMP packet.

use std::borrow::Cow;

use super::ifd::Directory;
use super::orientation::Orientation;

/// Tag of the orientation (EXIF 2.3 section 4.6.4).
const ORIENTATION: u16 = 0x0112;

/// Metadata blocks of one file, empty where it has none.
#[derive(Debug, Clone, Default)]
pub(super) struct Metadata<'a> {
    /// An EXIF block: a TIFF structure, perhaps behind `Exif\0\0`.
    pub(super) exif: Cow<'a, [u8]>,
    /// An XMP packet.
    pub(super) xmp: Cow<'a, [u8]>,
}

impl Metadata<'_> {
    /// How the stored picture is turned upright.
    pub(super) fn orientation(&self) -> Orientation {
        let mut block = &*self.exif;
        for _ in 0..2 {
            block = block.strip_prefix(b"Exif\0\0").unwrap_or(block);
        }
        Orientation::from_exif(of(Directory::first_classic(block), &self.xmp))
    }
}

/// The orientation tag of a directory or, where it has none, that of an XMP packet.
///
/// Any kind of number counts (TIFF 6.0 section 2 asks readers for that), of several the first; text and loose bytes do not, which
/// for BYTE is Pillow's way and not OpenCV's.
pub(super) fn of(directory: Option<Directory<'_>>, xmp: &[u8]) -> u8 {
    let Some(directory) = directory.filter(|d| d.entry(ORIENTATION).is_some()) else {
        return in_packet(xmp).unwrap_or(1);
    };
    if directory.is_opaque(ORIENTATION) {
        return 1;
    }
    match directory.number(ORIENTATION) {
        Some(value) if (1.0..=8.0).contains(&value) && value.fract() == 0.0 => value as u8,
        _ => 1,
    }
}

/// `tiff:Orientation` of an XMP packet, as an attribute or an element.
fn in_packet(xmp: &[u8]) -> Option<u8> {
    const NAME: &[u8] = b"tiff:Orientation";
    memchr::memmem::find_iter(xmp, NAME).find_map(|at| match &xmp[at + NAME.len()..] {
        [b'=', b'"', digit @ b'0'..=b'9', ..] | [b'>', digit @ b'0'..=b'9', ..] => Some(digit - b'0'),
        _ => None,
    })
}
