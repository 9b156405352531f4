//! `splitmask codebook --kind dvae`: trains a discrete VAE on the data, or takes published weights, and measures it.

use std::path::{Path, PathBuf};
use std::time::Instant;

use indicatif::ProgressBar;
use splitmask_pipeline::cursor::Cursor;
use splitmask_pipeline::tokenize::{Usage, usage};
use splitmask_pipeline::types::{Batch, View};
use tch::{Device, Kind, Tensor};

use super::interrupt::Interrupt;
use super::options::{CodebookArgs, DVAE};
use super::progress::{bar, start};
use super::sheet::Census;
use super::usage::{usage_json, usage_lines};
use super::views::Views;
use crate::cli::answer::{answer, tell};
use crate::cli::png::write_png;
use crate::dvae::{Dvae, DvaeError, Geometry, Options, StepReport, Training};
use crate::exit::{CliError, ExitCode};
use crate::tensor::choose_device;

/// Steps between two looks at the losses.
const LOOK: u64 = 20;
/// Pictures of a batch while measuring.
const MEASURED: usize = 32;

impl From<DvaeError> for CliError {
    fn from(e: DvaeError) -> Self {
        let code = match e {
            DvaeError::Io { .. } => ExitCode::Io,
            DvaeError::Bad { .. } | DvaeError::Setting { .. } => ExitCode::Usage,
            DvaeError::Torch(_) => ExitCode::Internal,
        };
        Self {
            code,
            message: e.to_string(),
            hint: None,
        }
    }
}

/// Trains or reads, measures, writes and prints.
pub(super) fn run(args: &CodebookArgs) -> Result<(), CliError> {
    let (device, _) = choose_device(&args.dvae.device)?;
    let bar = bar(!args.json);
    let mut last = None;
    let mut dvae = match &args.dvae.weights {
        Some(file) => {
            let mut dvae = Dvae::load(file, device)?;
            if dvae.header.origin == "published weights" {
                dvae.header.origin = format!("published weights {}", file.file_name().unwrap_or_default().to_string_lossy());
            }
            dvae
        }
        None => train(args, device, &bar, &mut last)?,
    };
    let grid = i64::from(args.image / args.patch);
    let side = grid * dvae.header.geometry.stride;
    let mut used = None;
    if let (Some(url), true) = (&args.url, args.measure > 0) {
        let views = Views::open_targets(url, &args.data(), side as u32, args.area, args.seed)?;
        let census = measure(&dvae, &views, (args.measure, grid), device, &bar)?;
        census.finish(&mut dvae);
        dvae.header.psnr = census.psnr();
        used = Some(census.usage());
        if let Some(path) = &args.picture {
            write_png(&census.picture(&dvae, side as usize), path)?;
        }
    }
    bar.finish_and_clear();
    dvae.save(&args.out)?;
    if args.dvae.weights.is_none() {
        // Finished: nothing to go on with.
        let _ = std::fs::remove_file(unfinished(&args.out));
    }
    let text = if args.json {
        json(&dvae, used, last, &args.out)
    } else {
        table(&dvae, used, last, args)
    };
    answer(&text)
}

fn options(args: &CodebookArgs) -> Options {
    let a = &args.dvae;
    let [cold, hot] = a.temperature.map(f64::from);
    Options {
        geometry: Geometry {
            words: args.words as i64,
            width: a.width,
            stride: a.stride,
            blocks: a.blocks,
        },
        picture: i64::from(args.image / args.patch) * a.stride,
        batch: a.batch,
        steps: a.steps,
        lr: a.lr,
        temperature: [hot, cold],
        anneal: a.anneal,
        kl: a.kl,
        balance: a.balance,
        reconstruction: a.reconstruction,
        seed: args.seed,
    }
}

/// Where an unfinished training is stored.
fn unfinished(out: &Path) -> PathBuf {
    let name = out.file_name().unwrap_or_default().to_string_lossy();
    out.with_file_name(format!("{name}.unfinished"))
}

/// Means over the steps between two looks.
#[derive(Debug, Clone, Copy)]
struct Look {
    reconstruction: f64,
    divergence: f64,
    perplexity: f64,
}

/// Sums on the device, so that no step waits for it.
#[derive(Default)]
struct Sums {
    sums: Option<Tensor>,
    counts: Option<Tensor>,
    steps: u64,
}

