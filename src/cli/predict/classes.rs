//! Classes of somebody's own images, by a run that learnt classes of images.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;
use splitmask_pipeline::batch::{BatchPool, Batcher};
use splitmask_pipeline::cursor::Cursor;
use splitmask_pipeline::decode::{Background, Limits};
use splitmask_pipeline::request::{IMAGE, SampleRequest, ViewRequest};
use splitmask_pipeline::sample::{SampleMaker, ViewMode};
use splitmask_pipeline::types::{Batch, RawSample, Sample, SampleId};
use tch::Kind;

use super::files::{self, Unreadable, readable, refuse_unreadable};
use super::maps::keep_apart;
use super::sheet::{Cell, Sheets, is_sheet, thumbnail};
use crate::cli::answer::{say, warn};
use crate::cli::eval::Network;
use crate::config::Config;
use crate::eval::EvalError;
use crate::exit::CliError;
use crate::tensor::step_input;

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
    /// The sheet that it stands on.
    #[serde(skip_serializing_if = "Option::is_none")]
    sheet: Option<String>,
    classes: Vec<Guess>,
}

/// What is asked for.
pub(super) struct Asked<'a> {
    /// Files and folders.
    pub(super) images: &'a [PathBuf],
    /// Folder for sheets.
    pub(super) out: Option<&'a Path>,
    /// What shows where images are transparent.
    pub(super) background: Background,
    /// Classes that are told of each image.
    pub(super) top: usize,
    /// Whether the answer is JSON.
    pub(super) json: bool,
}

/// Makes the pictures that the network sees of files.
struct Eye {
    maker: SampleMaker,
    batcher: Batcher,
    sample: Sample,
    /// Bytes of a file at most.
    largest: u64,
    /// Images with transparency so far.
    transparent: usize,
}

impl Eye {
    fn new(config: &Config, background: Background) -> Result<Self, CliError> {
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
            maker: SampleMaker::new(Arc::clone(&request), mode, config.run.seed, limits, None)?.over(background),
            batcher: Batcher::new(request, BATCH, BatchPool::default()),
            sample: Sample::default(),
            largest: config.data.max_member_bytes,
            transparent: 0,
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
        self.transparent += usize::from(self.maker.saw_transparency());
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

/// The `n`-th image of a batch and its classes, for a sheet.
fn cell(batch: &Batch, n: usize, file: &str, classes: &[Guess]) -> Cell {
    let view = &batch.views[0];
    Cell {
        picture: thumbnail(view.picture(n), view.size),
        file: file.to_owned(),
        classes: classes.iter().map(|guess| (guess.name.clone(), guess.probability)).collect(),
    }
}

/// Names the classes of each file.
pub(super) fn run(args: &Asked<'_>, folder: &Path, config: &Config) -> Result<(), CliError> {
    let (files, mut unreadable) = files::files(args.images)?;
    let mut sheets = match args.out {
        None => None,
        Some(out) => {
            keep_apart(&files, out, is_sheet)?;
            Some(Sheets::in_folder(out)?)
        }
    };
    let network = Network::of(config, Some(folder))?;
    if network.classes.is_empty() {
        warn("the run was trained on shards without manifest.json, so its classes have numbers and no names");
    }
    let mut eye = Eye::new(config, args.background)?;
    let (mut seen, mut answers) = (Vec::new(), Vec::new());
    let mut ask = |batch: &Batch, seen: &mut Vec<String>| -> Result<(), CliError> {
        let found = guesses(&network, config, batch, args.top)?;
        for (n, (file, classes)) in seen.drain(..).zip(found).enumerate() {
            let sheet = match &mut sheets {
                None => None,
                Some(sheets) => Some(readable(&sheets.add(cell(batch, n, &file, &classes))?)),
            };
            answers.push(Answer { file, sheet, classes });
        }
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
    let sheets = sheets.map_or_else(|| Ok(vec![]), Sheets::finish)?;
    if args.json {
        let told = serde_json::json!({ "weights": folder.display().to_string(), "images": answers, "unreadable": unreadable });
        say!("{told}");
    } else {
        for line in table(&answers) {
            say!("{line}");
        }
        for sheet in sheets {
            say!("sheet  {}", readable(&sheet));
        }
        unreadable.iter().for_each(|bad| warn(&format!("{}: {}", bad.file, bad.reason)));
    }
    files::tell_transparent(eye.transparent, args.background);
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
    fn a_file_is_named_once_beside_its_classes() {
        let guess = |name: &str, probability| Guess {
            name: name.into(),
            probability,
        };
        let answer = |file: &str, classes| Answer {
            file: file.into(),
            sheet: None,
            classes,
        };
        let answers = [
            answer("a.png", vec![guess("cat", 0.75), guess("wolf", 0.25)]),
            answer("long.png", vec![guess("wolf", 1.0)]),
        ];
        assert_eq!(
            table(&answers),
            ["a.png     cat   0.750", "          wolf  0.250", "long.png  wolf  1.000"]
        );
        assert!(table(&[]).is_empty());
    }
}
