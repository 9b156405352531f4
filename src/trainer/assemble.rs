//! Builds a trainer out of its spec, and restores it from the newest checkpoint of its run folder.

use std::rc::Rc;
use std::sync::Arc;

use splitmask_pipeline::bucket::location::redact;
use tch::Device;
use torch_ext::{Arithmetic, set_arithmetic};

use super::class_remarks;
use super::control::{StatusBoard, held};
use super::epochs::fit_schedule;
use super::error::TrainError;
use super::feed::{Supply, check_val};
use super::hooks::Hooks;
use super::initial_weights::{self, NewRun};
use super::metrics_log::MetricsLog;
use super::outlets::{Outlets, Telemetry};
use super::ranks::launching::Launching;
use super::ranks::peers::Peers;
use super::ranks::start::lowest;
use super::reading_labels::labels_of;
use super::resume;
use super::run::Trainer;
use super::setup::Setup;
use super::spec::TrainerSpec;
use super::stability::{AfterRollback, Ladder};
use super::state::{OTHER_SHARDS, RunState};
use super::tensorboard::TensorBoard;
use crate::telemetry::metrics::{Phase, PhaseClock, RunFile};
use crate::tensor::{TensorError, choose_device, multiplies_bf16};

/// How a process came to its place among the ranks, and the others, if there are any.
#[derive(Clone)]
pub(super) struct Company {
    pub(super) launching: Launching,
    pub(super) peers: Option<Rc<Peers>>,
}

impl Company {
    /// Meets the other ranks of `launching`; nothing is done for one process.
    ///
    /// # Errors
    /// What several ranks cannot train, a device that is not there, ranks that do not come together.
    pub(super) fn meet(spec: &TrainerSpec, launching: &Launching) -> Result<Self, TrainError> {
        let peers = if launching.several() {
            let (device, _) = choose_device(&launching.device_setting(&spec.train.device)?)?;
            launching.meet(spec, device)?.map(Rc::new)
        } else {
            None
        };
        Ok(Self {
            launching: launching.clone(),
            peers,
        })
    }
}

