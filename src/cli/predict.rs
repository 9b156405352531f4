//! `splitmask predict`: the classes of somebody's own images, of their pixels, or the objects in them.

mod classes;
mod files;
mod ids;
mod maps;
mod objects;
mod sheet;

use std::path::PathBuf;

use clap::Args;

use super::eval::{checkpoint_folder, config_of, need_classes, take_averages};
use super::pack::colour;
use crate::exit::CliError;
use crate::objective::ClassesOf;

const LONG_ABOUT: &str = "\
Names the likeliest classes of your own image files, with their probabilities, by a run that learnt classes (objective.kind = \"classify\" or
\"supervised\"). Images are seen as evaluations see them: shorter side resized, centre crop. The folder --out gets sheets to look at, classes-001.png and so
on: each image as it was seen, and file, classes and probabilities beside it. By a run that learnt classes of pixels (segment) each
image gets a map in the folder --out: NAME.png, a PNG with a palette whose indices are the classes, and NAME.overlay.png to look at. By a run that
learnt to find objects (detect) the objects of each image are told, with boxes; the folder --out gets results.json, COCO's form of results with masks, and
NAME.overlay.png with what is likelier than not. A file that cannot be read is named and counted, the others are answered, and the exit code is 64.";

const EXAMPLES: &str = "\
Examples:
  splitmask predict runs/finetune-demo cat.jpg dog.png
  splitmask predict runs/finetune-demo/checkpoints/best ~/Pictures/new --top 1
  splitmask predict runs/finetune-demo ~/Pictures/new --json > classes.json
  splitmask predict runs/finetune-demo ~/Pictures/new --out named
  splitmask predict runs/segment-scenes ~/Pictures/new --out maps
  splitmask predict runs/detect-scenes photos --out found --coco val.json \\
    && splitmask eval detections val.json found/results.json
A probability says how sure the network is among the classes that it learnt; it knows no others, and an image of none of them gets one all the same.";

/// Name the classes of your own images or of their pixels, or find objects in them, by a run that learnt it.
#[derive(Args)]
#[command(long_about = LONG_ABOUT, after_help = EXAMPLES)]
pub(crate) struct PredictArgs {
    /// Run folder (its newest checkpoint is taken) or checkpoint folder.
    run: PathBuf,
    /// Image files, and folders whose image files are taken, those of their sub-folders too.
    #[arg(required = true, value_name = "IMAGES")]
    images: Vec<PathBuf>,
    /// Classes or objects that are told of each image, the likeliest first.
    #[arg(long, value_name = "N", default_value_t = 3)]
    top: usize,
    /// Folder for sheets of named images, for maps, or for found objects; files of the same names are replaced.
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
    /// File in COCO's form by whose numbers results.json calls images and classes (of a run that learnt to find objects); default: from 1, in order.
    #[arg(long, value_name = "FILE", requires = "out")]
    coco: Option<PathBuf>,
    /// Lay transparent images over this colour: white, black or #rrggbb, as the training images were when they were packed. Without it the colours beneath show.
    #[arg(long, value_name = "COLOUR", value_parser = colour)]
    background: Option<[u8; 3]>,
    /// See images by windows of the model's size (of a run that learnt classes of pixels); default: eval.slide of the run.
    #[arg(long)]
    slide: bool,
    /// Take the averaged weights (needs a run with ema.decay); default: eval.weights of the run's config.
    #[arg(long)]
    ema: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &PredictArgs) -> Result<(), CliError> {
    if args.top == 0 {
        return Err(CliError::usage("--top 0: at least one class is told", None));
    }
    let folder = checkpoint_folder(&args.run)?;
    let mut config = config_of(&folder)?;
    let of = config.objective.classes().map(|_| config.objective.classes_of());
    if matches!(of, None | Some(ClassesOf::Images)) {
        need_classes(&folder, &config)?;
    }
    if args.ema {
        take_averages(&mut config, &folder)?;
    }
    if args.coco.is_some() && of != Some(ClassesOf::Objects) {
        return Err(CliError::usage("--coco: of a run that learnt to find objects", None));
    }
    if args.slide && of != Some(ClassesOf::Pixels) {
        return Err(CliError::usage("--slide: of a run that learnt classes of pixels", None));
    }
    let (images, out, top, json) = (args.images.as_slice(), args.out.as_deref(), args.top, args.json);
    let background = args.background;
    match of {
        Some(ClassesOf::Pixels) => {
            let slide = args.slide;
            let asked = maps::Asked {
                images,
                out,
                background,
                slide,
                top,
                json,
            };
            maps::run(&asked, &folder, &config)
        }
        Some(ClassesOf::Objects) => {
            let coco = args.coco.as_deref();
            let asked = objects::Asked {
                images,
                out,
                background,
                coco,
                top,
                json,
            };
            objects::run(&asked, &folder, &config)
        }
        None | Some(ClassesOf::Images) => {
            let asked = classes::Asked {
                images,
                out,
                background,
                top,
                json,
            };
            classes::run(&asked, &folder, &config)
        }
    }
}
