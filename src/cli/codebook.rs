//! `splitmask codebook`: makes a vocabulary of visual words and says how the data uses it.

mod dvae;
mod interrupt;
mod options;
mod progress;
mod sheet;
mod usage;
mod views;

use std::path::Path;
use std::sync::Arc;

use indicatif::ProgressBar;
use splitmask_pipeline::error::PipelineError;
use splitmask_pipeline::file;
use splitmask_pipeline::tokenize::{
    BookSpec, Census, Codebook, CodebookKind, HalfView, KMeansOptions, PixelSpace, Tokenizer, Usage, build_kmeans, build_random_patches,
    build_random_projection, picture,
};

pub(crate) use self::options::CodebookArgs;
use self::progress::{bar, start};
use self::usage::{usage_json, usage_lines};
use self::views::Views;
use crate::cli::answer::answer;
use crate::cli::png::{check_picture_path, write_png};
use crate::dvae::is_dvae;
use crate::exit::CliError;

/// Makes, measures, writes and prints.
pub(crate) fn run(args: &CodebookArgs) -> Result<(), CliError> {
    let spec = spec_of(args)?;
    check_outputs(args)?;
    let Some(kind) = CodebookKind::from_name(&args.kind) else {
        return dvae::run(args);
    };
    let source = args
        .url
        .as_deref()
        .map(|url| Views::open(url, &args.data(), args.image, args.area, args.seed))
        .transpose()?;
    let bar = bar(!args.json);
    let mut book = match (kind, &source) {
        (CodebookKind::RandomProjection, _) => build_random_projection(&spec, args.range).map_err(in_options)?,
        (_, None) => {
            return Err(CliError::usage(
                format!("--kind {} takes its words from images, but no shards are named", args.kind),
                "give the shards: splitmask codebook data/mine/train --out …; or use --kind random-projection".to_owned(),
            ));
        }
        (CodebookKind::RandomPatches, Some(source)) => {
            // Each image gives one word while there are enough of them.
            start(
                &bar,
                "taking patches",
                source.len().map_or(spec.words, |n| n.min(spec.words)) as u64,
            );
            build_random_patches(source.images(0)?, &spec, |n| bar.set_position(n as u64)).map_err(in_options)?
        }
        (CodebookKind::KMeans, Some(source)) => cluster(args, &spec, source, &bar)?,
    };
    let usage = match &source {
        Some(source) if args.measure > 0 => Some(measure(&mut book, source, args.measure, &bar)?),
        _ => None,
    };
    bar.finish_and_clear();
    book.provenance.data = source.as_ref().map_or_else(String::new, |s| s.url.clone());
    book.save(&args.out)?;
    if let Some(path) = &args.picture {
        write_picture(&book, path)?;
    }
    let text = if args.json {
        json(&book, usage, &args.out)
    } else {
        table(&book, usage, args)
    };
    answer(&text)
}

fn spec_of(args: &CodebookArgs) -> Result<BookSpec, CliError> {
    if !args.patch.is_multiple_of(2) || !args.image.is_multiple_of(args.patch) {
        return Err(CliError::usage(
            format!(
                "--image {} --patch {}: the patch must be even and divide the image",
                args.image, args.patch
            ),
            "as in the model's config, for example --image 224 --patch 16".to_owned(),
        ));
    }
    let spec = BookSpec {
        words: args.words,
        patch: args.patch / 2,
        pixels: PixelSpace::from_name(&args.pixels).expect("the parser knows the spaces"),
        seed: args.seed,
    };
    spec.validate().map_err(in_options)?;
    Ok(spec)
}

/// Settings of the pipeline by the names that they have on this command line.
fn in_options(error: PipelineError) -> CliError {
    match error {
        PipelineError::FewPatches { words, found, images } => CliError::usage(
            format!("--words {words}: only {found} distinct patches that are not flat were found in {images} images"),
            match found {
                0 | 1 => "are the pictures empty? look at them with `splitmask inspect SHARDS --contact-sheet sheet.png`".to_owned(),
                _ => format!(
                    "--words {} fits, as does any number up to {found}; or give more images",
                    1 << found.ilog2()
                ),
            },
        ),
        PipelineError::BadSetting { key, value, detail } if ["words", "passes", "range", "patch"].contains(&key.as_str()) => {
            // A word's patch covers half of the model's.
            let value = if key == "patch" {
                value.parse::<u32>().map_or(value.clone(), |half| (2 * half).to_string())
            } else {
                value
            };
            CliError::usage(format!("--{key} {value}: {detail}"), None)
        }
        other => other.into(),
    }
}