/// Builds everything, restores the newest checkpoint if there is one, and starts the pipeline at its cursor; after a rollback where and with the memory
/// that `after` says instead. Several ranks do so together: rank 0 reads the run folder, and the others get what it has.
pub(super) fn assemble(
    mut spec: TrainerSpec,
    supply: Supply,
    status: StatusBoard,
    telemetry: Telemetry,
    company: Company,
    after: Option<AfterRollback>,
) -> Result<Trainer, TrainError> {
    let device = prepare_device(&spec, &telemetry, &company.launching)?;
    let peers = company.peers.as_deref();
    let first = peers.is_none_or(Peers::first);
    peers.map(|peers| peers.agree_on_config(&spec)).transpose()?;
    telemetry.train.ranks.world.set(peers.map_or(1, Peers::world) as f64);
    telemetry.train.ranks.restarts.set(company.launching.restarts() as f64);
    // A paused trainer that is rebuilt by a reload is paused no more.
    telemetry.train.set_paused(&[]);

    let words = Rc::new(spec.load_words(device)?);
    peers.map(|peers| peers.agree("codebook", &words.id())).transpose()?;
    spec.take_labels(labels_of(&spec, &supply)?);
    for told in class_remarks::of_training(&spec.labels, spec.objective.classes_of()) {
        tracing::warn!("data.train = {}: {told}", redact(spec.data.first_place()));
    }
    let mut state = RunState::new(&spec, device, &words);
    telemetry.train.eval.set_layers(state.objective.encoder().depth());
    let kind = spec.objective.kind();
    telemetry
        .train
        .objective
        .declare(kind.numbers, kind.collapse.iter().map(|rule| rule.name));
    let request = Arc::new(words.request(spec.objective.request(&spec.scope(words.len()))));
    let newest = match first {
        true => resume::newest(&spec.run_dir, &telemetry.train, &status)?,
        false => None,
    };
    if let Some((folder, snapshot)) = &newest {
        state.restore(folder, snapshot, &spec, &words)?;
    } else {
        if let Some(from) = spec.init_from.as_ref().filter(|_| first) {
            let new_run = NewRun {
                model: &spec.model,
                vars: &state.vars,
                partial: spec.init_partial,
                is_class_head: &|name| state.objective.is_class_head(name),
                is_head: &|name| state.objective.is_head(name),
                classes: &spec.labels.names,
                kind: spec.objective.kind().name,
                pool: spec.objective.class_pool(),
            };
            initial_weights::load(from, &new_run)?;
        }
        state.begin_averages(&spec.run_dir, &[], &spec)?;
    }
    let from = newest.as_ref().map(|(folder, _)| folder.display().to_string()).unwrap_or_default();
    let progress = newest.map(|(_, snapshot)| snapshot.progress);
    let progress = match peers {
        Some(peers) => {
            peers.share_tensors(state.tensors())?;
            peers.share_progress(progress.as_ref())?
        }
        None => progress,
    };
    let resumed = progress.as_ref().map(|p| p.step);
    if let Some(progress) = progress {
        // What a checkpoint says of images is the sum over its ranks, which rank 0 goes on from; but at a rollback each has counted its own already.
        match first && after.is_none() {
            true => telemetry.train.restore(&progress.counters),
            false => telemetry.train.restore_alike(&progress.counters),
        }
        let (cursor, world) = match peers {
            Some(peers) => (peers.place_in(&progress), peers.world() as u32),
            None if !progress.cursors.is_empty() => (lowest(&progress), 1),
            None => (progress.cursor, 1),
        };
        state.take_progress(progress, cursor, spec.train.batch / world, &spec);
        tracing::info!(step = state.step, from, "resuming");
        if state.step >= spec.optim.total_steps {
            tracing::info!(
                "all {} steps of the run were taken already: a larger optim.total_steps goes on, another run.dir begins anew",
                spec.optim.total_steps
            );
        }
    }
    peers.map(|peers| peers.reduce(&state.trained())).transpose()?;
    let mut metrics_log = match after {
        Some(after) => {
            let from = std::mem::replace(&mut state.cursor, after.cursor);
            let (remembered, log) = after.memory(state.step, from);
            state.ladder = Ladder::restore(remembered);
            log
        }
        None => MetricsLog::of(
            &spec.run_dir,
            spec.lock.clone(),
            telemetry.train.write_failures.of(RunFile::Metrics).clone(),
        ),
    };

    // Before anything is written: a bucket that cannot be read must leave no trace.
    if matches!(supply, Supply::Bucket) && first {
        check_val(&spec)?;
    }
    let mut setup = Setup {
        own_pipeline: company.launching.share().pipeline(&spec.pipeline),
        spec,
        device,
        words,
        request,
        supply,
        launching: company.launching,
        peers: company.peers,
    };
    let feed = setup.open_feed(state.cursor, device, &telemetry.pipeline)?;
    if let Some(peers) = &setup.peers {
        peers.agree("the list of shards", feed.shards())?;
    }
    if state.take_shards(feed.shards()) && first {
        tracing::warn!(step = state.step, "{OTHER_SHARDS}");
    }
    let uncut = setup.spec.objective.oddities(&setup.spec.scope(setup.words.len()));
    let epochs = fit_schedule(&mut setup.spec, feed.samples())?;
    // Of several sources the number is that of one.
    if let (Some(samples), true, true) = (feed.samples(), first, setup.spec.data.sources.is_empty()) {
        let odd = setup.spec.objective.odd_with(samples);
        odd.iter().for_each(|told| tracing::warn!("{told}"));
    }
    // What was odd before was told when the config was read.
    let of_cut = setup.spec.objective.oddities(&setup.spec.scope(setup.words.len()));
    of_cut
        .iter()
        .filter(|told| first && !uncut.contains(told))
        .for_each(|told| tracing::warn!("{told}"));
    let spec = &setup.spec;
    let mut tensorboard = None;
    if first {
        spec.check_folder()?;
        std::fs::create_dir_all(&spec.run_dir).map_err(|source| TrainError::Io {
            path: spec.run_dir.clone(),
            source,
        })?;
        if resumed.is_none() {
            set_aside_lost(&mut metrics_log, spec, &status);
        }
        metrics_log.stand_at(state.step, &state.ladder.save().rollbacks);
        tensorboard = TensorBoard::of(spec, state.step, &telemetry.train);
    }
    tracing::info!(
        steps = spec.optim.total_steps,
        warmup_steps = spec.optim.warmup_steps,
        samples = feed.samples(),
        epochs,
        "the schedule: {} steps of {} images{}",
        spec.optim.total_steps,
        spec.train.batch,
        epochs.map_or_else(String::new, |e| format!(", {e:.1} epochs"))
    );
    Ok(Trainer::new(
        state,
        Hooks::new(&setup, &telemetry, resumed),
        setup,
        feed,
        Outlets {
            clock: PhaseClock::start(telemetry.train.clone(), Phase::Other),
            metrics_log,
            tensorboard,
            writes: first,
            status,
            telemetry,
        },
    ))
}

