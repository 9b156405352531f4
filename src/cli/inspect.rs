//! `splitmask inspect`: what a bucket of shards holds, as numbers and as a picture.

mod sheet;
mod vocabulary;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use clap::Args;
use splitmask_pipeline::bucket::differences::{Difference, sentences};
use splitmask_pipeline::bucket::manifest::Manifest;
use splitmask_pipeline::config::{DataConfig, PipelineConfig};
use splitmask_pipeline::decode::{Decoder, Limits, header};
use splitmask_pipeline::error::PipelineError;
use splitmask_pipeline::metrics::PipelineMetrics;
use splitmask_pipeline::run::{Dataset, Order};
use splitmask_pipeline::types::{Image, RawSample};

use crate::cli::amount;
use crate::cli::answer::answer;
use crate::cli::png::write_png;
use crate::exit::CliError;

/// Keys that are shown.
const FIRST_KEYS: usize = 5;

const LONG_ABOUT: &str = "\
Says what a folder or bucket of shards holds: shards, samples, bytes, classes and their balance, statistics of the pixels.
Reads the first samples (--read) as training would, for image sizes, formats and faults, and draws a contact sheet of them. Of a codebook's file: its kind, size, origin and use.";

const EXAMPLES: &str = "\
Examples:
  splitmask inspect data/clipart/train --contact-sheet sheet.png
  splitmask inspect s3://bucket/photos/train --read 200
  splitmask inspect 'data/other/{000000..000009}.tar' --read all --json
  splitmask inspect data/clipart/words.safetensors";

/// Say what a bucket of shards holds; draw a contact sheet.
#[derive(Args)]
#[command(long_about = LONG_ABOUT, after_help = EXAMPLES)]
pub(crate) struct InspectArgs {
    /// Folder, bucket prefix, glob or range of shards, as for data.train; or the file of a codebook.
    url: String,
    /// Draw thumbnails of evenly spaced samples, with their classes, into this PNG file.
    #[arg(long, value_name = "FILE")]
    contact_sheet: Option<PathBuf>,
    /// Thumbnails on the contact sheet.
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=400))]
    thumbnails: u32,
    /// Samples to read, or `all`.
    #[arg(long, value_name = "N", default_value = "1000", value_parser = how_many)]
    read: u64,
    /// Object store endpoint to use instead of the provider's.
    #[arg(long, value_name = "URL", default_value = "")]
    endpoint: String,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

fn how_many(text: &str) -> Result<u64, String> {
    if text == "all" {
        return Ok(u64::MAX);
    }
    text.parse()
        .ok()
        .filter(|n| *n > 0)
        .ok_or_else(|| "a number of samples above 0, or `all`".into())
}

/// What reading samples showed.
#[derive(Default)]
struct Seen {
    samples: u64,
    bytes: u64,
    formats: BTreeMap<String, u64>,
    widths: Vec<u32>,
    heights: Vec<u32>,
    labels: BTreeMap<u32, u64>,
    unlabelled: u64,
    keys: Vec<String>,
    faults: BTreeMap<&'static str, (u64, String)>,
    /// Samples and shards that the stream left out: (`samples` or `shards`, reason, number).
    lost: Vec<(&'static str, String, u64)>,
    /// Whether the end was reached.
    complete: bool,
    /// Samples for the sheet.
    kept: Kept,
}

/// Evenly spaced samples of a stream of unknown length: between `want` and twice that many, thinned out as the stream goes on.
#[derive(Default)]
struct Kept {
    want: usize,
    stride: u64,
    items: Vec<(Bytes, Option<u32>, String)>,
}

impl Kept {
    fn offer(&mut self, index: u64, sample: &RawSample) {
        if self.want == 0 || !index.is_multiple_of(self.stride.max(1)) {
            return;
        }
        // Copied, for a slice would keep its whole network buffer alive.
        self.items
            .push((Bytes::copy_from_slice(&sample.image), sample.label, sample.key.clone()));
        if self.items.len() == 2 * self.want {
            let mut index = 0;
            self.items.retain(|_| {
                index += 1;
                index % 2 == 1
            });
            self.stride = 2 * self.stride.max(1);
        }
    }

