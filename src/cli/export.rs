//! `splitmask export`: a pre-trained encoder as timm or transformers load it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use clap::builder::PossibleValue;
use clap::{Args, ValueEnum};
use tch::Tensor;

use super::eval::{Network, checkpoint_folder, config_of};
use crate::checkpoint::{self, Progress};
use crate::cli::answer::say;
use crate::config::Config;
use crate::eval::{self, EVALUATIONS};
use crate::exit::{CliError, ExitCode};
use crate::export::{
    self, Card, ClassHead, Dtype, EXPORTERS, Export, ExportError, Exporter, Measured, Parts, Picture, PixelClasses, Verified,
};
use crate::objective::{ClassesOf, Kind, Pool, Start};
use crate::optim::Weights;
use crate::signals;
use crate::trainer::metrics_log::MetricsLog;

const LONG_ABOUT: &str = "\
Writes the encoder of a checkpoint into a folder that timm or transformers load: weights (safetensors), config, a model card that says
how it was trained and how to load it, and shows the latest pictures that the run drew. Decoder and heads go to a file of their own; a segmentation gets a
loader beside it with --format safetensors, and with objective.head = \"upernet\" it is one of UperNetForSemanticSegmentation (hf-upernet).
A run that learnt classes (classify, supervised) is written with its head and the names of its classes, for timm, ViTForImageClassification or
BeitForImageClassification.";

const EXAMPLES: &str = "\
Examples:
  splitmask export runs/demo --format timm --out exports/demo-timm
  splitmask export runs/demo --format hf-vit --out exports/demo-hf --verify
  splitmask export runs/finetune-demo --format timm --out exports/classifier --verify
  splitmask export runs/demo/checkpoints/step-00000400 --format hf-beit \\
    --out exports/demo-beit --dtype bf16 --verify --python python3
Each format has its own config.json: use one folder for each.";

/// Write a pre-trained encoder or a classifier as timm or transformers load it.
#[derive(Args)]
#[command(long_about = LONG_ABOUT, after_help = EXAMPLES)]
pub(crate) struct ExportArgs {
    /// Run folder (its newest checkpoint is taken) or checkpoint folder.
    run: PathBuf,
    /// What the folder is for.
    #[arg(long)]
    format: Format,
    /// Folder to write; must be new or empty.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Which weights: those of the last step, or their moving average.
    #[arg(long, value_enum, default_value_t = Weights::Raw)]
    weights: Weights,
    /// Number format of the file.
    #[arg(long, value_enum, default_value_t = Dtype::F32)]
    dtype: Dtype,
    /// Leave the head of a run that learnt classes out: the encoder alone, as of any run.
    #[arg(long)]
    encoder_only: bool,
    /// Leave the run's pictures out of the folder and its card: they show images of the data.
    #[arg(long)]
    no_pictures: bool,
    /// Replace a former export in the folder.
    #[arg(long)]
    force: bool,
    /// Read the folder again, compare names, shapes and features with the checkpoint, and leave verify.safetensors for other loaders.
    #[arg(long)]
    verify: bool,
    /// Also load the folder with the library itself, by this Python interpreter (with --verify).
    #[arg(long, value_name = "PYTHON", requires = "verify")]
    python: Option<PathBuf>,
}

/// An entry of the registry as a value of `--format`.
#[derive(Clone, Copy)]
struct Format(&'static dyn Exporter);

impl ValueEnum for Format {
    fn value_variants<'a>() -> &'a [Self] {
        static ALL: std::sync::OnceLock<Vec<Format>> = std::sync::OnceLock::new();
        ALL.get_or_init(|| EXPORTERS.iter().map(|e| Format(*e)).collect())
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.0.name()).help(self.0.doc()))
    }
}

/// The check that needs the libraries themselves; also a file of the repository.
const SCRIPT: &str = include_str!("../../setup/verify_export.py");

