//! `splitmask scenes`: small scenes composed of drawings, with a label map and the objects of each: a test bed of segmentation and detection that needs no
//! annotators.

mod annotations;
mod compose;
mod drawings;

use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;
use splitmask_pipeline::decode::LabelMap;
use splitmask_pipeline::file;

use self::annotations::Annotations;
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
  objects/train.json, objects/val.json   the visible parts of the objects, boxes and masks, in COCO's form
  classes.txt                 names of the classes in the order of their numbers
No drawing is in scenes of both sets. The same drawings and options give the same scenes.";

const EXAMPLES: &str = "\
Example:
  splitmask scenes data/openclipart/usr/share/openclipart/png data/scenes-files
  splitmask pack data/scenes-files/images/train data/scenes \\
    --val data/scenes-files/images/val --class none \\
    --maps data/scenes-files/maps/train --val-maps data/scenes-files/maps/val \\
    --map-classes data/scenes-files/classes.txt \\
    --coco data/scenes-files/objects/train.json \\
    --val-coco data/scenes-files/objects/val.json";

/// Compose scenes with label maps and objects from drawings, to try segmentation and detection on.
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
    #[arg(long, value_name = "N", default_value_t = 1500, value_parser = clap::value_parser!(u32).range(1..))]
    train: u32,
    /// Scenes to validate on; 0 makes no such set.
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
    let sets = [("train", args.train, false), ("val", args.val, true)];
    for (set, scenes, val) in sets.into_iter().filter(|(_, scenes, _)| *scenes > 0) {
        let folder = |kind: &str| args.output.join(kind).join(set);
        for kind in ["images", "maps"] {
            fs::create_dir_all(folder(kind)).map_err(failed(&folder(kind)))?;
        }
        let mut objects = Annotations::new(args.size);
        for number in 0..scenes {
            let scene = compose(&drawings, val, args.size, args.seed, number)?;
            write(&scene, args.size, &|kind, extension| {
                folder(kind).join(format!("{number:06}.{extension}"))
            })?;
            objects.add(number, &format!("{number:06}.png"), &scene);
        }
        let path = folder("objects").with_extension("json");
        fs::create_dir_all(args.output.join("objects")).map_err(failed(&path))?;
        file::write(&path, objects.json().to_string()).map_err(failed(&path))?;
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

/// Writes picture and map of a scene to the places that `path` (kind, extension) gives.
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
    put("maps", "png", map.to_coloured_png(255, class_colour))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::drawings::GROUPS;
    use super::*;

    const SIDE: u32 = 64;
    /// What the drawings of a group are painted with; no ground has it, for those are bright.
    const INK: [u8; 3] = [20, 30, 40];

    /// Discs of one colour on transparent ground, so large that they are reduced twice, for each group and set.
    fn drawn() -> tempfile::TempDir {
        let tree = tempfile::tempdir().unwrap();
        for (group, (folder, _)) in GROUPS.iter().enumerate() {
            let folder = tree.path().join(folder);
            fs::create_dir_all(&folder).unwrap();
            for n in 0..24u32 {
                let (side, r) = (300 + n, 130 + n as i32);
                let disc = image::RgbaImage::from_fn(side, side, |x, y| {
                    let (dx, dy) = (x as i32 - side as i32 / 2, y as i32 - side as i32 / 2);
                    let inside = dx * dx + dy * dy < r * r;
                    // Transparent pixels hold another colour, which must not bleed in; no two files are alike.
                    if inside {
                        image::Rgba([INK[0], INK[1], INK[2], 255])
                    } else {
                        image::Rgba([255, group as u8, n as u8, 0])
                    }
                });
                disc.save(folder.join(format!("{group}-{n}.png"))).unwrap();
            }
        }
        tree
    }

    #[test]
    fn maps_show_what_is_drawn_and_the_same_drawings_give_the_same_scenes() {
        let tree = drawn();
        let drawings = Drawings::find(tree.path()).unwrap();
        let mut covered = 0;
        for number in 0..20 {
            let scene = compose(&drawings, number % 2 == 1, SIDE, 5, number).unwrap();
            let again = compose(&drawings, number % 2 == 1, SIDE, 5, number).unwrap();
            assert!(scene.picture == again.picture && scene.classes == again.classes, "scene {number}");
            assert_ne!(scene.classes, compose(&drawings, number % 2 == 1, SIDE, 6, number).unwrap().classes);
            let mut by_class = BTreeMap::<i16, u32>::new();
            for (pixel, class) in scene.picture.pixels().zip(&scene.classes).filter(|(_, class)| **class > 0) {
                *by_class.entry(*class).or_default() += 1;
                covered += 1;
                // At its edge a drawing is half as strong as the ground at least.
                assert!(pixel.0.iter().zip(INK).all(|(value, ink)| value.abs_diff(ink) <= 120), "{pixel:?}");
            }
            let mut of_objects = BTreeMap::<i16, u32>::new();
            for object in &scene.objects {
                *of_objects.entry(object.class).or_default() += object.pixels;
                let [left, top, width, height] = object.area;
                assert_eq!(object.mask.area(), u64::from(object.pixels));
                assert_eq!(object.mask.bounds(), object.area.map(f64::from));
                assert!(left + width <= SIDE && top + height <= SIDE && object.pixels <= width * height);
            }
            assert_eq!(by_class, of_objects, "scene {number}");
        }
        assert!(covered > 20 * SIDE * SIDE / 20, "{covered} pixels of 20 scenes belong to objects");
    }

    #[test]
    fn a_folder_without_the_groups_is_refused_by_name() {
        let tree = tempfile::tempdir().unwrap();
        let refused = Drawings::find(tree.path()).err().expect("nothing is there").message;
        assert!(refused.contains("too few drawings of mammals among its 0 PNG files"), "{refused}");
    }
}
