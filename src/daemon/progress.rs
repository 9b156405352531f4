//! One line on a terminal; the log scrolls above it.

use std::io::{IsTerminal, Write};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::trainer::control::{State, Status};

/// The line, or nothing where stderr is no terminal.
#[derive(Debug, Clone)]
pub struct Progress {
    bar: ProgressBar,
}

impl Progress {
    /// A line if stderr is a terminal.
    #[must_use]
    pub fn on_terminal() -> Option<Self> {
        std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(4));
            let style =
                ProgressStyle::with_template("{bar:24.cyan/blue} {pos}/{len} {msg} ETA {eta}").expect("the template is well-formed");
            bar.set_style(style);
            Self { bar }
        })
    }

    /// Shows a status.
    pub fn show(&self, status: &Status) {
        if status.total_steps > 0 {
            self.bar.set_length(status.total_steps);
        }
        if self.bar.position() == 0 && status.step > 1 {
            // A resumed run: the steps before this process say nothing about its speed.
            self.bar.set_position(status.step);
            self.bar.reset_eta();
        }
        self.bar.set_position(status.step);
        self.bar.set_message(line(status));
    }

    /// Takes the line away.
    pub fn clear(&self) {
        self.bar.finish_and_clear();
    }

    fn write(&self, text: &[u8]) -> std::io::Result<()> {
        self.bar.suspend(|| std::io::stderr().write_all(text))
    }
}

/// Epoch, speed, waiting, losses, learning rate.
#[must_use]
pub fn line(status: &Status) -> String {
    use std::fmt::Write;
    let mut text = match status.state {
        State::Training => format!("epoch {}", status.epoch),
        State::Starting => "starting".to_owned(),
        State::WaitingForData => "waiting for data".to_owned(),
        State::Checkpointing => "checkpoint".to_owned(),
        State::Evaluating => "evaluation".to_owned(),
        State::Paused => "paused (see the log)".to_owned(),
        State::Draining => "draining".to_owned(),
        State::Finished => "finished".to_owned(),
    };
    let _ = write!(
        text,
        " · {:.0} images/s · wait {:.0} %",
        status.images_per_second,
        100.0 * status.data_wait_ratio
    );
    for (name, value) in &status.losses {
        let _ = write!(text, " · {name} {value:.3}");
    }
    let _ = write!(text, " · lr {:.2e}", status.learning_rate);
    text
}

/// Where log lines go: above the progress line, or straight to stderr.
#[derive(Debug, Clone, Default)]
pub struct LogWriter {
    /// The line to step around.
    pub progress: Option<Progress>,
}

impl Write for LogWriter {
    fn write(&mut self, text: &[u8]) -> std::io::Result<usize> {
        match &self.progress {
            Some(progress) => progress.write(text)?,
            None => std::io::stderr().write_all(text)?,
        }
        Ok(text.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        std::io::stderr().flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_says_what_matters() {
        let status = Status {
            state: State::Training,
            epoch: 3,
            images_per_second: 151.6,
            data_wait_ratio: 0.021,
            losses: vec![("inpaint".into(), 5.4321), ("match".into(), 0.5)],
            learning_rate: 1.5e-3,
            ..Status::default()
        };
        assert_eq!(
            line(&status),
            "epoch 3 · 152 images/s · wait 2 % · inpaint 5.432 · match 0.500 · lr 1.50e-3"
        );
    }
}
