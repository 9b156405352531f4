//! The command line: one verb, one file.

mod amount;
mod answer;
mod bench;
mod check_config;
mod codebook;
mod completions;
mod configs;
mod doctor;
mod eval;
mod export;
mod import;
mod inspect;
mod installation;
mod man;
mod pack;
mod png;
mod predict;
mod replay;
mod report;
mod scenes;
mod train;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use splitmask_pipeline::bucket::secret::hidden_in_text;

use self::answer::tell;
use crate::daemon::logging::{self, LogFormat};
use crate::exit::{self, CliError, ExitCode as ErrorCode};
use crate::signals;

/// Pre-train vision transformers on your own images.
#[derive(Parser)]
#[command(name = "splitmask", version = concat!(env!("CARGO_PKG_VERSION"), " (", env!("SPLITMASK_REVISION"), ")"), about, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

// In the order in which a newcomer meets them.
#[derive(Subcommand)]
enum Verb {
    Doctor(doctor::DoctorArgs),
    Configs(configs::ConfigsArgs),
    Pack(pack::PackArgs),
    Inspect(inspect::InspectArgs),
    Codebook(codebook::CodebookArgs),
    CheckConfig(check_config::CheckConfigArgs),
    Train(train::TrainArgs),
    Report(report::ReportArgs),
    Eval(eval::EvalArgs),
    Predict(predict::PredictArgs),
    Bench(bench::BenchArgs),
    Export(export::ExportArgs),
    Import(import::ImportArgs),
    Replay(replay::ReplayArgs),
    Scenes(scenes::ScenesArgs),
    Completions(completions::CompletionsArgs),
    Man(man::ManArgs),
}

/// Runs the verb of the process's arguments and answers its exit code.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(e) => {
            // An argument that is refused is repeated, and may be an address with a token.
            let text = e.to_string();
            if e.use_stderr() && hidden_in_text(&text) != text {
                tell(hidden_in_text(&text).trim_end());
                return ExitCode::from(ErrorCode::Usage as u8);
            }
            let code = match e.print() {
                _ if e.use_stderr() => ErrorCode::Usage,
                Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => {
                    tell(&format!("error: stdout: {e}"));
                    ErrorCode::Io
                }
                _ => ErrorCode::Done,
            };
            return ExitCode::from(code as u8);
        }
    };
    // The daemon listens itself; to every other command a signal does what it does to any.
    let daemon = matches!(cli.verb, Verb::Train(_));
    if !daemon && let Err(e) = signals::listen(signals::by_default()) {
        tell(&format!("error: signals cannot be heard: {e}"));
        return ExitCode::from(ErrorCode::Io as u8);
    }
    // What the stream warns of while these read shards (a manifest that is not the truth, a server without ranges); `inspect` and
    // `check-config` answer with it.
    if matches!(
        cli.verb,
        Verb::Codebook(_) | Verb::Report(_) | Verb::Eval(_) | Verb::Predict(_) | Verb::Bench(_) | Verb::Replay(_)
    ) {
        // Its filter does not change, so nobody needs the handle.
        let _ = logging::start("warn", LogFormat::Text, None);
    }
    let result: Result<(), CliError> = match cli.verb {
        Verb::Doctor(args) => doctor::run(args),
        Verb::Configs(args) => configs::run(&args),
        Verb::Pack(args) => pack::run(args),
        Verb::Inspect(args) => inspect::run(&args),
        Verb::Codebook(args) => codebook::run(&args),
        Verb::CheckConfig(args) => check_config::run(args),
        Verb::Train(args) => train::run(args),
        Verb::Report(args) => report::run(&args),
        Verb::Eval(args) => eval::run(args),
        Verb::Predict(args) => predict::run(&args),
        Verb::Bench(args) => bench::run(args),
        Verb::Export(args) => export::run(&args),
        Verb::Import(args) => import::run(&args),
        Verb::Replay(args) => replay::run(&args),
        Verb::Scenes(args) => scenes::run(&args),
        Verb::Completions(args) => completions::run(&args, Cli::command()),
        Verb::Man(args) => man::run(&args, Cli::command()),
    };
    let code = match result {
        Ok(()) => ErrorCode::Done,
        Err(e) => {
            // A stop that was asked for is no error, though supervisors must see its code.
            let prefix = if e.code == ErrorCode::Stopped { "" } else { "error: " };
            tell(&format!("{prefix}{}", hidden_in_text(&e.message)));
            if let Some(hint) = &e.hint {
                tell(&format!("hint: {}", hidden_in_text(hint)));
            }
            e.code
        }
    };
    if daemon {
        // A trainer that was not waited for may be in the middle of a step.
        exit::at_once(code as i32);
    }
    ExitCode::from(code as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn examples(command: &clap::Command, found: &mut Vec<String>) {
        let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        found.extend(help.lines().map(str::to_owned));
        command.get_subcommands().for_each(|below| examples(below, found));
    }

    /// Help breaks longer lines where they no longer can be typed.
    #[test]
    fn examples_of_every_verb_fit_a_window_of_100_columns() {
        let mut lines = vec![];
        examples(&Cli::command(), &mut lines);
        assert!(lines.iter().filter(|line| line.starts_with("  splitmask")).count() > 40);
        let long: Vec<&String> = lines
            .iter()
            .filter(|line| line.starts_with("  ") && line.chars().count() > 98)
            .collect();
        assert!(long.is_empty(), "{long:#?}");
    }
}
