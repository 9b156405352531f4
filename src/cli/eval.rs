//! `splitmask eval`: how good are the features of a checkpoint? The verbs are the rows of [`crate::eval::EVALUATIONS`], and one that
//! judges detections of any program.

mod detections;
mod linear;
mod network;
mod subject;

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde_json::json;
use splitmask_pipeline::types::Image;

use self::subject::SubjectArgs;
use super::png::{check_picture_path, write_png};
use crate::config::Config;
use crate::eval::classify::CLASSIFY;
use crate::eval::detect::DETECT;
use crate::eval::knn::KNN;
use crate::eval::linear::LINEAR;
use crate::eval::loss::VALIDATION_LOSS;
use crate::eval::pool::Pool;
use crate::eval::segment::SEGMENT;
use crate::eval::spread::SPREAD;
use crate::exit::CliError;
use crate::objective::ClassesOf;

pub(super) use network::{Network, take_averages};
pub(super) use subject::{checkpoint_folder, config_of, judge, warn_of_training_images};

/// Measure a checkpoint on the images of data.val.
#[derive(Args)]
pub(crate) struct EvalArgs {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    #[command(about = KNN.doc)]
    Knn(KnnArgs),
    #[command(about = LINEAR.doc)]
    Linear(linear::LinearArgs),
    #[command(about = VALIDATION_LOSS.doc)]
    Loss(LossArgs),
    #[command(about = CLASSIFY.doc)]
    Classify(ClassifyArgs),
    #[command(about = SEGMENT.doc)]
    Segment(SegmentArgs),
    #[command(about = DETECT.doc)]
    Detect(DetectArgs),
    #[command(about = SPREAD.doc)]
    Spread(SpreadArgs),
    #[command(about = "Judge detections by COCO's rules: average precision and recall of boxes or masks")]
    Detections(detections::DetectionsArgs),
}

/// Each image of data.val is classified by the k most similar images of data.train; nothing is learnt, so the number speaks of the
/// encoder alone. Compare it with --random-init, the same encoder before any training.
#[derive(Args)]
#[command(
    after_help = "Examples:\n  splitmask eval knn runs/demo\n  splitmask eval knn runs/demo --random-init\n  splitmask eval knn runs/demo/checkpoints/step-00000400 --json"
)]
struct KnnArgs {
    #[command(flatten)]
    subject: SubjectArgs,
    /// Neighbours that vote; default: eval.k of the run's config.
    #[arg(long)]
    k: Option<u32>,
    /// What of the last layer's tokens; default: eval.pool of the run's config.
    #[arg(long, value_enum)]
    pool: Option<Pool>,
}

/// Centre crops in batches of train.batch, the same masks each time, no drop path.
#[derive(Args)]
#[command(after_help = "Example:\n  splitmask eval loss runs/demo")]
struct LossArgs {
    #[command(flatten)]
    subject: SubjectArgs,
}

/// Centre crops of data.val, whose classes are matched with those that the run learnt by name. Images of other classes and without a label are left out,
/// and told. --json has every class, and every pair of classes that was confused.
#[derive(Args)]
#[command(
    after_help = "Examples:\n  splitmask eval classify runs/finetune-demo\n  splitmask eval classify runs/finetune-demo/checkpoints/best --json\n  splitmask eval classify runs/finetune-demo --val data/other --picture confusion.png"
)]
struct ClassifyArgs {
    #[command(flatten)]
    subject: SubjectArgs,
    /// Draw which classes are taken for which into a .png file, which is replaced if it is there.
    #[arg(long, value_name = "FILE")]
    picture: Option<PathBuf>,
}

/// Label maps of data.val, whose classes are matched with those that the run learnt by name, at the maps' own size. Pixels of other classes and without a
/// label are left out, and told. --json has every class.
#[derive(Args)]
#[command(
    after_help = "Examples:\n  splitmask eval segment runs/segment-scenes\n  splitmask eval segment runs/segment-scenes --slide --json\n  splitmask eval segment runs/segment-scenes/checkpoints/best --val data/other/val"
)]
struct SegmentArgs {
    #[command(flatten)]
    subject: SubjectArgs,
    /// See images by windows of the model's size, the shorter side resized to it, instead of squeezed into one square; default: eval.slide of the run.
    #[arg(long)]
    slide: bool,
    /// Pixels from one window to the next; 0 = two thirds of it. Default: eval.slide_stride of the run.
    #[arg(long, value_name = "PIXELS", requires = "slide")]
    stride: Option<u32>,
}

/// Marked objects of data.val, whose classes are matched with those that the run learnt by name, in the pictures' own size. Objects of other classes are
/// left out, and told. --json has every class.
#[derive(Args)]
#[command(
    after_help = "Examples:\n  splitmask eval detect runs/detect-scenes\n  splitmask eval detect runs/detect-scenes/checkpoints/best --val data/other/val --json"
)]
struct DetectArgs {
    #[command(flatten)]
    subject: SubjectArgs,
}

/// A collapsed encoder answers the same for every image: rank 1, cosine 1, deviation 0. Compare with --random-init, the same encoder before any
/// training, and with earlier checkpoints of the run; across objectives and widths the numbers are not comparable.
#[derive(Args)]
#[command(after_help = "Examples:\n  splitmask eval spread runs/demo\n  splitmask eval spread runs/demo --random-init --json")]
struct SpreadArgs {
    #[command(flatten)]
    subject: SubjectArgs,
    /// What of the last layer's tokens; default: eval.pool of the run's config.
    #[arg(long, value_enum)]
    pool: Option<Pool>,
}

