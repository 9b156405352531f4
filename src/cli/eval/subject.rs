//! What the verbs of `eval` measure: a checkpoint, or the same network before any training.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use splitmask_pipeline::bucket::location::is_same_place;
use splitmask_pipeline::request::SampleRequest;

use super::network::{Network, scope, take_averages};
use crate::checkpoint::{self, folder_of};
use crate::cli::answer::say;
use crate::config::{Config, Source};
use crate::eval::data::{Sets, TrainingPass};
use crate::eval::features::ValFeatures;
use crate::eval::knn::{self, Accuracy};
use crate::eval::pool::Pool;
use crate::eval::spread::{self, FeatureSpread};
use crate::eval::{EvalError, Evaluation, GoOn, Progress, Score, Subject, fenced};
use crate::exit::CliError;

/// What is measured; of every verb.
#[derive(Args)]
pub(super) struct SubjectArgs {
    /// Run folder (its newest checkpoint is taken) or checkpoint folder.
    run: PathBuf,
    /// The same encoder at its random initialisation instead of the checkpoint's weights.
    #[arg(long)]
    random_init: bool,
    /// Shards to measure on; default: data.val of the run's config.
    #[arg(long, value_name = "URL")]
    val: Option<String>,
    /// Take the averaged weights (needs a run with ema.decay); default: eval.weights of the run's config.
    #[arg(long)]
    ema: bool,
    /// Images of data.val to measure on at most, the first ones; 0 = all. Default: eval.max_queries of the run's config.
    #[arg(long, value_name = "N")]
    max_queries: Option<u32>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl SubjectArgs {
    /// The checkpoint and its config, with what the arguments say.
    pub(super) fn open(&self) -> Result<(PathBuf, Config), CliError> {
        let folder = checkpoint_folder(&self.run)?;
        let mut config = config_of(&folder)?;
        if let Some(val) = &self.val {
            config.data.val.clone_from(val);
        }
        config.eval.max_queries = self.max_queries.unwrap_or(config.eval.max_queries);
        warn_of_training_images(&config);
        if self.ema {
            take_averages(&mut config, &folder)?;
        }
        Ok((folder, config))
    }

    /// The model that the arguments say, which tells the checkpoint's classes apart also where it has other weights.
    pub(super) fn model<'a>(&self, config: &'a Config, folder: &Path) -> Result<Measured<'a>, CliError> {
        let mut measured = Measured::of(config, (!self.random_init).then_some(folder))?;
        measured.network.classes = checkpoint::read(folder)?.progress.classes;
        Ok(measured)
    }

    /// Prints a score; `more` are further fields of the JSON.
    pub(super) fn tell(
        &self,
        folder: &Path,
        config: &Config,
        evaluation: &Evaluation,
        score: Score,
        mut more: serde_json::Value,
    ) -> Result<(), CliError> {
        if self.json {
            let what = if self.random_init {
                "random-init".into()
            } else {
                folder.display().to_string()
            };
            more["weights"] = what.into();
            more["max_queries"] = config.eval.max_queries.into();
            more[evaluation.name] = score.details;
            say!("{more}");
            return Ok(());
        }
        for line in &score.table {
            say!("{line}");
        }
        let cut = (config.eval.max_queries > 0).then(|| {
            let most = config.eval.max_queries;
            format!("of data.val the first {most} images at most, which is eval.max_queries; all: --max-queries 0")
        });
        for line in score.remarks.lines().into_iter().chain(cut) {
            say!("note            {line}");
        }
        Ok(())
    }
}

/// The folder itself if it is a checkpoint, else the newest good checkpoint of the run in it; newer ones that cannot be read are named on stderr.
pub(in crate::cli) fn checkpoint_folder(run: &Path) -> Result<PathBuf, CliError> {
    if run.join("complete.json").exists() {
        return Ok(run.to_owned());
    }
    let found = checkpoint::newest_good(&folder_of(run))?;
    for bad in &found.bad {
        crate::cli::answer::warn(&format!("passed over: {}", bad.reason));
    }
    found.good.map(|good| good.folder).ok_or_else(|| {
        CliError::usage(
            match found.bad.len() {
                0 => format!("{}: no checkpoint in it", run.display()),
                n => format!("{}: none of its {n} checkpoints can be read", run.display()),
            },
            "name a run folder (run.dir of its config) or a folder step-… below its checkpoints/".to_owned(),
        )
    })
}

/// Says so where the images that are measured are those that were trained on.
pub(in crate::cli) fn warn_of_training_images(config: &Config) {
    if !config.data.val.is_empty() && is_same_place(&config.data.val, &config.data.train) {
        crate::cli::answer::warn(
            "data.val is data.train: what is measured are the images that were trained on, and each may be its own nearest neighbour",
        );
    }
}

