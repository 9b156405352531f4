//! The `splitmask` command.

fn main() -> std::process::ExitCode {
    splitmask::cli::main()
}
