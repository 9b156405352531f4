//! Formats of pictures that are not decoded: named, so that it is plain what has to be converted.

/// The format that these bytes are of, whatever the file's name says.
pub(super) fn format(bytes: &[u8]) -> Option<&'static str> {
    const STARTS: [(&[u8], &str); 7] = [
        (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
        (b"\xff\x0a", "JPEG XL"),
        (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
        (b"\xff\x4f\xff\x51", "JPEG 2000"),
        (b"8BPS", "Photoshop"),
        (b"%PDF-", "PDF"),
        (b"<svg", "SVG"),
    ];
    let start = STARTS.iter().find(|(start, _)| bytes.starts_with(start)).map(|(_, name)| *name);
    start.or_else(|| boxed(bytes))
}

/// Formats in the ISO base media container, told by the brands that its first box lists (ISO/IEC 14496-12, section 4.3).
fn boxed(bytes: &[u8]) -> Option<&'static str> {
    let length = u32::from_be_bytes(bytes.get(..4)?.try_into().ok()?) as usize;
    let content = bytes.get(8..length.min(bytes.len()))?;
    if bytes.get(4..8) != Some(b"ftyp") {
        return None;
    }
    let has = |names: &[&[u8; 4]]| {
        content
            .chunks_exact(4)
            .any(|brand| names.iter().any(|name| brand == name.as_slice()))
    };
    if has(&[b"avif", b"avis"]) {
        Some("AVIF")
    } else if has(&[b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"]) {
        Some("HEIC")
    } else if has(&[b"crx "]) {
        Some("Canon raw")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::super::header;

    #[test]
    fn pictures_of_other_formats_are_told_by_name() {
        for (bytes, name) in [
            (&b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"[..], "HEIC"),
            (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic....", "HEIC"),
            (b"\0\0\0\x1cftypmif1\0\0\0\0mif1avifmiaf", "AVIF"),
            (b"\0\0\0\x1cftypavif\0\0\0\0avifmif1miaf", "AVIF"),
            (b"\xff\x0a\x12\x34\x56\x78", "JPEG XL"),
            (b"<svg xmlns=", "SVG"),
        ] {
            let error = header(bytes).unwrap_err();
            assert_eq!(error.reason(), "unsupported", "{error}");
            assert!(error.to_string().contains(&format!("{name} file")), "{error}");
        }
        for other in [
            &b"\0\0\0\x18ftypisom\0\0\0\0isommp42"[..],
            b"\0\0\0\x08ftyp",
            b"\xff\xff\xff\xffftyp",
            b"\0\0\0\0ftypheic",
        ] {
            assert_eq!(header(other).unwrap_err().reason(), "not_an_image");
        }
    }
}