pub(crate) fn run(args: &ExportArgs) -> Result<(), CliError> {
    if args.python.is_some() {
        loadable(args.format.0)?;
    }
    let folder = checkpoint_folder(&args.run)?;
    let config = config_of(&folder)?;
    let (weights, dtype) = (args.weights, args.dtype);
    let snapshot = checkpoint::load(&folder)?;
    let mut card = card(&folder, &config, &snapshot.progress, weights)?;
    if !args.no_pictures {
        card.pictures = Picture::of_run(run_of(&folder), config.objective.kind(), card.step)?;
    }
    let (mut encoder, mut rest) = Parts::of(snapshot.model, weights, &folder)?.into_encoder(config.model.clone());
    if args.encoder_only {
        // What remains is what any encoder has beside it.
        rest.retain(|name, _| name == "mask_token");
        card.pixel_classes = None;
        card.encoder_only = true;
    }
    if let Some(pool) = config.objective.class_pool().filter(|_| !args.encoder_only) {
        encoder.head = ClassHead::taken_from(&mut rest, pool == Pool::Class, &snapshot.progress.classes);
    }
    if let Some(PixelClasses {
        names,
        pyramid: Some(shape),
    }) = card.pixel_classes.clone()
    {
        encoder.head = Some(ClassHead::of_pixels(&mut rest, shape, names));
    }
    let what = Export {
        format: args.format.0,
        encoder: &encoder,
        rest: &rest,
        card: &card,
        dtype,
    };
    export::export(&what, &args.out, args.force)?;
    say!(
        "{}: {} for {} (step {}, {} weights, {})",
        args.out.display(),
        config.run.name,
        args.format.0.name(),
        card.step,
        card.weights.name(),
        dtype.torch()
    );
    if let Some(told) = card.beside(args.format.0, &encoder, rest.len()) {
        say!("{told}");
    }
    if !args.verify {
        return Ok(());
    }
    let Verified {
        tensors,
        values,
        difference,
    } = export::verify(&args.out, args.format.0, &encoder, &card, dtype)?;
    say!(
        "verified: {tensors} tensors, {values} values, names and shapes as the format asks; what it answers differs by {difference:.1e} at most"
    );
    if card.pixel_classes.is_some() {
        match dtype {
            Dtype::F32 => leave_logits(&args.out, &folder, &config, weights)?,
            Dtype::Bf16 => say!("logits of pixels are compared by setup/verify_export.py where --dtype is f32"),
        }
    }
    if args.format.0.name() == "safetensors" && config.model.relative_bias && card.pixel_classes.is_some() {
        say!(
            "no load_segmenter.py: it loads the encoder with timm, whose class has no relative position bias; segment.json has the geometry"
        );
    }
    match &args.python {
        Some(python) => check_with(python, &args.out),
        None if args.format.0.library().is_some() => {
            say!("the library itself: python3 setup/verify_export.py {}", args.out.display());
            Ok(())
        }
        None => Ok(()),
    }
}

/// Puts the logits of pixels of a checkpoint beside the pictures of a verification: `map_logits`, f32 B×K×h×w.
fn leave_logits(out: &Path, folder: &Path, config: &Config, weights: Weights) -> Result<(), CliError> {
    let failed = |e: &dyn std::fmt::Display| CliError::usage(format!("libtorch: {e}"), None);
    let path = out.join(export::VERIFICATION);
    let mut tensors = Tensor::read_safetensors(&path).map_err(|e| failed(&e))?;
    let mut config = config.clone();
    config.eval.weights = weights;
    let network = Network::of(&config, Some(folder))?;
    let _guard = tch::no_grad_guard();
    let pixels = tensors
        .iter()
        .find(|(name, _)| name == "pixels")
        .map(|(_, pixels)| pixels.to_device(network.device));
    let logits = pixels.and_then(|pixels| network.objective.pixel_logits(&pixels));
    if let Some(logits) = logits {
        tensors.push(("map_logits".into(), logits.to_device(tch::Device::Cpu).contiguous()));
        Tensor::write_safetensors(&tensors, &path).map_err(|e| failed(&e))?;
    }
    Ok(())
}

/// Whether there is a library whose strict loading `--python` could check; asked before anything is written.
fn loadable(format: &dyn Exporter) -> Result<(), CliError> {
    if format.library().is_some() {
        return Ok(());
    }
    let message = format!(
        "--python: no library loads --format {} by itself; nothing was written",
        format.name()
    );
    Err(CliError::usage(
        message,
        Some("leave --python out: --verify compares every value and the features".into()),
    ))
}

/// Runs the Python check, whose lines go to our stdout.
fn check_with(python: &Path, folder: &Path) -> Result<(), CliError> {
    let failed = |why: String| CliError {
        code: ExitCode::Usage,
        message: format!("{}: the check in Python {why}", folder.display()),
        hint: Some("it needs torch, safetensors and timm or transformers in that interpreter; its own lines above say more".into()),
    };
    let spawned = signals::let_through(Command::new(python).arg("-").arg(folder).stdin(Stdio::piped())).spawn();
    let mut child = spawned.map_err(|e| failed(format!("could not be started with {}: {e}", python.display())))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A child that ends early closes its end; its exit code tells.
        let _ = std::io::Write::write_all(&mut stdin, SCRIPT.as_bytes());
    }
    let status = child.wait().map_err(|e| failed(e.to_string()))?;
    if status.success() {
        Ok(())
    } else {
        Err(failed(format!("failed ({status})")))
    }
}

/// The run folder of a checkpoint; of one that lies elsewhere, itself.
fn run_of(checkpoint: &Path) -> &Path {
    let folder = checkpoint.parent().filter(|folder| folder.ends_with("checkpoints"));
    folder.and_then(Path::parent).unwrap_or(checkpoint)
}

