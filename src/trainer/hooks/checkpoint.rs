//! Checkpoints: scheduled ones in the background, commanded ones at once.

use std::path::PathBuf;

use super::checkpoint_writer::CheckpointWriter;
use super::{Boundary, Flow, Hook};
use crate::checkpoint::Policy;
use crate::telemetry::metrics::Phase;
use crate::trainer::error::TrainError;
use crate::trainer::outlets::{Outlets, Telemetry};
use crate::trainer::setup::Setup;
use crate::trainer::spec::TrainerSpec;
use crate::trainer::stability::read_ladder;
use crate::trainer::state::RunState;

/// Holds the thread that writes.
pub(in crate::trainer) struct WriteCheckpoint {
    writer: CheckpointWriter,
}

impl Hook for WriteCheckpoint {
    fn due(&self, at: &Boundary<'_>) -> bool {
        at.checkpoint_asked || at.is_multiple_of(at.setup.spec.checkpoint.every_steps)
    }

    fn run(&mut self, state: &mut RunState, at: &Boundary<'_>, out: &mut Outlets) -> Result<Flow, TrainError> {
        if let Some(peers) = &at.setup.peers {
            state.places = peers.places(state.cursor, out.telemetry.train.images.get())?;
        }
        self.begin(state, at.setup, out)?;
        Ok(Flow::GoOn)
    }
}

impl WriteCheckpoint {
    /// For the run of `spec`, which goes on from the checkpoint of step `resumed`.
    pub(super) fn new(spec: &TrainerSpec, telemetry: &Telemetry, resumed: Option<u64>) -> Self {
        Self {
            writer: CheckpointWriter::new(&spec.run_dir, spec.lock.clone(), telemetry.train.clone(), resumed),
        }
    }

    /// Copies everything that changes to the CPU and hands it to the checkpoint thread.
    fn begin(&mut self, state: &mut RunState, setup: &Setup, out: &mut Outlets) -> Result<(), TrainError> {
        out.clock.switch(Phase::Checkpoint);
        read_ladder(state, &setup.spec.stability, out)?;
        if !setup.first() {
            out.clock.switch(Phase::Other);
            return Ok(());
        }
        let snapshot = state.snapshot(&setup.spec, &setup.words, &out.telemetry.train);
        self.writer.begin(snapshot, setup.retention(state));
        out.clock.switch(Phase::Other);
        Ok(())
    }

    /// Writes a checkpoint and waits until it is safe on disk; answers its folder.
    ///
    /// # Errors
    /// It could not be written; older ones stand.
    pub(in crate::trainer) fn write(&mut self, state: &mut RunState, setup: &Setup, out: &mut Outlets) -> Result<PathBuf, TrainError> {
        self.begin(state, setup, out)?;
        out.clock.switch(Phase::Checkpoint);
        let path = self.writer.wait().map_err(TrainError::from)?;
        out.clock.switch(Phase::Other);
        path.ok_or_else(|| TrainError::Io {
            path: setup.spec.run_dir.clone(),
            source: std::io::Error::other("the writer of checkpoints ended without an answer"),
        })
    }

    /// Step of the newest complete checkpoint.
    pub(in crate::trainer) fn last_step(&self) -> Option<u64> {
        self.writer.last_step()
    }

    /// The folder of a checkpoint that this run wrote at `step` with the config in force, if there is one.
    pub(in crate::trainer) fn written_at(&mut self, step: u64) -> Option<PathBuf> {
        self.writer.written_at(step)
    }

    /// The config changed: a checkpoint of the same step is another one.
    pub(super) fn outdate(&mut self) {
        self.writer.outdate();
    }

    /// Notices a write that has ended.
    pub(in crate::trainer) fn notice_end(&mut self) {
        self.writer.poll();
    }

    /// Waits for the write under way, if any; a failure is logged and counted.
    pub(in crate::trainer) fn settle(&mut self) {
        self.writer.settle();
    }

    /// Deletes what `policy` does not keep, now; the newest good checkpoint stays.
    pub(super) fn prune(&mut self, policy: &Policy) {
        self.writer.prune(policy);
    }
}
