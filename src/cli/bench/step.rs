//! `splitmask bench step`: what a training step takes on this machine, by batch size: time, images a second, use of the device, memory.
//!
//! Each batch size is measured in a process of its own, so that its peak memory is its own, and one that does not fit costs only its row. There the
//! trainer itself runs, on a few batches that the pipeline made of noise before: the numbers are those of a run that never waits for data.

mod noise;
mod training;

use std::path::{Path, PathBuf};
use std::process::Command as Process;
use std::sync::Arc;

use clap::Args;
use serde_json::{Map, Value, json};
use splitmask_pipeline::config::DataConfig;
use splitmask_pipeline::cursor::Cursor;
use splitmask_pipeline::decode::Limits;
use splitmask_pipeline::metrics::PipelineMetrics;
use splitmask_pipeline::run::{BatchSpec, Dataset, Order};
use splitmask_pipeline::sample::{SampleMaker, ViewMode};
use splitmask_pipeline::tokenize::{BookSpec, PixelSpace, build_random_projection};
use splitmask_pipeline::types::Batch;
use tch::Device;

use self::noise::noise;
use self::training::{Until, WARM_UP, train_for, undisturbed};
use super::level::peak_rss_mb;
use super::progress::bar;
use crate::cli::answer::answer;
use crate::config::{Config, Source};
use crate::exit::CliError;
use crate::objective::Scope;
use crate::telemetry::metrics::{Phase, TrainMetrics};
use crate::tensor::choose_device;
use crate::trainer::Telemetry;
use crate::trainer::metrics_log::MetricsLog;
use crate::trainer::spec::TrainerSpec;
use crate::words::Words;

/// Different batches that take turns.
const BATCHES: usize = 2;
/// Steps whose calls are counted.
const COUNTED: u64 = 10;
/// Words of the vocabulary that stands in where the config names no file.
const WORDS: usize = 8192;

/// Measure a training step: ms, images a second, use of the device, peak memory, by batch size.
#[derive(Args)]
#[command(after_help = "\
Examples:
  splitmask bench step configs/demo.toml
  splitmask bench step configs/vit-s16.toml --batch 64,128,256,512 --set train.device=cuda:0
  splitmask bench step configs/dino-demo.toml --batch 32 --seconds 20 --json

The batches are noise, so no data is needed; a codebook is used where its file is there, else 8,192 random words stand in. Time by part is that of the
program: on a GPU, which works on behind it, only the sum says how long the device took.")]
pub(super) struct StepArgs {
    /// Config file; of it the model, the objective, [train] and [optim] count.
    config: PathBuf,
    /// Override a key of the config, as `splitmask train` does.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
    /// Batch sizes instead of train.batch.
    #[arg(long, value_name = "N", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..))]
    batch: Vec<u32>,
    /// Seconds of steps of each batch size, behind the warm-up.
    #[arg(long, value_name = "S", default_value_t = 10.0, value_parser = seconds)]
    seconds: f64,
    /// Count libtorch's calls in a step too, and those at which a host with a GPU waits for it; on a GPU also its kernels and launches (some steps more).
    #[arg(long)]
    calls: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// Measure in this process: what each batch size is run by.
    #[arg(long, hide = true)]
    alone: bool,
}

fn seconds(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    let fine = seconds > 0.0 && seconds <= 86400.0;
    if fine {
        Ok(seconds)
    } else {
        Err("expected more than 0 and at most 86400".into())
    }
}

