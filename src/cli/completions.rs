//! `splitmask completions`: the script that lets a shell complete verbs and options.

use clap::Args;
use clap_complete::Shell;

use crate::cli::answer::answer;
use crate::exit::CliError;

const EXAMPLES: &str = "\
Examples:
  source <(splitmask completions bash)                                        # this shell only
  splitmask completions bash > ~/.local/share/bash-completion/completions/splitmask
  splitmask completions zsh > ~/.zfunc/_splitmask   # with fpath+=(~/.zfunc) before compinit
  splitmask completions fish > ~/.config/fish/completions/splitmask.fish
A wheel or tarball has all three where these shells look for them.";

/// Print the completion script of a shell.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct CompletionsArgs {
    /// Which shell.
    shell: Shell,
}

pub(crate) fn run(args: &CompletionsArgs, mut command: clap::Command) -> Result<(), CliError> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, "splitmask", &mut script);
    answer(&String::from_utf8_lossy(&script))
}
