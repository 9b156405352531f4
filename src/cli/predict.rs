//! `splitmask predict`: the classes of somebody's own images, of their pixels, or the objects in them.

mod files;
mod ids;
mod maps;
mod objects;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use serde::Serialize;
use splitmask_pipeline::batch::{BatchPool, Batcher};
use splitmask_pipeline::cursor::Cursor;
use splitmask_pipeline::decode::Limits;
use splitmask_pipeline::request::{IMAGE, SampleRequest, ViewRequest};
use splitmask_pipeline::sample::{SampleMaker, ViewMode};
use splitmask_pipeline::types::{Batch, RawSample, Sample, SampleId};
use tch::Kind;

use self::files::{Unreadable, files, readable, refuse_unreadable};
use super::answer::{say, warn};
use super::eval::{Network, checkpoint_folder, config_of, need_classes, take_averages};
use crate::config::Config;
use crate::eval::EvalError;
use crate::exit::CliError;
use crate::objective::ClassesOf;
use crate::tensor::step_input;

const LONG_ABOUT: &str = "\
Names the likeliest classes of your own image files, with their probabilities, by a run that learnt classes (objective.kind = \"classify\" or
\"supervised\"). Images are seen as evaluations see them: shorter side resized, centre crop. By a run that learnt classes of pixels (segment) each
image gets a map in the folder --out: NAME.png, a PNG with a palette whose indices are the classes, and NAME.overlay.png to look at. By a run that
learnt to find objects (detect) the objects of each image are told, with boxes; the folder --out gets results.json, COCO's form of results with masks, and
NAME.overlay.png with what is likelier than not. A file that cannot be read is named and counted, the others are answered, and the exit code is 64.";

const EXAMPLES: &str = "\
Examples:
  splitmask predict runs/finetune-demo cat.jpg dog.png
  splitmask predict runs/finetune-demo/checkpoints/best ~/Pictures/new --top 1
  splitmask predict runs/finetune-demo ~/Pictures/new --json > classes.json
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
    /// Folder for the maps, or for found objects; files of the same names are replaced.
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
    /// File in COCO's form by whose numbers results.json calls images and classes (of a run that learnt to find objects); default: from 1, in order.
    #[arg(long, value_name = "FILE", requires = "out")]
    coco: Option<PathBuf>,
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

/// Images that go through the network at once.
const BATCH: usize = 32;

/// A class and how sure the network is of it.
#[derive(Debug, Serialize)]
struct Guess {
    name: String,
    probability: f64,
}

/// What was found of one file.
#[derive(Debug, Serialize)]
struct Answer {
    file: String,
    classes: Vec<Guess>,
}

/// Makes the pictures that the network sees of files.
struct Eye {
    maker: SampleMaker,
    batcher: Batcher,
    sample: Sample,
    /// Bytes of a file at most.
    largest: u64,
}

impl Eye {
    fn new(config: &Config) -> Result<Self, CliError> {
        let request = Arc::new(SampleRequest::of_views(vec![ViewRequest::new(IMAGE, config.model.image)]));
        let mode = ViewMode::Eval {
            crop_ratio: config.eval.crop_ratio as f32,
        };
        let limits = Limits {
            max_pixels: config.data.max_pixels,
            max_bytes: config.data.max_member_bytes,
            ..Limits::default()
        };
        Ok(Self {
            maker: SampleMaker::new(Arc::clone(&request), mode, config.run.seed, limits, None)?,
            batcher: Batcher::new(request, BATCH, BatchPool::default()),
            sample: Sample::default(),
            largest: config.data.max_member_bytes,
        })
    }

    /// Takes a file in; gives a batch when that is full, or says why the file is left out.
    fn see(&mut self, file: &Path, number: u32) -> Result<Option<Batch>, String> {
        let bytes = files::read(file, self.largest)?;
        let id = SampleId {
            epoch: 0,
            shard: 0,
            member: number,
        };
        let raw = RawSample {
            id,
            shard: "".into(),
            key: file.to_string_lossy().as_bytes().into(),
            image: bytes.into(),
            extension: String::new(),
            label: None,
            map: None,
            objects: None,
        };
        let seen = self.maker.make(&raw, &mut self.sample).map_err(|e| e.to_string())?;
        files::warn_if_truncated(file, seen.truncated);
        self.batcher.push(&self.sample, id, Cursor::default())
    }
}

/// The likeliest `top` classes of each image of a batch.
fn guesses(network: &Network, config: &Config, batch: &Batch, top: usize) -> Result<Vec<Vec<Guess>>, CliError> {
    let failed = |e: &dyn std::fmt::Display| CliError::usage(format!("libtorch: {e}"), None);
    let _guard = tch::no_grad_guard();
    let input = step_input(batch, 0..batch.len, network.device, &config.train.normalise()).map_err(|e| failed(&e))?;
    let logits = network.objective.class_logits(&input.views[0].pixels);
    let logits = logits.expect("a run that learns classes has logits");
    if logits.isfinite().all().int64_value(&[]) == 0 {
        return Err(EvalError::BrokenWeights.into());
    }
    let top = (top as i64).min(logits.size()[1]);
    let (shares, classes) = logits.softmax(-1, Kind::Float).topk(top, 1, true, true);
    let shares = Vec::<f64>::try_from(shares.to_kind(Kind::Double).contiguous().view([-1])).map_err(|e| failed(&e))?;
    let classes = Vec::<i64>::try_from(classes.contiguous().view([-1])).map_err(|e| failed(&e))?;
    let name = |class: i64| {
        let known = network.classes.get(class as usize).cloned();
        known.unwrap_or_else(|| format!("class {class}"))
    };
    let all: Vec<Guess> = shares
        .into_iter()
        .zip(classes)
        .map(|(probability, class)| Guess {
            name: name(class),
            probability,
        })
        .collect();
    let mut all = all.into_iter();
    Ok((0..batch.len).map(|_| all.by_ref().take(top as usize).collect()).collect())
}

