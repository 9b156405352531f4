//! How long a run would take on this machine and what memory a step takes: steps are taken on noise and multiplied, for no formula knows the machine.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use crate::cli::bench::step::measured;
use crate::config::Config;
use crate::exit::CliError;

/// Seconds of steps behind the warm-up.
const SECONDS: f64 = 5.0;

/// What the training data's manifest tells, where there is one.
pub(super) struct Known {
    /// Images that an epoch has.
    pub(super) samples: Option<u64>,
    /// Classes.
    pub(super) classes: usize,
}

/// The sentences on time and memory of the config in `file`, with `sets` over it.
///
/// # Errors
/// No step could be taken: the reason that `bench step` gives.
pub(super) fn estimate(config: &Config, file: &Path, sets: &[String], known: &Known) -> Result<String, CliError> {
    let parts = config.train.accumulate.max(1);
    let part = config.train.batch / parts;
    let mut sets = sets.to_vec();
    if config.objective.classes() == Some(0) && known.classes > 0 {
        sets.push(format!("objective.classes={}", known.classes));
    }
    let row = measured(file, &sets, part, SECONDS, false)?;
    if let Some(error) = row["error"].as_str() {
        return Err(CliError::usage(
            format!("time and memory cannot be estimated: {error}"),
            "without --measure, check-config takes no step".to_owned(),
        ));
    }
    let fitted = config.optim.fitted(config.train.batch, known.samples);
    Ok(sentences(&row, parts, fitted.optim.total_steps))
}

/// The sentences, of a row of `bench step` for one of the `parts` of a batch.
fn sentences(row: &Value, parts: u32, steps: u64) -> String {
    let number = |key: &str| row[key].as_f64().unwrap_or(f64::NAN);
    let said = |key: &str| row[key].as_str().unwrap_or_default();
    let step_ms = number("ms") * f64::from(parts);
    let in_parts = if parts > 1 { format!(" in {parts} parts") } else { String::new() };
    // Saturates, and so tells a length that no run reaches instead of nothing.
    let all = Duration::try_from_secs_f64((step_ms * 1e-3 * steps as f64).round()).unwrap_or(Duration::MAX);
    let mut text = format!(
        "time: {step_ms:.0} ms a step{in_parts} on {} in {}, so {steps} steps take {}, if data come as fast, beside evaluations, pictures and checkpoints",
        said("device"),
        said("precision"),
        humantime::format_duration(all)
    );
    let _ = write!(
        text,
        "\nmemory of a step: {:.0} MB at its peak{}",
        number("peak_memory_mb"),
        if said("device") == "Cpu" {
            ", the program itself included; the pipeline's comes on top"
        } else {
            " on the device"
        }
    );
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn time_and_memory_are_told_for_all_steps_and_parts() {
        let row = json!({ "ms": 250.0, "device": "Cpu", "precision": "f32", "peak_memory_mb": 512.4 });
        let text = sentences(&row, 4, 3600);
        assert!(
            text.starts_with("time: 1000 ms a step in 4 parts on Cpu in f32, so 3600 steps take 1h,"),
            "{text}"
        );
        assert!(
            text.contains("\nmemory of a step: 512 MB at its peak, the program itself"),
            "{text}"
        );
        let endless = sentences(&row, 1, u64::MAX);
        assert!(endless.contains("steps take") && !endless.contains("in 1 parts"), "{endless}");
    }
}