impl Sums {
    fn add(&mut self, report: &StepReport, words: i64) {
        let row = Tensor::stack(&[&report.reconstruction, &report.divergence, &report.grad_norm], 0);
        let counts = report.words.bincount::<Tensor>(None, words);
        self.sums = Some(self.sums.take().map_or_else(|| row.shallow_clone(), |sum| sum + &row));
        self.counts = Some(self.counts.take().map_or_else(|| counts.shallow_clone(), |sum| sum + &counts));
        self.steps += 1;
    }

    fn take(&mut self) -> Option<(Look, f64)> {
        let (sums, counts, steps) = (self.sums.take()?, self.counts.take()?, std::mem::take(&mut self.steps) as f64);
        let counts = Vec::<i64>::try_from(counts).ok()?;
        let counts: Vec<u64> = counts.into_iter().map(i64::unsigned_abs).collect();
        let mean = |i: i64| sums.double_value(&[i]) / steps;
        let look = Look {
            reconstruction: mean(0),
            divergence: mean(1),
            perplexity: usage(&counts).perplexity,
        };
        Some((look, mean(2)))
    }
}

fn train(args: &CodebookArgs, device: Device, bar: &ProgressBar, last: &mut Option<Look>) -> Result<Dvae, CliError> {
    let options = options(args);
    options.validate()?;
    let Some(url) = &args.url else {
        return Err(CliError::usage(
            "--kind dvae is trained on images, but no shards are named".to_owned(),
            "give the shards: splitmask codebook data/mine/train --kind dvae --out …; or --weights FILE".to_owned(),
        ));
    };
    let state = unfinished(&args.out);
    let views = Views::open_targets(url, &args.data(), options.picture as u32, args.area, args.seed)?;
    let mut training = if state.exists() {
        let training = Training::resume(options.clone(), &state, device)?;
        tell(&format!("going on from step {} ({})", training.steps_done(), state.display()));
        training
    } else {
        Training::new(options.clone(), device)?
    };
    let interrupt = Interrupt::listen()?;
    start(bar, "training", options.steps);
    bar.set_position(training.steps_done());
    bar.reset_eta();
    let mut stream = views.batches(0, training.cursor(), options.batch)?;
    let mut sums = Sums::default();
    let (mut began, mut since) = (Instant::now(), training.steps_done());
    while training.steps_done() < options.steps {
        if interrupt.came() {
            bar.finish_and_clear();
            training.store(&state)?;
            return Err(CliError {
                code: ExitCode::Stopped,
                message: format!("stopped at step {} of {}", training.steps_done(), options.steps),
                hint: Some(format!("the same command goes on from there ({})", state.display())),
            });
        }
        let batch = stream.next().unwrap_or_else(|| {
            Err(splitmask_pipeline::error::PipelineError::Empty {
                url: views.url.clone(),
                detail: "the stream of images ended".into(),
            })
        })?;
        let report = training.step(&target(&batch, device), batch.cursor)?;
        stream.recycle(batch);
        sums.add(&report, options.geometry.words);
        let step = training.steps_done();
        bar.set_position(step);
        if (step.is_multiple_of(LOOK) || step == options.steps)
            && let Some((look, grad_norm)) = sums.take()
        {
            if !grad_norm.is_finite() {
                return Err(CliError {
                    code: ExitCode::NonFinite,
                    message: format!("the loss or a gradient was not finite within {LOOK} steps up to step {step}"),
                    hint: Some("lower --lr, or take --reconstruction l2".into()),
                });
            }
            let rate = ((step - since) * options.batch as u64) as f64 / began.elapsed().as_secs_f64().max(1e-9);
            let line = format!(
                "reconstruction {:.4} · divergence {:.3} · perplexity {:.0} of {} · {rate:.0} images/s",
                look.reconstruction, look.divergence, look.perplexity, options.geometry.words
            );
            // Without a terminal, a line for each fiftieth of the way.
            if bar.is_hidden() && !args.json && (step * 50 / options.steps) > ((step - LOOK.min(step)) * 50 / options.steps) {
                tell(&format!("step {step} of {}: {line}", options.steps));
            }
            bar.set_message(line);
            *last = Some(look);
            (began, since) = (Instant::now(), step);
        }
        if step.is_multiple_of(args.dvae.save_every) && step < options.steps {
            training.store(&state)?;
        }
    }
    Ok(training.tokenizer(&views.url)?)
}

