//! Builds a trainer out of its spec, and restores it from the newest checkpoint of its run folder.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use splitmask_pipeline::cursor::Cursor;
use splitmask_pipeline::request::SampleRequest;
use tch::{Device, Tensor, nn};

use super::Telemetry;
use super::checkpoint_writer::CheckpointWriter;
use super::control::StatusBoard;
use super::error::TrainError;
use super::feed::{Feed, Supply, check_val};
use super::initial_weights;
use super::meter::{Meter, WordUsage};
use super::metrics_log::MetricsLog;
use super::pause::Pause;
use super::record::Interval;
use super::resume;
use super::rollback::Detour;
use super::spec::TrainerSpec;
use super::speed;
use super::stability::Ladder;
use super::words::Words;
use crate::checkpoint::{Policy, Progress, Snapshot};
use crate::eval::watch::Watch;
use crate::objective::Objective;
use crate::optim::{AdamW, Ema};
use crate::telemetry::metrics::{Phase, PhaseClock, RunFile};
use crate::tensor::choose_device;

/// Everything one training run consists of.
pub(super) struct Trainer {
    pub(super) spec: TrainerSpec,
    pub(super) device: Device,
    pub(super) vars: nn::VarStore,
    pub(super) objective: Box<dyn Objective>,
    pub(super) optimizer: AdamW,
    pub(super) words: Words,
    pub(super) ema: Option<Ema>,
    pub(super) plan: Arc<SampleRequest>,
    pub(super) supply: Supply,
    pub(super) feed: Feed,
    pub(super) step: u64,
    pub(super) cursor: Cursor,
    pub(super) meter: Meter,
    pub(super) usage: WordUsage,
    pub(super) interval: Interval,
    pub(super) watch: Watch,
    pub(super) ladder: Ladder,
    /// Where the batches since the last look at losses and norms began, oldest first: one of them may have to be read again for the replay folder.
    pub(super) trail: VecDeque<Cursor>,
    /// Parts that a batch is processed in; 0 = to be found.
    pub(super) parts: usize,
    /// Switches of the clock during a pass; kept for its memory.
    pub(super) phase_switches: Vec<(Phase, Instant)>,
    /// Peak of the device, operations per second, if it is known.
    pub(super) peak: Option<f64>,
    pub(super) waiting_since: Option<Instant>,
    pub(super) paused: Option<Pause>,
    pub(super) metrics_log: MetricsLog,
    pub(super) checkpoints: CheckpointWriter,
    pub(super) clock: PhaseClock,
    pub(super) status: StatusBoard,
    pub(super) telemetry: Telemetry,
}

impl Trainer {
    /// Builds everything, restores the newest checkpoint if there is one, and starts the pipeline at its cursor; after a rollback where and with the
    /// memory that `detour` says instead.
    pub(super) fn assemble(
        mut spec: TrainerSpec,
        supply: Supply,
        status: StatusBoard,
        telemetry: Telemetry,
        detour: Option<Detour>,
    ) -> Result<Self, TrainError> {
        let (device, why_not_cuda) = choose_device(&spec.train.device)?;
        if let Some(reason) = why_not_cuda {
            tracing::info!(%reason, "training on the CPU");
        }
        let threads = if spec.train.threads == 0 {
            std::thread::available_parallelism().map_or(1, |n| n.get() as u32)
        } else {
            spec.train.threads
        };
        tch::set_num_threads(threads as i32);
        telemetry.train.set_build_info(torch_ext::version(), &device_name(device));
        // A paused trainer that is rebuilt by a reload is paused no more.
        telemetry.train.set_paused(None);

        let words = Words::load(&spec, device)?;

        tch::manual_seed(spec.seed as i64);
        let vars = nn::VarStore::new(device);
        let objective = spec.objective.build(&vars.root(), &spec.scope(words.len()));
        telemetry.train.set_layers(objective.encoder().depth());
        let kind = spec.objective.kind();
        telemetry
            .train
            .objective
            .declare(kind.numbers, kind.collapse.iter().map(|rule| rule.name));
        let mut optimizer = AdamW::new(vars.variables(), |name, dims| objective.rule(name, dims), &spec.optim);
        let plan = Arc::new(words.request(spec.objective.request(&spec.scope(words.len()))));

        let mut progress = None;
        let mut averages = Vec::new();
        let resumed_from = if let Some((folder, snapshot)) = resume::newest(&spec.run_dir, &telemetry, &status)? {
            resume::restore(&folder, &snapshot, &vars, &mut optimizer, &words)?;
            tracing::info!(step = snapshot.progress.step, from = %folder.display(), "resuming");
            progress = Some(snapshot.progress);
            averages = snapshot.model;
            folder
        } else {
            if let Some(from) = &spec.init_from {
                initial_weights::load(from, &vars, spec.init_partial)?;
            }
            spec.run_dir.clone()
        };
        let mut ema = (spec.ema.decay > 0.0).then(|| Ema::new(vars.variables()));
        if let Some(ema) = &mut ema {
            ema.load(&averages).map_err(|e| resume::unfit(&resumed_from, e))?;
        }
        drop(averages);
        let resumed = progress.as_ref().map(|p| p.step);
        let watch = progress.as_ref().map(|p| p.watch).unwrap_or_default();
        let (step, mut cursor) = progress.as_ref().map_or((0, Cursor::default()), |p| (p.step, p.cursor));
        let mut stability = progress.as_ref().map(|p| p.stability.clone()).unwrap_or_default();
        let mut metrics_log = match detour {
            Some(detour) => {
                let from = std::mem::replace(&mut cursor, detour.cursor);
                let (remembered, log) = detour.memory(step, from);
                stability = remembered;
                log
            }
            None => MetricsLog::of(&spec.run_dir, telemetry.train.write_failures.of(RunFile::Metrics).clone()),
        };
        // A number that was found once stays, so that a resumed run computes alike; one that the config names is taken anew.
        let found = progress.as_ref().map_or(0, |p| p.parts).max(spec.train.accumulate);
        let parts = if spec.train.batch.is_multiple_of(found.max(1)) {
            found
        } else {
            spec.train.accumulate
        } as usize;
        let (meter, usage) = match progress {
            None => (Meter::default(), WordUsage::new(words.len())),
            Some(p) => {
                telemetry.train.restore(&p.counters);
                (
                    Meter::restore(&p.meter),
                    WordUsage::restore(p.word_counts, p.token_entropy, p.codebook_perplexity),
                )
            }
        };
        // Before anything is written: a bucket that cannot be read must leave no trace.
        if matches!(supply, Supply::Bucket) {
            check_val(&spec)?;
        }
        let feed = Feed::open(&supply, &spec, &plan, words.tokenizer(), cursor, device, &telemetry.pipeline)?;
        let epochs = fit_schedule(&mut spec, feed.samples())?;
        std::fs::create_dir_all(&spec.run_dir).map_err(|source| TrainError::Io {
            path: spec.run_dir.clone(),
            source,
        })?;
        metrics_log.stand_at(step, &stability.rollbacks);
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
        Ok(Self {
            checkpoints: CheckpointWriter::new(&spec.run_dir, telemetry.train.clone(), resumed),
            interval: Interval::begin(telemetry.train.phase(Phase::DataWait).get()),
            clock: PhaseClock::start(telemetry.train.clone(), Phase::Other),
            watch,
            ladder: Ladder::restore(stability),
            trail: VecDeque::new(),
            parts,
            phase_switches: Vec::new(),
            peak: speed::peak(device, spec.train.precision, spec.train.peak_tflops),
            waiting_since: None,
            paused: None,
            spec,
            device,
            vars,
            objective,
            optimizer,
            words,
            ema,
            plan,
            supply,
            feed,
            step,
            cursor,
            meter,
            usage,
            metrics_log,
            status,
            telemetry,
        })
    }

