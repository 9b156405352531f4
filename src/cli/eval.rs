//! `splitmask eval`: how good are the features of a checkpoint?

mod linear;

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use tch::{Device, Tensor, nn};

use crate::checkpoint::{self, folder_of};
use crate::cli::answer::say;
use crate::config::{Config, Source};
use crate::eval::fenced;
use crate::eval::knn::Accuracy;
use crate::exit::CliError;
use crate::objective::Objective;
use crate::optim::EMA_PREFIX;
use crate::tensor::choose_device;
use crate::trainer::spec::{TrainerSpec, Weights};
use crate::trainer::{self, TrainError};

/// Measure the features of a checkpoint on labelled images.
#[derive(Args)]
pub(crate) struct EvalArgs {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    Knn(KnnArgs),
    Linear(linear::LinearArgs),
}

/// k-nearest-neighbour accuracy of frozen features: no training, a minute on a CPU (DINO's protocol, arXiv 2104.14294).
///
/// Each image of data.val is classified by the k most similar images of data.train; nothing is learnt, so the number speaks of the
/// encoder alone. Compare it with --random-init, the same encoder before any training.
#[derive(Args)]
#[command(
    after_help = "Examples:\n  splitmask eval knn runs/demo\n  splitmask eval knn runs/demo --random-init\n  splitmask eval knn runs/demo/checkpoints/step-00000400 --json"
)]
struct KnnArgs {
    /// Run folder (its newest checkpoint is taken) or checkpoint folder.
    run: PathBuf,
    /// The same encoder at its random initialisation instead of the checkpoint's weights.
    #[arg(long)]
    random_init: bool,
    /// Neighbours that vote; default: eval.k of the run's config.
    #[arg(long)]
    k: Option<u32>,
    /// Labelled shards to classify; default: data.val of the run's config.
    #[arg(long, value_name = "URL")]
    val: Option<String>,
    /// Take the averaged weights (needs a run with ema.decay); default: eval.weights of the run's config.
    #[arg(long)]
    ema: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: EvalArgs) -> Result<(), CliError> {
    match args.task {
        Task::Linear(args) => linear::run(args),
        Task::Knn(args) => {
            let folder = checkpoint_folder(&args.run)?;
            let mut config = config_of(&folder)?;
            if let Some(k) = args.k {
                if k == 0 {
                    return Err(CliError::usage("--k 0: at least one neighbour votes", None));
                }
                config.eval.k = k;
            }
            if let Some(val) = args.val {
                config.data.val = val;
            }
            if args.ema {
                if config.ema.decay == 0.0 {
                    return Err(CliError::usage(
                        format!("--ema: {} has no averaged weights (ema.decay = 0)", folder.display()),
                        "train with ema.decay, for example 0.999".to_owned(),
                    ));
                }
                config.eval.weights = Weights::Ema;
            }
            let accuracy = knn(&config, (!args.random_init).then_some(folder.as_path()))?;
            if args.json {
                let what = if args.random_init {
                    "random-init".into()
                } else {
                    folder.display().to_string()
                };
                say!("{}", serde_json::json!({ "weights": what, "k": config.eval.k, "knn": accuracy }));
            } else {
                say!(
                    "k-NN accuracy   {:.4}   (k = {}, {} images among {})",
                    accuracy.top1,
                    config.eval.k,
                    accuracy.queries,
                    accuracy.references
                );
                say!("commonest class {:.4}", accuracy.majority);
                say!("chance          {:.4}   ({} classes)", accuracy.chance, accuracy.classes);
                for line in accuracy.remarks.lines() {
                    say!("note            {line}");
                }
            }
            Ok(())
        }
    }
}

/// The folder itself if it is a checkpoint, else the newest good checkpoint of the run in it; newer ones that cannot be read are named on stderr.
pub(super) fn checkpoint_folder(run: &Path) -> Result<PathBuf, CliError> {
    if run.join("complete.json").exists() {
        return Ok(run.to_owned());
    }
    let found = checkpoint::newest_good(&folder_of(run)).map_err(TrainError::from)?;
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

/// The config that a checkpoint was written under.
pub(super) fn config_of(folder: &Path) -> Result<Config, CliError> {
    let source = Source {
        file: folder.join("config.toml"),
        ..Source::default()
    };
    Ok(source.load()?.config)
}

/// An encoder to evaluate, and what evaluations need beside it.
struct Subject {
    objective: Box<dyn Objective>,
    spec: TrainerSpec,
    device: Device,
}

impl Subject {
    /// A checkpoint's weights, or the random initialisation of its config.
    fn of(config: &Config, weights: Option<&Path>) -> Result<Self, CliError> {
        let spec = config.trainer_spec();
        if spec.data.val.is_empty() {
            return Err(CliError::usage(
                "data.val is empty: there is nothing to classify",
                "name labelled shards: --val URL".to_owned(),
            ));
        }
        let (device, _) = choose_device(&spec.train.device).map_err(TrainError::from)?;
        let words = trainer::Words::load(&spec, device)?;
        tch::manual_seed(spec.seed as i64);
        let vars = nn::VarStore::new(device);
        let objective = spec.objective.build(&vars.root(), &spec.scope(words.len()));
        if let Some(folder) = weights {
            let mut tensors = checkpoint::load_model(folder).map_err(TrainError::from)?;
            if spec.eval.weights == Weights::Ema {
                // Only the averages, under their weights' names.
                let averaged = |(name, t): (String, Tensor)| name.strip_prefix(EMA_PREFIX).map(|n| (n.to_owned(), t));
                tensors = tensors.into_iter().filter_map(averaged).collect();
            }
            trainer::put_weights(folder, &tensors, &vars)?;
        }
        Ok(Self { objective, spec, device })
    }
}

fn spinner() -> ProgressBar {
    ProgressBar::new_spinner()
        .with_style(ProgressStyle::with_template("{spinner} {msg} {pos} images ({per_sec})").expect("template is valid"))
}

/// k-NN accuracy of a checkpoint's weights, or of the random initialisation of its config.
pub(super) fn knn(config: &Config, weights: Option<&Path>) -> Result<Accuracy, CliError> {
    let subject = Subject::of(config, weights)?;
    let bar = spinner();
    let encoder = subject.objective.encoder();
    let result = fenced(|| {
        trainer::knn(encoder, &subject.spec, subject.device, |set, n| {
            bar.set_message(set.to_owned());
            bar.set_position(n as u64);
        })
    });
    bar.finish_and_clear();
    Ok(result?)
}
