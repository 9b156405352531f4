//! What bad steps lead to: the ladder that judges them, the return to an older checkpoint, and the replay folder of a run that gave up.

mod after_rollback;
mod check;
mod config;
mod ladder;
pub mod replay;
mod rollback;

pub(super) use after_rollback::AfterRollback;
pub(super) use check::{StabilityCheck, read_ladder};
pub use config::{SpikeAction, StabilityConfig};
pub(super) use ladder::{Instability, Ladder};
pub(super) use rollback::roll_back;
