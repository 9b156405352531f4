//! What a verb says on stdout and stderr.

use std::io::{ErrorKind, Write};

use crate::exit::CliError;

/// Prints a verb's answer. A reader that has gone (`splitmask … | head`) is no error; a full disk is.
pub(crate) fn answer(text: &str) -> Result<(), CliError> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() != ErrorKind::BrokenPipe => Err(CliError::io(format!("stdout: {e}"))),
        _ => Ok(()),
    }
}

/// Tells something on stderr. A log on a full disk, or whose reader has gone, changes nothing: `eprintln!` would end the process with 101 there.
pub(crate) fn tell(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// Tells what a verb's answer leaves out, on stderr.
pub(crate) fn warn(text: &str) {
    tell(&format!("warning: {text}"));
}

/// `println!` for a verb that answers `Result<_, CliError>`, by way of [`answer`].
macro_rules! say {
    ($($text:tt)*) => {
        $crate::cli::answer::answer(&format!("{}\n", format_args!($($text)*)))?
    };
}
pub(crate) use say;
