//! `splitmask bench`: how many images a second this machine makes, level by level, and which stage limits; and how many it trains on (`step`).

mod level;
mod progress;
mod stages;
pub(super) mod step;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, Subcommand, ValueEnum};
use serde_json::json;
use splitmask_pipeline::tokenize::{BookSpec, Codebook, PixelSpace, Tokenizer, build_random_projection};

use self::level::{Bench, Level, Measured};
use self::progress::bar;
use crate::cli::answer::answer;
use crate::cli::png::check_picture_path;
use crate::config::{Config, Source};
use crate::dvae::is_dvae;
use crate::exit::CliError;
use crate::picture::{Point, plot};

const LONG_ABOUT: &str = "\
Measures the data pipeline alone, without training: images a second when it only decodes, then also crops, colours, tokenizes and
fills batches. The last level is the whole pipeline, from the shards to the queue; its table says how long every stage worked and
waited, and one sentence names the stage that limits and the key to turn.

Each level reads the shards in training order. Levels take turns (--repeat), and the median counts: what else runs on the machine
then hits all of them alike.";

const EXAMPLES: &str = "\
Examples:
  splitmask bench pipeline configs/demo.toml
  splitmask bench pipeline configs/demo.toml --threads 1 --repeat 5 --json
  splitmask bench pipeline s3://bucket/photos/train --level batch
  taskset -c 1 splitmask bench pipeline photos/ --level L2 --threads 1 \\
    --images 1536 --json   # beside other loaders
  splitmask bench pipeline configs/demo.toml --level batch --images 1000000 --memory soak.svg";

/// Measure speed.
#[derive(Args)]
pub(crate) struct BenchArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    Pipeline(PipelineArgs),
    Step(step::StepArgs),
}

/// Measure the data pipeline: images a second by level, time by stage, what limits.
#[derive(Args)]
#[command(long_about = LONG_ABOUT, after_help = EXAMPLES)]
struct PipelineArgs {
    /// Config file (.toml), or a place with shards: then with default settings, 224 pixels and patches of 16.
    target: String,
    /// Override a key of the config, as `splitmask train` does.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
    /// Levels to measure.
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "decode,crop,colour,words,batch",
        hide_default_value = true
    )]
    level: Vec<Level>,
    /// Images of each run.
    #[arg(long, value_name = "N", default_value_t = 2048, value_parser = clap::value_parser!(u64).range(1..))]
    images: u64,
    /// Worker threads instead of pipeline.workers.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    threads: Option<u32>,
    /// Runs of each level.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    repeat: u32,
    /// Codebook for a place with shards; without it 8,192 random projections are made on the spot.
    #[arg(long, value_name = "FILE")]
    codebook: Option<PathBuf>,
    /// Draw the resident memory of the last level's last run over its images into this SVG file.
    #[arg(long, value_name = "FILE")]
    memory: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: BenchArgs) -> Result<(), CliError> {
    // `cargo test` leaves such a program where `cargo build` puts the one that people run.
    if cfg!(debug_assertions) {
        tracing::warn!(
            "this program was built for tests, by `cargo test`: parts of it are several times as slow; measure behind `cargo build`"
        );
    }
    match args.what {
        What::Pipeline(args) => pipeline(&args),
        What::Step(args) => step::run(&args),
    }
}

fn pipeline(args: &PipelineArgs) -> Result<(), CliError> {
    if let Some(file) = &args.memory {
        check_picture_path("--memory", file, "svg")?;
    }
    let (mut config, tokenizer) = settings(args)?;
    if let Some(threads) = args.threads {
        config.pipeline.workers = threads as usize;
    }
    let bench = Bench::new(&config, tokenizer, args.images);
    let bar = bar(!args.json, args.images * u64::from(args.repeat) * args.level.len() as u64, "images");
    let mut runs: Vec<Vec<Measured>> = args.level.iter().map(|_| vec![]).collect();
    for _ in 0..args.repeat {
        for (level, runs) in args.level.iter().zip(&mut runs) {
            bar.set_message(level.name());
            runs.push(bench.measure(*level, &bar)?);
        }
    }
    bar.finish_and_clear();
    if let Some((file, run)) = args.memory.as_ref().zip(runs.last().and_then(|r| r.last())) {
        draw_memory(file, run)?;
    }
    let mut results: Vec<(Level, Vec<Measured>)> = args.level.iter().copied().zip(runs).collect();
    for (_, runs) in &mut results {
        runs.sort_by(|a, b| a.per_second().total_cmp(&b.per_second()));
    }
    let threads = config.pipeline.worker_threads();
    if args.json {
        return answer(&format!("{}\n", as_json(&results, threads)));
    }
    answer(&table(&results, threads, &bench))
}

