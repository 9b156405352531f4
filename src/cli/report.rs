//! `splitmask report`: what a run has come to, on one screen.

use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};

use super::eval::{checkpoint_folder, config_of, knn};
use crate::cli::answer::say;
use crate::exit::CliError;
use crate::objective::Scope;
use crate::trainer::metrics_log::MetricsLog;

/// Sum up a run: speed, losses against the words' entropy, k-NN accuracy against random initialisation and chance, pictures.
#[derive(Args)]
#[command(after_help = "Example:\n  splitmask report runs/demo")]
pub(crate) struct ReportArgs {
    /// Run folder.
    run: PathBuf,
    /// Leave the k-NN evaluation out (it takes a minute).
    #[arg(long)]
    no_knn: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &ReportArgs) -> Result<(), CliError> {
    let folder = checkpoint_folder(&args.run)?;
    let config = config_of(&folder)?;
    let lines: Vec<Value> = MetricsLog::read(&args.run)
        .into_iter()
        .filter(|l| l["images_per_second"].is_f64())
        .collect();
    let Some(last) = lines.last() else {
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
    // Images without labels are no error of the run: the rest of the report stands.
    let measured =
        (!args.no_knn && !config.data.val.is_empty()).then(|| Ok::<_, CliError>((knn(&config, Some(&folder))?, knn(&config, None)?)));
    let (trained, random, unmeasured) = match measured {
        Some(Ok((trained, random))) => (Some(trained), Some(random), None),
        Some(Err(e)) => (None, None, Some(e.message)),
        None => (None, None, None),
    };
    if args.json {
        say!(
            "{}",
            json!({ "step": last["step"], "images": last["images"], "images_per_second": median("images_per_second"), "data_wait_ratio": wait,
                    "losses": { "total": last["total"], "inpaint": last["inpaint"], "match": last["match"] }, "token_entropy": last["token_entropy"],
                    "knn": trained, "knn_random_init": random })
        );
        return Ok(());
    }
    let number = |key: &str| last[key].as_f64().unwrap_or(f64::NAN);
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
    if last["inpaint"].is_f64() {
        say!(
            "inpaint loss   {:.3} nats; a model that knows only how frequent each word is would score {:.3} (marginal entropy)",
            number("inpaint"),
            number("token_entropy")
        );
    }
    if last["match"].is_f64() {
        let chance = config
            .objective
            .chance("match", &Scope::new(&config.model, config.train.batch, 0))
            .unwrap_or(f64::NAN);
        say!("match loss     {:.3} nats; guessing would score {chance:.3}", number("match"));
    }
    if let (Some(trained), Some(random)) = (&trained, &random) {
        say!(
            "k-NN accuracy  {:.3} trained · {:.3} same encoder at random init · {:.3} commonest class · {:.3} chance ({} classes)",
            trained.top1,
            random.top1,
            trained.majority,
            trained.chance,
            trained.classes
        );
        say!(
            "               {:+.1} points over random init",
            100.0 * (trained.top1 - random.top1)
        );
    }
    for line in trained.iter().flat_map(|accuracy| accuracy.remarks.lines()) {
        say!("               {line}");
    }
    if let Some(reason) = unmeasured {
        say!("k-NN accuracy  not measured: {reason}");
    }
    for (name, what) in [
        ("inpaint.png", "image · seen by A · seen by B · predicted words · true words"),
        ("curves.svg", "losses and accuracies over steps"),
    ] {
        let path = args.run.join(name);
        if path.exists() {
            say!("picture        {} ({what})", path.display());
        }
    }
    Ok(())
}