    /// `want` of the kept, evenly spaced.
    fn choose(self) -> Vec<(Bytes, Option<u32>, String)> {
        let (have, want) = (self.items.len(), self.want.min(self.items.len()));
        let chosen: Vec<usize> = (0..want).map(|i| i * have / want).collect();
        self.items
            .into_iter()
            .enumerate()
            .filter(|(i, _)| chosen.binary_search(i).is_ok())
            .map(|(_, item)| item)
            .collect()
    }
}

/// Inspects and prints.
pub(crate) fn run(args: &InspectArgs) -> Result<(), CliError> {
    let file = Path::new(&args.url);
    if file.extension().is_some_and(|e| e == "safetensors") && file.is_file() {
        answer(&vocabulary::describe(file, args.json)?)?;
        return Ok(());
    }
    if let Some(file) = &args.contact_sheet {
        check_picture_path(file)?;
    }
    let data = DataConfig {
        train: args.url.clone(),
        endpoint: args.endpoint.clone(),
        failure_budget: 1.0, // faults are what one looks for here
        ..DataConfig::default()
    };
    let registry = prometheus::Registry::new();
    let metrics = PipelineMetrics::register(&registry).map_err(|e| CliError::io(e.to_string()))?;
    let mut dataset = Dataset::open(&args.url, &data, &PipelineConfig::default(), metrics)?;
    if args.read == u64::MAX {
        dataset.compare_checksums();
    }
    let mut seen = Seen {
        kept: Kept {
            want: args.contact_sheet.as_ref().map_or(0, |_| args.thumbnails as usize),
            ..Kept::default()
        },
        ..Seen::default()
    };
    seen.read(dataset.samples(Order::Sequential)?, args.read)?;
    seen.lost = lost(&registry);
    let manifest = dataset.manifest();
    let shards = dataset.shards().len();
    let differences = dataset.differences();
    let mut text = match args.json {
        true => json(args, manifest, shards, &seen, &differences),
        false => describe(args, manifest, shards, &seen, &differences),
    };
    if let Some(file) = &args.contact_sheet {
        let cells = cells(std::mem::take(&mut seen.kept), manifest, &data);
        let count = cells.len();
        let picture = sheet::draw(cells);
        let picture = Image {
            width: picture.width(),
            height: picture.height(),
            pixels: picture.into_raw(),
        };
        write_png(&picture, file)?;
        if !args.json {
            text += &format!("contact sheet of {count} images: {}\n", file.display());
        }
    }
    answer(&text)
}

fn check_picture_path(file: &Path) -> Result<(), CliError> {
    if !file.extension().is_some_and(|e| e.eq_ignore_ascii_case("png")) {
        return Err(CliError::usage(
            format!("--contact-sheet {}: must end in .png", file.display()),
            None,
        ));
    }
    match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() && !folder.is_dir() => Err(CliError::usage(
            format!("--contact-sheet {}: no such folder {}", file.display(), folder.display()),
            None,
        )),
        _ => Ok(()),
    }
}

/// What the stream's own counters say about samples and shards that it could not deliver.
fn lost(registry: &prometheus::Registry) -> Vec<(&'static str, String, u64)> {
    let mut lost = Vec::new();
    for family in registry.gather() {
        let what = match family.name() {
            "splitmask_pipeline_sample_errors_total" => "samples",
            "splitmask_pipeline_shard_errors_total" => "shards",
            _ => continue,
        };
        for series in family.get_metric() {
            let reason = series
                .get_label()
                .iter()
                .map(|l| l.value().to_owned())
                .collect::<Vec<_>>()
                .join(" ");
            let count = series.get_counter().value() as u64;
            if count > 0 {
                lost.push((what, reason, count));
            }
        }
    }
    lost
}

