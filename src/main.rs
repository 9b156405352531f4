//! The `splitmask` command.

use splitmask::{panic_report, signals};

/// Run before the constructors of shared libraries: a signal that comes while libtorch is set up waits for the thread that takes it.
#[cfg(target_os = "linux")]
#[used]
#[expect(unsafe_code, reason = "names the section whose functions run before everything else")]
// SAFETY: `hold` needs nothing that a constructor sets up.
#[unsafe(link_section = ".preinit_array")]
static BEFORE_MAIN: extern "C" fn() = signals::hold;

fn main() -> std::process::ExitCode {
    signals::hold();
    panic_report::install();
    splitmask::cli::main()
}
