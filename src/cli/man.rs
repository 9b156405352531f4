//! `splitmask man`: manual pages of all verbs.

use std::path::PathBuf;

use clap::Args;

use crate::cli::answer::say;
use crate::exit::CliError;

const EXAMPLES: &str = "\
Example:
  splitmask man ~/.local/share/man/man1
  man splitmask-train
A wheel or tarball has them in share/man/man1.";

/// Write manual pages, one for each verb.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ManArgs {
    /// Folder for splitmask.1, splitmask-train.1 and so on; pages of these names are replaced.
    folder: PathBuf,
}

pub(crate) fn run(args: &ManArgs, command: clap::Command) -> Result<(), CliError> {
    let folder = args.folder.display();
    std::fs::create_dir_all(&args.folder)
        .and_then(|()| clap_mangen::generate_to(command, &args.folder))
        .map_err(|e| CliError::io(format!("{folder}: manual pages cannot be written: {e}")))?;
    say!("{folder}: splitmask.1 and a page for each verb");
    Ok(())
}
