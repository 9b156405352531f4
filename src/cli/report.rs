//! `splitmask report`: what a run has come to, on one screen.

use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};

use super::eval::{checkpoint_folder, config_of, judge, warn_of_training_images};
use crate::checkpoint;
use crate::cli::answer::say;
use crate::exit::CliError;
use crate::objective::{Number, Role};
use crate::picture::drawn;
use crate::trainer::metrics_log::MetricsLog;

/// Sum up a run: speed, losses against what guessing would score, k-NN accuracy and spread of the features against random initialisation, pictures.
#[derive(Args)]
#[command(after_help = "Example:\n  splitmask report runs/demo")]
pub(crate) struct ReportArgs {
    /// Run folder.
    run: PathBuf,
    /// Leave k-NN and spread out (they take a minute).
    #[arg(long)]
    no_knn: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &ReportArgs) -> Result<(), CliError> {
    let folder = checkpoint_folder(&args.run)?;
    if folder == args.run {
        return Err(CliError::usage(
            format!(
                "{}: a checkpoint; a report is of a run, which holds the numbers of all its steps",
                folder.display()
            ),
            "name the run folder, two folders above it; or `splitmask eval knn` measures this checkpoint alone".to_owned(),
        ));
    }
    let config = config_of(&folder)?;
    let lines = MetricsLog::read(&args.run).map_err(|e| CliError::io(e.to_string()))?;
    // The last evaluation of the classes that the run learns, if it made one.
    let learnt = lines.iter().rev().find(|l| l["top1_accuracy"].is_f64()).cloned();
    let lines: Vec<Value> = lines.into_iter().filter(|l| l["images_per_second"].is_f64()).collect();
    // Of an interval in which no image counted there is no loss to tell.
    let Some(last) = lines.iter().rev().find(|l| l["total"].is_f64()).or(lines.last()) else {
        return Err(CliError::usage(
            format!("{}: metrics.jsonl holds no line yet", args.run.display()),
            "let the run reach its first log step".to_owned(),
        ));
    };
    let median = |key: &str| {
        let mut values: Vec<f64> = lines.iter().filter_map(|l| l[key].as_f64()).collect();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
    };
    // The wait ratio is a share of time, so it is averaged over time: each line covers images ÷ (images per second) seconds.
    let (mut time, mut waited) = (0.0, 0.0);
    for pair in lines.windows(2) {
        let number = |l: &Value, key: &str| l[key].as_f64().unwrap_or(0.0);
        let seconds = (number(&pair[1], "images") - number(&pair[0], "images")).max(0.0) / number(&pair[1], "images_per_second").max(1e-9);
        time += seconds;
        waited += seconds * number(&pair[1], "data_wait_ratio");
    }
    let wait = if time > 0.0 {
        waited / time
    } else {
        last["data_wait_ratio"].as_f64().unwrap_or(0.0)
    };
    warn_of_training_images(&config);
    // Images without labels are no error of the run: the rest of the report stands.
    let measured =
        (!args.no_knn && !config.data.val.is_empty()).then(|| Ok::<_, CliError>((judge(&config, Some(&folder))?, judge(&config, None)?)));
    let (mut spreads, mut unspread) = (None, None);
    let (trained, random, unmeasured) = match measured {
        Some(Ok((trained, random))) => {
            match (trained.spread, random.spread) {
                (Ok(trained), Ok(random)) => spreads = Some((trained, random)),
                (Err(e), _) | (_, Err(e)) => unspread = Some(e.message),
            }
            match (trained.knn, random.knn) {
                (Ok(trained), Ok(random)) => (Some(trained), Some(random), None),
                (Err(e), _) | (_, Err(e)) => (None, None, Some(e.message)),
            }
        }
        Some(Err(e)) => (None, None, Some(e.message)),
        None => (None, None, None),
    };
    let measured_step = checkpoint::read(&folder).ok().map(|found| found.progress.step);
    let kind = config.objective.kind();
    if args.json {
        let values = |wanted: &dyn Fn(&Number) -> bool| -> serde_json::Map<String, Value> {
            let named = kind.numbers.iter().filter(|n| wanted(n)).map(|n| n.name);
            let all = named.map(|name| (name.to_owned(), last[name].clone()));
            all.filter(|(_, value)| value.is_f64()).collect()
        };
        let mut losses = values(&|n| n.role == Role::Term);
        losses.insert("total".into(), last["total"].clone());
        say!(
            "{}",
            json!({ "step": last["step"], "images": last["images"], "images_per_second": median("images_per_second"), "data_wait_ratio": wait,
                    "losses": losses, "numbers": values(&|n| n.role == Role::Measure), "token_entropy": last["token_entropy"],
                    "measured_step": measured_step, "knn": trained, "knn_random_init": random, "classes": learnt,
                    "spread": spreads.map(|(trained, _)| trained), "spread_random_init": spreads.map(|(_, random)| random) })
        );
        return Ok(());
    }
    say!(
        "run            {} at step {} ({} images)",
        args.run.display(),
        last["step"],
        last["images"]
    );
    say!(
        "speed          {:.0} images/s (median of the log intervals)",
        median("images_per_second")
    );
    say!("data wait      {:.1} % of the time", 100.0 * wait);
    say!("numbers        means of the last log interval");
    let scope = config.scope();
    // What is a baseline of another number stands in that one's line.
    let is_baseline = |n: &Number| kind.numbers.iter().any(|of| of.baseline.is_some_and(|b| b.number == n.name));
    for number in kind.numbers.iter().filter(|n| n.panel().is_some() || !is_baseline(n)) {
        let Some(value) = last[number.name].as_f64() else { continue };
        let mut line = format!("{:<14} {value:.3}{}", number.title(), number.unit_behind());
        let measured = number.baseline.and_then(|b| Some((b.who, last[b.number].as_f64()?, b.number)));
        if let Some((who, score, what)) = measured {
            // Adding 0 turns the −0 of rounding into 0.
            let score = (score * 1e3).round() / 1e3 + 0.0;
            line.push_str(&format!("; {who} would score {score:.3} ({})", what.replace('_', " ")));
        } else if let Some(chance) = config.objective.chance(number.name, &scope) {
            line.push_str(&format!("; guessing would score {chance:.3}"));
        }
        say!("{line}");
    }
    if let Some(found) = &learnt {
        let value = |key: &str| found[key].as_f64().unwrap_or(f64::NAN);
        say!(
            "top-1 accuracy {:.3} · {:.3} top-5 · {:.3} mean of the classes, on data.val at step {}",
            value("top1_accuracy"),
            value("top5_accuracy"),
            value("class_mean_accuracy"),
            found["step"]
        );
    }
    if measured_step != last["step"].as_u64() {
        let step = measured_step.map_or_else(|| "an unknown step".into(), |step| format!("step {step}"));
        say!("note           what follows was measured on the checkpoint of {step}, the newest that can be read");
    }
    if let (Some(trained), Some(random)) = (&trained, &random) {
        say!(
            "k-NN accuracy  {:.3} trained · {:.3} same encoder at random init · {:.3} commonest class · {:.3} chance ({} classes)",
            trained.top1,
            random.top1,
            trained.baseline.majority,
            trained.baseline.chance,
            trained.baseline.classes
        );
        say!(
            "               {:+.1} points over random init",
            100.0 * (trained.top1 - random.top1)
        );
    }
    for line in trained.iter().flat_map(|accuracy| accuracy.baseline.remarks.lines()) {
        say!("               {line}");
    }
    if let Some(reason) = unmeasured {
        say!("k-NN accuracy  not measured: {reason}");
    }
    if let Some((trained, random)) = spreads {
        say!(
            "effective rank {:.1} trained · {:.1} same encoder at random init · of {} at most",
            trained.rank,
            random.rank,
            trained.most
        );
    }
    if let Some(reason) = unspread {
        say!("effective rank not measured: {reason}");
    }
    let sheets = drawn(kind).map(|(name, columns)| (format!("{name}.png"), columns));
    for (name, what) in sheets.chain([("curves.svg".to_owned(), "losses and accuracies over steps")]) {
        let path = args.run.join(name);
        if path.exists() {
            say!("picture        {} ({what})", path.display());
        }
    }
    Ok(())
}