/// What is known about a checkpoint, pictures left out.
fn card(folder: &Path, config: &Config, progress: &Progress, weights: Weights) -> Result<Card, CliError> {
    let kind = config.objective.kind();
    let images = progress
        .counters
        .iter()
        .find(|(name, _)| name.contains("images"))
        .map_or(progress.step * u64::from(config.train.batch), |(_, n)| *n as u64);
    Ok(Card {
        run: config.run.name.clone(),
        step: progress.step,
        images,
        batch: config.train.batch,
        seed: config.run.seed,
        objective: kind.name.to_owned(),
        objective_doc: format!("{} ({})", kind.doc, kind.reference),
        data: config.data.train.clone(),
        fraction: config.data.fraction,
        init_from: config.run.init_from.clone(),
        frozen: match config.objective.start() {
            Start::Pretrained(setting) => Some(setting),
            Start::Any | Start::BetterPretrained => None,
        },
        codebook: progress.codebook.clone(),
        weights,
        config_sha256: config.sha256(),
        config_toml: config.to_toml(),
        mean: config.train.mean,
        std: config.train.std,
        class_token: config.eval.pool == eval::pool::Pool::Cls,
        crop_ratio: config.eval.crop_ratio,
        pixel_classes: (config.objective.classes_of() == ClassesOf::Pixels).then(|| PixelClasses {
            names: pixel_classes(config, progress),
            pyramid: config.objective.pyramid(&config.model),
        }),
        learnt: config.objective.classes().map(|_| config.objective.classes_of()),
        encoder_only: false,
        measured: measured(run_of(folder), progress.step, kind, weights, config.eval.weights)?,
        pictures: vec![],
        version: concat!(env!("CARGO_PKG_VERSION"), " (", env!("SPLITMASK_REVISION"), ")").to_owned(),
    })
}

/// Names of the classes of pixels that a run learnt.
fn pixel_classes(config: &Config, progress: &Progress) -> Vec<String> {
    let outputs = config.objective.classes().unwrap_or(0).max(progress.classes.len() as u32);
    let name = |class: usize| progress.classes.get(class).cloned().unwrap_or_else(|| format!("class {class}"));
    (0..outputs as usize).map(name).collect()
}

/// The last losses and accuracies that the run's journal holds up to `step`. Numbers of other weights than the exported ones say so: losses are those of
/// the weights that are trained, evaluations those of `eval.weights`.
fn measured(run: &Path, step: u64, kind: &Kind, exported: Weights, evaluated: Weights) -> Result<Vec<Measured>, CliError> {
    let lines = MetricsLog::read(run).map_err(|e| CliError::io(e.to_string()))?;
    let last = |key: &str, what: String| {
        lines.iter().rev().find_map(|line| {
            let at = line["step"].as_u64().filter(|s| *s <= step)?;
            // Lines of older versions do not say which weights were evaluated.
            let untold = if EVALUATIONS.iter().flat_map(|e| e.numbers()).any(|n| n.name == key) {
                evaluated
            } else {
                Weights::Raw
            };
            let of = line["weights"].as_str().unwrap_or(untold.name());
            let apart = if of == exported.name() {
                String::new()
            } else {
                format!(" (of the {of} weights)")
            };
            Some(Measured {
                what: format!("{what}{apart}"),
                value: line[key].as_f64()?,
                step: at,
            })
        })
    };
    let mut found = Vec::new();
    for number in kind.numbers.iter().filter(|n| n.panel().is_some()) {
        let unit = match number.unit_behind() {
            "" => String::new(),
            unit => format!(",{unit}"),
        };
        found.extend(last(number.name, format!("{}{unit}", number.title())));
        let told = |key: &str| kind.numbers.iter().any(|n| n.name == key && n.panel().is_some());
        if let Some(baseline) = number.baseline.filter(|baseline| !told(baseline.number)) {
            let what = format!(
                "{}{unit}: the {} of {}",
                baseline.number.replace('_', " "),
                number.title(),
                baseline.who
            );
            found.extend(last(baseline.number, what));
        }
    }
    found.extend(last("feature_rank", "effective rank of the features of the validation set".into()));
    found.extend(last("knn_accuracy", "k-NN accuracy on the validation set".into()));
    found.extend(last("top1_accuracy", "top-1 accuracy on the validation set".into()));
    found.extend(last("top5_accuracy", "top-5 accuracy on the validation set".into()));
    found.extend(last("mean_iou", "mean IoU on the label maps of the validation set".into()));
    found.extend(last("object_mean_iou", "the same without the first class".into()));
    found.extend(last(
        "box_average_precision",
        "average precision of boxes on the validation set".into(),
    ));
    found.extend(last(
        "mask_average_precision",
        "average precision of masks on the validation set".into(),
    ));
    found.extend(last("linear_accuracy", "accuracy of a linear probe on the validation set".into()));
    Ok(found)
}

impl From<ExportError> for CliError {
    fn from(e: ExportError) -> Self {
        let code = match &e {
            ExportError::Io { .. } => ExitCode::Io,
            ExportError::Tensors(_) | ExportError::Torch(_) => ExitCode::Internal,
            ExportError::Cannot { .. } | ExportError::NoAverage { .. } | ExportError::Bad { .. } => ExitCode::Usage,
        };
        Self {
            code,
            hint: e.hint(),
            message: e.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn python_checks_only_what_a_library_loads() {
        for format in EXPORTERS {
            let alone = ["safetensors", "torchvision-maskrcnn"].contains(&format.name());
            assert_eq!(loadable(*format).is_err(), alone, "{}", format.name());
        }
    }
}
