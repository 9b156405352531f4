//! Small pictures, and ways to spoil them.

use image::{ExtendedColorType, ImageEncoder};
use splitmask_pipeline::seed::mix;

/// (kind, reason for which it is dropped)
pub(crate) const KINDS: [(&str, &str); 12] = [
    ("header", "corrupt"),
    ("middle", "corrupt"),
    ("trailer", "truncated"),
    ("half", "truncated"),
    ("empty", "not_an_image"),
    ("text", "not_an_image"),
    ("jpeg bomb", "too_large"),
    ("png bomb", "too_large"),
    ("png body", "corrupt"),
    ("scans", "too_expensive"),
    ("no image", "no_image"),
    ("twelve bits", "unsupported"),
];

fn pixels(seed: u64) -> Vec<u8> {
    (0..32 * 32 * 3)
        .map(|n| (n / 40) as u8 ^ (mix(seed ^ (n / 9)) % 64) as u8)
        .collect()
}

/// A JPEG of 32 × 32 pixels; one in five is a PNG under a JPEG's name, which is no fault.
pub(crate) fn good(seed: u64) -> Vec<u8> {
    if seed % 5 == 4 { png(seed) } else { jpeg(seed) }
}

pub(crate) fn jpeg(seed: u64) -> Vec<u8> {
    let mut out = vec![];
    image::codecs::jpeg::JpegEncoder::new_with_quality(&mut out, 90)
        .write_image(&pixels(seed), 32, 32, ExtendedColorType::Rgb8)
        .unwrap();
    out
}

pub(crate) fn png(seed: u64) -> Vec<u8> {
    let mut out = vec![];
    image::codecs::png::PngEncoder::new(&mut out)
        .write_image(&pixels(seed), 32, 32, ExtendedColorType::Rgb8)
        .unwrap();
    out
}

fn find(bytes: &[u8], what: &[u8]) -> usize {
    bytes.windows(what.len()).position(|w| w == what).unwrap()
}

/// Extension and bytes of a spoilt file.
pub(crate) fn spoil(kind: &str, seed: u64) -> (&'static str, Vec<u8>) {
    let mut bytes = jpeg(seed);
    let length = bytes.len();
    let frame = find(&bytes, &[0xff, 0xc0]);
    let scan = find(&bytes, &[0xff, 0xda]);
    match kind {
        "header" => bytes[frame + 2..frame + 4].copy_from_slice(&[0, 1]),
        // Ones only are no code of any Huffman table (T.81 annex C).
        "middle" => {
            let at = scan + 14 + (length - scan) / 3;
            bytes.splice(at..at + 8, [0xff, 0].repeat(12));
        }
        "trailer" => bytes.truncate(length - 2),
        "half" => bytes.truncate(scan + (length - scan) / 2),
        "empty" => bytes.clear(),
        "text" => bytes = b"<html>404</html>".to_vec(),
        "jpeg bomb" => bytes[frame + 5..frame + 9].copy_from_slice(&[0xea, 0x60, 0xea, 0x60]),
        "png bomb" => {
            bytes = png(seed);
            bytes[16..24].copy_from_slice(&[0, 0, 0xea, 0x60, 0, 0, 0xea, 0x60]);
            let crc = crc32(&bytes[12..29]);
            bytes[29..33].copy_from_slice(&crc.to_be_bytes());
        }
        "png body" => {
            bytes = png(seed);
            let at = find(&bytes, b"IDAT") + 12;
            bytes[at..at + 8].iter_mut().for_each(|b| *b ^= 0x5a);
        }
        "scans" => bytes = many_scans(),
        "no image" => return ("txt", b"words".to_vec()),
        "twelve bits" => bytes[frame + 4] = 12,
        other => unreachable!("{other}"),
    }
    ("jpg", bytes)
}

/// A legal progressive grey JPEG with a scan of its own for each of the 64 coefficients, all of them zero.
fn many_scans() -> Vec<u8> {
    let mut out = vec![0xff, 0xd8, 0xff, 0xdb, 0, 67, 0];
    out.extend([1; 64]);
    out.extend([0xff, 0xc2, 0, 11, 8, 0, 32, 0, 32, 1, 1, 0x11, 0]);
    // Two tables of one code of one bit each: "no difference" and "end of block".
    for class in [0x00, 0x10] {
        out.extend([0xff, 0xc4, 0, 20, class, 1]);
        out.extend([0; 16]);
    }
    for k in 0..64 {
        out.extend([0xff, 0xda, 0, 8, 1, 1, 0, k, k, 0]);
        // One bit for each of the 16 blocks.
        out.extend([0, 0]);
    }
    out.extend([0xff, 0xd9]);
    out
}

/// CRC of PNG chunks (ISO 3309).
pub(crate) fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, &b| {
        (0..8).fold(crc ^ u32::from(b), |c, _| (c >> 1) ^ (0xedb8_8320 & (c & 1).wrapping_neg()))
    })
}