pub(crate) fn run(args: &PredictArgs) -> Result<(), CliError> {
    if args.top == 0 {
        return Err(CliError::usage("--top 0: at least one class is told", None));
    }
    let folder = checkpoint_folder(&args.run)?;
    let mut config = config_of(&folder)?;
    let of = config.objective.classes().map(|_| config.objective.classes_of());
    let (of_pixels, of_objects) = (of == Some(ClassesOf::Pixels), of == Some(ClassesOf::Objects));
    if !of_pixels && !of_objects {
        need_classes(&folder, &config)?;
    }
    if args.ema {
        take_averages(&mut config, &folder)?;
    }
    if of_pixels {
        let asked = maps::Asked {
            images: &args.images,
            out: args.out.as_deref(),
            slide: args.slide,
            top: args.top,
            json: args.json,
        };
        if args.coco.is_some() {
            return Err(CliError::usage(
                "--coco: of a run that learnt to find objects; this one makes maps",
                None,
            ));
        }
        return maps::run(&asked, &folder, &config);
    }
    if args.slide {
        return Err(CliError::usage("--slide: of a run that learnt classes of pixels", None));
    }
    if of_objects {
        let asked = objects::Asked {
            images: &args.images,
            out: args.out.as_deref(),
            coco: args.coco.as_deref(),
            top: args.top,
            json: args.json,
        };
        return objects::run(&asked, &folder, &config);
    }
    if args.out.is_some() {
        return Err(CliError::usage(
            "--out: of a run that learnt classes of pixels or objects; this one names whole images",
            None,
        ));
    }
    let (files, mut unreadable) = files(&args.images)?;
    let network = Network::of(&config, Some(&folder))?;
    if network.classes.is_empty() {
        warn("the run was trained on shards without manifest.json, so its classes have numbers and no names");
    }
    let mut eye = Eye::new(&config)?;
    let (mut seen, mut answers) = (Vec::new(), Vec::new());
    let mut ask = |batch: &Batch, seen: &mut Vec<String>| -> Result<(), CliError> {
        let found = guesses(&network, &config, batch, args.top)?;
        answers.extend(seen.drain(..).zip(found).map(|(file, classes)| Answer { file, classes }));
        Ok(())
    };
    let named = files.len() + unreadable.len();
    for (file, number) in files.iter().zip(0..) {
        let name = readable(file);
        match eye.see(file, number) {
            Ok(batch) => {
                seen.push(name);
                if let Some(batch) = batch {
                    ask(&batch, &mut seen)?;
                }
            }
            Err(reason) => unreadable.push(Unreadable { file: name, reason }),
        }
    }
    if let Some(batch) = eye.batcher.finish() {
        ask(&batch, &mut seen)?;
    }
    if args.json {
        let told = serde_json::json!({ "weights": folder.display().to_string(), "images": answers, "unreadable": unreadable });
        say!("{told}");
    } else {
        for line in table(&answers) {
            say!("{line}");
        }
        unreadable.iter().for_each(|bad| warn(&format!("{}: {}", bad.file, bad.reason)));
    }
    refuse_unreadable(unreadable.len(), named, args.json)
}

/// Files, classes and probabilities in columns; a file's name stands once.
fn table(answers: &[Answer]) -> Vec<String> {
    let widest = |texts: &mut dyn Iterator<Item = usize>| texts.max().unwrap_or(0);
    let letters = |text: &str| text.chars().count();
    let file = widest(&mut answers.iter().map(|answer| letters(&answer.file)));
    let class = widest(
        &mut answers
            .iter()
            .flat_map(|answer| answer.classes.iter().map(|guess| letters(&guess.name))),
    );
    let row = |name: &str, guess: &Guess| format!("{name:<file$}  {:<class$}  {:.3}", guess.name, guess.probability);
    let each = answers.iter().flat_map(|answer| {
        let names = std::iter::once(answer.file.as_str()).chain(std::iter::repeat(""));
        names.zip(&answer.classes).map(|(name, guess)| row(name, guess)).collect::<Vec<_>>()
    });
    each.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_walked_in_order_and_an_empty_one_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let place = |name: &str| dir.path().join(name);
        std::fs::create_dir_all(place("in/b")).unwrap();
        std::fs::create_dir_all(place("empty")).unwrap();
        for name in ["in/b/2.PNG", "in/a.jpg", "in/notes.txt", "alone.bin"] {
            std::fs::write(place(name), "x").unwrap();
        }
        let (found, unreadable) = files(&[place("alone.bin"), place("in"), place("gone.png")]).unwrap();
        assert_eq!(found, ["alone.bin", "in/a.jpg", "in/b/2.PNG", "gone.png"].map(place));
        assert!(unreadable.is_empty(), "a file that is gone is found out when it is read");
        let refused = files(&[place("empty")]).unwrap_err();
        assert!(refused.message.contains("no image file") && refused.hint.unwrap().contains("jpg"));
    }

    #[test]
    fn a_file_is_named_once_beside_its_classes() {
        let guess = |name: &str, probability| Guess {
            name: name.into(),
            probability,
        };
        let answers = [
            Answer {
                file: "a.png".into(),
                classes: vec![guess("cat", 0.75), guess("wolf", 0.25)],
            },
            Answer {
                file: "long.png".into(),
                classes: vec![guess("wolf", 1.0)],
            },
        ];
        assert_eq!(
            table(&answers),
            ["a.png     cat   0.750", "          wolf  0.250", "long.png  wolf  1.000"]
        );
        assert!(table(&[]).is_empty());
    }
}
