//! A trainer that only counts: obeys every command, writes checkpoints that hold nothing but their config, and misbehaves when a
//! setting asks it to.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use prometheus::Registry;
use splitmask::checkpoint::{self, Snapshot};
use splitmask::config::Source;
use splitmask::daemon::logging::{self, LogFormat};
use splitmask::daemon::{self, DaemonArgs};
use splitmask::exit::{CliError, ExitCode};
use splitmask::telemetry::metrics::TrainMetrics;
use splitmask::trainer::control::{Blame, Command, Failure, Outcome, PausedAt, Reach, ResumedAt, State, StatusBoard};
use splitmask::trainer::spec::TrainerSpec;

/// `train.threads` of a trainer that never obeys a stop.
pub(crate) const STUBBORN: u32 = 99;
/// `train.threads` of a trainer that takes a second to start.
pub(crate) const SLOW: u32 = 98;
/// `train.threads` of a trainer that panics at its third step.
pub(crate) const PANICS: u32 = 97;
/// `train.threads` of a trainer that answers a reconfiguration after half a second.
pub(crate) const PONDERS: u32 = 96;
/// `pipeline.readers` that no pipeline can be rebuilt with.
pub(crate) const BAD_READERS: usize = 13;

/// Begin of a `data.train` whose bucket does not answer unless the file behind it exists.
pub(crate) const AWAY: &str = "away:";

fn note(spec: &TrainerSpec, line: &str) {
    let mut file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(spec.run_dir.join("fake.log"))
        .unwrap();
    writeln!(file, "{line}").unwrap();
}

fn write_checkpoint(spec: &TrainerSpec, step: u64) -> std::path::PathBuf {
    let progress = serde_json::json!({
        "step": step, "cursor": splitmask_pipeline::cursor::Cursor::default(), "counters": {}, "meter": {}, "word_counts": [],
        "token_entropy": 0.0, "codebook_perplexity": 0.0, "codebook": "",
    });
    let snapshot = Snapshot {
        model: Vec::new(),
        optimizer: Vec::new(),
        progress: serde_json::from_value(progress).unwrap(),
        config_toml: spec.config_toml.clone(),
    };
    checkpoint::save(&checkpoint::folder_of(&spec.run_dir), &snapshot).unwrap()
}

#[expect(clippy::needless_pass_by_value, reason = "the signature of the real trainer")]
fn train(mut spec: TrainerSpec, commands: Receiver<Command>, status: StatusBoard) -> Result<Outcome, Failure> {
    if spec.data.train == "nowhere" {
        let error = CliError::usage("nowhere: no shards found", "make shards with `splitmask pack`".to_owned());
        return Err(Failure {
            blame: Some(Blame::Address("nowhere".into())),
            ..error.into()
        });
    }
    if let Some(file) = spec.data.train.strip_prefix(AWAY)
        && !fs::exists(file).unwrap()
    {
        let error = CliError::io(format!("{}: unreachable: connection refused", spec.data.train));
        return Err(Failure {
            error,
            blame: Some(Blame::Address(spec.data.train.clone())),
            away: true,
        });
    }
    if spec.train.device == "cuda:9" {
        let error = CliError {
            code: ExitCode::Internal,
            message: "libtorch: no device cuda:9".into(),
            hint: None,
        };
        return Err(Failure {
            blame: Some(Blame::Key("train.device".into())),
            ..error.into()
        });
    }
    if spec.train.threads == SLOW {
        std::thread::sleep(Duration::from_secs(1));
    }
    let found = checkpoint::newest_good(&checkpoint::folder_of(&spec.run_dir)).unwrap();
    let mut step = found.good.map_or(0, |good| good.progress.step);
    note(&spec, &format!("begin step={step} batch={} lr={}", spec.train.batch, spec.optim.lr));
    let mut held = false;
    loop {
        match commands.recv_timeout(Duration::from_millis(2)) {
            Ok(Command::Stop) if spec.train.threads == STUBBORN => {}
            Ok(Command::Stop) => {
                write_checkpoint(&spec, step);
                return Ok(Outcome::Stopped { step });
            }
            Ok(Command::Checkpoint { reply }) => reply.send(Ok((write_checkpoint(&spec, step), step))),
            Ok(Command::Pause { reply }) => {
                held = true;
                let mut board = status.lock().unwrap();
                (board.state, board.paused, board.pause_asked) = (State::Paused, Some("asked for".into()), true);
                let checkpoint = Some(write_checkpoint(&spec, step));
                reply.send(Ok(PausedAt {
                    step,
                    checkpoint,
                    error: None,
                }));
            }
            Ok(Command::Resume { reply }) => {
                held = false;
                let mut board = status.lock().unwrap();
                (board.paused, board.pause_asked) = (None, false);
                reply.send(Ok(ResumedAt { step, paused: None }));
            }
            Ok(Command::Reconfigure { spec: new, reach, reply }) => {
                if spec.train.threads == PONDERS {
                    std::thread::sleep(Duration::from_millis(500));
                }
                if reach == Reach::Rebuild && new.pipeline.readers == BAD_READERS {
                    reply.send(Err(format!("pipeline.readers = {BAD_READERS}: no such pipeline")));
                } else {
                    spec = *new;
                    note(
                        &spec,
                        &format!("{reach:?} step={step} lr={} workers={}", spec.optim.lr, spec.pipeline.workers),
                    );
                    reply.send(Ok(step));
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Ok(Outcome::Stopped { step }),
        }
        if held {
            // A trainer that stands still from its first moment is ready too.
            status.lock().unwrap().ready = true;
            continue;
        }
        step += 1;
        assert!(spec.train.threads != PANICS || step < 3, "planted");
        {
            let mut status = status.lock().unwrap();
            status.state = State::Training;
            status.ready = true;
            status.step = step;
            status.total_steps = spec.optim.total_steps;
            status.learning_rate = spec.optim.lr;
            status.losses = vec![("total".into(), 1.0 / step as f64)];
            status.sample_errors = vec![("corrupt".into(), 2)];
            status.chance = vec![("match_accuracy".into(), 0.01)];
            status.last_progress_s = step as f64;
        }
        if step >= spec.optim.total_steps {
            write_checkpoint(&spec, step);
            return Ok(Outcome::Finished { step });
        }
    }
}

/// The body of the daemon's process: this test binary, started again by [`crate::process::Daemon`]. Without its variable it does nothing.
#[test]
fn daemon_process() {
    let Some(file) = std::env::var_os("FAKE_DAEMON_CONFIG") else {
        return;
    };
    let sets: Vec<String> = std::env::var("FAKE_DAEMON_SETS")
        .unwrap_or_default()
        .split('\n')
        .filter(|s| !s.is_empty())
        .map(Into::into)
        .collect();
    let registry = Registry::new();
    let metrics = TrainMetrics::new(&registry).unwrap();
    let log = logging::start("info", LogFormat::Text, None);
    let source = Source::of_process(file.into(), sets);
    let args = DaemonArgs {
        source,
        metrics,
        registry,
        log,
        progress: None,
        watch_every: Duration::from_millis(100),
        launch: torch_ext::ranks::Launch::alone(),
    };
    let code = match daemon::run(args, train) {
        Ok(Outcome::Finished { .. }) => ExitCode::Done,
        Ok(Outcome::Stopped { .. }) => ExitCode::Stopped,
        Err(e) => {
            eprintln!("error: {}\nhint: {}", e.message, e.hint.unwrap_or_default());
            e.code
        }
    };
    splitmask::exit::at_once(code as i32);
}
