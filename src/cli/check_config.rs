//! `splitmask check-config`: what a config means, without running it.

use std::path::PathBuf;

use clap::Args;
use splitmask_pipeline::config::{DataConfig, PipelineConfig, SourceConfig};
use splitmask_pipeline::metrics::PipelineMetrics;
use splitmask_pipeline::run::Dataset;
use splitmask_pipeline::run::footprint::Footprint;

use crate::cli::answer::{answer, say};
use crate::config::diff::strongest;
use crate::config::{Config, Source, diff, explain};
use crate::error::CliError;

/// Explain a config file: what differs from the defaults, what follows from it, what is wrong. Reads only, writes nothing.
#[derive(Args)]
#[command(
    after_help = "Examples:\n  splitmask check-config configs/demo.toml\n  splitmask check-config configs/demo.toml --set train.batch=64\n  splitmask check-config new.toml --against runs/demo/last-good.toml"
)]
pub(crate) struct CheckConfigArgs {
    /// Config file.
    file: PathBuf,
    /// Override a key, as `splitmask train` does.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
    /// A config to compare with: what a reload from it to FILE would do.
    #[arg(long, value_name = "FILE")]
    against: Option<PathBuf>,
    /// Print the effective config as TOML instead: every key, defaults included.
    #[arg(long)]
    effective: bool,
}

/// What a mixture draws from each of its sources over the whole run.
fn sources(config: &Config) -> Vec<String> {
    let total: f64 = config.data.sources.iter().map(|s| s.weight).sum();
    let images = config.optim.total_steps as f64 * f64::from(config.train.batch);
    let line = |source: &SourceConfig| {
        let share = source.weight / total;
        let drawn = images * share;
        let data = DataConfig {
            sources: vec![],
            ..config.data.clone()
        };
        let pipeline = PipelineConfig {
            retry_budget_s: 2.0,
            cache_dir: String::new(),
            ..config.pipeline.clone()
        };
        let epochs = match Dataset::open(&source.url, &data, &pipeline, PipelineMetrics::default()) {
            Ok(dataset) => match dataset.manifest().map(|m| m.samples() as f64 * config.data.fraction) {
                Some(samples) if samples > 0.0 => format!("{:.2} epochs of {samples:.0}", drawn / samples),
                _ => "epochs unknown: no manifest there".to_owned(),
            },
            Err(error) => format!("epochs unknown: {error}"),
        };
        format!("source {}: {:.1} % = {drawn:.0} images, {epochs}", source.name, 100.0 * share)
    };
    config.data.sources.iter().map(line).collect()
}

/// What the pipeline holds in memory, if the place answers and has a manifest.
fn memory(config: &Config) -> String {
    let pipeline = PipelineConfig {
        retry_budget_s: 2.0,
        cache_dir: String::new(),
        ..config.pipeline.clone()
    };
    let unknown = |why: String| format!("memory of the pipeline: unknown, {why}");
    match Dataset::open(config.data.first_place(), &config.data, &pipeline, PipelineMetrics::default()) {
        Ok(dataset) => dataset.images().map_or_else(
            || unknown("no manifest there tells how large samples are (`splitmask bench pipeline` measures it)".into()),
            |images| {
                let plan = config.request();
                let footprint = Footprint::of(&config.data, &config.pipeline, &plan, config.train.batch as usize, images);
                format!("memory of the pipeline: at most {footprint}")
            },
        ),
        Err(error) => unknown(error.to_string()),
    }
}

/// Samples of each place that are looked at.
const LOOK: u64 = 64;

/// What a start would refuse in the first samples of the training data and of data.val; places that do not answer are told elsewhere.
fn look(config: &Config) -> Result<(), CliError> {
    let pipeline = PipelineConfig {
        retry_budget_s: 2.0,
        cache_dir: String::new(),
        ..config.pipeline.clone()
    };
    let training = Dataset::open_training(&config.data, &pipeline, &PipelineMetrics::default());
    let val = (!config.data.val.is_empty()).then(|| Dataset::open(&config.data.val, &config.data, &pipeline, PipelineMetrics::default()));
    for dataset in [Some(training), val].into_iter().flatten().flatten() {
        let passed = dataset.look(LOOK)?.counts();
        if !passed.is_empty() {
            say!("passed over among the first samples of {}: {passed}", dataset.shards()[0].path);
        }
    }
    Ok(())
}

pub(crate) fn run(args: CheckConfigArgs) -> Result<(), CliError> {
    let loaded = Source::of_process(args.file, args.sets).load()?;
    if args.effective {
        answer(&loaded.config.to_toml())?;
        return Ok(());
    }
    answer(&explain::explain(&loaded))?;
    for line in sources(&loaded.config) {
        say!("{line}");
    }
    say!("{}", memory(&loaded.config));
    look(&loaded.config)?;
    if let Some(against) = args.against {
        let old = Source {
            file: against.clone(),
            ..Source::default()
        }
        .load()?;
        let changes = diff(&old.config, &loaded.config);
        match strongest(&changes) {
            None => {
                say!("a reload from {} changes nothing", against.display());
            }
            Some(class) => {
                say!("a reload from {} is {class}:", against.display());
                for change in changes {
                    say!("  {change}");
                }
            }
        }
    }
    Ok(())
}
