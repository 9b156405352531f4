//! `splitmask eval detections`: judges somebody's detections by COCO's rules.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use splitmask_pipeline::coco::CocoError;

use crate::cli::answer::{say, warn};
use crate::detection::{Averages, ShapeKind, evaluate, read_detections, read_truth};
use crate::exit::CliError;

/// Average precision and recall of detections by COCO's rules, without Python: the twelve numbers of pycocotools to the last digit, and the classes one by
/// one. TRUTH has images, annotations and categories; RESULTS is a list of {"image_id", "category_id", "bbox" or "segmentation", "score"}.
#[derive(Args)]
#[command(
    after_help = "Examples:\n  splitmask eval detections instances_val.json results.json\n  splitmask eval detections instances_val.json results.json --of masks --json"
)]
pub(super) struct DetectionsArgs {
    /// What is to be found, in COCO's form.
    truth: PathBuf,
    /// What was found, in COCO's form of results.
    results: PathBuf,
    /// What of the objects is compared.
    #[arg(long, value_enum, default_value_t = Of::Boxes)]
    of: Of,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Of {
    /// Boxes (bbox).
    Boxes,
    /// Masks (segmentation: polygons or runs).
    Masks,
}

/// Classes that the table names: the rest is in the JSON.
const SHOWN: usize = 40;

pub(super) fn run(args: &DetectionsArgs) -> Result<(), CliError> {
    let kind = match args.of {
        Of::Boxes => ShapeKind::Box,
        Of::Masks => ShapeKind::Mask,
    };
    let refused = |e: CocoError| CliError::usage(e.to_string(), None);
    let truth = read_truth(&args.truth, kind).map_err(refused)?;
    truth.remarks.iter().for_each(|remark| warn(remark));
    let found = read_detections(&args.results, &truth, kind).map_err(refused)?;
    let averages = evaluate(&truth, &found);
    let objects: usize = truth.pictures.iter().map(|picture| picture.objects.len()).sum();
    if args.json {
        let told = serde_json::json!({
            "of": kind, "pictures": truth.pictures.len(), "objects": objects, "detections": found.found.len(), "averages": averages,
        });
        say!("{told}");
        return Ok(());
    }
    say!(
        "{} pictures with {objects} objects, {} detections",
        truth.pictures.len(),
        found.found.len()
    );
    for line in table(&averages) {
        say!("{line}");
    }
    Ok(())
}

fn table(averages: &Averages) -> Vec<String> {
    let percent = |share: Option<f64>| share.map_or_else(|| "–".to_owned(), |share| format!("{:.1} %", 100.0 * share));
    let rows = [
        ("average precision, overlaps 0.5 to 0.95", averages.precision),
        ("  overlap 0.5", averages.precision_50),
        ("  overlap 0.75", averages.precision_75),
        ("  small objects (to 32² pixels)", averages.precision_small),
        ("  medium objects (to 96²)", averages.precision_medium),
        ("  large objects", averages.precision_large),
        ("average recall, 1 detection a picture and class", averages.recall_1),
        ("  10 detections", averages.recall_10),
        ("  100 detections", averages.recall_100),
        ("  small objects", averages.recall_small),
        ("  medium objects", averages.recall_medium),
        ("  large objects", averages.recall_large),
    ];
    let mut lines: Vec<String> = rows
        .iter()
        .map(|(name, share)| format!("{name:<50}{:>8}", percent(*share)))
        .collect();
    lines.push(String::new());
    lines.push(format!("{:<40}{:>8}{:>10}{:>10}", "class", "objects", "AP", "AP at 0.5"));
    for class in averages.classes.iter().take(SHOWN) {
        lines.push(format!(
            "{:<40}{:>8}{:>10}{:>10}",
            class.name,
            class.objects,
            percent(Some(class.precision)),
            percent(Some(class.precision_50))
        ));
    }
    if let Some(more) = averages.classes.len().checked_sub(SHOWN).filter(|more| *more > 0) {
        lines.push(format!("… and {more} classes more: --json has them"));
    }
    lines
}
