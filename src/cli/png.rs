//! Pictures that verbs write: whole or not at all, and only to files that are called pictures.

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

/// Refuses a place of a picture that is not called one (with `ending`), so that no other file is written over, or whose folder is not there.
///
/// # Errors
/// Usage, naming the option.
pub(crate) fn check_picture_path(option: &str, file: &Path, ending: &str) -> Result<(), CliError> {
    let refused = |why: String| Err(CliError::usage(format!("{option} {}: {why}", file.display()), None));
    if !file.extension().is_some_and(|e| e.eq_ignore_ascii_case(ending)) {
        return refused(format!("must end in .{ending}"));
    }
    match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() && !folder.is_dir() => refused(format!("no such folder {}", folder.display())),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_is_written_over_nothing_but_pictures() {
        let folder = tempfile::tempdir().unwrap();
        let place = |name: &str| folder.path().join(name);
        check_picture_path("--picture", &place("words.PNG"), "png").unwrap();
        for (name, why) in [
            ("config.toml", "must end in .png"),
            ("model", "must end in .png"),
            ("gone/a.png", "no such folder"),
        ] {
            let error = check_picture_path("--picture", &place(name), "png").unwrap_err();
            assert!(
                error.message.contains(why) && error.message.contains("--picture"),
                "{}",
                error.message
            );
        }
    }
}
