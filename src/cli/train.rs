//! `splitmask train`: the daemon.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clap::Args;
use prometheus::Registry;
use splitmask_pipeline::bucket::secret::hidden_in_text;
use splitmask_pipeline::metrics::PipelineMetrics;
use torch_ext::ranks::Launch;

use crate::config::Source;
use crate::daemon::logging::{self, LogFormat};
use crate::daemon::progress::Progress;
use crate::daemon::start::is_stop;
use crate::daemon::{self, DaemonArgs};
use crate::exit::{CliError, ExitCode};
use crate::signals;
use crate::telemetry::metrics::TrainMetrics;
use crate::trainer::control::{Failure, Outcome};
use crate::trainer::ranks::launching::Launching;
use crate::trainer::spec::TrainerSpec;
use crate::trainer::{self, Telemetry, TrainError};

/// Pause between two looks at the config file.
const WATCH_EVERY: Duration = Duration::from_secs(1);

const EXAMPLES: &str = "\
Examples:
  splitmask train --config configs/demo.toml
  splitmask train --config configs/demo.toml --set optim.lr=1e-3 --set train.device=cpu
  SPLITMASK_OPTIM__LR=1e-3 splitmask train --config configs/demo.toml --enable-lifecycle

Signals: SIGHUP reload · SIGTERM, SIGINT checkpoint and exit 75, one more a second later exits at once · SIGUSR1 checkpoint.
Exit codes: 0 done · 64 bad config, usage or input · 70 a bug · 74 I/O failed after retries · 75 stopped after a checkpoint · 76 loss not finite
· 77 the trainer hung (admin.watchdog_exit).";

/// Train, or go on with a run: a daemon that follows its config file and shows itself over HTTP.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct TrainArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Let POST requests reload, checkpoint and stop (admin.lifecycle = true).
    #[arg(long)]
    enable_lifecycle: bool,
    /// Address of the admin server (admin.bind).
    #[arg(long, value_name = "IP:PORT")]
    admin: Option<String>,
    /// Folder of the run (run.dir).
    #[arg(long, value_name = "FOLDER")]
    run_dir: Option<String>,
    /// How log lines are written.
    #[arg(long, value_enum, default_value_t)]
    log_format: LogFormat,
}

/// A config file and what overrides it.
#[derive(Args)]
pub(crate) struct ConfigArgs {
    /// Config file; docs/reload.md lists its keys.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Override a key, for example optim.lr=1e-3; may be given several times.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
}

pub(crate) fn run(args: TrainArgs) -> Result<(), CliError> {
    let launch = Launch::from_env().map_err(|e| CliError::from(TrainError::from(e)))?;
    let internal = |e: prometheus::Error| CliError {
        code: ExitCode::Internal,
        message: format!("metrics: {e}"),
        hint: None,
    };
    let by = launch.by;
    let registry = match launch.world {
        1 => Registry::new(),
        _ => Registry::new_custom(None, Some([("rank".to_owned(), launch.rank.to_string())].into())).map_err(internal)?,
    };
    let telemetry = Telemetry {
        train: TrainMetrics::new(&registry).map_err(internal)?,
        pipeline: PipelineMetrics::register(&registry).map_err(internal)?,
    };
    let metrics = telemetry.train.clone();
    let progress = Progress::on_terminal().filter(|_| args.log_format == LogFormat::Text && launch.rank == 0);
    let log = logging::start("info", args.log_format, progress.clone());
    let source = args.into_source();
    source.remarks.iter().for_each(|told| tracing::warn!("{told}"));
    let reread = source.clone();
    let launching = Launching::new(launch.clone(), move |text| spec_of_rank_0(&reread, text));
    let (told, several) = (launching.clone(), launching.several());
    let known = Arc::new(AtomicBool::new(false));
    let heard_together = Arc::clone(&known);
    let train = move |spec, commands, status| {
        trainer::run(spec, &commands, status, telemetry.clone(), &launching).map_err(|error| {
            heard_together.store(error.is_of_meeting(), Ordering::Relaxed);
            let failure = Failure::from(error);
            Failure {
                // Several ranks end together, also where a bucket does not answer: their launcher starts them again.
                away: failure.away && !several,
                ..failure
            }
        })
    };
    let ended = daemon::run(
        DaemonArgs {
            source,
            metrics,
            registry,
            log,
            progress,
            watch_every: WATCH_EVERY,
            launch,
        },
        train,
    );
    match ended {
        Ok(Outcome::Finished { .. }) => Ok(()),
        Ok(Outcome::Stopped { step }) => Err(CliError {
            code: ExitCode::Stopped,
            message: format!("stopped at step {step} after a checkpoint"),
            hint: Some("the same command goes on from there".into()),
        }),
        Err(error) => {
            told.say(&error.message);
            if error.code == ExitCode::Usage && !known.load(Ordering::Relaxed) {
                // The daemon that heard signals has ended.
                let stopped = Arc::new(AtomicBool::new(false));
                let heard = Arc::clone(&stopped);
                let listening = signals::listen(move |signal| {
                    if is_stop(signal, by) {
                        heard.store(true, Ordering::Relaxed);
                    }
                });
                told.decline(&hidden_in_text(&error.message), &|| {
                    listening.is_ok() && !stopped.load(Ordering::Relaxed)
                });
            }
            Err(error)
        }
    }
}

/// What a trainer of this process is built from where rank 0 has the config `text`.
fn spec_of_rank_0(own: &Source, text: &str) -> Result<TrainerSpec, String> {
    let (config, _) = own.load_text(text).map_err(|e| e.to_string())?;
    Ok(config.trainer_spec())
}

impl TrainArgs {
    /// Options are `--set` in other words, so that a reload keeps them too.
    fn into_source(self) -> Source {
        let quoted = |text: String| toml::Value::String(text).to_string();
        let mut sets = self.config.sets;
        if self.enable_lifecycle {
            sets.push("admin.lifecycle=true".into());
        }
        sets.extend(self.admin.map(|a| format!("admin.bind={}", quoted(a))));
        sets.extend(self.run_dir.map(|d| format!("run.dir={}", quoted(d))));
        Source::of_process(self.config.config, sets)
    }
}