pub(super) fn run(args: &StepArgs) -> Result<(), CliError> {
    let source = Source::of_process(args.config.clone(), args.sets.clone());
    let config = source.load()?.config;
    if args.alone {
        return answer(&format!("{}\n", alone(config, args.seconds, args.calls)?));
    }
    let batches = if args.batch.is_empty() {
        vec![config.train.batch]
    } else {
        args.batch.clone()
    };
    let bar = bar(!args.json, batches.len() as u64, "batch sizes");
    let row = |batch: &u32| {
        bar.set_message(format!("batch {batch}"));
        let found = measured(&args.config, &args.sets, *batch, args.seconds, args.calls);
        bar.inc(1);
        found
    };
    let rows: Vec<Value> = batches.iter().map(row).collect::<Result<_, _>>()?;
    bar.finish_and_clear();
    let told = match args.json {
        true => format!("{:#}\n", json!({ "config": args.config, "steps": rows })),
        false => table(&rows),
    };
    answer(&told)?;
    // A row that failed is told in its place; without any other there is no answer.
    match rows.iter().all(|row| row.get("error").is_some()) {
        true => Err(CliError::usage(
            "no batch size could be measured",
            "the reason stands behind each".to_owned(),
        )),
        false => Ok(()),
    }
}

/// A step of `batch` images with a config's settings, measured for some seconds by a process of its own: the row of the table, or its `error`.
///
/// # Errors
/// This program's own file cannot be found or started.
pub(in crate::cli) fn measured(config: &Path, sets: &[String], batch: u32, seconds: f64, count_calls: bool) -> Result<Value, CliError> {
    let program = std::env::current_exe().map_err(|e| CliError::io(format!("this program's own file: {e}")))?;
    let mut process = Process::new(program);
    process
        .args(["bench", "step", "--alone", "--seconds", &seconds.to_string()])
        .arg(config);
    for set in sets {
        process.args(["--set", set]);
    }
    process.args(["--set", &format!("train.batch={batch}")]);
    process.args(count_calls.then_some("--calls"));
    let output = process
        .output()
        .map_err(|e| CliError::io(format!("a process for batch {batch}: {e}")))?;
    let measured = serde_json::from_slice(&output.stdout).ok().filter(|_| output.status.success());
    Ok(measured.unwrap_or_else(|| {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let after = |head: &str| said.lines().rev().find_map(|line| line.strip_prefix(head));
        let hint = after("hint: ").map_or_else(String::new, |hint| format!("; {hint}"));
        let error = after("error: ").map_or_else(|| format!("it ended with {}", output.status), |error| format!("{error}{hint}"));
        json!({ "batch": batch, "error": error })
    }))
}

