//! `splitmask replay`: take the step again that ended a run.

use std::path::PathBuf;

use clap::Args;

use crate::cli::answer::say;
use crate::config::Source;
use crate::exit::CliError;
use crate::tensor::Look;
use crate::trainer::replay;

/// Take the bad step of a run that ended with exit code 76 again, and say which tensor is the first that is not finite.
///
/// The folder holds the batch, the weights it met, the seed and the config; nothing of the run is changed. Options of --set help to
/// find a remedy: does it still happen in f32, with a lower loss weight?
#[derive(Args)]
#[command(
    after_help = "Examples:\n  splitmask replay runs/demo/replay/step-00000124\n  splitmask replay runs/demo/replay/step-00000124 --set train.precision=f32 --all"
)]
pub(crate) struct ReplayArgs {
    /// Replay folder: RUN/replay/step-…
    folder: PathBuf,
    /// Override a key of the folder's config.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
    /// List every tensor, not only the first bad one.
    #[arg(long)]
    all: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &ReplayArgs) -> Result<(), CliError> {
    let text = replay::config_text(&args.folder)?;
    let source = Source {
        file: args.folder.join("config.toml"),
        sets: args.sets.clone(),
        ..Source::default()
    };
    let (config, _) = source.load_text(&text)?;
    let retaken = replay::retake(&args.folder, &config.trainer_spec())?;
    let first = retaken.first_nonfinite();
    let facts = &retaken.facts;
    if args.json {
        let look = |l: &Look| serde_json::json!({ "name": l.name, "nonfinite": l.nonfinite, "elements": l.elements, "largest": l.largest });
        let all: Vec<_> = retaken.looks.iter().filter(|_| args.all).map(look).collect();
        say!(
            "{}",
            serde_json::json!({ "step": facts.step, "exact": facts.exact, "first_nonfinite": first.map(look), "tensors": all })
        );
        return Ok(());
    }
    say!(
        "step {} again: {} images, why the run gave up: {}",
        facts.step + 1,
        facts.samples.len(),
        facts.reason
    );
    if !facts.exact {
        say!("note: good steps followed this one before it was noticed; the weights are younger than those it met");
    }
    let line = |l: &Look| {
        format!(
            "{:<44} {} of {} not finite, largest finite {:.4e}",
            l.name, l.nonfinite, l.elements, l.largest
        )
    };
    if args.all {
        for look in &retaken.looks {
            say!("{}", line(look));
        }
    }
    match first {
        Some(look) => say!("first not finite: {}", line(look)),
        None => say!("every weight, activation, loss and gradient is finite this time"),
    }
    Ok(())
}