/// The targets of a batch.
fn target_of(batch: &Batch) -> &View {
    batch.target.as_ref().expect("targets were asked for")
}

/// The targets of a batch on the device: u8 B×3×S×S.
fn target(batch: &Batch, device: Device) -> Tensor {
    let target = target_of(batch);
    let side = i64::from(target.size);
    Tensor::from_slice(&target.pixels)
        .view([batch.len as i64, 3, side, side])
        .to_device(device)
}

/// Counts words on other crops than those of the training, and rebuilds the crops from them.
fn measure(dvae: &Dvae, views: &Views, (crops, grid): (usize, i64), device: Device, bar: &ProgressBar) -> Result<Census, CliError> {
    start(bar, "counting words", crops as u64);
    let mut census = Census::new(dvae);
    let mut done = 0;
    let mut stream = views.batches(1, Cursor::default(), MEASURED)?;
    while let Some(batch) = stream.next() {
        let batch = batch?;
        let targets = target_of(&batch);
        let side = targets.size as usize;
        let words = dvae.words(&target(&batch, device));
        let rebuilt = dvae.rebuild(&words, grid).map(|t| bytes(&t)).transpose()?;
        let words: Vec<i64> = Vec::try_from(words.reshape([-1])).map_err(DvaeError::from)?;
        let (one, places) = (3 * side * side, (grid * grid) as usize);
        for i in 0..batch.len {
            // One crop of each image.
            if done == crops || batch.ids[i].epoch > 0 {
                return Ok(census);
            }
            let rebuilt = rebuilt.as_ref().map(|all| &all[i * one..][..one]);
            census.add(targets.picture(i), side, &words[i * places..][..places], rebuilt);
            done += 1;
        }
        bar.set_position(done as u64);
        stream.recycle(batch);
    }
    Ok(census)
}

fn bytes(t: &Tensor) -> Result<Vec<u8>, DvaeError> {
    Ok(Vec::<u8>::try_from(t.to_device(Device::Cpu).to_kind(Kind::Uint8).reshape([-1]))?)
}

fn json(dvae: &Dvae, usage: Option<Usage>, last: Option<Look>, out: &Path) -> String {
    let last =
        last.map(|l| serde_json::json!({"reconstruction": l.reconstruction, "divergence": l.divergence, "perplexity": l.perplexity}));
    let value = serde_json::json!({"file": out, "id": dvae.id(), "kind": DVAE, "header": dvae.header,
        "encoder_parameters": dvae.encoder_parameters(), "last_steps": last, "usage": usage.map(usage_json)});
    format!("{value:#}\n")
}

fn table(dvae: &Dvae, usage: Option<Usage>, last: Option<Look>, args: &CodebookArgs) -> String {
    let g = dvae.header.geometry;
    let grid = args.image / args.patch;
    let mut lines = vec![format!(
        "{}: {} words, dvae, {} pixels a side for each word, {:.2} M parameters in the encoder, for a grid of {grid}×{grid} ({} pixels)",
        args.out.display(),
        g.words,
        g.stride,
        dvae.encoder_parameters() as f64 / 1e6,
        i64::from(grid) * g.stride
    )];
    if let Some(l) = last {
        lines.push(format!("  reconstruction loss   {:>10.4}   (last {LOOK} steps)", l.reconstruction));
        lines.push(format!("  divergence            {:>10.3}   nats a word from uniform", l.divergence));
    }
    if let Some(psnr) = dvae.header.psnr {
        lines.push(format!(
            "  PSNR                  {psnr:>10.2}   dB of crops rebuilt from their words"
        ));
    }
    if let Some(u) = usage {
        lines.extend(usage_lines(u, g.words as usize));
        if u.top_share > 0.3 || u.perplexity < 50.0 {
            lines.push("a poor target: few words stand for most patches; raise --balance, or train longer".into());
        }
    }
    if let (Some(path), Some(_)) = (&args.picture, usage) {
        lines.push(format!("pictures, rebuilt from words, and as mosaics of words: {}", path.display()));
    }
    lines.push(format!(
        "next: splitmask train --config FILE --set codebook.path={}",
        args.out.display()
    ));
    lines.join("\n") + "\n"
}
