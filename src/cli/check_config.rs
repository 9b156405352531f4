//! `splitmask check-config`: what a config means, without running it.

mod disk;
mod estimate;

use std::path::PathBuf;

use clap::Args;
use splitmask_pipeline::bucket::differences::sentences;
use splitmask_pipeline::bucket::location::redact;
use splitmask_pipeline::bucket::manifest::Manifest;
use splitmask_pipeline::config::{DataConfig, PipelineConfig, SourceConfig};
use splitmask_pipeline::error::PipelineError;
use splitmask_pipeline::metrics::PipelineMetrics;
use splitmask_pipeline::run::Dataset;
use splitmask_pipeline::run::footprint::Footprint;

use self::disk::Room;
use self::estimate::{Known, estimate};
use crate::cli::answer::{answer, say, warn};
use crate::config::diff::strongest;
use crate::config::{Config, ConfigError, Loaded, Place, Problem, Source, diff, explain};
use crate::daemon::start::against_checkpoint;
use crate::exit::CliError;
use crate::objective::ClassesOf;
use crate::trainer::{TrainError, batch_exceeds, of_classes};

/// Explain a config file: what differs from the defaults, what follows from it, what is wrong. Reads only, writes nothing.
#[derive(Args)]
#[command(
    after_help = "Examples:\n  splitmask check-config configs/demo.toml\n  splitmask check-config configs/demo.toml --set train.batch=64\n  splitmask check-config new.toml --against runs/demo/last-good.toml\n  splitmask check-config configs/vit-s16.toml --measure   # time and memory it takes here"
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
    #[arg(long, conflicts_with = "against")]
    effective: bool,
    /// Take some steps on noise with the device of the config (half a minute) and tell how long the run takes and what memory a step needs.
    #[arg(long, conflicts_with = "effective")]
    measure: bool,
}

/// A place that the config names: its key, and what it holds or why it cannot be opened.
struct Named {
    key: String,
    url: String,
    opened: Result<Dataset, PipelineError>,
}

/// Looks at all places of the config, without waiting long for a store that is away.
fn places(config: &Config) -> Vec<Named> {
    let data = DataConfig {
        sources: vec![],
        ..config.data.clone()
    };
    let pipeline = PipelineConfig {
        retry_budget_s: 2.0,
        cache_dir: String::new(),
        ..config.pipeline.clone()
    };
    let open = |key: String, url: &str| Named {
        key,
        url: url.to_owned(),
        opened: Dataset::open(url, &data, &pipeline, PipelineMetrics::default()),
    };
    let sources = config.data.sources.iter().enumerate();
    let mut found: Vec<Named> = sources.map(|(n, s)| open(format!("data.sources[{n}].url"), &s.url)).collect();
    if found.is_empty() {
        found.push(open("data.train".into(), &config.data.train));
    }
    if !config.data.val.is_empty() {
        found.push(open("data.val".into(), &config.data.val));
    }
    found
}

/// What a mixture draws from each of its sources over the whole run.
fn sources(config: &Config, places: &[Named]) -> Vec<String> {
    let total: f64 = config.data.sources.iter().map(|s| s.weight).sum();
    let images = config.optim.total_steps as f64 * f64::from(config.train.batch);
    let line = |(source, place): (&SourceConfig, &Named)| {
        let share = source.weight / total;
        let drawn = images * share;
        let epochs = match &place.opened {
            Ok(dataset) => match dataset.manifest().map(|m| m.samples() as f64 * config.data.fraction) {
                Some(samples) if samples > 0.0 => format!("{:.2} epochs of {samples:.0}", drawn / samples),
                _ => "epochs unknown: no manifest there".to_owned(),
            },
            Err(error) => format!("epochs unknown: {error}"),
        };
        format!("source {}: {:.1} % = {drawn:.0} images, {epochs}", source.name, 100.0 * share)
    };
    config.data.sources.iter().zip(places).map(line).collect()
}

