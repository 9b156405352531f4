//! Maps of somebody's own images, by a run that learnt classes of pixels.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

use serde::Serialize;
use splitmask_pipeline::decode::{Decoder, LabelMap, Limits};
use splitmask_pipeline::file;
use splitmask_pipeline::types::Image;

use super::{PredictArgs, Unreadable, files};
use crate::cli::answer::{say, warn};
use crate::cli::eval::Network;
use crate::cli::png::write_png;
use crate::config::Config;
use crate::eval::segment::{Seer, Windows};
use crate::exit::CliError;
use crate::picture::{class_colour, lay_over};

/// A class and how much of an image it covers.
#[derive(Debug, Serialize)]
struct Part {
    name: String,
    /// Its number in the map.
    number: usize,
    pixels: u64,
    share: f64,
}

/// What was found in one file.
#[derive(Debug, Serialize)]
struct Answer {
    file: String,
    /// The map: a PNG with a palette whose indices are the classes, of the upright image's size.
    map: String,
    /// The image with the map's colours over it.
    overlay: String,
    width: u32,
    height: u32,
    /// The largest first.
    classes: Vec<Part>,
}

/// Names of the files of one image: its own name without the ending, and a number where another one has it.
fn stem(file: &Path, taken: &mut HashSet<String>) -> String {
    let name = file
        .file_stem()
        .map_or_else(|| "image".into(), |name| name.to_string_lossy().into_owned());
    let names = std::iter::once(name.clone()).chain((2..).map(|n| format!("{name}-{n}")));
    let free = names
        .into_iter()
        .find(|name| !taken.contains(name))
        .expect("there is a free number");
    taken.insert(free.clone());
    free
}

pub(super) fn run(args: &PredictArgs, folder: &Path, config: &Config) -> Result<(), CliError> {
    let Some(out) = &args.out else {
        return Err(CliError::usage(
            "--out: a run that learnt classes of pixels answers with maps, which need a folder",
            "name one: --out maps".to_owned(),
        ));
    };
    let (files, mut unreadable) = files(&args.images)?;
    let named = files.len() + unreadable.len();
    std::fs::create_dir_all(out).map_err(|e| CliError::io(format!("{}: {e}", out.display())))?;
    let network = Network::of(config, Some(folder))?;
    let mut eval = config.eval.clone();
    eval.slide |= args.slide;
    let limits = Limits {
        max_pixels: config.data.max_pixels,
        max_bytes: config.data.max_member_bytes,
        ..Limits::default()
    };
    let mut decoder = Decoder::new(limits);
    let normalise = config.train.normalise();
    let mut seer = Seer::new(
        network.objective.as_ref(),
        network.device,
        normalise,
        config.model.image,
        Windows::of(&eval),
    );
    let (mut answers, mut taken) = (vec![], HashSet::new());
    let _guard = tch::no_grad_guard();
    for file in &files {
        let mut picture = Image::default();
        let read = std::fs::read(file).map_err(|e| e.to_string());
        if let Err(reason) = read.and_then(|bytes| decoder.decode(&bytes, &mut picture).map_err(|e| e.to_string())) {
            unreadable.push(Unreadable {
                file: file.display().to_string(),
                reason,
            });
            continue;
        }
        let logits = seer.see(&picture)?.expect("a run that learns classes of pixels has logits");
        if logits.isfinite().all().int64_value(&[]) == 0 {
            return Err(CliError::usage(
                "the network's answers are not finite: its weights are broken".to_owned(),
                "take an older checkpoint: RUN/checkpoints/step-…".to_owned(),
            ));
        }
        let said =
            Vec::<i64>::try_from(logits.argmax(0, false).flatten(0, -1)).map_err(|e| CliError::usage(format!("libtorch: {e}"), None))?;
        let classes: Vec<i16> = said.into_iter().map(|class| class as i16).collect();
        let stem = stem(file, &mut taken);
        answers.push(write(file, out, &stem, picture, classes, &network.classes)?);
    }
    if args.json {
        let told = serde_json::json!({ "weights": folder.display().to_string(), "images": answers, "unreadable": unreadable });
        say!("{told}");
    } else {
        for answer in &answers {
            let largest = answer.classes.iter().take(args.top);
            let parts: Vec<String> = largest.map(|part| format!("{} {:.1} %", part.name, 100.0 * part.share)).collect();
            say!("{}  {}  {}", answer.file, answer.map, parts.join(", "));
        }
        unreadable.iter().for_each(|bad| warn(&format!("{}: {}", bad.file, bad.reason)));
    }
    super::refuse_unreadable(unreadable.len(), named, args.json)
}

/// Writes map and overlay of one image.
fn write(file: &Path, out: &Path, stem: &str, mut picture: Image, classes: Vec<i16>, names: &[String]) -> Result<Answer, CliError> {
    let (map, overlay): (PathBuf, PathBuf) = (out.join(format!("{stem}.png")), out.join(format!("{stem}.overlay.png")));
    let mut counts: BTreeMap<i16, u64> = BTreeMap::new();
    classes.iter().for_each(|class| *counts.entry(*class).or_default() += 1);
    let (width, height, all) = (picture.width, picture.height, classes.len() as f64);
    lay_over(&mut picture, &classes);
    write_png(&picture, &overlay)?;
    let png = LabelMap::new(width, height, classes).to_coloured_png(255, class_colour);
    file::write(&map, png).map_err(|e| CliError::io(format!("{}: {e}", map.display())))?;
    let mut classes: Vec<Part> = counts
        .into_iter()
        .map(|(class, pixels)| Part {
            name: names.get(class as usize).cloned().unwrap_or_else(|| format!("class {class}")),
            number: class as usize,
            pixels,
            share: pixels as f64 / all,
        })
        .collect();
    classes.sort_by_key(|part| std::cmp::Reverse(part.pixels));
    Ok(Answer {
        file: file.display().to_string(),
        map: map.display().to_string(),
        overlay: overlay.display().to_string(),
        width,
        height,
        classes,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_one_name_get_a_number() {
        let mut taken = HashSet::new();
        let names = ["a/x.png", "b/x.jpg", "c/y.png", "x-2.png"].map(|file| stem(Path::new(file), &mut taken));
        assert_eq!(names, ["x", "x-2", "y", "x-2-2"]);
    }
}
