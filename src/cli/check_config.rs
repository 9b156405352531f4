//! `splitmask check-config`: what a config means, without running it.

use std::path::PathBuf;

use clap::Args;

use crate::cli::answer::{answer, say};
use crate::config::diff::strongest;
use crate::config::{Source, diff, explain};
use crate::error::CliError;

/// Explain a config file: what differs from the defaults, what follows from it, what is wrong. Reads only, writes nothing.
#[derive(Args)]
#[command(
    after_help = "Examples:\n  splitmask check-config configs/demo.toml\n  splitmask check-config configs/demo.toml --set train.batch=64\n  splitmask check-config new.toml --against runs/demo/last-good.toml"
)]
pub(crate) struct CheckConfigArgs {
    /// Config file.
    file: PathBuf,
    /// Override a key, as `splitmask train` does.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
    /// A config to compare with: what a reload from it to FILE would do.
    #[arg(long, value_name = "FILE")]
    against: Option<PathBuf>,
    /// Print the effective config as TOML instead: every key, defaults included.
    #[arg(long)]
    effective: bool,
}

pub(crate) fn run(args: CheckConfigArgs) -> Result<(), CliError> {
    let loaded = Source::of_process(args.file, args.sets).load()?;
    if args.effective {
        answer(&loaded.config.to_toml())?;
        return Ok(());
    }
    answer(&explain::explain(&loaded))?;
    if let Some(against) = args.against {
        let old = Source {
            file: against.clone(),
            ..Source::default()
        }
        .load()?;
        let changes = diff(&old.config, &loaded.config);
        match strongest(&changes) {
            None => {
                say!("a reload from {} changes nothing", against.display());
            }
            Some(class) => {
                say!("a reload from {} is {class}:", against.display());
                for change in changes {
                    say!("  {change}");
                }
            }
        }
    }
    Ok(())
}