impl Seen {
    fn read(&mut self, samples: impl Iterator<Item = Result<RawSample, PipelineError>>, limit: u64) -> Result<(), CliError> {
        for sample in samples {
            if self.samples == limit {
                return Ok(());
            }
            let sample = sample?;
            self.kept.offer(self.samples, &sample);
            self.samples += 1;
            self.bytes += sample.image.len() as u64;
            if self.keys.len() < FIRST_KEYS {
                self.keys.push(sample.key.clone());
            }
            match sample.label {
                Some(label) => *self.labels.entry(label).or_default() += 1,
                None => self.unlabelled += 1,
            }
            match header(&sample.image) {
                Ok(head) => {
                    let (width, height) = head.upright();
                    self.widths.push(width);
                    self.heights.push(height);
                    *self.formats.entry(format!("{:?}", head.format)).or_default() += 1;
                }
                Err(e) => {
                    let fault = self
                        .faults
                        .entry(e.reason())
                        .or_insert_with(|| (0, format!("{}: {}: {e}", sample.shard, sample.key)));
                    fault.0 += 1;
                }
            }
        }
        self.complete = true;
        Ok(())
    }
}

fn cells(kept: Kept, manifest: Option<&Manifest>, data: &DataConfig) -> Vec<sheet::Cell> {
    let mut decoder = Decoder::new(Limits {
        max_pixels: data.max_pixels,
        max_bytes: data.max_member_bytes,
        ..Limits::default()
    });
    let class = |label: u32| {
        manifest
            .and_then(|m| m.classes.get(label as usize))
            .cloned()
            .unwrap_or_else(|| format!("class {label}"))
    };
    let cell = |(bytes, label, key): (Bytes, Option<u32>, String)| {
        let mut image = Image::default();
        let image = decoder.decode(&bytes, &mut image).ok().map(|()| image);
        sheet::Cell {
            image,
            caption: label.map_or(key, class),
        }
    };
    kept.choose().into_iter().map(cell).collect()
}

/// Samples per class, largest first: from the manifest, else from the samples read.
fn class_counts(manifest: Option<&Manifest>, seen: &Seen) -> Vec<(String, u64)> {
    let mut counts: Vec<(String, u64)> = match manifest {
        Some(m) => m.classes.iter().cloned().zip(m.label_counts.iter().copied()).collect(),
        None => seen.labels.iter().map(|(label, n)| (format!("class {label}"), *n)).collect(),
    };
    counts.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    counts
}

/// How even the classes are: entropy of the labels ÷ its greatest value, 1 = all equal; and the share of the largest class.
fn balance(counts: &[(String, u64)]) -> Option<(f64, f64)> {
    let total: u64 = counts.iter().map(|(_, n)| n).sum();
    let shares = counts.iter().map(|(_, n)| *n as f64 / total as f64);
    let entropy: f64 = shares.filter(|p| *p > 0.0).map(|p| -p * p.ln()).sum();
    (counts.len() > 1 && total > 0).then(|| (entropy / (counts.len() as f64).ln(), counts[0].1 as f64 / total as f64))
}

/// Smallest, median and largest.
fn spread(values: &[u32]) -> Option<[u32; 3]> {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    Some([*sorted.first()?, sorted[sorted.len() / 2], *sorted.last()?])
}

