//! `splitmask pack`: folders of images → tar shards.

mod maps;
mod objects;

use std::io::IsTerminal;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use splitmask_pipeline::bucket::manifest::Manifest;
use splitmask_pipeline::pack::{ClassFrom, Encoding, PackError, PackOptions, PackProgress, PackReport, REFUSED_NAME, pack};

use self::maps::MapArgs;
use self::objects::ObjectArgs;
use crate::cli::amount;
use crate::cli::answer::answer;
use crate::exit::{CliError, ExitCode};

const LONG_ABOUT: &str = "\
Turns folders of images into WebDataset tar shards that training streams.

INPUT is searched with all its sub-folders for PNG, JPEG, WebP, GIF, BMP and TIFF files. OUTPUT gets
  train/000000.tar …, train/manifest.json    the shards and what is in them
  val/…                                      the same for the share given by --val-share, or the folder given by --val
  refused.tsv                                files that are not in there, and why
Labels are not needed for training; where images lie in sub-folders, the folder becomes the class, for evaluation.
The same files and options give the same bytes on any machine.";

const EXAMPLES: &str = "\
Examples:
  splitmask pack ~/Pictures data/pictures
  splitmask pack photos data/photos --longest-side 512 --encode jpeg:90 --val-share 0.1
  splitmask pack clipart data/clipart --longest-side 128 --background white --square \\
    --val-share 0.2 --min-class 20
  splitmask pack birds/train data/birds --val birds/val
  splitmask pack photos data/street --coco objects.json --val-share 0.1
Then:
  splitmask inspect data/photos/train --contact-sheet sheet.png
  splitmask train --config configs/tiny.toml --set data.train=data/photos/train";

/// Turn folders of images into tar shards to train on.
#[derive(Args)]
#[command(long_about = LONG_ABOUT, after_help = EXAMPLES)]
pub(crate) struct PackArgs {
    /// Folder of images; its sub-folders become the classes.
    input: PathBuf,
    /// Folder for the shards; must be absent or empty.
    output: PathBuf,
    /// Replace an earlier pack in OUTPUT; codebooks and pictures (.safetensors, .png) beside it stay.
    #[arg(long)]
    force: bool,
    /// Shrink images whose longer side exceeds this, for example 512px; never enlarges.
    #[arg(long, value_name = "PIXELS", value_parser = amount::side)]
    longest_side: Option<u32>,
    /// Centre each image on a white square (for elongated drawings on white).
    #[arg(long)]
    square: bool,
    /// Lay transparent images over this colour: white, black or #rrggbb. Without it the colours beneath the transparency show.
    #[arg(long, value_name = "COLOUR", value_parser = colour)]
    background: Option<[u8; 3]>,
    /// How images are stored: keep, png, webp (lossless), jpeg or jpeg:QUALITY. `keep` copies files whose pixels need not change.
    #[arg(long, value_name = "FORMAT", default_value = "keep", value_parser = encoding)]
    encode: Encoding,
    /// Share of the images for val/, 0 to below 1, chosen by hash of the path; training keeps at least one image of each class.
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, value_parser = share)]
    val_share: f64,
    /// Folder of validation images, with class folders as in INPUT, for val/.
    #[arg(long, value_name = "FOLDER", conflicts_with = "val_share")]
    val: Option<PathBuf>,
    #[command(flatten)]
    maps: MapArgs,
    #[command(flatten)]
    objects: ObjectArgs,
    /// Which folder of an image's path is its class; default: path. Where it is not given, an INPUT that holds train/ and val/ with the same
    /// classes becomes these two sets.
    #[arg(long, value_enum)]
    class: Option<ClassArg>,
    /// Images of classes with fewer files stay in, without a label.
    #[arg(long, value_name = "FILES", default_value_t = 1)]
    min_class: u64,
    /// Size of a shard.
    #[arg(long, value_name = "BYTES", default_value = "64MiB", value_parser = amount::bytes)]
    shard_size: u64,
    /// Refuse images of more pixels (width × height), from their header.
    #[arg(long, value_name = "PIXELS", default_value = "64Mpx", value_parser = amount::pixels)]
    max_pixels: u64,
    /// Refuse larger files unread.
    #[arg(long, value_name = "BYTES", default_value = "256MiB", value_parser = amount::bytes)]
    max_bytes: u64,
    /// Leave out files that repeat another one byte by byte.
    #[arg(long)]
    drop_duplicates: bool,
    /// Do not follow symbolic links.
    #[arg(long)]
    no_follow_links: bool,
    /// Threads; 0 = one per core. Changes nothing in the output.
    #[arg(long, value_name = "N", default_value_t = 0)]
    threads: usize,
    /// Print the summary as JSON, and no progress bar.
    #[arg(long)]
    json: bool,
}

