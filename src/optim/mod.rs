//! AdamW, its schedules, gradient clipping.

mod adamw;
mod clip;
pub mod config;
mod ema;
mod schedule;

pub use adamw::{AdamW, ParamRule, Stepped};
pub use clip::{ClipBy, clip_grad_norm};
pub use ema::{EMA_PREFIX, Ema, EmaConfig, Weights};
pub use schedule::{cosine, learning_rate, weight_decay};

/// Why a step could not be taken or a state not be restored.
#[derive(Debug, Clone, thiserror::Error)]
pub enum OptimError {
    /// libtorch refused.
    #[error(transparent)]
    Torch(#[from] torch_ext::TorchError),
    /// libtorch refused, by way of tch.
    #[error("{0}")]
    Tch(String),
    /// No parameter has a gradient: backward was not run.
    #[error("no parameter has a gradient: run backward before the step")]
    NoGradient,
    /// The saved state lacks a tensor.
    #[error("optimizer state: {0} is missing; the checkpoint is of another model or objective")]
    Missing(String),
    /// A saved tensor has another shape.
    #[error("optimizer state: {name} is {got:?}, the model asks for {want:?}")]
    Shape {
        /// Which tensor.
        name: String,
        /// Saved.
        got: Vec<i64>,
        /// Needed.
        want: Vec<i64>,
    },
}

impl From<tch::TchError> for OptimError {
    fn from(e: tch::TchError) -> Self {
        Self::Tch(e.to_string())
    }
}