fn describe(args: &InspectArgs, manifest: Option<&Manifest>, shards: usize, seen: &Seen, differences: &[Difference]) -> String {
    let mut lines = vec![args.url.clone()];
    match manifest {
        Some(m) => {
            lines.push(format!("  {shards} shards, {} samples, {}", m.samples(), amount::human(m.bytes())));
            lines.push(format!("  made by: {}", m.provenance));
        }
        None => {
            let how_many = if seen.complete {
                format!("{} samples", seen.samples)
            } else {
                format!("at least {} samples (--read all counts them)", seen.samples)
            };
            lines.push(format!("  {shards} shards, {how_many}; no manifest.json"));
        }
    }
    let counts = class_counts(manifest, seen);
    match balance(&counts) {
        Some((even, largest)) => {
            lines.push(format!(
                "  {} classes; largest {:.1} % of the labelled; evenness {even:.2} (1 = all equal)",
                counts.len(),
                largest * 100.0
            ));
            let name = |(name, n): &(String, u64)| format!("{name} {n}");
            lines.push(format!(
                "    largest: {}",
                counts.iter().take(8).map(name).collect::<Vec<_>>().join(", ")
            ));
            lines.push(format!(
                "    smallest: {}",
                counts.iter().rev().take(4).map(name).collect::<Vec<_>>().join(", ")
            ));
        }
        None => lines.push(counts.first().map_or("  no labels (training needs none)".into(), |(name, n)| {
            format!("  one class: {name} {n}")
        })),
    }
    if let Some(m) = manifest {
        let s = &m.statistics;
        let three = |v: [f64; 3]| v.map(|x| format!("{x:.3}")).join(" ");
        lines.push(format!(
            "  pixels (RGB, 0..1): mean {}, std {}; mean size {:.0} × {:.0}",
            three(s.mean),
            three(s.std),
            s.mean_width,
            s.mean_height
        ));
    }
    let end = if seen.complete { "all" } else { "the first" };
    lines.push(format!(
        "read {end} {} samples, {} of images; {} without a label",
        seen.samples,
        amount::human(seen.bytes),
        seen.unlabelled
    ));
    let formats = seen.formats.iter().map(|(f, n)| format!("{n} {f}")).collect::<Vec<_>>().join(", ");
    lines.push(format!("  formats: {formats}"));
    if let (Some(w), Some(h)) = (spread(&seen.widths), spread(&seen.heights)) {
        lines.push(format!(
            "  width {} to {} (median {}), height {} to {} (median {}) pixels",
            w[0], w[2], w[1], h[0], h[2], h[1]
        ));
    }
    lines.push(format!("  keys: {} …", seen.keys.join(", ")));
    lines.extend(
        sentences(differences)
            .into_iter()
            .map(|line| format!("  the manifest differs from what is there: {line}")),
    );
    for (what, reason, n) in &seen.lost {
        lines.push(format!("  {n} {what} left out: {reason}"));
    }
    for (reason, (n, example)) in &seen.faults {
        lines.push(format!("  {n} {reason}, e.g. {example}"));
    }
    lines.join("\n") + "\n"
}

fn json(args: &InspectArgs, manifest: Option<&Manifest>, shards: usize, seen: &Seen, differences: &[Difference]) -> String {
    let counts = class_counts(manifest, seen);
    let (evenness, largest) = balance(&counts).unzip();
    let value = serde_json::json!({
        "url": args.url,
        "shards": shards,
        "samples": manifest.map(Manifest::samples).or(seen.complete.then_some(seen.samples)),
        "bytes": manifest.map(Manifest::bytes),
        "classes": counts.into_iter().collect::<BTreeMap<_, _>>(),
        "class_evenness": evenness,
        "largest_class_share": largest,
        "statistics": manifest.map(|m| &m.statistics),
        "provenance": manifest.map(|m| &m.provenance),
        "differences": differences,
        "read": {
            "samples": seen.samples, "complete": seen.complete, "image_bytes": seen.bytes, "formats": seen.formats, "unlabelled": seen.unlabelled,
            "width": spread(&seen.widths), "height": spread(&seen.heights), "first_keys": seen.keys, "faults": seen.faults, "left_out": seen.lost,
        },
        "contact_sheet": args.contact_sheet,
    });
    format!("{value:#}\n")
}

#[cfg(test)]
mod tests;