/// Measures the config's own batch size in this process.
fn alone(mut config: Config, seconds: f64, count_calls: bool) -> Result<Value, CliError> {
    let folder = tempfile::tempdir().map_err(|e| CliError::io(format!("a temporary folder: {e}")))?;
    config.data = DataConfig {
        train: noise(folder.path(), config.model.image)?,
        ..DataConfig::default()
    };
    if config.objective.classes() == Some(0) {
        return Err(CliError::usage(
            "objective.classes = 0: how many classes there are is known from the data, which a measurement does without",
            "say how many, for example --set objective.classes=1000".to_owned(),
        ));
    }
    let (device, reason) = choose_device(&config.train.device).map_err(|e| CliError::usage(e.to_string(), None))?;
    let mut spec = config.trainer_spec();
    if spec.objective.request(&spec.scope(0)).words.is_some() && !Path::new(&spec.codebook.path).exists() {
        spec.codebook.path = stand_in(folder.path(), config.model.patch)?;
    }
    let (batches, vocabulary) = batches(&spec, device)?;
    undisturbed(&mut spec, folder.path(), device);
    let (batch, precision) = (spec.train.batch, spec.train.precision.is_bf16(device));

    let registry = prometheus::Registry::new();
    let telemetry = Telemetry {
        train: TrainMetrics::new(&registry).map_err(|e| CliError::io(e.to_string()))?,
        pipeline: PipelineMetrics::default(),
    };
    let metrics = telemetry.train.clone();
    let run_dir = spec.run_dir.clone();
    let asked = if !count_calls {
        None
    } else {
        let mut spec = spec.clone();
        spec.run_dir = folder.path().join("counted");
        // Neither a line nor anything else is due: what is counted is a step's own.
        spec.log.every_steps = u64::MAX;
        let telemetry = Telemetry {
            train: TrainMetrics::new(&prometheus::Registry::new()).map_err(|e| CliError::io(e.to_string()))?,
            pipeline: PipelineMetrics::default(),
        };
        train_for(spec, batches.clone(), Until::Steps(COUNTED), device, telemetry)?
    };
    train_for(spec, batches, Until::Seconds(seconds), device, telemetry)?;

    let lines = MetricsLog::read(&run_dir).map_err(|e| CliError::io(e.to_string()))?;
    let behind = |line: &&Value| line["step"].as_u64().is_some_and(|step| step > WARM_UP);
    let mut speeds: Vec<f64> = lines
        .iter()
        .filter(behind)
        .filter_map(|l| l["images_per_second"].as_f64())
        .collect();
    let last = speeds.last().copied().unwrap_or(0.0);
    speeds.sort_by(f64::total_cmp);
    let Some(speed) = speeds.get(speeds.len() / 2).copied() else {
        return Err(CliError::usage(
            format!("no step was taken within {seconds} s behind the warm-up"),
            "give it more --seconds".to_owned(),
        ));
    };
    let parts = [Phase::Copy, Phase::Forward, Phase::Backward, Phase::Optimizer];
    let all: f64 = parts.iter().map(|part| metrics.phase(*part).get()).sum();
    let shares: Map<String, Value> = parts
        .iter()
        .map(|part| (part.label().to_owned(), json!(metrics.phase(*part).get() / all)))
        .collect();
    let of_device = |which: usize| asked.and_then(|a| a.of_device).map(|numbers| numbers[which]);
    let utilization = metrics.model_flops_utilization.get() * speed / last;
    Ok(json!({
        "batch": batch, "ms": 1e3 * f64::from(batch) / speed, "images_per_second": speed,
        "slowest": speeds[0], "fastest": speeds[speeds.len() - 1], "lines": speeds.len(),
        "mfu": (utilization > 0.0).then_some(utilization), "peak_memory_mb": peak_memory_mb(device)?,
        "program_time": shares, "device": format!("{device:?}"), "precision": if precision { "bf16" } else { "f32" },
        "calls": asked.map(|a| a.calls), "host_waits": asked.map(|a| a.waits),
        "kernels": of_device(0), "launches": of_device(1), "device_waits": of_device(2), "device_note": reason, "objective": config.objective.kind().name, "words": vocabulary,
    }))
}

/// Peak of the device's memory, or of this process's on a CPU; MB.
fn peak_memory_mb(device: Device) -> Result<f64, CliError> {
    match device {
        Device::Cuda(index) => {
            let memory = torch_ext::cuda_memory(index).map_err(|e| CliError::io(e.to_string()))?;
            Ok(memory.peak as f64 / 1e6)
        }
        _ => Ok(peak_rss_mb() as f64),
    }
}

/// A vocabulary of random words; answers its file.
fn stand_in(folder: &Path, patch: u32) -> Result<String, CliError> {
    let path = folder.join("words.safetensors");
    let spec = BookSpec {
        words: WORDS,
        patch: patch / 2,
        pixels: PixelSpace::MeanStd,
        seed: 0,
    };
    build_random_projection(&spec, [0.0, 1.0])?.save(&path)?;
    Ok(path.display().to_string())
}

