//! Pictures that verbs write: whole or not at all.

use std::path::Path;

use image::ImageEncoder;
use splitmask_pipeline::file;
use splitmask_pipeline::types::Image;

use crate::exit::CliError;

/// Writes a PNG file.
pub(crate) fn write_png(picture: &Image, path: &Path) -> Result<(), CliError> {
    let failed = |e: &dyn std::fmt::Display| CliError::io(format!("{}: {e}", path.display()));
    let mut png = vec![];
    image::codecs::png::PngEncoder::new(&mut png)
        .write_image(&picture.pixels, picture.width, picture.height, image::ExtendedColorType::Rgb8)
        .map_err(|e| failed(&e))?;
    file::write(path, png).map_err(|e| failed(&e))
}