/// Refuses a run that learns no classes, and says what to do.
pub(super) fn need_classes(folder: &Path, config: &Config) -> Result<(), CliError> {
    if config.objective.classes().is_some() && config.objective.classes_of() == ClassesOf::Images {
        return Ok(());
    }
    let run = folder.parent().and_then(Path::parent).unwrap_or(folder).display();
    Err(CliError::usage(
        format!(
            "{}: this run learnt no classes (objective.kind = \"{}\")",
            folder.display(),
            config.objective.kind().name
        ),
        format!(
            "fine-tune it on labelled images: splitmask train --config configs/finetune-small.toml --set run.init_from={run} (docs/finetune.md); its features are \
             measured by `splitmask eval knn {run}`"
        ),
    ))
}

/// Refuses a run that learns no classes of pixels, and says what to do.
pub(super) fn need_pixel_classes(folder: &Path, config: &Config) -> Result<(), CliError> {
    if config.objective.classes().is_some() && config.objective.classes_of() == ClassesOf::Pixels {
        return Ok(());
    }
    let run = folder.parent().and_then(Path::parent).unwrap_or(folder).display();
    Err(CliError::usage(
        format!(
            "{}: this run learnt no classes of pixels (objective.kind = \"{}\")",
            folder.display(),
            config.objective.kind().name
        ),
        format!("fine-tune it on label maps: splitmask train --config configs/segment.toml --set run.init_from={run} (docs/segment.md)"),
    ))
}

/// Refuses a run that learns to find no objects, and says what to do.
pub(super) fn need_objects(folder: &Path, config: &Config) -> Result<(), CliError> {
    if config.objective.classes().is_some() && config.objective.classes_of() == ClassesOf::Objects {
        return Ok(());
    }
    let run = folder.parent().and_then(Path::parent).unwrap_or(folder).display();
    Err(CliError::usage(
        format!(
            "{}: this run learnt to find no objects (objective.kind = \"{}\")",
            folder.display(),
            config.objective.kind().name
        ),
        format!("fine-tune it on marked objects: splitmask train --config configs/detect.toml --set run.init_from={run} (docs/detect.md)"),
    ))
}

pub(crate) fn run(args: EvalArgs) -> Result<(), CliError> {
    match args.task {
        Task::Linear(args) => linear::run(&args),
        Task::Detections(args) => detections::run(&args),
        Task::Loss(LossArgs { subject }) => {
            let (folder, config) = subject.open()?;
            let measured = subject.model(&config, &folder)?;
            measured.need_its_words()?;
            subject.tell(
                &folder,
                &config,
                &VALIDATION_LOSS,
                measured.score(&VALIDATION_LOSS, Vec::new())?,
                json!({}),
            )
        }
        Task::Spread(SpreadArgs { subject, pool }) => {
            let (folder, mut config) = subject.open()?;
            config.eval.pool = pool.unwrap_or(config.eval.pool);
            let measured = subject.model(&config, &folder)?;
            subject.tell(
                &folder,
                &config,
                &SPREAD,
                measured.score(&SPREAD, Vec::new())?,
                json!({ "pool": config.eval.pool }),
            )
        }
        Task::Classify(ClassifyArgs { subject, picture }) => {
            if let Some(file) = &picture {
                check_picture_path("--picture", file, "png")?;
            }
            let (folder, config) = subject.open()?;
            need_classes(&folder, &config)?;
            let measured = subject.model(&config, &folder)?;
            let score = measured.score(&CLASSIFY, Vec::new())?;
            if let (Some(file), Some((_, drawn))) = (&picture, &score.picture) {
                write_png(
                    &Image {
                        width: drawn.width(),
                        height: drawn.height(),
                        pixels: drawn.as_raw().clone(),
                    },
                    file,
                )?;
            }
            subject.tell(&folder, &config, &CLASSIFY, score, json!({}))
        }
        Task::Segment(SegmentArgs { subject, slide, stride }) => {
            let (folder, mut config) = subject.open()?;
            need_pixel_classes(&folder, &config)?;
            config.eval.slide |= slide;
            config.eval.slide_stride = stride.unwrap_or(config.eval.slide_stride);
            if let Some(wrong) = config.eval.wrong_stride(config.model.image) {
                let stride = config.eval.slide_stride;
                return Err(CliError::usage(format!("--stride {stride}: expected {wrong}"), None));
            }
            let measured = subject.model(&config, &folder)?;
            let seen = json!({ "slide": config.eval.slide, "stride": config.eval.slide_stride });
            subject.tell(&folder, &config, &SEGMENT, measured.score(&SEGMENT, Vec::new())?, seen)
        }
        Task::Detect(DetectArgs { subject }) => {
            let (folder, config) = subject.open()?;
            need_objects(&folder, &config)?;
            let measured = subject.model(&config, &folder)?;
            subject.tell(&folder, &config, &DETECT, measured.score(&DETECT, Vec::new())?, json!({}))
        }
        Task::Knn(KnnArgs { subject, k, pool }) => {
            let (folder, mut config) = subject.open()?;
            config.eval.pool = pool.unwrap_or(config.eval.pool);
            if let Some(k) = k {
                if k == 0 {
                    return Err(CliError::usage("--k 0: at least one neighbour votes", None));
                }
                config.eval.k = k;
            }
            let measured = subject.model(&config, &folder)?;
            subject.tell(
                &folder,
                &config,
                &KNN,
                measured.score(&KNN, Vec::new())?,
                json!({ "k": config.eval.k, "pool": config.eval.pool }),
            )
        }
    }
}
