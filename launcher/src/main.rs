//! The `splitmask` of an installation.

fn main() -> std::process::ExitCode {
    splitmask_launcher::main()
}
