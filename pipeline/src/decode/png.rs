//! What the `image` crate does not tell of a PNG: metadata on either side of the pixels, and whether the file has its end.

use std::borrow::Cow;

use super::exif::Metadata;

/// Bytes that a compressed text may have; Pillow's limit.
const MAX_TEXT: usize = 1 << 20;

struct Chunk<'a> {
    name: [u8; 4],
    /// What the file holds of its data.
    data: &'a [u8],
    /// Where it begins.
    at: usize,
    /// Length, data and checksum are all there.
    whole: bool,
    checksum_holds: bool,
}

/// The chunks of a file, up to and including the first that the file cuts short.
fn chunks(bytes: &[u8]) -> impl Iterator<Item = Chunk<'_>> {
    let mut next = 8;
    std::iter::from_fn(move || {
        let at = next;
        let head = bytes.get(at..at + 8)?;
        let length = u32::from_be_bytes([head[0], head[1], head[2], head[3]]) as usize;
        let name = [head[4], head[5], head[6], head[7]];
        let end = (at + 8).saturating_add(length);
        let sum = bytes.get(end..end.saturating_add(4));
        next = if sum.is_some() { end + 4 } else { bytes.len() };
        let data = &bytes[at + 8..end.min(bytes.len())];
        Some(Chunk {
            name,
            data,
            at,
            whole: sum.is_some(),
            // Only metadata is judged here; pixels are judged by who decodes them.
            checksum_holds: sum.is_some_and(|sum| name == *b"IDAT" || crc32fast::hash(&bytes[at + 4..end]).to_be_bytes() == sum),
        })
    })
}

/// EXIF and XMP, wherever they stand.
pub(super) fn metadata(bytes: &[u8]) -> Metadata<'_> {
    let mut found = Metadata::default();
    // An EXIF block written as text by ImageMagick and its kin; an eXIf chunk comes first.
    let mut profile = None;
    for chunk in chunks(bytes).filter(|c| c.checksum_holds) {
        match &chunk.name {
            b"eXIf" => found.exif = Cow::Borrowed(chunk.data),
            b"tEXt" => profile = profile.or_else(|| hexadecimal(chunk.data.strip_prefix(b"Raw profile type exif\0")?)),
            b"zTXt" => {
                profile = profile.or_else(|| hexadecimal(&inflate(chunk.data.strip_prefix(b"Raw profile type exif\0\0")?)?));
            }
            b"iTXt" => {
                if let Some(packet) = international(chunk.data) {
                    found.xmp = packet;
                }
            }
            b"IEND" => break,
            _ => {}
        }
    }
    if let (true, Some(block)) = (found.exif.is_empty(), profile) {
        found.exif = Cow::Owned(block);
    }
    found
}

fn inflate(data: &[u8]) -> Option<Vec<u8>> {
    fdeflate::decompress_to_vec_bounded(data, MAX_TEXT).ok()
}

/// Bytes written as hexadecimal digits behind two lines of heading: a name, and a length.
fn hexadecimal(text: &[u8]) -> Option<Vec<u8>> {
    let digits = text.splitn(4, |&b| b == b'\n').nth(3)?;
    let digits: Vec<u8> = digits.iter().copied().filter(|b| !b.is_ascii_whitespace()).collect();
    let value = |b: u8| char::from(b).to_digit(16).map(|d| d as u8);
    digits.chunks_exact(2).map(|d| Some(value(d[0])? << 4 | value(d[1])?)).collect()
}

/// The XMP packet of an iTXt chunk: keyword, flag and method of compression, language, translated keyword, text.
fn international(data: &[u8]) -> Option<Cow<'_, [u8]>> {
    let rest = data.strip_prefix(b"XML:com.adobe.xmp\0")?;
    let (&compressed, rest) = rest.split_first()?;
    let text = rest.get(1..)?.splitn(3, |&b| b == 0).nth(2)?;
    if compressed == 1 {
        inflate(text).map(Cow::Owned)
    } else {
        Some(Cow::Borrowed(text))
    }
}

/// The file with an end, if it has none: what follows the last pixel data is dropped, and pixel data that is cut short is closed where
/// it ends. Whether all rows are in it, the decoder finds out.
pub(super) fn closed(bytes: &[u8]) -> Cow<'_, [u8]> {
    let mut has_pixels = false;
    let mut end = bytes.len();
    for chunk in chunks(bytes) {
        let pixels = &chunk.name == b"IDAT";
        has_pixels |= pixels;
        if chunk.whole {
            if &chunk.name == b"IEND" {
                return Cow::Borrowed(bytes);
            }
            end = chunk.at + 12 + chunk.data.len();
        } else if pixels {
            let mut out = bytes[..chunk.at].to_vec();
            append(&mut out, *b"IDAT", chunk.data);
            append(&mut out, *b"IEND", &[]);
            return Cow::Owned(out);
        }
    }
    if !has_pixels {
        return Cow::Borrowed(bytes);
    }
    let mut out = bytes[..end].to_vec();
    append(&mut out, *b"IEND", &[]);
    Cow::Owned(out)
}

fn append(out: &mut Vec<u8>, name: [u8; 4], data: &[u8]) {
    out.extend((data.len() as u32).to_be_bytes());
    let at = out.len();
    out.extend(name);
    out.extend(data);
    let sum = crc32fast::hash(&out[at..]);
    out.extend(sum.to_be_bytes());
}

/// Columns and rows by the header of a PNG.
pub(super) fn size(bytes: &[u8]) -> Option<(u32, u32)> {
    let word = |at: usize| Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    (bytes.get(12..16)? == b"IHDR").then_some(())?;
    Some((word(16)?, word(20)?))
}
