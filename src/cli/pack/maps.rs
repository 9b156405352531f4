//! Label maps that are packed beside the images.

use std::path::{Path, PathBuf};

use clap::Args;
use splitmask_pipeline::bucket::manifest::MapClasses;
use splitmask_pipeline::pack::MapOptions;

use crate::exit::CliError;

/// Where the maps are and what their numbers mean.
#[derive(Args)]
pub(super) struct MapArgs {
    /// Folder of label maps, to be packed beside the images: that of INPUT/a/b.jpg is FOLDER/a/b.png, a PNG of class numbers.
    #[arg(long, value_name = "FOLDER")]
    maps: Option<PathBuf>,
    /// Folder of the label maps of the folder given by --val.
    #[arg(long, value_name = "FOLDER", requires_all = ["val", "maps"])]
    val_maps: Option<PathBuf>,
    /// File with the names of the maps' classes, one a line, in the order of their numbers; without it they are called `class 0` and so on.
    #[arg(long, value_name = "FILE", requires = "maps")]
    map_classes: Option<PathBuf>,
    /// Number in label maps that means nothing is said about the pixel.
    #[arg(long, value_name = "NUMBER", default_value_t = 255, requires = "maps")]
    map_ignore: u32,
}

impl MapArgs {
    /// For the packer; none where no maps are asked for.
    pub(super) fn options(self) -> Result<Option<MapOptions>, CliError> {
        let Some(folder) = self.maps else { return Ok(None) };
        Ok(Some(MapOptions {
            folder,
            val_folder: self.val_maps,
            classes: self.map_classes.as_deref().map(class_names).transpose()?.unwrap_or_default(),
            ignore: self.map_ignore,
        }))
    }
}

/// Names of classes, one a line.
fn class_names(file: &Path) -> Result<Vec<String>, CliError> {
    let text = std::fs::read_to_string(file).map_err(|e| {
        let hint = match e.kind() {
            std::io::ErrorKind::InvalidData => "it is to be UTF-8: iconv -f LATIN1 -t UTF-8 FILE converts one",
            _ => "a text file of one name a line, in the order of the numbers",
        };
        CliError::usage(format!("--map-classes {}: {e}", file.display()), hint.to_owned())
    })?;
    // Some editors begin a file with a mark of its encoding.
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let names: Vec<String> = text.lines().map(|line| line.trim().to_owned()).collect();
    if names.is_empty() {
        return Err(CliError::usage(
            format!("--map-classes {}: names no class", file.display()),
            "one name a line, in the order of the numbers; without --map-classes they are called class 0, class 1 …".to_owned(),
        ));
    }
    match names.iter().position(String::is_empty) {
        Some(line) => Err(CliError::usage(
            format!("--map-classes {}: line {} is empty", file.display(), line + 1),
            "one name a line, in the order of the numbers".to_owned(),
        )),
        None => Ok(names),
    }
}

/// A line about the maps of the training set.
pub(super) fn told(maps: &MapClasses) -> String {
    let pixels = maps.pixels.iter().sum::<u64>() + maps.ignored + maps.beyond.values().sum::<u64>();
    format!(
        "label maps of {} classes; nothing is said about {:.1} % of the pixels of train",
        maps.classes.len(),
        100.0 * maps.ignored as f64 / pixels.max(1) as f64
    )
}
