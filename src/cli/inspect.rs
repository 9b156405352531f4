//! `splitmask inspect`: what a bucket of shards holds, as numbers and as a picture.

mod extremes;
mod kept;
mod maps;
mod objects;
mod reasons;
mod report;
mod seen;
mod sheet;
mod vocabulary;

use std::path::{Path, PathBuf};

use clap::Args;
use splitmask_pipeline::bucket::manifest::Manifest;
use splitmask_pipeline::config::{DataConfig, ImageExtensions, PipelineConfig};
use splitmask_pipeline::decode::{Decoder, Limits, MapReading, ObjectReading, header};
use splitmask_pipeline::metrics::PipelineMetrics;
use splitmask_pipeline::run::Dataset;
use splitmask_pipeline::types::{Image, RawSample};

use self::kept::Kept;
use self::maps::Maps;
use self::objects::Objects;
use self::seen::Seen;
use crate::cli::answer::answer;
use crate::cli::png::{check_picture_path, write_png};
use crate::exit::CliError;

const LONG_ABOUT: &str = "\
Says what a folder or bucket of shards holds: shards, samples, bytes, classes and their balance, statistics of the pixels.
Reads the first samples (--read) as training would, for image sizes and formats, counts by reason what training leaves out (members, samples,
shards), counts the pixels of each class in label maps and the objects of each class, and draws a contact sheet with maps, masks and boxes on the pictures. Of images the headers are looked at; --decode decodes them too. However bad the data is, it is shown; exit code 74 if no shard could be read.
Of a codebook's file: its kind, size, origin and use.";

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
    /// Decode every image that is read, as training does: finds those that break in the middle, and takes as long.
    #[arg(long)]
    decode: bool,
    /// Extension of the images, where a sample holds several pictures, as data.image; several with commas, in order of preference.
    #[arg(long, value_name = "EXTENSION", value_delimiter = ',')]
    extension: Vec<String>,
    /// Extension of the members that hold label maps, as data.map.
    #[arg(long, value_name = "EXTENSION", default_value = "seg.png")]
    map: String,
    /// Extension of the members that hold objects, as data.objects.
    #[arg(long, value_name = "EXTENSION", default_value = "objects.json")]
    objects: String,
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

/// Inspects and prints.
pub(crate) fn run(args: &InspectArgs) -> Result<(), CliError> {
    let file = Path::new(&args.url);
    if file.extension().is_some_and(|e| e == "safetensors") && file.is_file() {
        answer(&vocabulary::describe(file, args.json)?)?;
        return Ok(());
    }
    if let Some(file) = &args.contact_sheet {
        check_picture_path("--contact-sheet", file, "png")?;
    }
    let data = DataConfig {
        train: args.url.clone(),
        endpoint: args.endpoint.clone(),
        image: ImageExtensions::of(&args.extension),
        map: args.map.clone(),
        objects: args.objects.clone(),
        ..DataConfig::default()
    };
    let mut dataset = Dataset::open(&args.url, &data, &PipelineConfig::default(), PipelineMetrics::default())?;
    if args.read == u64::MAX {
        dataset.compare_checksums();
    }
    let mut seen = Seen {
        kept: Kept::new(args.contact_sheet.as_ref().map_or(0, |_| args.thumbnails as usize)),
        maps: Maps::read_by(dataset.map_reading()),
        objects: Objects::read_by(dataset.object_reading()),
        decoder: args.decode.then(|| Decoder::new(Limits::default())),
        ..Seen::default()
    };
    seen.walk(dataset.walk()?, args.read)?;
    let manifest = dataset.manifest();
    let shards = dataset.shards().len();
    let differences = dataset.differences();
    answer(&match args.json {
        true => report::json(&args.url, manifest, shards, &seen, &differences, args.contact_sheet.as_deref()),
        false => report::describe(&args.url, manifest, shards, &seen, &differences),
    })?;
    if let Some(file) = &args.contact_sheet {
        let cells = cells(
            std::mem::take(&mut seen.kept),
            manifest,
            &data,
            (&seen.maps.reading, &seen.objects.reading),
        );
        let count = cells.len();
        let picture = sheet::draw(cells);
        let picture = Image {
            width: picture.width(),
            height: picture.height(),
            pixels: picture.into_raw(),
        };
        write_png(&picture, file)?;
        if !args.json {
            answer(&format!("contact sheet of {count} images: {}\n", file.display()))?;
        }
    }
    match seen.last_error {
        Some(error) if seen.read() == 0 => Err(CliError::io(error.to_string())),
        _ => Ok(()),
    }
}

fn cells(kept: Kept, manifest: Option<&Manifest>, data: &DataConfig, (maps, objects): (&MapReading, &ObjectReading)) -> Vec<sheet::Cell> {
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
    let cell = |sample: RawSample| {
        let mut image = Image::default();
        let decoded = decoder.decode(&sample.image, &mut image).and_then(|()| header(&sample.image));
        sheet::Cell {
            image: decoded.ok().map(|header| {
                let mapped = maps::drawn(image, &sample, &header, maps);
                objects::drawn(mapped, &sample, &header, objects)
            }),
            caption: sample.label.map_or_else(|| sample.key.to_string(), class),
        }
    };
    kept.choose().into_iter().map(cell).collect()
}