/// A run that begins at step 0 although its metrics tell of a step at which a checkpoint was due has lost its checkpoints: says so, and keeps the lines.
fn set_aside_lost(metrics_log: &mut MetricsLog, spec: &TrainerSpec, status: &StatusBoard) {
    let told = match metrics_log.set_aside_from(spec.checkpoint.every_steps) {
        Ok(None) => return,
        Ok(Some((aside, last))) => format!(
            "its lines up to step {last} were set aside as {}; to go on from a copy of a checkpoint, stop, put it back and start again",
            aside.display()
        ),
        Err(error) => format!("its metrics.jsonl could not be read or set aside: {error}"),
    };
    tracing::error!(
        "no checkpoint of this run can be read in {}: training begins anew at step 0; {told}",
        crate::checkpoint::folder_of(&spec.run_dir).display()
    );
    held(status).note_failure("checkpoint", 0, format!("training began anew at step 0; {told}"));
}

/// The variable by which cuBLAS is told its workspaces, and the values with which it repeats its sums (CUDA's documentation of cuBLAS).
const WORKSPACE: &str = "CUBLAS_WORKSPACE_CONFIG";
const WORKSPACES: [&str; 2] = [":4096:8", ":16:8"];

/// Chooses the device, libtorch's threads and its arithmetic.
fn prepare_device(spec: &TrainerSpec, telemetry: &Telemetry, launching: &Launching) -> Result<Device, TrainError> {
    let (device, why_not_cuda) = choose_device(&launching.device_setting(&spec.train.device)?)?;
    if let Some(reason) = why_not_cuda {
        tracing::info!(%reason, "training on the CPU");
    }
    if spec.train.precision.is_bf16(device) && !multiplies_bf16(device) {
        tracing::warn!(
            "train.precision = \"bf16\", and this processor has no instructions for it: a step takes many times as long as in \"f32\"; \"auto\" chooses"
        );
    }
    let threads = if spec.train.threads == 0 {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        (cores / launching.sharing()).max(1) as u32
    } else {
        spec.train.threads
    };
    tch::set_num_threads(threads as i32);
    if device == Device::Cpu {
        torch_ext::keep_freed_memory();
    }
    let deterministic = spec.train.deterministic && device.is_cuda();
    if let Some(what) = spec.objective.undetermined().filter(|_| deterministic) {
        return Err(TrainError::BadSetting {
            key: "train.deterministic".into(),
            value: "true".into(),
            detail: format!(
                "libtorch cannot repeat {what} on a GPU, which objective.kind = \"{}\" needs",
                spec.objective.kind().name
            ),
            hint: Some("set it to false, or train on the CPU, where every run repeats its bits".into()),
        });
    }
    if deterministic && !std::env::var(WORKSPACE).is_ok_and(|set| WORKSPACES.contains(&set.as_str())) {
        return Err(TrainError::BadSetting {
            key: "train.deterministic".into(),
            value: "true".into(),
            detail: format!("NVIDIA's cuBLAS repeats its sums only with {WORKSPACE} set to one of {WORKSPACES:?}"),
            hint: Some(format!("export {WORKSPACE}={} before the start", WORKSPACES[0])),
        });
    }
    set_arithmetic(Arithmetic {
        tf32: spec.train.tf32,
        deterministic,
    })
    .map_err(TensorError::from)?;
    let name = match device {
        Device::Cuda(n) => format!("cuda:{n}"),
        other => format!("{other:?}").to_lowercase(),
    };
    telemetry.train.set_build_info(torch_ext::version(), &name);
    Ok(device)
}
