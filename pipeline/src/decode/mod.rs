//! Image bytes → RGB pixels: header and limits first, then the whole picture or only the part that a crop needs.
//!
//! JPEG goes through libjpeg-turbo (region decode, DCT scaling), GIF and TIFF through the crates of these names, PNG, WebP and BMP through
//! the `image` crate. Colours and orientation are those of Pillow: `ImageOps.exif_transpose(image).convert("RGB")`; the table in
//! docs/data.md says what that means, and where OpenCV differs. Refused rather than guessed: corrupt files, truncated ones (unless asked
//! for), and flavours whose colours would be wrong.

mod baseline;
mod dct_scale;
mod decoder;
mod entropy;
mod exif;
#[cfg(test)]
pub(crate) mod fixtures;
mod foreign;
mod format;
mod gif;
mod header;
mod ifd;
mod ink;
mod jpeg;
mod jpeg_header;
mod label_map;
mod limits;
mod objects;
mod orientation;
mod png;
mod raster;
#[cfg(test)]
mod raster_tests;
mod region;
#[cfg(test)]
mod tests;
mod tiff;
mod transparency;
mod webp;

pub use decoder::Decoder;
pub use foreign::foreign_format;
pub use format::{EXTENSIONS, Format};
pub use header::{Header, Lies, header};
pub use label_map::{LabelMap, MapReading};
pub use limits::Limits;
pub use objects::{MarkedObject, MemberObject, ObjectMember, ObjectReading, Objects, lying};
pub use orientation::Orientation;
pub use region::{Rect, Window};
pub use transparency::Background;