/// Choices of `--class`.
#[derive(Clone, Copy, ValueEnum)]
enum ClassArg {
    /// The whole folder path: animals/birds
    Path,
    /// The first folder: animals
    Top,
    /// The last folder: birds
    Leaf,
    /// No labels
    None,
}

fn encoding(text: &str) -> Result<Encoding, String> {
    let allowed = "use keep, png, webp, jpeg or jpeg:QUALITY with a quality of 1 to 100, for example jpeg:90";
    match text.to_ascii_lowercase().split_once(':') {
        None => match text.to_ascii_lowercase().as_str() {
            "keep" => Ok(Encoding::Keep),
            "png" => Ok(Encoding::Png),
            "webp" => Ok(Encoding::Webp),
            "jpeg" | "jpg" => Ok(Encoding::Jpeg(90)),
            _ => Err(allowed.into()),
        },
        Some(("jpeg" | "jpg", quality)) => quality
            .parse()
            .ok()
            .filter(|q| (1..=100).contains(q))
            .map(Encoding::Jpeg)
            .ok_or_else(|| allowed.into()),
        Some(_) => Err(allowed.into()),
    }
}

pub(super) fn colour(text: &str) -> Result<[u8; 3], String> {
    let hex = |digits: &str| {
        let value = u32::from_str_radix(digits, 16).ok().filter(|_| digits.len() == 6)?;
        let [_, colour @ ..] = value.to_be_bytes();
        Some(colour)
    };
    match text.to_ascii_lowercase().as_str() {
        "white" => Some([255; 3]),
        "black" => Some([0; 3]),
        other => other.strip_prefix('#').and_then(hex),
    }
    .ok_or_else(|| "a colour is white, black or #rrggbb, for example #c0c0c0".into())
}

fn share(text: &str) -> Result<f64, String> {
    let share: Option<f64> = text.parse().ok();
    share
        .filter(|s| (0.0..1.0).contains(s))
        .ok_or_else(|| "a share is a number from 0 to below 1, for example 0.2 for one image in five".into())
}

impl From<PackError> for CliError {
    fn from(e: PackError) -> Self {
        let code = match e {
            PackError::Io { .. } => ExitCode::Io,
            PackError::Worker(e) => return e.into(),
            _ => ExitCode::Usage,
        };
        Self {
            code,
            hint: e.hint().map(Into::into),
            message: e.to_string(),
        }
    }
}

/// Packs, with a progress bar on a terminal, and prints the summary.
pub(crate) fn run(args: PackArgs) -> Result<(), CliError> {
    let options = PackOptions {
        maps: args.maps.options()?,
        objects: args.objects.options(),
        force: args.force,
        shard_bytes: args.shard_size,
        longest_side: args.longest_side,
        square: args.square,
        background: args.background,
        encode: args.encode,
        val_share: args.val_share,
        val: args.val,
        recognise_sets: args.class.is_none(),
        class: match args.class {
            None | Some(ClassArg::Path) => ClassFrom::Path,
            Some(ClassArg::Top) => ClassFrom::Top,
            Some(ClassArg::Leaf) => ClassFrom::Leaf,
            Some(ClassArg::None) => ClassFrom::None,
        },
        min_class: args.min_class,
        max_pixels: args.max_pixels,
        max_bytes: args.max_bytes,
        drop_duplicates: args.drop_duplicates,
        follow_links: !args.no_follow_links,
        threads: args.threads,
        ..PackOptions::new(args.input, args.output)
    };
    let visible = !args.json && std::io::stderr().is_terminal();
    let target = if visible {
        ProgressDrawTarget::stderr()
    } else {
        ProgressDrawTarget::hidden()
    };
    let bar = ProgressBar::with_draw_target(None, target);
    let report = pack(&options, |p| show(&bar, p));
    bar.finish_and_clear();
    let report = report?;
    let text = if args.json { json(&report) } else { summary(&report, &options) };
    answer(&text)
}

