//! Objects in somebody's own images, by a run that learnt to find them.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::{Value, json};
use splitmask_pipeline::coco::RunLength;
use splitmask_pipeline::decode::{Background, Decoder, Limits};
use splitmask_pipeline::file;
use splitmask_pipeline::types::Image;

use super::files::{self, Unreadable, readable, refuse_unreadable};
use super::ids::Ids;
use super::maps::{keep_apart, opened, stem};
use crate::cli::answer::{say, warn};
use crate::cli::eval::Network;
use crate::cli::png::write_png;
use crate::config::Config;
use crate::eval::detect::{Finder, Sure};
use crate::exit::CliError;
use crate::picture::{frame_object, lay_object};

/// Probability from which on objects are drawn.
const DRAWN: f32 = 0.5;
/// Name of the file of results.
const RESULTS: &str = "results.json";

/// An object and how sure the network is of it.
#[derive(Debug, Serialize)]
struct Told {
    name: String,
    /// Index of its class.
    number: u32,
    probability: f32,
    /// Left, top, width, height in pixels.
    bbox: [f32; 4],
}

/// What was found in one file.
#[derive(Debug, Serialize)]
struct Answer {
    file: String,
    width: u32,
    height: u32,
    /// Its number in the file of results.
    #[serde(skip_serializing_if = "Option::is_none")]
    image_id: Option<u64>,
    /// The image with what is likelier than not drawn on it.
    #[serde(skip_serializing_if = "Option::is_none")]
    overlay: Option<String>,
    /// The surest first.
    objects: Vec<Told>,
}

/// What is asked for.
pub(super) struct Asked<'a> {
    /// Files and folders.
    pub(super) images: &'a [PathBuf],
    /// Folder for results and drawings.
    pub(super) out: Option<&'a Path>,
    /// What shows where images are transparent.
    pub(super) background: Background,
    /// A file in COCO's form by whose numbers images and classes are called in the results.
    pub(super) coco: Option<&'a Path>,
    /// Objects that are told of each image.
    pub(super) top: usize,
    /// Whether the answer is JSON.
    pub(super) json: bool,
}

/// Finds objects in each file, and says which.
pub(super) fn run(args: &Asked<'_>, folder: &Path, config: &Config) -> Result<(), CliError> {
    let (files, mut unreadable) = files::files(args.images)?;
    let named = files.len() + unreadable.len();
    if let Some(out) = args.out {
        keep_apart(&files, out, |_| true)?;
        std::fs::create_dir_all(out).map_err(|e| CliError::io(format!("{}: {e}", out.display())))?;
    }
    let network = Network::of(config, Some(folder))?;
    let name = |class: u32| {
        let known = network.classes.get(class as usize).cloned();
        known.unwrap_or_else(|| format!("class {class}"))
    };
    let ids = Ids::of(args.coco, &network.classes)?;
    let mut decoder = Decoder::new(Limits {
        max_pixels: config.data.max_pixels,
        max_bytes: config.data.max_member_bytes,
        ..Limits::default()
    })
    .over(args.background);
    let normalise = config.train.normalise();
    let mut finder = Finder::new(network.objective.as_ref(), network.device, normalise, config.model.image);
    let (mut answers, mut rows, mut taken, mut nameless) = (vec![], vec![], HashSet::new(), vec![]);
    let mut transparent = 0;
    let _guard = tch::no_grad_guard();
    for (file, number) in files.iter().zip(1u64..) {
        let mut picture = Image::default();
        match opened(file, &mut decoder, config.data.max_member_bytes, &mut picture) {
            Ok(truncated) => {
                files::warn_if_truncated(file, truncated);
                transparent += usize::from(decoder.saw_transparency());
            }
            Err(reason) => {
                let file = readable(file);
                unreadable.push(Unreadable { file, reason });
                continue;
            }
        }
        let found = finder.find(std::slice::from_ref(&picture))?;
        let found = found.expect("a run that learns classes of objects finds them").remove(0);
        let image_id = ids.image(file, number);
        match image_id {
            Some(id) => rows.extend(found.iter().map(|sure| row(sure, id, &ids, &picture))),
            None => nameless.push(readable(file)),
        }
        let told = |Sure { object, probability }: &Sure| {
            let [left, top, right, bottom] = object.corners;
            Told {
                name: name(object.class),
                number: object.class,
                probability: *probability,
                bbox: [left, top, right - left, bottom - top],
            }
        };
        let mut answer = Answer {
            file: readable(file),
            width: picture.width,
            height: picture.height,
            image_id,
            overlay: None,
            objects: found.iter().map(told).collect(),
        };
        if let Some(out) = args.out {
            let overlay = out.join(format!("{}.overlay.png", stem(file, &mut taken)));
            write_png(&drawn(picture, &found), &overlay)?;
            answer.overlay = Some(readable(&overlay));
        }
        answers.push(answer);
    }
    if let Some(out) = args.out {
        let path = out.join(RESULTS);
        file::write(&path, json!(rows).to_string()).map_err(|e| CliError::io(format!("{}: {e}", path.display())))?;
    }
    if let Some(first) = nameless.first() {
        warn(&format!(
            "{} of {named} images are not in the file of --coco, and {RESULTS} lacks them; the first: {first}",
            nameless.len()
        ));
    }
    if args.json {
        let told = json!({ "weights": folder.display().to_string(), "images": answers, "unreadable": unreadable });
        say!("{told}");
    } else {
        for answer in &answers {
            let surest = answer.objects.iter().take(args.top);
            let each: Vec<String> = surest
                .map(|told| format!("{} {:.3} at {:.0?}", told.name, told.probability, told.bbox))
                .collect();
            let each = if each.is_empty() { "nothing".to_owned() } else { each.join(", ") };
            say!("{}  {} objects: {each}", answer.file, answer.objects.len());
        }
        unreadable.iter().for_each(|bad| warn(&format!("{}: {}", bad.file, bad.reason)));
    }
    files::tell_transparent(transparent, args.background);
    refuse_unreadable(unreadable.len(), named, args.json)
}

/// An image with what is likelier than not on it.
fn drawn(mut picture: Image, found: &[Sure]) -> Image {
    let sure = || found.iter().filter(|sure| sure.probability >= DRAWN);
    sure().for_each(|sure| lay_object(&mut picture, &sure.object));
    sure().for_each(|sure| frame_object(&mut picture, &sure.object));
    picture
}

/// A found object in COCO's form of results.
fn row(Sure { object, probability }: &Sure, image: u64, ids: &Ids, picture: &Image) -> Value {
    let [left, top, right, bottom] = object.corners;
    let mut row = json!({
        "image_id": image, "category_id": ids.category(object.class), "score": probability, "bbox": [left, top, right - left, bottom - top],
    });
    if let Some(mask) = &object.mask {
        let part = [mask.left, mask.top, mask.width, mask.height];
        let runs = RunLength::of_part(picture.height, picture.width, part, &mask.pixels);
        row["segmentation"] = json!({ "size": [picture.height, picture.width], "counts": runs.text() });
    }
    row
}
