//! A training that is only measured: without end, checkpoints and evaluations, stopped from outside.

use std::path::Path;
use std::sync::mpsc::channel;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use splitmask_pipeline::types::Batch;
use tch::Device;
use torch_ext::{CallCount, LaunchCount, TorchError};

use crate::exit::CliError;
use crate::trainer::control::{Command, StatusBoard, trainer_thread};
use crate::trainer::spec::{OnOom, TrainerSpec};
use crate::trainer::{Telemetry, run_prepared};

/// Steps that warm up: kernels are chosen, memory is reserved.
pub(super) const WARM_UP: u64 = 5;
/// Steps between two log lines on a GPU: each line waits for the device, which a run does as seldom.
const GPU_LOG_STEPS: u64 = 10;
/// Time between two looks at the step.
const LOOK: Duration = Duration::from_millis(1);

/// A run that does nothing but steps, in a folder of its own, without end.
pub(super) fn undisturbed(spec: &mut TrainerSpec, folder: &Path, device: Device) {
    let never = u64::MAX;
    spec.run_dir = folder.join("run");
    spec.init_from = None;
    spec.optim.max_epochs = 0;
    spec.optim.total_steps = never;
    spec.checkpoint.every_steps = never;
    spec.picture.every_steps = never;
    (spec.eval.every_steps, spec.eval.linear_every_steps) = (0, 0);
    spec.log.every_steps = if matches!(device, Device::Cuda(_)) { GPU_LOG_STEPS } else { 1 };
    // As many images at once as were asked for, or the row says that they do not fit.
    spec.train.accumulate = 1;
    spec.train.on_oom = OnOom::Stop;
    spec.debug = Default::default();
}

/// When a training ends, counted from behind the warm-up.
#[derive(Clone, Copy)]
pub(super) enum Until {
    /// After so much time.
    Seconds(f64),
    /// After so many steps, whose calls of libtorch are counted.
    Steps(u64),
}

/// What a step asks of libtorch and of the device.
#[derive(Clone, Copy)]
pub(super) struct Asked {
    /// Calls of libtorch.
    pub(super) calls: f64,
    /// Those for whose result a host waits on CUDA.
    pub(super) waits: f64,
    /// On CUDA: kernels, calls that launch them, and calls that wait for the device.
    pub(super) of_device: Option<[f64; 3]>,
}

/// Trains until the end that is meant. Answers what a step asks, where that is counted.
///
/// # Errors
/// The training's, or what libtorch said of counting.
pub(super) fn train_for(
    spec: TrainerSpec,
    batches: Vec<Batch>,
    until: Until,
    device: Device,
    telemetry: Telemetry,
) -> Result<Option<Asked>, CliError> {
    let (commander, commands) = channel();
    let board = StatusBoard::default();
    std::thread::scope(|scope| {
        let status = Arc::clone(&board);
        let body = move || run_prepared(spec, batches, &commands, status, telemetry);
        let trainer = trainer_thread()
            .spawn_scoped(scope, body)
            .map_err(|e| CliError::internal("no trainer thread", &e))?;
        let counted = watch(until, device, &board, &|| trainer.is_finished());
        // Also where counting failed; nobody is left to be stopped where the training did.
        let _ = commander.send(Command::Stop);
        trainer.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        counted.map_err(|e| CliError::io(e.to_string()))
    })
}

/// Waits for the end that is meant, or for that of the training; counts calls of a step if that is asked for.
fn watch(until: Until, device: Device, board: &StatusBoard, ended: &dyn Fn() -> bool) -> Result<Option<Asked>, TorchError> {
    let step = || board.lock().unwrap_or_else(PoisonError::into_inner).step;
    let wait = |over: &dyn Fn() -> bool| {
        while !over() && !ended() {
            std::thread::sleep(LOOK);
        }
    };
    wait(&|| step() > WARM_UP);
    match until {
        Until::Seconds(seconds) => {
            let began = Instant::now();
            wait(&|| began.elapsed().as_secs_f64() >= seconds);
            Ok(None)
        }
        Until::Steps(steps) => {
            let taken_in = |first: u64| {
                wait(&|| step() >= first + steps);
                (step() - first) as f64
            };
            let (count, first) = (CallCount::begin()?, step());
            let (taken, calls) = (taken_in(first), count.end()?);
            // Apart from each other: recording launches would add to the calls.
            let launches = || {
                let (count, first) = (LaunchCount::begin(false)?, step());
                let (taken, seen) = (taken_in(first), count.end()?);
                Ok((taken > 0.0).then(|| [seen.kernels, seen.launches, seen.waits].map(|number| number as f64 / taken)))
            };
            // NVIDIA's profiling interface may be forbidden, or in use; the time of a step is worth telling without it.
            let of_device = match device {
                Device::Cuda(_) => launches().unwrap_or_else(|e: TorchError| {
                    tracing::warn!(error = %e, "kernels and launches of a step could not be counted");
                    None
                }),
                _ => None,
            };
            Ok((taken > 0.0).then(|| Asked {
                calls: calls.all as f64 / taken,
                waits: calls.waits as f64 / taken,
                of_device,
            }))
        }
    }
}