fn show(bar: &ProgressBar, p: PackProgress) {
    if p.total == 0 {
        bar.set_message(format!("{} files found", p.done));
        bar.tick();
        return;
    }
    if bar.length().is_none() {
        bar.set_length(p.total);
        bar.reset_eta();
        let style = ProgressStyle::with_template("packing {wide_bar} {pos}/{len} images · {per_sec} · {msg} · {eta} left");
        bar.set_style(style.expect("the template is a constant"));
    }
    bar.set_position(p.done);
    bar.set_message(format!("{} written, {} refused", amount::human(p.written), p.refused));
}

fn json(report: &PackReport) -> String {
    let set = |m: &Manifest| serde_json::json!({"shards": m.shards.len(), "samples": m.samples(), "bytes": m.bytes(), "label_counts": m.label_counts, "statistics": m.statistics});
    let value = serde_json::json!({
        "output": report.output, "train": set(&report.train), "val": report.val.as_ref().map(set), "classes": report.train.classes,
        "found": report.found, "packed": report.packed(), "unlabelled": report.unlabelled, "resized": report.resized,
        "transparent": report.transparent,
        "source_bytes": report.source_bytes, "refused": report.refused, "duplicates": report.duplicates,
        "maps": report.train.maps, "val_maps": report.val.as_ref().and_then(|val| val.maps.as_ref()), "unused_maps": report.unused_maps.0,
        "objects": report.train.objects, "val_objects": report.val.as_ref().and_then(|val| val.objects.as_ref()), "annotations": report.objects,
        "passed_over": report.passed_over, "other_files": report.other_files, "small_classes": report.small_classes,
        "in_root": report.in_root, "val_from": report.val_from, "resembled": report.resembled, "moved_to_train": report.moved_to_train, "notes": report.notes(),
        "seconds": report.seconds,
    });
    format!("{value:#}\n")
}

/// The table at the end, and what to do next.
fn summary(report: &PackReport, options: &PackOptions) -> String {
    let mut lines = Vec::new();
    let rate = report.found as f64 / report.seconds.max(1e-9);
    lines.push(format!(
        "packed {} of {} images in {:.1} s ({rate:.0} images/s): {} of files became {}",
        report.packed(),
        report.found,
        report.seconds,
        amount::human(report.source_bytes),
        amount::human(report.train.bytes() + report.val.as_ref().map_or(0, Manifest::bytes)),
    ));
    lines.push(format!(
        "{:<7}{:>8}{:>10}{:>12}{:>20}",
        "set", "shards", "images", "bytes", "mean size"
    ));
    for (name, m) in [("train", Some(&report.train)), ("val", report.val.as_ref())] {
        let Some(m) = m else { continue };
        let size = format!("{:.0} × {:.0} px", m.statistics.mean_width, m.statistics.mean_height);
        lines.push(format!(
            "{name:<7}{:>8}{:>10}{:>12}{size:>20}",
            m.shards.len(),
            m.samples(),
            amount::human(m.bytes())
        ));
    }
    lines.push(classes(report, options));
    lines.extend(report.train.maps.as_ref().map(maps::told));
    for (name, set) in [("train", Some(&report.train)), ("val", report.val.as_ref())] {
        lines.extend(set.and_then(|set| set.objects.as_ref()).map(|found| objects::told(name, found)));
    }
    if report.resized > 0 {
        lines.push(format!("{} images were shrunk", report.resized));
    }
    if report.transparent > 0 {
        let what = match options.background {
            Some([r, g, b]) => format!("were laid over #{r:02x}{g:02x}{b:02x}"),
            None => "show the colours beneath (--background white lays them over white)".into(),
        };
        lines.push(format!("{} images with transparent pixels {what}", report.transparent));
    }
    lines.extend(report.notes());
    for (reason, passed) in &report.passed_over {
        lines.push(format!("passed over {} files: {}", passed.files, why_passed_over(reason)));
        lines.push(format!("         e.g. {}", passed.examples.join(", ")));
    }
    if !report.other_files.is_empty() {
        let list = report
            .other_files
            .iter()
            .map(|(e, n)| format!("{n} {e}"))
            .collect::<Vec<_>>()
            .join(", ");
        lines.push(format!("other files, left out: {list}"));
    }
    let d = report.duplicates;
    if d.files > 0 {
        let what = if options.drop_duplicates {
            "left out"
        } else {
            "kept; --drop-duplicates leaves them out"
        };
        lines.push(format!(
            "{} files repeat another one byte by byte ({what}); {} of them across train and val, {} under another label",
            d.files, d.across_sets, d.label_conflicts
        ));
    }
    if !report.refused.is_empty() {
        lines.push(format!(
            "refused {} (all in {}):",
            report.refused_files(),
            report.output.join(REFUSED_NAME).display()
        ));
        for (reason, count) in &report.refused {
            let (path, detail) = &count.examples[0];
            lines.push(format!("  {:>6} {reason}: {}", count.files, advice(reason)));
            lines.push(format!("         e.g. {path}: {detail}"));
        }
    }
    lines.push(format!(
        "next: splitmask inspect {} --contact-sheet sheet.png",
        report.output.join("train").display()
    ));
    lines.join("\n") + "\n"
}