/// The config and its tokenizer.
fn settings(args: &PipelineArgs) -> Result<(Config, Option<Arc<Tokenizer>>), CliError> {
    let wants_words = args.level.iter().any(|l| l.words());
    let (config, path) = if Path::new(&args.target).extension().is_some_and(|e| e == "toml") {
        let config = Source::of_process(PathBuf::from(&args.target), args.sets.clone()).load()?.config;
        let of_config = (!config.codebook.path.is_empty()).then(|| PathBuf::from(&config.codebook.path));
        let path = args.codebook.clone().or(of_config);
        (config, path)
    } else {
        if let Some(set) = args.sets.first() {
            return Err(CliError::usage(
                format!("--set {set}: there is no config to change, {} is a place with shards", args.target),
                Some("give a config file (.toml) whose data.train is that place".into()),
            ));
        }
        let mut config = Config::default();
        config.data.train.clone_from(&args.target);
        (config, args.codebook.clone())
    };
    let book = match path {
        _ if !wants_words => None,
        Some(path) if is_dvae(&path).unwrap_or(false) => {
            return Err(CliError::usage(
                format!(
                    "{} is a dVAE: its words are made on the training device, not in the pipeline",
                    path.display()
                ),
                Some("name a codebook of another kind to measure the pipeline with its words".into()),
            ));
        }
        Some(path) => {
            let book = Codebook::load(&path)?;
            book.check_fits(&path.display().to_string(), config.model.image, config.model.patch)?;
            Some(book)
        }
        None => Some(build_random_projection(
            &BookSpec {
                words: 8192,
                patch: config.model.patch / 2,
                pixels: PixelSpace::MeanStd,
                seed: 0,
            },
            [0.0, 1.0],
        )?),
    };
    Ok((config, book.map(|b| Arc::new(Tokenizer::new(Arc::new(b))))))
}

fn draw_memory(file: &Path, run: &Measured) -> Result<(), CliError> {
    let point = |&(step, value): &(u64, f64)| Point {
        step,
        curve: "resident".into(),
        value,
    };
    let points: Vec<Point> = run.memory.iter().map(point).collect();
    let picture = plot("resident memory", ("images", "MB"), &points).map_err(CliError::io)?;
    std::fs::write(file, picture).map_err(|e| CliError::io(format!("{}: {e}", file.display())))
}

/// How much memory grew: its median over the last tenth of the images ÷ that over the second tenth. `None` for short runs.
fn growth(run: &Measured) -> Option<f64> {
    let within = |from: f64, to: f64| {
        let share = |n: u64| n as f64 / run.images as f64;
        let mut values: Vec<f64> = run
            .memory
            .iter()
            .filter(|m| (from..=to).contains(&share(m.0)))
            .map(|m| m.1)
            .collect();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied()
    };
    (run.memory.len() >= 40).then(|| Some(within(0.9, 1.0)? / within(0.1, 0.2)?))?
}

/// The middle one of sorted runs.
fn median(runs: &[Measured]) -> &Measured {
    &runs[(runs.len() - 1) / 2]
}

fn as_json(results: &[(Level, Vec<Measured>)], threads: usize) -> serde_json::Value {
    let level = |(level, runs): &(Level, Vec<Measured>)| {
        let middle = median(runs);
        json!({
            "level": level.name(),
            "ips": middle.per_second(),
            "runs": runs.iter().map(Measured::per_second).collect::<Vec<_>>(),
            "images": middle.images,
            "seconds": middle.wall.as_secs_f64(),
            "memory_growth": growth(middle),
            "memory_of_settings_mb": middle.footprint.total() / 1e6,
            "stages": stages::as_json(middle, threads),
            "limit": stages::limit(middle, threads).0,
            "hint": stages::limit(middle, threads).1,
        })
    };
    if let [one] = results {
        let mut value = level(one);
        value["threads"] = json!(threads);
        value["peak_rss_mb"] = json!(level::peak_rss_mb());
        return value;
    }
    json!({
        "threads": threads,
        "peak_rss_mb": level::peak_rss_mb(),
        "levels": results.iter().map(level).collect::<Vec<_>>(),
    })
}

fn table(results: &[(Level, Vec<Measured>)], threads: usize, bench: &Bench) -> String {
    let mut text = format!(
        "{} worker thread{}, {}\n\n",
        threads,
        if threads == 1 { "" } else { "s" },
        bench.describe()
    );
    text += "level    images/s   lowest  highest  ms an image and thread  what it does\n";
    for (level, runs) in results {
        let middle = median(runs).per_second();
        let (low, high) = (runs[0].per_second(), runs[runs.len() - 1].per_second());
        let each = 1e3 * threads as f64 / middle;
        text += &format!(
            "{:<8} {middle:>8.0} {low:>8.0} {high:>8.0} {each:>23.3}  {}\n",
            level.name(),
            level.about()
        );
    }
    if let Some((level, runs)) = results.last() {
        let middle = median(runs);
        text += &format!(
            "\nStages of level {}, {:.1} s:\n{}",
            level.name(),
            middle.wall.as_secs_f64(),
            stages::table(middle, threads)
        );
        let (limit, hint) = stages::limit(middle, threads);
        text += &format!(
            "\n{limit} {hint}\nBeside the program, its settings let it hold {}.\nPeak resident memory {} MB",
            middle.footprint,
            level::peak_rss_mb()
        );
        text += &growth(middle).map_or(".\n".into(), |g| {
            format!(
                "; from the second to the last tenth of the images it changed by {:+.1} %.\n",
                100.0 * (g - 1.0)
            )
        });
    }
    text
}

impl ValueEnum for Level {
    fn value_variants<'a>() -> &'a [Self] {
        &Self::ALL
    }

    fn to_possible_value(&self) -> Option<clap::builder::PossibleValue> {
        Some(clap::builder::PossibleValue::new(self.name()).help(self.about()))
    }
}
