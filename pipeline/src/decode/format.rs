//! Which format a file has: told by its first bytes, never by its name.

use crate::error::SampleError;

use super::foreign::foreign_format;

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
    /// Its first picture, BigTIFF too.
    Tiff,
}

/// File name endings, in lower case, under which these formats are found. They say which files to look into; the bytes say what those are.
pub const EXTENSIONS: [&str; 12] = [
    "jpg", "jpeg", "jpe", "jfif", "png", "apng", "webp", "gif", "bmp", "dib", "tif", "tiff",
];

impl Format {
    /// The format that a file's first bytes (32 are enough) say.
    ///
    /// # Errors
    /// `Unsupported` for a known format that is not decoded, `NotAnImage` for anything else.
    pub fn of(bytes: &[u8]) -> Result<Self, SampleError> {
        let not = |detail: String| Err(SampleError::NotAnImage { detail });
        match bytes {
            [] => not("0 bytes".into()),
            [0xff, 0xd8, 0xff, ..] => Ok(Self::Jpeg),
            [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1a, b'\n', ..] => Ok(Self::Png),
            [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Ok(Self::WebP),
            [b'G', b'I', b'F', b'8', b'7' | b'9', b'a', ..] => Ok(Self::Gif),
            [b'B', b'M', ..] => Ok(Self::Bmp),
            [b'I', b'I', b'*' | b'+', 0, ..] | [b'M', b'M', 0, b'*' | b'+', ..] => Ok(Self::Tiff),
            _ => match foreign_format(bytes) {
                Some(name) => Err(SampleError::Unsupported { detail: name.into() }),
                None => not(format!(
                    "{} bytes that begin with {:02x?}",
                    bytes.len(),
                    &bytes[..bytes.len().min(8)]
                )),
            },
        }
    }
}
