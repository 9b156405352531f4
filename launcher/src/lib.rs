//! The `splitmask` of an installation: finds libtorch, then becomes the program.
//!
//! The program links libtorch, which the Python package torch brings. Where that lies depends on the environment (venv, user install,
//! pipx, conda), so no run-path names it for all; and without libtorch the program does not start, so it cannot say what is missing
//! either. This one links nothing but the C library. It looks for a torch of the right version, puts its folder in front of
//! LD_LIBRARY_PATH and executes the program in its own place: same process, same arguments, same exit code.
//!
//! An installation looks the same in a wheel and in a tarball: `bin/splitmask` (this), `libexec/splitmask/splitmask` (the program),
//! `share/splitmask` (recipes, dashboards), `share/man` and the folders of shell completions.

mod search;
mod torch;

use std::ffi::OsString;
use std::io::Write as _;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

pub use search::{Missing, Surroundings, find};
pub use torch::{Torch, WANTED};

/// Exit code of bad usage or input, as the program itself has it.
const USAGE: u8 = 64;

/// Finds libtorch and executes the program; comes back only if that fails.
#[must_use]
pub fn main() -> ExitCode {
    let Err(message) = launch(std::env::args_os());
    // Not `eprintln!`, which panics where stderr cannot be written.
    let _ = writeln!(std::io::stderr(), "error: {message}");
    ExitCode::from(USAGE)
}

fn launch(mut arguments: impl Iterator<Item = OsString>) -> Result<std::convert::Infallible, String> {
    let own = std::env::current_exe().map_err(|e| format!("this program's own place cannot be read from /proc: {e}"))?;
    let program = program(&own).ok_or_else(|| {
        format!(
            "{} has no libexec/splitmask/splitmask beside its folder: this installation is not whole, install it again",
            own.display()
        )
    })?;
    let torch = find(&Surroundings::of_process(&own)).map_err(|missing| missing.to_string())?;
    let before = std::env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
    let paths = torch
        .libraries
        .iter()
        .cloned()
        .chain(std::env::split_paths(&before).filter(|p| !p.as_os_str().is_empty()));
    let paths = std::env::join_paths(paths)
        .map_err(|_| format!("{} has a colon in it, which LD_LIBRARY_PATH cannot hold", torch.folder.display()))?;
    let name = arguments.next().unwrap_or_else(|| "splitmask".into());
    let failed = Command::new(&program)
        .arg0(name)
        .args(arguments)
        .env("LD_LIBRARY_PATH", paths)
        .exec();
    Err(format!("{} could not be executed: {failed}", program.display()))
}

/// The program that belongs to the launcher at `own`.
fn program(own: &Path) -> Option<PathBuf> {
    let program = own.parent()?.parent()?.join("libexec/splitmask/splitmask");
    program.is_file().then_some(program)
}
