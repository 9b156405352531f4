//! Names of image formats that are not decoded here, so that a photo in one of them is called by its name and not "no image".

/// Name of a format, and what to do about it, if `start` (32 bytes are enough) begins a file of an image format that is not decoded.
#[must_use]
pub fn foreign_format(start: &[u8]) -> Option<&'static str> {
    // ISO base media files (ISO 14496-12) begin with a box `ftyp`: four bytes of its size, its name, and the major brand.
    if start.get(4..8) == Some(b"ftyp") {
        return match start.get(8..12)? {
            b"heic" | b"heix" | b"heim" | b"heis" | b"hevc" | b"hevx" | b"mif1" | b"msf1" => {
                Some("HEIC (photos of phones), convert it first, for example with heif-convert or `magick mogrify -format jpg`")
            }
            b"avif" | b"avis" => Some("AVIF, convert it first, for example with avifdec or `magick mogrify -format png`"),
            _ => None,
        };
    }
    let starts = |magic: &[u8]| start.starts_with(magic);
    if starts(b"\xff\x0a") || starts(b"\0\0\0\x0cJXL \r\n\x87\n") {
        Some("JPEG XL, convert it first, for example with djxl")
    } else if starts(b"\0\0\0\x0cjP  \r\n\x87\n") || starts(b"\xff\x4f\xff\x51") {
        Some("JPEG 2000, convert it first, for example with opj_decompress")
    } else if starts(b"8BPS\0\x01") {
        Some("a Photoshop document, export it as PNG first")
    } else if starts(b"\0\0\x01\0") {
        Some("an ICO file, convert it to PNG first")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_phones_photo_is_called_heic_and_a_film_is_none() {
        let boxed = |brand: &[u8; 4]| [b"\0\0\0\x18ftyp".as_slice(), brand, b"\0\0\0\0mif1heic"].concat();
        assert!(foreign_format(&boxed(b"heic")).unwrap().starts_with("HEIC"));
        assert!(foreign_format(&boxed(b"mif1")).unwrap().starts_with("HEIC"));
        assert!(foreign_format(&boxed(b"avif")).unwrap().starts_with("AVIF"));
        assert_eq!(foreign_format(&boxed(b"isom")), None);
        assert_eq!(foreign_format(b"\0\0\0\x18ftyp"), None);
        assert!(foreign_format(b"\xff\x0a\xfa").unwrap().starts_with("JPEG XL"));
        assert!(foreign_format(b"8BPS\0\x01\0\0").unwrap().contains("Photoshop"));
        assert_eq!(foreign_format(b"\xff\xd8\xff\xe0"), None);
        assert_eq!(foreign_format(b""), None);
    }
}
