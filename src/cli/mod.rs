//! The command line: one verb, one file.

mod amount;
mod answer;
mod bench;
mod check_config;
mod codebook;
mod doctor;
mod eval;
mod export;
mod import;
mod inspect;
mod pack;
mod png;
mod replay;
mod report;
mod train;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::error::{CliError, ExitCode as ErrorCode};

/// Pre-train vision transformers on your own images.
#[derive(Parser)]
#[command(name = "splitmask", version = concat!(env!("CARGO_PKG_VERSION"), " (", env!("SPLITMASK_REVISION"), ")"), about, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

// In the order in which a newcomer meets them.
#[derive(Subcommand)]
#[expect(clippy::large_enum_variant, reason = "one is made, once")]
enum Verb {
    Doctor(doctor::DoctorArgs),
    Pack(pack::PackArgs),
    Inspect(inspect::InspectArgs),
    Codebook(codebook::CodebookArgs),
    CheckConfig(check_config::CheckConfigArgs),
    Train(train::TrainArgs),
    Report(report::ReportArgs),
    Eval(eval::EvalArgs),
    Bench(bench::BenchArgs),
    Export(export::ExportArgs),
    Import(import::ImportArgs),
    Replay(replay::ReplayArgs),
}

/// Runs the verb of the process's arguments and answers its exit code.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(e) => {
            let _ = e.print();
            return ExitCode::from(if e.use_stderr() { 64 } else { 0 });
        }
    };
    let result: Result<(), CliError> = match cli.verb {
        Verb::Doctor(args) => doctor::run(args),
        Verb::Pack(args) => pack::run(args),
        Verb::Inspect(args) => inspect::run(&args),
        Verb::Codebook(args) => codebook::run(&args),
        Verb::CheckConfig(args) => check_config::run(args),
        Verb::Train(args) => train::run(args),
        Verb::Report(args) => report::run(&args),
        Verb::Eval(args) => eval::run(args),
        Verb::Bench(args) => bench::run(args),
        Verb::Export(args) => export::run(&args),
        Verb::Import(args) => import::run(&args),
        Verb::Replay(args) => replay::run(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            // A stop that was asked for is no error, though supervisors must see its code.
            let prefix = if e.code == ErrorCode::Stopped { "" } else { "error: " };
            eprintln!("{prefix}{}", e.message);
            if let Some(hint) = &e.hint {
                eprintln!("hint: {hint}");
            }
            ExitCode::from(e.code as u8)
        }
    }
}
