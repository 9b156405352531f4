//! Where a trainer tells what it does: metrics, status board, `metrics.jsonl`, and the clock of its phases.

use std::sync::MutexGuard;

use serde_json::Value;
use splitmask_pipeline::metrics::PipelineMetrics;

use super::control::{State, Status, StatusBoard, held, uptime_s};
use super::metrics_log::MetricsLog;
use super::setup::Setup;
use super::state::RunState;
use super::tensorboard::TensorBoard;
use crate::telemetry::metrics::{PhaseClock, TrainMetrics};

/// Where a trainer reports to.
#[derive(Clone)]
pub struct Telemetry {
    /// The trainer's own metrics.
    pub train: TrainMetrics,
    /// Those of the pipeline it feeds from.
    pub pipeline: PipelineMetrics,
}

/// All that a trainer writes to, checkpoints and pictures left out.
pub(super) struct Outlets {
    pub(super) telemetry: Telemetry,
    pub(super) status: StatusBoard,
    pub(super) metrics_log: MetricsLog,
    pub(super) tensorboard: Option<TensorBoard>,
    /// Whether this process writes into the run folder: of several ranks, rank 0.
    pub(super) writes: bool,
    pub(super) clock: PhaseClock,
}

impl Outlets {
    /// The status board, held for a moment.
    pub(super) fn board(&self) -> MutexGuard<'_, Status> {
        held(&self.status)
    }

    /// Shows what the trainer is doing.
    pub(super) fn show(&self, doing: State, state: &RunState, setup: &Setup) {
        let mut board = self.board();
        board.state = doing;
        if doing != State::WaitingForData {
            board.last_progress_s = uptime_s();
        }
        board.step = state.step;
        board.total_steps = setup.spec.optim.total_steps;
        board.epoch = state.cursor.epoch;
        board.cursor = state.cursor;
    }

    /// Writes a line of `metrics.jsonl`, and its numbers where TensorBoard reads them.
    pub(super) fn log(&mut self, line: &Value) {
        if !self.writes {
            return;
        }
        let line = line.as_object().cloned().unwrap_or_default();
        self.tensorboard.iter_mut().for_each(|events| events.line(&line));
        self.metrics_log.write(line);
        self.board().unwritten_lines = self.metrics_log.waiting();
    }
}