    /// Which checkpoints stay.
    pub(super) fn retention(&self) -> Policy {
        Policy {
            keep: self.spec.checkpoint.keep,
            keep_every: self.spec.checkpoint.keep_every_steps,
            best: self.watch.best.map(|(_, step)| step),
        }
    }

    /// Copies everything that changes to the CPU and hands it to the checkpoint thread.
    pub(super) fn checkpoint_in_background(&mut self) -> Result<(), TrainError> {
        self.clock.switch(Phase::Checkpoint);
        self.read_ladder()?;
        let copy = |t: &Tensor| t.detach().to_device(Device::Cpu).copy();
        let mut model: Vec<(String, Tensor)> = self.vars.variables().iter().map(|(name, t)| (name.clone(), copy(t))).collect();
        model.extend(self.ema.iter().flat_map(Ema::state).map(|(name, t)| (name, copy(&t))));
        model.sort_by(|a, b| a.0.cmp(&b.0));
        let optimizer = self.optimizer.state().into_iter().map(|(name, t)| (name, copy(&t))).collect();
        let (word_counts, token_entropy, codebook_perplexity) = self.usage.save();
        let progress = Progress {
            step: self.step,
            cursor: self.cursor,
            counters: self.telemetry.train.snapshot(),
            meter: self.meter.save(),
            word_counts,
            token_entropy,
            codebook_perplexity,
            codebook: self.words.id(),
            watch: self.watch,
            stability: self.ladder.save(),
            // Only where it is not the config's own.
            parts: if self.parts == self.spec.train.accumulate as usize {
                0
            } else {
                self.parts as u32
            },
        };
        let snapshot = Snapshot {
            model,
            optimizer,
            progress,
            config_toml: self.spec.config_toml.clone(),
        };
        let policy = self.retention();
        self.checkpoints.begin(snapshot, policy);
        self.clock.switch(Phase::Other);
        Ok(())
    }
}

/// Cuts the schedule to `optim.max_epochs` passes over `samples` images; answers the passes that it takes.
pub(super) fn fit_schedule(spec: &mut TrainerSpec, samples: Option<u64>) -> Result<Option<f64>, TrainError> {
    if spec.optim.max_epochs > 0 && samples.is_none() {
        return Err(TrainError::BadSetting {
            key: "optim.max_epochs".into(),
            value: spec.optim.max_epochs.to_string(),
            detail: "the training data has no manifest.json, so nobody knows how many images an epoch has".into(),
            hint: Some("`splitmask pack` writes one; or set optim.max_epochs = 0 and optim.total_steps to what you want".into()),
        });
    }
    let fitted = spec.optim.fitted(spec.train.batch, samples);
    spec.optim = fitted.optim;
    Ok(fitted.epochs)
}

fn device_name(device: Device) -> String {
    match device {
        Device::Cuda(n) => format!("cuda:{n}"),
        other => format!("{other:?}").to_lowercase(),
    }
}