/// What the pipeline holds in memory, if the place answers and has a manifest.
fn memory(config: &Config, first: &Named) -> String {
    let unknown = |why: String| format!("memory of the pipeline: unknown, {why}");
    match &first.opened {
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

/// What the first place's manifest tells of an epoch.
fn known(config: &Config, first: &Named) -> Known {
    let manifest = first.opened.as_ref().ok().and_then(Dataset::manifest);
    let samples = |m: &Manifest| (m.samples() as f64 * config.data.fraction).round() as u64;
    Known {
        // A mixture has no epochs of one place.
        samples: manifest.filter(|_| config.data.sources.is_empty()).map(samples),
        classes: match config.objective.classes_of() {
            ClassesOf::Images => manifest.and_then(Manifest::class_names).map_or(0, <[_]>::len),
            ClassesOf::Pixels => {
                let maps = manifest.and_then(|m| m.maps.as_ref());
                maps.map_or(0, |maps| maps.learnt(config.data.map_reduce_zero).0.len())
            }
            ClassesOf::Objects => manifest.and_then(|m| m.objects.as_ref()).map_or(0, |objects| objects.classes.len()),
        },
    }
}

/// Samples of each place that are looked at.
const PROBED: u64 = 64;

/// Says what a start would refuse in the first samples, and where manifests differ from what is there; refuses a place that is wrong. One that is merely away may come back.
fn judge(loaded: &Loaded, places: Vec<Named>, room: &Room) -> Result<(), CliError> {
    let mut wrong = vec![];
    if let Some(message) = room.lacks() {
        wrong.push(Problem {
            place: Place::of(&loaded.places, "run.dir"),
            key: "run.dir".into(),
            value: loaded.config.run_dir().display().to_string(),
            message,
            hint: Some("take a folder on another disk, or free some space".into()),
        });
    }
    // A place that cannot be opened is told of below.
    if places
        .iter()
        .filter(|place| place.key != "data.val")
        .all(|place| place.opened.is_ok())
    {
        let val = places
            .iter()
            .find(|place| place.key == "data.val")
            .and_then(|place| place.opened.as_ref().ok());
        match of_classes(loaded.config.trainer_spec(), val) {
            Ok(lines) => {
                for line in lines {
                    say!("warning: {line}");
                }
            }
            Err(TrainError::BadSetting { key, value, detail, hint }) => wrong.push(Problem {
                place: Place::of(&loaded.places, &key),
                key,
                value,
                message: detail,
                hint,
            }),
            Err(error) => {
                say!("the classes of the sets were not looked at: {error}");
            }
        }
    }
    if let Err(error) = against_checkpoint(&loaded.config) {
        say!("warning: a start would be refused: {}", error.with_hint());
    }
    for Named { key, url, opened } in places {
        match opened {
            Ok(dataset) => {
                for line in sentences(&dataset.differences()) {
                    say!("{key}: {line}");
                }
                let samples = dataset.manifest().map(Manifest::samples);
                let few = samples.filter(|samples| key == "data.train" && *samples < u64::from(loaded.config.train.batch));
                if let Some(samples) = few {
                    say!("warning: {}", batch_exceeds(loaded.config.train.batch, samples));
                }
                let passed = dataset.probe(PROBED)?.counts();
                if !passed.is_empty() {
                    say!("{key}: passed over among the first samples: {passed}");
                }
            }
            Err(error @ PipelineError::Unreachable { .. }) => say!("{key} = {}: cannot be reached now: {error}", redact(&url)),
            Err(error) => {
                wrong.push(Problem {
                    place: Place::of(&loaded.places, &key),
                    key,
                    value: redact(&url),
                    message: error.to_string(),
                    hint: error.hint(),
                });
            }
        }
    }
    match wrong.is_empty() {
        true => Ok(()),
        false => Err(ConfigError { problems: wrong }.into()),
    }
}

pub(crate) fn run(args: CheckConfigArgs) -> Result<(), CliError> {
    let source = Source::of_process(args.file.clone(), args.sets.clone());
    source.remarks.iter().for_each(|told| warn(told));
    let loaded = source.load()?;
    if args.effective {
        answer(&loaded.config.to_toml())?;
        return Ok(());
    }
    answer(&explain::explain(&loaded))?;
    let places = places(&loaded.config);
    for line in sources(&loaded.config, &places) {
        say!("{line}");
    }
    say!("{}", memory(&loaded.config, &places[0]));
    let room = Room::of(&loaded.config);
    say!("{room}");
    if args.measure {
        say!(
            "{}",
            estimate(&loaded.config, &args.file, &args.sets, &known(&loaded.config, &places[0]))?
        );
    }
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
    judge(&loaded, places, &room)
}