fn classes(report: &PackReport, options: &PackOptions) -> String {
    let names = &report.train.classes;
    let unlabelled = match report.unlabelled {
        0 => String::new(),
        n if report.small_classes > 0 => format!(
            "; {n} images without a label ({} classes have fewer than {} files)",
            report.small_classes, options.min_class
        ),
        n => format!("; {n} images without a label"),
    };
    if names.is_empty() {
        return format!("no classes{unlabelled} (training needs none)");
    }
    let val = |i: usize| report.val.as_ref().map_or(0, |v| v.label_counts[i]);
    let mut counts: Vec<(u64, &String)> = names
        .iter()
        .enumerate()
        .map(|(i, name)| (report.train.label_counts[i] + val(i), name))
        .collect();
    counts.sort_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(b.1)));
    let largest = counts
        .iter()
        .take(5)
        .map(|(n, name)| format!("{name} {n}"))
        .collect::<Vec<_>>()
        .join(", ");
    format!("{} classes, the largest: {largest}{unlabelled}", names.len())
}

/// Why files were not looked at.
fn why_passed_over(reason: &str) -> &'static str {
    match reason {
        "hidden" => "their names begin with a dot",
        "hidden_folder" => "they lie in folders whose names begin with a dot",
        "link" => "symbolic links, which --no-follow-links does not follow",
        "special" => "pipes, sockets or devices",
        "test_set" => "test images beside training and validation images; pack them by themselves",
        _ => "see the manual",
    }
}

/// What to do about refused files of a reason.
fn advice(reason: &str) -> &'static str {
    match reason {
        "too_large" => "raise --max-pixels or --max-bytes to take them (costs memory)",
        "truncated" | "corrupt" => "damaged; copy them again from their source",
        "empty" => "zero bytes; copy them again from their source",
        "not_an_image" => "named like an image, but the bytes say otherwise",
        "unsupported" => "convert them to PNG or JPEG first",
        "no_map" => "no label map lies at their path below --maps",
        "bad_map" => "a label map is a PNG with a palette, or of grey values that are class numbers",
        "map_size" => "the label map was made of a picture of another size or turn",
        "no_objects" => "the file of --coco does not name them; an image without objects is listed there among its images",
        "objects_size" => "width and height in the file of --coco are those of another picture",
        "unreadable" => "check permissions and links",
        "not_encodable" => "too long for the format; use --encode png or --longest-side",
        "duplicate" => "left out as asked by --drop-duplicates",
        "too_expensive" => "decoding takes too long; convert them to a plain JPEG first",
        _ => "see the list",
    }
}
