//! What users install, installed as they do it: a wheel by pip into a fresh environment beside torch, and a tarball; and what the program
//! says of itself for shells and for `man`.
//!
//! Packages are made by setup/package.sh from the program under test. Nothing is fetched: torch comes from the wheels that `make setup` keeps.

mod deploy;
mod image;
mod packages;
mod shell;
mod tutorial;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The program under test, as cargo built it.
const SPLITMASK: &str = env!("CARGO_BIN_EXE_splitmask");
const SOURCE: &str = env!("CARGO_MANIFEST_DIR");

/// Runs a command that must succeed; answers what it said on stdout.
fn done(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(output.status.success(), "{command:?}\n{}", said(&output));
    String::from_utf8(output.stdout).unwrap()
}

/// All that a command said.
fn said(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// Copies `from` to `to` as a file that can be executed.
///
/// Another process writes it, because the kernel refuses to execute a file that is open for writing anywhere ("Text file busy"): a process that another
/// test starts at that moment holds a copy of every file that this one has open, until it executes its own program.
fn install_program(from: &Path, to: &Path) {
    done(Command::new("install").args(["-m", "755"]).arg(from).arg(to));
}

/// A file of the repository.
fn file(path: &str) -> PathBuf {
    Path::new(SOURCE).join(path)
}

fn names(folder: &Path) -> Vec<String> {
    let mut found: Vec<String> = std::fs::read_dir(folder)
        .unwrap_or_else(|e| panic!("{}: {e}", folder.display()))
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    found.sort();
    found
}

/// The cache that `make setup` fills.
fn cache() -> PathBuf {
    std::env::var_os("SPLITMASK_CACHE").map_or_else(
        || {
            let base = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
            base.unwrap_or_else(|| PathBuf::from(std::env::var_os("HOME").unwrap()).join(".cache"))
                .join("splitmask")
        },
        PathBuf::from,
    )
}