/// The config that a checkpoint was written under.
pub(in crate::cli) fn config_of(folder: &Path) -> Result<Config, CliError> {
    let source = Source {
        file: folder.join("config.toml"),
        ..Source::default()
    };
    Ok(source.load()?.config)
}

/// A model to measure, built as its run's config says.
pub(super) struct Measured<'a> {
    config: &'a Config,
    network: Network,
    request: Arc<SampleRequest>,
    val_features: ValFeatures,
}

impl<'a> Measured<'a> {
    /// A checkpoint's weights, or the random initialisation of its config.
    pub(super) fn of(config: &'a Config, weights: Option<&Path>) -> Result<Self, CliError> {
        if config.data.val.is_empty() {
            return Err(CliError::usage(
                "data.val is empty: there is nothing to measure on",
                "name shards: --val URL".to_owned(),
            ));
        }
        let network = Network::of(config, weights)?;
        let asked = config.objective.request(&scope(config, network.words.len()));
        let request = Arc::new(network.words.request(asked));
        Ok(Self {
            config,
            network,
            request,
            val_features: ValFeatures::new(),
        })
    }

    /// Refuses a measure that needs the words which the checkpoint was trained with, where codebook.path holds others now.
    pub(super) fn need_its_words(&self) -> Result<(), CliError> {
        match &self.network.other_words {
            Some(folder) => Err(CliError::usage(
                format!(
                    "{}: it was trained with another codebook than codebook.path holds now",
                    folder.display()
                ),
                "put the words back that the run was made with; its loss on others says nothing".to_owned(),
            )),
            None => Ok(()),
        }
    }

    pub(super) fn score(&self, evaluation: &Evaluation, places: Vec<(usize, Pool)>) -> Result<Score, CliError> {
        self.measure(places, |subject, go_on| (evaluation.run)(subject, go_on))
    }

    /// Measures behind the fence, with the stage shown on the terminal.
    pub(super) fn measure<T>(
        &self,
        places: Vec<(usize, Pool)>,
        work: impl FnOnce(&Subject<'_>, GoOn<'_>) -> Result<T, EvalError>,
    ) -> Result<T, CliError> {
        let (config, network) = (self.config, &self.network);
        let subject = Subject {
            objective: network.objective.as_ref(),
            device: network.device,
            bf16: config.train.precision.is_bf16(network.device),
            normalise: config.train.normalise(),
            eval: &config.eval,
            sets: Sets {
                data: &config.data,
                pipeline: &config.pipeline,
                image: config.model.image,
                crop_ratio: config.eval.crop_ratio,
                seed: config.run.seed,
            },
            training: TrainingPass {
                words: &network.words,
                request: &self.request,
                batch: config.train.batch as usize,
                micro_batches: network.micro_batches.max(1) as usize,
                step: network.step,
                total_steps: config.optim.total_steps,
                classes: config.objective.classes().map(|_| network.classes.as_slice()),
                outputs: network.classes.len().max(config.objective.classes().unwrap_or(0) as usize),
            },
            places,
            val_features: &self.val_features,
            helpers: None,
        };
        let images = ProgressBar::new_spinner()
            .with_style(ProgressStyle::with_template("{spinner} {msg} {pos} images ({per_sec})").expect("template is valid"));
        let fits = ProgressBar::new(subject.places.len() as u64)
            .with_style(ProgressStyle::with_template("{spinner} fitting probes {wide_bar} {pos} of {len}").expect("template is valid"));
        let mut show = |progress| {
            match progress {
                Progress::Waiting => {}
                Progress::Images(set, n) => {
                    images.set_message(set);
                    images.set_position(n as u64);
                }
                Progress::Fits(done, _) => {
                    images.finish_and_clear();
                    fits.set_position(done as u64);
                }
            }
            true
        };
        let result = fenced(|| work(&subject, &mut show));
        images.finish_and_clear();
        fits.finish_and_clear();
        Ok(result?)
    }
}

/// How good the features are, of a checkpoint's weights or of the random initialisation of its config.
pub(in crate::cli) struct Judged {
    /// k-NN accuracy, or why there is none: images without labels have a spread all the same.
    pub(in crate::cli) knn: Result<Accuracy, CliError>,
    /// Their spread, or why there is none.
    pub(in crate::cli) spread: Result<FeatureSpread, CliError>,
}

/// Measures both, with one pass over `data.val`.
pub(in crate::cli) fn judge(config: &Config, weights: Option<&Path>) -> Result<Judged, CliError> {
    let measured = Measured::of(config, weights)?;
    Ok(Judged {
        knn: measured.measure(Vec::new(), knn::measure),
        spread: measured.measure(Vec::new(), spread::of_subject),
    })
}
