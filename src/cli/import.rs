//! `splitmask import`: a vision transformer of timm, DeiT or transformers as a start.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::cli::answer::say;
use crate::config::{Config, Source};
use crate::exit::CliError;
use crate::export::{self, Foreign, write_tensors};

const LONG_ABOUT: &str = "\
Turns the encoder of a safetensors file of timm, DeiT or transformers into a file that run.init_from takes. Heads and poolers are left
out. With --image or --config the position table is interpolated to that image side.";

const EXAMPLES: &str = "\
Examples:
  splitmask import vit_small.safetensors --format timm --out start.safetensors
  splitmask import hf/model.safetensors --format hf-vit --image 112 \\
    --out start.safetensors
  splitmask import deit.safetensors --format deit --config configs/small-data.toml \\
    --out start.safetensors
Then: splitmask train --config configs/small-data.toml --set run.init_from=start.safetensors";

/// Take a vision transformer of timm, DeiT or transformers as a start.
#[derive(Args)]
#[command(long_about = LONG_ABOUT, after_help = EXAMPLES)]
pub(crate) struct ImportArgs {
    /// Safetensors file.
    file: PathBuf,
    /// Whose names it has.
    #[arg(long, value_enum)]
    format: ForeignArg,
    /// File to write.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Side of the images it is to be trained on, pixels; default: the file's.
    #[arg(long, value_name = "PIXELS", conflicts_with = "config")]
    image: Option<u32>,
    /// Training config: its geometry is checked against the file's, its model.image taken.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
enum ForeignArg {
    /// timm's VisionTransformer.
    Timm,
    /// The DeiT repository's.
    Deit,
    /// transformers' ViTModel, alone or inside a model.
    HfVit,
}

pub(crate) fn run(args: &ImportArgs) -> Result<(), CliError> {
    if args.out.extension().is_none_or(|e| e != "safetensors") {
        return Err(CliError::usage(
            format!("--out {}: must end in .safetensors", args.out.display()),
            "run.init_from takes a .safetensors file or a checkpoint folder".to_owned(),
        ));
    }
    let format = match args.format {
        ForeignArg::Timm => Foreign::Timm,
        ForeignArg::Deit => Foreign::Deit,
        ForeignArg::HfVit => Foreign::HfVit,
    };
    let config = args
        .config
        .as_ref()
        .map(|file| {
            let source = Source {
                file: file.clone(),
                ..Source::default()
            };
            Ok::<_, CliError>(source.load()?.config)
        })
        .transpose()?;
    let mut imported = export::import(&args.file, format)?;
    if let Some(config) = &config {
        check_fits(args, config, &imported.encoder.model)?;
    }
    let before = imported.encoder.model.image;
    if let Some(image) = args.image.or(config.map(|c| c.model.image)) {
        let patch = imported.encoder.model.patch;
        if image == 0 || !image.is_multiple_of(patch) {
            return Err(CliError::usage(
                format!("--image {image}: must be a multiple of the file's patch side, {patch}"),
                None,
            ));
        }
        imported.encoder = imported.encoder.resized(image)?;
    }
    let m = &imported.encoder.model;
    let source = args.file.file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned());
    let metadata = BTreeMap::from([("format".to_owned(), "pt".to_owned()), ("imported_from".to_owned(), source)]);
    write_tensors(&args.out, &imported.tensors(), &metadata)?;
    say!(
        "{}: {} wide, {} layers, MLP ratio {}, {} px in patches of {} px",
        args.out.display(),
        m.dim(),
        m.layers(),
        m.mlp_ratio,
        m.image,
        m.patch
    );
    if before != m.image {
        say!("positions interpolated from {before} px to {} px", m.image);
    }
    if !imported.ignored.is_empty() {
        say!("left out: {}", imported.ignored.join(", "));
    }
    say!(
        "start from it: splitmask train … --set run.init_from={} (the file does not say how many heads; set model.heads)",
        args.out.display()
    );
    Ok(())
}

/// Refuses a config whose encoder is another one than the file's.
fn check_fits(args: &ImportArgs, config: &Config, file: &crate::model::config::VitConfig) -> Result<(), CliError> {
    let ours = &config.model;
    for (key, have, want) in [
        ("model.patch", f64::from(file.patch), f64::from(ours.patch)),
        ("model.width", file.dim() as f64, ours.dim() as f64),
        ("model.depth", file.layers() as f64, ours.layers() as f64),
        ("model.mlp_ratio", file.mlp_ratio, ours.mlp_ratio),
    ] {
        if have != want {
            return Err(CliError::usage(
                format!("{}: its {key} is {have}, the config's is {want}", args.file.display()),
                "set model.size, width, depth and patch of the config to those of the file".to_owned(),
            ));
        }
    }
    Ok(())
}
