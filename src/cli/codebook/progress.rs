//! The progress bar.

use std::io::IsTerminal;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// A bar on the terminal, if it is wanted and there is one.
pub(super) fn bar(wanted: bool) -> ProgressBar {
    let target = if wanted && std::io::stderr().is_terminal() {
        ProgressDrawTarget::stderr()
    } else {
        ProgressDrawTarget::hidden()
    };
    let style = ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len} · {eta} left").expect("the template is a constant");
    ProgressBar::with_draw_target(None, target).with_style(style)
}

/// A new phase of so many units.
pub(super) fn start(bar: &ProgressBar, message: &'static str, length: u64) {
    bar.reset();
    bar.set_length(length);
    bar.set_message(message);
}