/// Batches as the pipeline makes them for this run, and how many words there are.
fn batches(spec: &TrainerSpec, device: Device) -> Result<(Vec<Batch>, usize), CliError> {
    let needed = |scope: &Scope<'_>| spec.objective.request(scope).words.is_some();
    let words = Words::load(&spec.codebook, &spec.model, "SHARDS", needed(&spec.scope(0)), device)?;
    let request = Arc::new(words.request(spec.objective.request(&spec.scope(words.len()))));
    let dataset = Dataset::open(&spec.data.train, &spec.data, &spec.pipeline, PipelineMetrics::default())?;
    let shape = BatchSpec {
        order: Order::Shuffled {
            seed: spec.seed,
            start: Cursor::default(),
            rank: 0,
            world: 1,
        },
        request: Arc::clone(&request),
        batch: spec.train.batch as usize,
        last_partial: false,
    };
    let maker = || {
        SampleMaker::new(
            Arc::clone(&request),
            ViewMode::Train,
            spec.seed,
            Limits::default(),
            words.tokenizer().cloned(),
        )
    };
    // What is wrong with the request shows here and not in a worker's thread.
    drop(maker()?);
    let mut stream = dataset.batches(shape, || {
        let mut maker = maker().expect("made before");
        Box::new(move |raw, out| maker.make(raw, out))
    })?;
    let made = std::iter::from_fn(|| stream.next()).take(BATCHES);
    Ok((made.collect::<Result<_, _>>()?, words.len()))
}

fn table(rows: &[Value]) -> String {
    let mut text = String::new();
    if let Some(first) = rows.iter().find(|row| row.get("error").is_none()) {
        let said = |key: &str| first[key].as_str().unwrap_or_default().to_owned();
        text += &format!("{} on {} in {}\n\n", said("objective"), said("device"), said("precision"));
    }
    text += "batch  ms a step  images/s   lowest  highest     MFU  peak memory  program's time\n";
    for row in rows {
        let batch = row["batch"].as_u64().unwrap_or(0);
        if let Some(error) = row["error"].as_str() {
            text += &format!("{batch:>5}  {error}\n");
            continue;
        }
        let number = |key: &str| row[key].as_f64().unwrap_or(f64::NAN);
        let mfu = row["mfu"].as_f64().map_or("unknown".into(), |mfu| format!("{:.1} %", 100.0 * mfu));
        let parts = row["program_time"].as_object().into_iter().flatten();
        let parts: Vec<String> = parts
            .map(|(part, share)| format!("{part} {:.0} %", 100.0 * share.as_f64().unwrap_or(0.0)))
            .collect();
        text += &format!(
            "{batch:>5} {:>10.1} {:>9.1} {:>8.1} {:>8.1} {mfu:>7} {:>9.0} MB  {}\n",
            number("ms"),
            number("images_per_second"),
            number("slowest"),
            number("fastest"),
            number("peak_memory_mb"),
            parts.join(", ")
        );
        if let (Some(calls), Some(waits)) = (row["calls"].as_f64(), row["host_waits"].as_f64()) {
            text += &format!("       {calls:.0} calls of libtorch a step, {waits:.2} at which a host with a GPU waits for it\n");
        }
        if let (Some(kernels), Some(launches), Some(waits)) =
            (row["kernels"].as_f64(), row["launches"].as_f64(), row["device_waits"].as_f64())
        {
            text +=
                &format!("       {kernels:.0} kernels of the GPU a step by {launches:.0} launches; {waits:.2} calls that wait for it\n");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_tells_the_rows_that_failed_in_their_place() {
        let good = json!({
            "batch": 8, "ms": 20.0, "images_per_second": 400.0, "slowest": 390.0, "fastest": 410.0, "mfu": null, "peak_memory_mb": 512.0,
            "program_time": { "forward": 0.25, "backward": 0.75 }, "device": "Cpu", "precision": "f32", "objective": "mae",
        });
        let text = table(&[good, json!({ "batch": 1024, "error": "out of memory" })]);
        assert!(text.starts_with("mae on Cpu in f32\n"), "{text}");
        assert!(
            text.contains("    8       20.0     400.0") && text.contains("unknown") && text.contains("backward 75 %"),
            "{text}"
        );
        assert!(text.ends_with(" 1024  out of memory\n"), "{text}");
    }

    #[test]
    fn seconds_are_a_length_of_time() {
        assert_eq!(seconds("2.5"), Ok(2.5));
        for bad in ["0", "-1", "nan", "inf", "1e9", "x"] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
    }
}
