//! Maps of somebody's own images, by a run that learnt classes of pixels.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

use serde::Serialize;
use splitmask_pipeline::decode::{Background, Decoder, LabelMap, Limits};
use splitmask_pipeline::file;
use splitmask_pipeline::types::Image;

use super::files::{self, Unreadable, readable, refuse_unreadable};
use crate::cli::answer::{say, warn};
use crate::cli::eval::Network;
use crate::cli::png::write_png;
use crate::config::Config;
use crate::eval::EvalError;
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

/// What the files of one image are called, `NAME.png` and `NAME.overlay.png`: its own name without the ending, and a number where one of these is taken.
/// `taken`: names without `.png`.
pub(super) fn stem(file: &Path, taken: &mut HashSet<String>) -> String {
    let name = file
        .file_stem()
        .map_or_else(|| "image".into(), |name| name.to_string_lossy().into_owned());
    let mut names = std::iter::once(name.clone()).chain((2..).map(|n| format!("{name}-{n}")));
    let files = |name: &str| [name.to_owned(), format!("{name}.overlay")];
    let free = names
        .find(|name| files(name).iter().all(|file| !taken.contains(file)))
        .expect("there is a free number");
    taken.extend(files(&free));
    free
}

/// What is asked for.
pub(super) struct Asked<'a> {
    /// Files and folders.
    pub(super) images: &'a [PathBuf],
    /// Folder for the maps.
    pub(super) out: Option<&'a Path>,
    /// What shows where images are transparent.
    pub(super) background: Background,
    /// Whether to see images by windows, also where the run does not.
    pub(super) slide: bool,
    /// Classes that are told of each image.
    pub(super) top: usize,
    /// Whether the answer is JSON.
    pub(super) json: bool,
}

/// Writes a map of each file, and says what it holds.
pub(super) fn run(args: &Asked<'_>, folder: &Path, config: &Config) -> Result<(), CliError> {
    let Some(out) = args.out else {
        return Err(CliError::usage(
            "--out: a run that learnt classes of pixels answers with maps, which need a folder",
            "name one: --out maps".to_owned(),
        ));
    };
    let (files, mut unreadable) = files::files(args.images)?;
    let named = files.len() + unreadable.len();
    keep_apart(&files, out, |_| true)?;
    std::fs::create_dir_all(out).map_err(|e| CliError::io(format!("{}: {e}", out.display())))?;
    let network = Network::of(config, Some(folder))?;
    let mut eval = config.eval.clone();
    eval.slide |= args.slide;
    let limits = Limits {
        max_pixels: config.data.max_pixels,
        max_bytes: config.data.max_member_bytes,
        ..Limits::default()
    };
    let mut decoder = Decoder::new(limits).over(args.background);
    let normalise = config.train.normalise();
    let mut seer = Seer::new(
        network.objective.as_ref(),
        network.device,
        normalise,
        config.model.image,
        Windows::of(&eval),
    );
    let (mut answers, mut taken) = (vec![], HashSet::new());
    let mut transparent = 0;
    let _guard = tch::no_grad_guard();
    for file in &files {
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
        let logits = seer.see(&picture)?.expect("a run that learns classes of pixels has logits");
        if logits.isfinite().all().int64_value(&[]) == 0 {
            return Err(EvalError::BrokenWeights.into());
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
    files::tell_transparent(transparent, args.background);
    refuse_unreadable(unreadable.len(), named, args.json)
}

/// Refuses a folder for what is written in which there are images that are looked at, if something of their name is written.
pub(super) fn keep_apart(files: &[PathBuf], out: &Path, is_written: impl Fn(&str) -> bool) -> Result<(), CliError> {
    if out.exists() && !out.is_dir() {
        return Err(CliError::usage(
            format!("--out = {}: is a file, where a folder is asked for", readable(out)),
            "name a folder: it is made if it is not there".to_owned(),
        ));
    }
    let Ok(folder) = out.canonicalize() else {
        return Ok(());
    };
    // A link in the folder is replaced, not what it leads to; so the folders that the names stand in count.
    let within = |file: &&PathBuf| {
        let named = file.file_name().is_some_and(|name| is_written(&name.to_string_lossy()));
        let place = file
            .parent()
            .filter(|place| !place.as_os_str().is_empty())
            .unwrap_or(Path::new("."));
        named && place.canonicalize().is_ok_and(|place| place == folder)
    };
    match files.iter().find(within) {
        None => Ok(()),
        Some(file) => Err(CliError::usage(
            format!(
                "--out = {}: {} lies in this folder, and what is written there could take its place",
                readable(out),
                readable(file)
            ),
            "name another folder: it is made if it is not there".to_owned(),
        )),
    }
}

/// Decodes a file upright; says whether it ends before its image does, or why it cannot be read.
pub(super) fn opened(file: &Path, decoder: &mut Decoder, largest: u64, picture: &mut Image) -> Result<bool, String> {
    let bytes = files::read(file, largest)?;
    let header = decoder.header(&bytes).map_err(|e| e.to_string())?;
    decoder.decode(&bytes, picture).map_err(|e| e.to_string())?;
    Ok(header.truncated())
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
        file: readable(file),
        map: readable(&map),
        overlay: readable(&overlay),
        width,
        height,
        classes,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_with_images_that_are_looked_at_takes_no_maps() {
        let dir = tempfile::tempdir().unwrap();
        let (here, maps) = (dir.path().join("here"), dir.path().join("maps"));
        std::fs::create_dir(&here).unwrap();
        let files = [here.join("x.png")];
        std::fs::write(&files[0], "").unwrap();
        let refused = |out: &Path| keep_apart(&files, out, |_| true).err().map(|e| e.message);
        assert_eq!(refused(&maps), None, "not there yet");
        std::fs::create_dir(&maps).unwrap();
        assert_eq!(refused(&maps), None);
        std::os::unix::fs::symlink(&here, dir.path().join("link")).unwrap();
        for out in [here, maps.join("../here"), dir.path().join("link")] {
            let told = refused(&out).unwrap();
            assert!(told.starts_with("--out = ") && told.contains("x.png lies in this folder"), "{told}");
        }
    }

    #[test]
    fn files_of_one_name_get_a_number() {
        let mut taken = HashSet::new();
        let files = [
            "a/x.png",
            "b/x.jpg",
            "c/y.png",
            "x-2.png",
            "x.overlay.png",
            "z.overlay.png",
            "z.png",
        ];
        let names = files.map(|file| stem(Path::new(file), &mut taken));
        assert_eq!(names, ["x", "x-2", "y", "x-2-2", "x.overlay-2", "z.overlay", "z-2"]);
    }
}