/// A wrong path must show before minutes of work, not after.
fn check_outputs(args: &CodebookArgs) -> Result<(), CliError> {
    for (key, path) in [("--out", Some(&args.out)), ("--picture", args.picture.as_ref())] {
        let Some(path) = path else { continue };
        let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let bad = |what: &str| {
            CliError::usage(
                format!("{key} {}: {what}", path.display()),
                "name a file in a folder that exists and that you may write to".to_owned(),
            )
        };
        if path.is_dir() {
            return Err(bad("is a folder"));
        }
        if !folder.is_dir() {
            return Err(bad("its folder does not exist"));
        }
        file::check_writable(folder).map_err(|e| bad(&format!("its folder takes no file: {e}")))?;
    }
    let replaceable = |path: &Path| Codebook::load(path).is_ok() || is_dvae(path).unwrap_or(false);
    if args.out.exists() && !replaceable(&args.out) {
        return Err(CliError::usage(
            format!(
                "--out {}: is a file that holds no visual words; it is not replaced",
                args.out.display()
            ),
            "name another file, or remove this one first".to_owned(),
        ));
    }
    if args.out.exists() && !args.force {
        return Err(CliError::usage(
            format!(
                "--out {}: holds words already, and a run that was made with them does not go on with others",
                args.out.display()
            ),
            "name another file, or replace them with --force".to_owned(),
        ));
    }
    if args.picture.as_ref() == Some(&args.out) {
        return Err(CliError::usage(
            format!("--picture {}: the same file as --out", args.out.display()),
            "name another one, ending in .png".to_owned(),
        ));
    }
    if let Some(picture) = &args.picture {
        check_picture_path("--picture", picture, "png")?;
    }
    Ok(())
}

fn cluster(args: &CodebookArgs, spec: &BookSpec, source: &Views, bar: &ProgressBar) -> Result<Codebook, CliError> {
    let patches = args.samples.unwrap_or(64 * spec.words);
    if patches < spec.words {
        return Err(CliError::usage(
            format!("--samples {patches} is fewer than --words {}", spec.words),
            "k-means needs many patches for each word, for example 64".to_owned(),
        ));
    }
    let options = KMeansOptions {
        patches,
        views: source.len().unwrap_or(patches.div_ceil(16)),
        passes: args.passes,
        settled: 0.002,
    };
    start(bar, "taking patches", patches as u64);
    let mut images = 0;
    let gathered = |n: usize| {
        images += 1;
        bar.set_position(n as u64);
    };
    let progress = |p: splitmask_pipeline::tokenize::KMeansProgress| {
        if p.pass == 1 {
            start(bar, "clustering", u64::from(args.passes));
        }
        bar.set_position(u64::from(p.pass));
        bar.set_message(format!(
            "clustering: mean cosine {:.4}, {:.1} % of patches moved, {} words started anew",
            p.mean_cosine,
            100.0 * p.moved,
            p.empty
        ));
    };
    let mut book = build_kmeans(source.images(0)?, spec, &options, gathered, progress).map_err(in_options)?;
    book.provenance.images = images;
    Ok(book)
}

/// Counts words on other crops than the words were made of.
fn measure(book: &mut Codebook, source: &Views, crops: usize, bar: &ProgressBar) -> Result<Usage, PipelineError> {
    start(bar, "counting words", source.len().map_or(crops, |n| n.min(crops)) as u64);
    let tokenizer = Tokenizer::new(Arc::new(book.clone()));
    let mut scratch = tokenizer.scratch();
    let mut words = vec![];
    let mut census = Census::new(book);
    for view in source.images(1)?.take(crops) {
        let HalfView { pixels, side } = view?;
        tokenizer.words(&mut scratch, &pixels, side, &mut words);
        census.add(&pixels, side, &words);
        bar.inc(1);
    }
    let usage = census.usage();
    census.finish(book);
    Ok(usage)
}

fn write_picture(book: &Codebook, path: &Path) -> Result<(), CliError> {
    write_png(&picture(book, 32usize.div_ceil(book.patch as usize).clamp(1, 8).min(3)), path)
}

fn json(book: &Codebook, usage: Option<Usage>, out: &Path) -> String {
    let usage = usage.map(usage_json);
    let value = serde_json::json!({"file": out, "id": book.id(), "kind": book.kind, "words": book.len(), "patch": 2 * book.patch,
        "pixels": book.pixels, "seed": book.seed, "provenance": book.provenance, "usage": usage});
    format!("{value:#}\n")
}

/// The table at the end, a word of judgement, and what to do next.
fn table(book: &Codebook, usage: Option<Usage>, args: &CodebookArgs) -> String {
    let mut lines = vec![format!(
        "{}: {} words, {}, {} pixels, for patches of {} at views of {}",
        args.out.display(),
        book.len(),
        book.kind.name(),
        book.pixels.name(),
        args.patch,
        args.image
    )];
    if let Some(u) = usage {
        lines.extend(usage_lines(u, book.len()));
        lines.extend(judgement(u, book.pixels));
    }
    if let Some(path) = &args.picture {
        lines.push(format!("picture of the words: {}", path.display()));
    }
    lines.push(format!(
        "next: splitmask train --config FILE --set codebook.path={}",
        args.out.display()
    ));
    lines.join("\n") + "\n"
}

fn judgement(usage: Usage, pixels: PixelSpace) -> Option<String> {
    let poor = usage.top_share > 0.3 || usage.perplexity < 50.0;
    let other = if pixels == PixelSpace::ChannelMeanRemoved {
        PixelSpace::MeanStd
    } else {
        PixelSpace::ChannelMeanRemoved
    };
    poor.then(|| format!("a poor target: few words stand for most patches; try --pixels {}", other.name()))
}

#[cfg(test)]
mod tests {
    use super::options::range;

    #[test]
    fn ranges() {
        assert_eq!(range("0,1"), Ok([0.0, 1.0]));
        assert_eq!(range(" -1 , 1 "), Ok([-1.0, 1.0]));
        for bad in ["", "1", "1,0", "a,b", "0,inf", "1,1"] {
            assert!(range(bad).is_err(), "{bad}");
        }
    }
}
