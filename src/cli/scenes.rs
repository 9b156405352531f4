//! `splitmask scenes`: small scenes composed of drawings, with a label map for each: a test bed of segmentation that needs no annotators.

mod compose;
mod drawings;

use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;
use splitmask_pipeline::decode::LabelMap;
use splitmask_pipeline::file;

use self::compose::{Scene, compose};
use self::drawings::{CLASSES, Drawings};
use crate::cli::answer::say;
use crate::exit::CliError;
use crate::picture::class_colour;

const LONG_ABOUT: &str = "\
Composes scenes of drawings on transparent ground: one to four objects of twelve groups on a coloured ground, with other drawings between them that
count as background. DRAWINGS is a tree of PNG files as Debian's openclipart-png has them (`setup/openclipart.sh` fetches it). OUTPUT gets
  images/train, images/val    the scenes
  maps/train, maps/val        their label maps: PNGs with a palette, 0 = background
  objects/train, objects/val  boxes of the visible parts of the objects, as JSON
  classes.txt                 names of the classes in the order of their numbers
No drawing is in scenes of both sets. The same drawings and options give the same scenes.";

const EXAMPLES: &str = "\
Example:
  splitmask scenes data/openclipart/usr/share/openclipart/png data/scenes-files
  splitmask pack data/scenes-files/images/train data/scenes --val data/scenes-files/images/val --class none \\
    --maps data/scenes-files/maps/train --val-maps data/scenes-files/maps/val --map-classes data/scenes-files/classes.txt";

/// Compose scenes with label maps from drawings, to try segmentation on.
#[derive(Args)]
#[command(long_about = LONG_ABOUT, after_help = EXAMPLES)]
pub(crate) struct ScenesArgs {
    /// Tree of PNG drawings with transparency, in openclipart's folders.
    drawings: PathBuf,
    /// Folder for the scenes; must be absent or empty.
    output: PathBuf,
    /// Side of a scene, pixels.
    #[arg(long, value_name = "PIXELS", default_value_t = 96, value_parser = clap::value_parser!(u32).range(32..=1024))]
    size: u32,
    /// Scenes to train on.
    #[arg(long, value_name = "N", default_value_t = 1500)]
    train: u32,
    /// Scenes to validate on.
    #[arg(long, value_name = "N", default_value_t = 300)]
    val: u32,
    /// Another number gives other scenes of the same drawings.
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
}

/// Composes all scenes and writes them.
pub(crate) fn run(args: &ScenesArgs) -> Result<(), CliError> {
    let failed = |path: &Path| {
        let path = path.display().to_string();
        move |e: std::io::Error| CliError::io(format!("{path}: {e}"))
    };
    if fs::read_dir(&args.output).is_ok_and(|mut entries| entries.next().is_some()) {
        return Err(CliError::usage(
            format!("{}: not empty", args.output.display()),
            "name a new folder, or remove that one".to_owned(),
        ));
    }
    let drawings = Drawings::find(&args.drawings)?;
    for (set, scenes, val) in [("train", args.train, false), ("val", args.val, true)] {
        let folder = |kind: &str| args.output.join(kind).join(set);
        for kind in ["images", "maps", "objects"] {
            fs::create_dir_all(folder(kind)).map_err(failed(&folder(kind)))?;
        }
        for number in 0..scenes {
            let scene = compose(&drawings, val, args.size, args.seed, number)?;
            write(&scene, args.size, &|kind, extension| {
                folder(kind).join(format!("{number:06}.{extension}"))
            })?;
        }
    }
    let classes = args.output.join("classes.txt");
    let names = std::iter::once("background").chain(CLASSES).collect::<Vec<_>>().join("\n") + "\n";
    file::write(&classes, names).map_err(failed(&classes))?;
    for line in drawings.told() {
        say!("{line}");
    }
    say!(
        "{} scenes to train on and {} to validate on in {}",
        args.train,
        args.val,
        args.output.display()
    );
    Ok(())
}

/// Writes picture, map and objects of a scene to the places that `path` (kind, extension) gives.
fn write(scene: &Scene, side: u32, path: &dyn Fn(&str, &str) -> PathBuf) -> Result<(), CliError> {
    let put = |kind: &str, extension: &str, bytes: Vec<u8>| {
        let path = path(kind, extension);
        fs::write(&path, bytes).map_err(|e| CliError::io(format!("{}: {e}", path.display())))
    };
    let mut png = std::io::Cursor::new(vec![]);
    scene
        .picture
        .write_to(&mut png, image::ImageFormat::Png)
        .map_err(|e| CliError::io(e.to_string()))?;
    put("images", "png", png.into_inner())?;
    let map = LabelMap::new(side, side, scene.classes.clone());
    put("maps", "png", map.to_coloured_png(255, class_colour))?;
    let objects: Vec<serde_json::Value> = scene
        .objects
        .iter()
        .map(|object| json!({ "category_id": object.class, "bbox": object.area, "area": object.pixels, "iscrowd": 0 }))
        .collect();
    put("objects", "json", json!({ "annotations": objects }).to_string().into_bytes())
}
